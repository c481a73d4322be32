"""Exceptions of corepress beyond Python's own."""

from __future__ import annotations


class FormatError(ValueError):
    """A file is damaged, hostile, or not in a format that corepress reads.

    Raised by everything that opens a package, a program or a weight file. The message names the file, the
    value found and the rule it breaks.
    """


class NonFiniteError(ValueError):
    """A weight that is to be compressed holds NaN or infinite values."""
