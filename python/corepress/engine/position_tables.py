"""Position tables: large enough to look like weights, but not weights of a layer."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Rotary tables, and learned or computed position embeddings, as conversion names them.
_NAME = re.compile(
    r"(?:^|[_./])(?:cos|sin|rotary|rope|freqs_cis|inv_freq|pos_?embed\w*|pos(?:ition(?:al)?)?_(?:emb\w*|ids|enc\w*|table)\w*)"
    r"(?:$|[_./])",
    re.IGNORECASE,
)
# What reads rows of a table, reshapes it or combines it with features; layers do none of this to their weights.
_READERS = {
    *("gather", "gather_along_axis", "gather_nd", "slice_by_index", "slice_by_size", "split", "select", "band_part"),
    *("add", "sub", "mul", "real_div", "matmul", "cos", "sin", "cast"),
    *("reshape", "expand_dims", "squeeze", "transpose", "concat", "stack", "tile"),
}


def is_position_table(name: str, consumers: Iterable[str]) -> bool:
    """Whether a constant is a position table, judging by its name and by the operations that use it.

    Parameters
    ----------
    name : str
        Name of the constant.
    consumers : iterable of str
        Types of the operations that use it.
    """
    return _NAME.search(name) is not None and _READERS.issuperset(consumers)
