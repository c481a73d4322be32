from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from corepress.benchmark.architectures import Architecture
from helpers.processes import TIMEOUT

BENCH = Path(__file__).parents[2] / "bench"
TINY_SHAPES = {
    "wide.weight": (64, 32, 3, 3),
    "narrow.weight": (4, 64, 3, 3),  # no groups of 16
    "first.weight": (64, 64),
    "second.weight": (64, 64),
    "second.bias": (64,),
    "small.weight": (8, 8),  # below the threshold
}


@pytest.fixture
def tiny() -> Architecture:
    """A model of four layers that are worth compressing, two of them of one shape."""
    return Architecture("tiny", "Tiny", lambda: TINY_SHAPES, 29_312, "nowhere")


@pytest.fixture
def script(tmp_path: Path) -> Callable[..., str]:
    """Runs a script of bench, in a process of its own in an empty folder, and returns what it prints."""

    def run(name: str, *arguments: str | Path) -> str:
        command = [sys.executable, BENCH / name, *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
