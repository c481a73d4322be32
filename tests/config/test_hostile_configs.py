"""Patterns and config files that overflow, recurse, repeat or never end: each is refused in one line."""

import contextlib
import random
import re
import sys
import threading
import time

import pytest

from corepress import Config
from corepress.config import bounded_matching
from corepress.config.files import parse_json, parse_yaml
from corepress.config.patterns import NamePatterns

REFUSED_PATTERNS = {
    "a count that overflows": "re:a{99999999999}",
    "groups too deep to parse": "re:" + "(" * 3000 + ")" * 3000,
    "a group that is not closed": "re:(",
    "a repeated group name": "re:(?P<a>x)(?P<a>y)",
    "unknown flags": "re:(?z)x",
    "a class that Python does not know": "re:[[:alpha:]]+",
}


@pytest.mark.parametrize("pattern", REFUSED_PATTERNS.values(), ids=REFUSED_PATTERNS)
def test_what_python_cannot_compile_is_not_a_regular_expression(pattern):
    with pytest.raises(ValueError, match="not a regular expression"):
        NamePatterns([pattern])


@pytest.mark.parametrize(("pattern", "longest"), [("re:" + "x" * 10_000, 10_000), ("[" * 1_001, 1_000)])
def test_long_patterns_are_refused_and_shortened(pattern, longest):
    with pytest.raises(ValueError, match=f"a pattern has at most {longest} characters, not {len(pattern)}") as caught:
        NamePatterns([pattern])
    assert len(str(caught.value)) < 200
    assert not list(NamePatterns([pattern[:longest]]).matching("name"))


ENDLESS = [
    "(a+)+b",
    "((((a*)*)*)*)*b",
    "(a|a)*" * 5 + "b",
    ".*" * 40 + "b",
    "a?" * 200 + "b",
    "(?:(?:a{0,60000}){0,60000}){0,60000}b",
    "(?:(?:a?){60000}){60000}b",
    "(?:(?=(?:(?=(?:(?=(?:a+)+b)a*)*)a*)*)a*)*b",
    r"(?:(?:\w+_?)+\.?)+!",
]


@pytest.mark.parametrize("in_thread", [False, True])
@pytest.mark.parametrize("prefix", ["re:", "module:re:"])
def test_expressions_of_endless_ways_take_no_time(prefix, in_thread):
    def match():
        patterns = NamePatterns([prefix + pattern for pattern in ENDLESS])
        found.append(set(patterns.matching("a" * 200)))
        found.append(set(patterns.matching("a" * 199 + "b")))

    found = []
    start = time.process_time()
    if in_thread:
        thread = threading.Thread(target=match, daemon=True)
        thread.start()
        thread.join(60)
    else:
        match()
    assert found == [set(), {0, 1, 2, 3, 4, 5, 6, 7}]
    assert time.process_time() - start < 10


def _drawn_pattern(chance, depth=0):
    kind = chance.randrange(11 if depth < 3 else 4)
    if kind < 2:
        return chance.choice("abc_.")
    if kind == 2:
        return chance.choice(
            [r"\d", r"\w", "[ab]", "[^a]", "(?i:A)", "(?-i:b)", r"\b", "^", "$", r"\.", r"[\da-b]", r"\Z"]
        )
    if kind < 5:
        return _drawn_pattern(chance, depth + 1) + _drawn_pattern(chance, depth + 1) if depth < 4 else "a"
    inside = _drawn_pattern(chance, depth + 1)
    if kind < 7:
        return f"(?:{inside}){chance.choice(['*', '+', '?', '{1,3}', '{2}', '*?', '+?', '{0,2}?'])}"
    if kind == 7:
        return f"({inside}|{_drawn_pattern(chance, depth + 1)})"
    if kind == 8:
        return f"(?{chance.choice('=!')}{inside})"
    if kind == 9:
        return f"(?<{chance.choice('=!')}{chance.choice(['a', 'ab', '[ab]'])})"
    return f"({inside})"


def test_expressions_match_what_python_matches(monkeypatch):
    monkeypatch.setattr(bounded_matching, "_QUICK", 0)
    chance, matches = random.Random(0), 0
    for _ in range(2000):
        flags = chance.choice(["", "", "(?i)", "(?s)", "(?m)"])
        expression = re.compile(flags + _drawn_pattern(chance))
        bounded = bounded_matching.BoundedExpression(expression)
        for _ in range(5):
            name = "".join(chance.choice("abcA_.1\n") for _ in range(chance.randrange(6)))
            expected = expression.fullmatch(name) is not None
            assert bounded.matches(name) == expected, (expression, name)
            matches += expected
    assert matches > 500


