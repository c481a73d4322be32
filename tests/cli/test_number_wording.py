from __future__ import annotations

import pytest

from corepress.reporting.wording import format_bytes, format_count, format_decibels


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (7, "7"),
        (999, "999"),
        (999.4, "999"),
        (999.6, "1.00 k"),
        (1000, "1.00 k"),
        (9994, "9.99 k"),
        (9996, "10.0 k"),
        (99_960, "100 k"),
        (1_234_567, "1.23 M"),
        (999_600, "1.00 M"),
        (2.5e12, "2.50 T"),
        (1e17, "100000 T"),
    ],
)
def test_counts_have_three_figures(count, text):
    assert format_count(count) == text


def test_units():
    assert format_bytes(0) == "0 B"
    assert format_bytes(25_292_725) == "25.3 MB"


def test_decibels():
    assert [format_decibels(value) for value in (None, float("inf"), 12.34)] == ["-", "exact", "12.3 dB"]
