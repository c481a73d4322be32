"""Numbers and errors in words for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..errors import MissingExtraError
from .shell_words import in_shell_words, without_function

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
    """A name of at most so many characters; what is left out of its middle is an ellipsis."""
    if len(name) <= length:
        return name
    tail = (length - 1) // 2
    return f"{name[: length - 1 - tail]}…{name[len(name) - tail :]}"


def shorten_alike(names: Sequence[str], length: int) -> list[str]:
    """Names of about so many characters, without the end that all share."""
    shared = 0
    while len({name[-shared - 1 :] for name in names}) == 1 and all(len(name) > shared + 1 for name in names):
        shared += 1
    cut = [f"{name[: len(name) - shared]}…" if shared > 1 and len(names) > 1 else name for name in names]
    return [shorten(name, max(length, 12)) for name in cut]


def describe_error(error: Exception, flags: Mapping[str, str]) -> str:
    """One line that says what went wrong and what to do, with the command's flags in place of parameters."""
    if isinstance(error, MemoryError):
        return "not enough memory; try fewer threads with --num-threads"
    if isinstance(error, OSError) and error.strerror and error.filename:
        text = f"{error.filename}: {error.strerror[0].lower()}{error.strerror[1:]}"
        if isinstance(error, FileExistsError):
            text += "; choose another -o or pass --overwrite"
        return text
    of_native_module = isinstance(error, ImportError) and error.name is None  # a wrong COREPRESS_SIMD, say
    if (isinstance(error, (ValueError, TypeError, OSError, MissingExtraError)) or of_native_module) and str(error):
        return in_shell_words(without_function(str(error)), flags)
    return f"unexpected {type(error).__name__}: {error}; --debug shows where, please report it"
