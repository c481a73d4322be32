"""Make mutants of a source file, one small change each, and see whether the tests of its topic notice.

python tests/mutants.py python/corepress/coreml/sizes.py [--most 40] [--seed 0] [--tests tests/coreml/test_sizes.py]
python tests/mutants.py csrc/algo/affine/scale.cpp --build "pip install --no-build-isolation -e ." --tests tests/native

The file is changed in place, and restored at the end, also when the run is stopped; it must not have uncommitted
changes. Without --tests, the tests that have the file's name or import it run, else those that mention it. Of a Python
file, a first run with coverage finds which of these tests reach a line, and for a mutant only those run; for lines that
imports execute, or only other processes, all do. A mutant that lives is a missing test, a line that is not needed, or
one whose absence changes nothing that matters; look at each.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "python" / "corepress"
# The tests of a folder have its name, but for these.
TOPICS = {
    "engine": ("coreml", "coreai", "neural_network"),
    "optimize": ("dropins",),
    "acceleration": ("dropins",),
    "demo": ("cli",),
    "benchmark": ("bench",),
    "reporting": ("cli", "coreml"),
    "reference": ("kernels", "compression"),
}
KERNELS = ("kernels", "compression")
MOST_NAMED = 400  # tests for one mutant; of more, all run
COMPARISONS = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==",
    ast.In: "not in", ast.Is: "is not", ast.IsNot: "is",
}  # fmt: skip
OPERATORS = {ast.Add: "-", ast.Sub: "+", ast.Mult: "//", ast.FloorDiv: "*", ast.Div: "*", ast.Mod: "//"}
TOKENS = {" < ": " <= ", " <= ": " < ", " > ": " >= ", " >= ": " > ", " == ": " != ", " != ": " == ",
          " && ": " || ", " || ": " && ", " + ": " - ", " - ": " + ", "true": "false", "false": "true"}  # fmt: skip


class Mutant(NamedTuple):
    """A change of a source: what replaces the bytes from `begin` to `end`."""

    begin: int
    end: int
    text: str


def mutants_of(path: Path, source: bytes) -> list[Mutant]:
    """All mutants of a file."""
    return list(_of_python(source) if path.suffix == ".py" else _of_cpp(source))


def _of_python(source: bytes) -> Iterator[Mutant]:
    starts = [0]
    for line in source.split(b"\n"):
        starts.append(starts[-1] + len(line) + 1)

    def place(node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset

    def between(left: ast.expr, right: ast.expr, text: str) -> Iterator[Mutant]:
        """Replace the operator between two expressions, unless parentheses are there too."""
        begin, end = place(left)[1], place(right)[0]
        if b"(" not in source[begin:end] and b")" not in source[begin:end]:
            yield Mutant(begin, end, f" {text} ")

    tree = ast.parse(source)
    annotations = {each for node in ast.walk(tree) for each in _annotations(node)}
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        pending += [each for each in ast.iter_child_nodes(node) if each not in annotations]
        match node:
            case ast.Compare(left=left, ops=[operator], comparators=[right]) if type(operator) in COMPARISONS:
                yield from between(left, right, COMPARISONS[type(operator)])
            case ast.BinOp(left=left, op=operator, right=right) if type(operator) in OPERATORS:
                yield from between(left, right, OPERATORS[type(operator)])
            case ast.BoolOp(op=operator, values=[left, *_, right]) if len(node.values) == 2:
                yield from between(left, right, "or" if isinstance(operator, ast.And) else "and")
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                yield Mutant(place(node)[0], place(operand)[0], "")
            case ast.Constant(value=bool(value)):
                yield Mutant(*place(node), repr(not value))
            case ast.Constant(value=int(value)):
                yield Mutant(*place(node), repr(value + 1))
            case ast.If(test=test) | ast.IfExp(test=test):
                yield Mutant(*place(test), "True")
                yield Mutant(*place(test), "False")
            case ast.Expr(value=ast.Call()) | ast.Raise():
                yield Mutant(*place(node), "pass")


def _annotations(node: ast.AST) -> Iterator[ast.expr]:
    """The type hints of a node, which no test can notice."""
    if isinstance(node, ast.FunctionDef) and node.returns is not None:
        yield node.returns
    if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation is not None:
        yield node.annotation


def _of_cpp(source: bytes) -> Iterator[Mutant]:
    code = re.sub(
        rb'//[^\n]*|/\*.*?\*/|"[^"\n]*"|#[^\n]*', lambda found: b"\0" * len(found.group()), source, flags=re.S
    )
    for token, text in TOKENS.items():
        for found in re.finditer(re.escape(token.encode()), code):
            yield Mutant(*found.span(), text)
    for found in re.finditer(rb"(?<=[ (\[])\d+(?=[;,)\] ])", code):
        yield Mutant(*found.span(), str(int(found.group()) + 1))
    for found in re.finditer(rb"if \(([^{};]*?)\) ?[{\n]", code):
        yield Mutant(*found.span(1), "true")
        yield Mutant(*found.span(1), "false")


def topic_tests(path: Path) -> list[str]:
    """The tests of a file: those with its name, and those that import it; else what mentions it; else its topic."""
    name = path.stem
    topics: tuple[str, ...] = KERNELS
    imports = None
    if path.suffix == ".py":
        module = ".".join(path.relative_to(ROOT / "python").with_suffix("").parts)
        imports = rf"{module}\b|from {module.rpartition('.')[0]} import [^\n]*\b{name}\b"
        topic = path.relative_to(PACKAGE).parts[0]
        topics = TOPICS.get(topic, (topic,)) if path.parent != PACKAGE else ()
    folders = [ROOT / "tests" / each for each in topics] or [ROOT / "tests"]
    searches = [([ROOT / "tests"], imports)] if imports else []
    for places, pattern in (*searches, (folders, rf"\b{name}\b")):
        found = [
            str(test)
            for folder in places
            for test, text in _tests_in(folder).items()
            if test.stem == f"test_{name}" or (name in text and re.search(pattern, text))
        ]
        if found:
            return found
    return list(map(str, folders))


@cache
def _tests_in(folder: Path) -> dict[Path, str]:
    return {test: test.read_text(encoding="utf-8") for test in sorted(folder.rglob("test_*.py"))}


def reaching(path: Path, pytest: list[str], seconds: float) -> dict[int, list[str]] | None:
    """Run tests, and return which of them reach each line; None if they fail; nothing for C++ or without pytest-cov."""
    if not path.is_relative_to(PACKAGE) or find_spec("pytest_cov") is None:
        return {} if run(pytest, seconds) else None
    from coverage import CoverageData

    with tempfile.TemporaryDirectory() as folder:
        data, rules = Path(folder, "data"), Path(folder, "rules")
        rules.write_text(f"[run]\ndata_file = {data}\nsource_pkgs = corepress\n", encoding="utf-8")
        options = ["--cov=corepress", "--cov-context=test", "--cov-report=", f"--cov-config={rules}"]
        if not run([*pytest, *options], seconds, COVERAGE_CORE="ctrace"):
            return None
        measured = CoverageData(str(data))
        measured.read()
        contexts = measured.contexts_by_lineno(str(path))
    named = {line: sorted({each.rpartition("|")[0] for each in found}) for line, found in contexts.items()}
    return {line: tests for line, tests in named.items() if all(tests) and len(tests) <= MOST_NAMED}


def run(command: list[str], seconds: float, **variables: str) -> bool:
    """Whether a command ends well in time."""
    try:
        # Bytecode of one second and one size is taken for that of another mutant.
        fresh = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"} | variables
        done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=seconds, check=False, env=fresh)
        return done.returncode == 0
    except subprocess.TimeoutExpired:
        return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--tests", nargs="+", help="what pytest is given")
    parser.add_argument("--most", type=int, default=40, help="mutants to try; a random choice if there are more")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lines", help="only mutants of these lines, such as 20-80")
    parser.add_argument("--build", help="command that builds what the tests run, for C++")
    parser.add_argument("--seconds", type=float, default=900, help="what takes longer counts as noticed")
    options = parser.parse_args()
    path = options.file.resolve()
    source = path.read_bytes()
    if path.is_relative_to(ROOT) and not run(["git", "diff", "--quiet", "HEAD", "--", str(path)], options.seconds):
        parser.error(f"{options.file} has uncommitted changes, which could be lost")
    first, last = map(int, options.lines.split("-")) if options.lines else (1, sys.maxsize)
    made = [each for each in mutants_of(path, source) if first <= source.count(b"\n", 0, each.begin) + 1 <= last]
    made = sorted(random.Random(options.seed).sample(made, min(options.most, len(made))))
    chosen = options.tests or topic_tests(path)
    pytest = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--numprocesses=0"]
    print("tests:", *chosen, flush=True)
    started = time.monotonic()
    tests_of = reaching(path, [*pytest, *chosen], options.seconds)
    if tests_of is None:
        parser.error("the tests fail, or take too long, without any change")
    print(f"they take {time.monotonic() - started:.0f} s", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    counts: Counter[str] = Counter()
    try:
        for mutant in made:
            path.write_bytes(source[: mutant.begin] + mutant.text.encode() + source[mutant.end :])
            built = options.build is None or run(shlex.split(options.build), options.seconds)
            line = source.count(b"\n", 0, mutant.begin) + 1
            tests = [*pytest, *tests_of.get(line, chosen)]
            result = "not built" if not built else "survived" if run(tests, options.seconds) else "killed"
            counts[result] += 1
            old = source[mutant.begin : mutant.end].decode()
            print(f"{result:9} {options.file}:{line}: {old.strip()!r} -> {mutant.text.strip()!r}", flush=True)
    finally:
        path.write_bytes(source)
    print(
        f"\nmade {len(made)}, killed {counts['killed']}, not built {counts['not built']}, survived {counts['survived']}"
    )
    return 1 if counts["survived"] else 0


if __name__ == "__main__":
    sys.exit(main())
