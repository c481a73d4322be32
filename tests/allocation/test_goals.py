"""Targets as users write them."""

import numpy as np
import pytest

from corepress.allocation.goals import Goal, parse_size


@pytest.mark.parametrize(
    ("given", "count"),
    [
        (123, 123),
        (np.int64(5), 5),
        ("123", 123),
        ("1.4GB", 1_400_000_000),
        ("500MB", 500_000_000),
        ("500 MiB", 500 * 2**20),
        ("0.5kib", 512),
        (".5 gb", 500_000_000),
        ("2.5B", 2),
    ],
)
def test_sizes(given, count):
    assert parse_size(given) == count


@pytest.mark.parametrize("given", ["", "GB", "-5MB", "5 5MB", "1e9", 0, -3, 2.5, None, True])
def test_what_is_no_size(given):
    with pytest.raises(ValueError, match="must be a positive number of bytes such as"):
        parse_size(given)


def test_unknown_units_are_named():
    with pytest.raises(ValueError, match="target_size: unit 'MBit' of '5MBit' is not known; use B, kB"):
        parse_size("5MBit", "target_size")


def test_exactly_one_target():
    goal = Goal.of("allocate", target_size=None, target_bits=np.float32(3.5), target_snr=None)
    assert (goal.kind, goal.value, str(goal)) == ("target_bits", 3.5, "target_bits 3.5")
    for targets, message in (
        ({"target_size": None}, "not none"),
        ({"target_size": 5, "target_bits": 4}, "not target_size and target_bits"),
        ({"target_bits": 0}, "target_bits must be a positive number of bits per weight, not 0"),
        ({"target_snr": float("nan")}, "target_snr must be a positive number of dB, not nan"),
        ({"target_snr": "30"}, "not '30'"),
    ):
        with pytest.raises(ValueError, match=message):
            Goal.of("allocate", **targets)
