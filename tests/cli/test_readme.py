"""What the README tells people to type works."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

README = (Path(__file__).parents[2] / "README.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, flags=re.DOTALL)
COMMAND_LINES = [line for _, block in BLOCKS for line in block.splitlines() if line.startswith("corepress ")]


def test_the_two_lines_to_try_and_to_test_stand_alone():
    blocks = [block for _, block in BLOCKS]
    assert "pip install . && corepress demo\n" in blocks
    assert "pip install '.[test]' && pytest\n" in blocks


@pytest.mark.parametrize("line", [line for line in COMMAND_LINES if "inspect" not in line])
def test_command_lines_are_understood(shell, call, line):
    outcome = shell(*shlex.split(line)[1:])
    assert (outcome.status, outcome.err) == (0, "")
    assert len(call.arguments) >= 2


def test_the_tour_of_arrays_runs():
    (tour,) = [block for language, block in BLOCKS if language == "python" and "import corepress as cp" in block]
    names: dict[str, object] = {}
    exec(tour.replace("(320, 320, 3, 3)", "(32, 32, 3, 3)"), names)
    assert names["sparse"].sparsity == pytest.approx(0.5, abs=0.01)
