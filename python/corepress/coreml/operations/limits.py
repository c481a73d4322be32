"""Forms that an operation could express but that are not worth storing."""

from __future__ import annotations

from math import prod

from ...errors import TooLargeTablesError


def require_small_tables(
    shape: tuple[int, ...], groups: tuple[int, ...], grid: tuple[int, ...], nbits: int, cause: str
) -> None:
    """TooLargeTablesError if scales make more tables than there were groups, and these outgrow the weight.

    Parameters
    ----------
    shape : tuple of int
        Of the weight.
    groups, grid : tuple of int
        Tables along each axis, before and with the scales.
    nbits : int
        Of an index.
    cause : str
        What needs these tables, for the message.
    """
    entries = prod(grid) << nbits
    if prod(grid) > prod(groups) and entries > prod(shape):
        raise TooLargeTablesError(
            f"lower: {cause} need a table each before specification version 10, {entries} entries in all "
            f"(shape {shape})"
        )