@pytest.mark.parametrize("pattern", [r"(a)\1", "(?P<x>a)(?P=x)", "(a)?(?(1)b|c)", "(" * 60 + "a" + ")" * 60])
def test_expressions_that_need_the_way_are_refused(pattern):
    with pytest.raises(ValueError, match=r"^config: weights 're:.*': (references to groups|its groups are nested)"):
        Config.from_dict({"weights": {f"re:{pattern}": None}})


def test_patterns_match_the_same_in_any_thread():
    found = []
    patterns = NamePatterns(["re:a+", "a?", "aa", "b"])
    thread = threading.Thread(target=lambda: found.extend(patterns.matching("aa")))
    thread.start()
    thread.join()
    assert sorted(found) == sorted(patterns.matching("aa")) == [0, 1, 2]


def test_globs_of_many_stars_take_polynomial_time():
    def seconds(length):
        patterns = NamePatterns(["*a" * 20 + "*b"])
        start = time.process_time()
        assert not list(patterns.matching("a" * length))
        return time.process_time() - start

    # Trying all places of 20 stars would take more steps than there are nanoseconds in a year.
    assert seconds(400) < 100 * seconds(40) + 1


def _bomb():
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    return "\n".join(lines)


REFUSED_TEXTS = {
    "deep JSON": (parse_json, "[" * 60 + "]" * 60, "nested more than 50 deep"),
    "very deep JSON": (parse_json, "[" * 100_000, "config: .*nested"),
    "long numbers in JSON": (parse_json, "9" * 1_001, "a number has at most 1000 digits, not 1001"),
    "deep YAML": (parse_yaml, "[" * 60 + "]" * 60, "nested more than 50 deep"),
    "YAML that holds itself": (parse_yaml, "&a [*a]", "nested more than 50 deep"),
    "YAML that repeats itself": (parse_yaml, _bomb(), "more than 1000000 values"),
    "long numbers in YAML": (parse_yaml, "a: " + "9" * 1_001, "a number has at most 1000 digits, not 1001"),
    "a date that is none": (parse_yaml, "a: 2001-13-45", r"not valid YAML \(month must be in 1..12\)"),
    "a number that is none": (parse_yaml, "a: !!float x", "not valid YAML .*could not convert"),
    "digits that are missing": (parse_yaml, "a: 0b_", "not valid YAML .*invalid literal"),
    "a tag on another kind": (parse_yaml, "a: !!timestamp x", "not valid YAML"),
    "a control character": (parse_yaml, "\0", "not valid YAML"),
}


@pytest.mark.parametrize(("parse", "text", "message"), REFUSED_TEXTS.values(), ids=REFUSED_TEXTS)
def test_hostile_texts_are_refused_in_one_line(parse, text, message):
    with pytest.raises(ValueError, match=f"^config: .*{message.removeprefix('config: ')}") as caught:
        parse(text)
    assert "\n" not in str(caught.value)


def test_aliases_are_for_steps_that_are_used_again():
    text = "weights:\n  a: &four {palettize: {nbits: 4}}\n  b: *four\n"
    assert len({rule.config for rule in Config.from_yaml(text).weights}) == 1


def _steps(work):
    """Lines of Python that some work runs through."""
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    except ValueError:
        pass
    finally:
        sys.settrace(before)
    return count


def _repeated(count, last):
    return "{" + ", ".join(f'"k{i}": 1' for i in range(count)) + f', "{last}": 1}}'


def test_a_key_that_stands_twice_is_found_at_once():
    def seconds(last):
        start = time.process_time()
        with contextlib.suppress(ValueError):
            parse_json(_repeated(10_000, last))
        return time.process_time() - start

    assert min(seconds("k9999") for _ in range(3)) < 10 * min(seconds("other") for _ in range(3))


@pytest.mark.parametrize(
    "work",
    [
        lambda count: parse_json(_repeated(count, "k1")),
        lambda count: parse_yaml(_repeated(count, "k1")),
        lambda count: Config.from_dict({f"k{i}": "x" for i in range(count)}),
        lambda count: Config(weights={f"k{i}": None for i in range(count)}),
        lambda count: list(NamePatterns([f"k{i}" for i in range(count)]).matching("k1")),
    ],
    ids=["a key twice, JSON", "a key twice, YAML", "unknown keys", "rules", "rules of plain names"],
)
def test_the_work_grows_with_what_is_given(work):
    work_of = [_steps(lambda count=count: work(count)) for count in (100, 400)]
    assert work_of[1] < 6 * work_of[0]
