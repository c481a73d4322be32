"""Palettes (lookup tables, LUTs) that are given: checked, rounded to a weight's dtype, and filled up."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays import as_numbers, rounded_to
from ..specs import PALETTE_BITS

MOST_BITS = max(PALETTE_BITS)
MOST_ENTRIES = 2**MOST_BITS


def given_table(verb: str, name: str, values: Any) -> NDArray[np.float64]:
    """Return a caller's palette as finite numbers, 1-D."""
    table = as_numbers(verb, name, values)
    if table.ndim != 1 or not 1 <= table.size <= MOST_ENTRIES:
        raise ValueError(f"{verb}: {name} must be 1-D with 1 to {MOST_ENTRIES} entries, not shape {table.shape}")
    if not np.isfinite(table).all():
        raise ValueError(f"{verb}: {name} must be finite")
    return table


def width_for(entries: int, nbits: int | None = None) -> int:
    """The fewest bits for `entries`, or `nbits` if that is enough."""
    fewest = next(width for width in PALETTE_BITS if entries <= 2**width)
    if nbits is not None and nbits < fewest:
        raise ValueError(f"palettize: a lut of {entries} entries needs {fewest} bits, not {nbits}")
    return fewest if nbits is None else nbits


def rounded_tables(
    dtype: np.dtype[Any], tables: list[NDArray[Any]], nbits: int, verb: str = "palettize", name: str = "lut"
) -> NDArray[Any]:
    """Ascending tables, each filled up with its largest entry, in the weight's dtype; -0 becomes 0."""
    filled = [np.pad(table, (0, 2**nbits - table.size), mode="edge") for table in tables]
    exact = np.array(filled, np.float64)
    luts = rounded_to(dtype, exact)
    if np.isinf(luts).sum() > np.isinf(exact).sum():
        raise ValueError(f"{verb}: {name} has entries beyond the range of {dtype}")
    return luts
