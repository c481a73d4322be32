"""Numbers and errors in words for people."""

from __future__ import annotations

import re

UNITS = ("", "k", "M", "G", "T")


def format_count(count: float, unit: str = "") -> str:
    """Three figures and a unit: 1234567 is ``1.23 M``."""
    exponent = 0
    while abs(count) >= 999.5 and exponent < len(UNITS) - 1:
        count /= 1000
        exponent += 1
    digits = 0 if exponent == 0 else 2 if abs(count) < 9.995 else 1 if abs(count) < 99.95 else 0
    return f"{count:.{digits}f} {UNITS[exponent]}{unit}".strip()


def format_bytes(count: float) -> str:
    return format_count(count, "B")


def format_decibels(value: float | None) -> str:
    if value is None:
        return "-"
    return "exact" if value == float("inf") else f"{value:.1f} dB"


def describe_error(error: Exception) -> str:
    """One line that says what went wrong and, where the shell has a word for it, what to do."""
    if isinstance(error, MemoryError):
        return "not enough memory; try fewer threads with --num-threads"
    if isinstance(error, OSError) and error.strerror and error.filename:
        text = f"{error.filename}: {error.strerror[0].lower()}{error.strerror[1:]}"
        if isinstance(error, FileExistsError):
            text += "; choose another -o or pass --overwrite"
        return text
    if isinstance(error, (ValueError, TypeError, OSError)) and str(error):
        return re.sub(r"\b(overwrite|strict)=True\b", r"--\1", str(error))
    return f"unexpected {type(error).__name__}: {error} (--debug shows where; please report it)"
