"""The script that makes mutants: all of them are valid, and it tells those that tests notice from those that live."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from helpers.processes import TIMEOUT
from mutants import ROOT, mutants_of, topic_tests

CODE = """\
def clipped(value: int, most: "int < 3") -> int:
    if value < 0 and not most == 0:
        raise ValueError("negative" + "x")
    return min(value, most + 1) if (value) > 2 else value
"""


def changed(source, mutant):
    return source[: mutant.begin] + mutant.text.encode() + source[mutant.end :]


def test_mutants_of_python_are_valid_and_leave_hints_alone():
    source = CODE.encode()
    mutants = [changed(source, mutant) for mutant in mutants_of(Path("clipped.py"), source)]
    assert len(set(mutants)) == len(mutants) > 12
    for mutant in mutants:
        ast.parse(mutant)
        assert b'most: "int < 3"' in mutant
    texts = [mutant.decode() for mutant in mutants]
    assert sum("value <= 0" in text for text in texts) == 1
    assert sum("value < 0 or not" in text for text in texts) == 1
    assert sum("    pass\n" in text for text in texts) == 1


def test_mutants_of_cpp_leave_comments_and_strings_alone():
    source = b'#include <a>\n// a < b\nif (a < b && c) {\n    name = "x < y";  /* true */\n    n = m + 1;\n}\n'
    mutants = [changed(source, mutant).decode() for mutant in mutants_of(Path("a.cpp"), source)]
    assert len(set(mutants)) == len(mutants) == 6
    for mutant in mutants:
        assert "#include <a>\n// a < b\n" in mutant
        assert '"x < y";  /* true */' in mutant


def test_files_have_tests():
    assert str(ROOT / "tests/coreml/test_sizes.py") in topic_tests(ROOT / "python/corepress/coreml/sizes.py")
    for path in [*(ROOT / "python/corepress").rglob("*.py"), *(ROOT / "csrc").rglob("*.cpp")]:
        assert all(Path(each).exists() for each in topic_tests(path))


def test_what_is_noticed_and_what_lives(tmp_path):
    (tmp_path / "double.py").write_text("def double(x):\n    return x * 2 + 0\n")
    test = tmp_path / "test_double.py"
    test.write_text("from double import double\n\ndef test_double():\n    assert double(3) == 6\n")
    command = [sys.executable, ROOT / "tests/mutants.py", tmp_path / "double.py", "--tests", test]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert "killed" in done.stdout
    assert "'+' -> '-'" in done.stdout
    assert done.stdout.splitlines()[-1] == "made 4, killed 3, not built 0, survived 1"
    assert (tmp_path / "double.py").read_text().endswith("return x * 2 + 0\n")
