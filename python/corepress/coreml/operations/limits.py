"""What an operation could express but is not worth storing."""

from __future__ import annotations

from math import prod

from ...errors import TooLargeTablesError


def require_small_tables(shape: tuple[int, ...], entries: int, cause: str) -> None:
    """TooLargeTablesError if tables, of which there is one for each block of a scale, outgrow the weight."""
    if entries > prod(shape):
        raise TooLargeTablesError(
            f"lower: {cause} need a table each before specification version 10, {entries} entries in all "
            f"(shape {shape})"
        )
