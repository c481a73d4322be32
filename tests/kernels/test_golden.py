"""The bytes of today's results are those written down once, by tests/make_golden.py and nothing else."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))

import make_golden  # noqa: E402

RECORDED = json.loads(make_golden.FILE.read_text())


def test_every_case_is_recorded():
    assert list(RECORDED) == list(make_golden.CASES)


@pytest.mark.parametrize("name", make_golden.CASES)
def test_same_bytes_as_recorded(simd_level, name):
    assert make_golden.describe(name) == RECORDED[name]
