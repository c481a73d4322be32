"""Patterns of names: what they match, exactly, and how a pattern that matches nothing could be read."""

from __future__ import annotations

import pytest

from corepress.config.patterns import NamePatterns, is_open, readings


@pytest.mark.parametrize(("longest", "prefix", "letter"), [(1_000, "*", "a"), (10_000, "re:", "a")])
def test_the_longest_pattern(longest, prefix, letter):
    pattern = prefix + letter * (longest - len(prefix))
    assert list(NamePatterns([pattern]).matching(letter * (longest - len(prefix)))) == [0]
    with pytest.raises(ValueError, match=f"a pattern has at most {longest} characters, not {longest + 1}: "):
        NamePatterns([pattern + letter])


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("module:blocks.?", "blocks_1_weight_to_fp16", True),
        ("module:blocks.?", "model_blocks_1_weight", True),
        ("module:blocks.?", "blocks_12_weight", False),
        ("module:blocks.*.weight", "blocks_1_proj_weight_to_fp16", True),
        ("module:blocks.1", "blocks_1_weight", True),
        ("module:blocks.1", "net_blocks_1_weight_palettized", True),
        ("module:blocks.1", "blocks_1_proj_weight", False),
        ("module:blocks.1", "blocks.1", True),  # its exact name
        (r"module:re:blocks\.\d+", "blocks_12_weight", True),
        (r"module:re:blocks\.\d+", "blocks_x_weight", False),
    ],
)
def test_names_of_modules(pattern, name, matches):
    assert (0 in NamePatterns([pattern]).matching(name)) == matches


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("lm_head", ["module:lm_head"]),
        ("*_proj", []),
        ("re:.*proj", []),
        ("encoder.0", ["module:encoder.0", "module:encoder.0.*"]),
        ("*.proj", ["module:*.proj", "module:*.proj.*"]),
        ("model.up", ["module:model.up", "module:model.up.*", "module:up", "module:up.*"]),
        (r"re:up\.\d", [r"module:re:up\.\d", r"module:re:(?:up\.\d)\..*"]),
        ("module:up", ["module:up.*"]),
        ("module:*_proj", ["module:*_proj.*"]),
        ("module:model.up", ["module:model.up.*", "module:up", "module:up.*"]),
    ],
)
def test_other_readings(pattern, expected):
    assert list(readings(pattern)) == expected


def test_what_can_match_several_names():
    assert [each for each in ("a", "a.b", "a*", "[ab]", "a?", "re:a") if is_open(each)] == ["a*", "[ab]", "a?", "re:a"]
