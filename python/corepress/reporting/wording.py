"""Numbers and names formatted for people."""

from __future__ import annotations

from collections.abc import Sequence

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


def shorten(name: str, length: int) -> str:
    """Shorten a name to `length` characters, with an ellipsis in place of its middle."""
    if len(name) <= length:
        return name
    tail = (length - 1) // 2
    return f"{name[: length - 1 - tail]}…{name[len(name) - tail :]}"


def shorten_alike(names: Sequence[str], length: int) -> list[str]:
    """Shorten names to about `length` characters, without the ending that they share."""
    shared = 0
    while len({name[-shared - 1 :] for name in names}) == 1 and all(len(name) > shared + 1 for name in names):
        shared += 1
    cut = [f"{name[: len(name) - shared]}…" if shared > 1 and len(names) > 1 else name for name in names]
    return [shorten(name, max(length, 12)) for name in cut]
