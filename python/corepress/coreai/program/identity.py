"""Which weight is which, in a file about a model: digests of what is stored."""

from __future__ import annotations

import hashlib

from ..operations import Constant
from .weights import Weight

_PIECE = 1 << 22  # bytes that are hashed at a time


def stored_digest(weight: Weight) -> str:
    """SHA-256 of a weight as it is stored: the operations that it is made of, and all bytes of their constants.

    Raises
    ------
    FormatError
        If it is damaged.
    """
    node = weight.node
    constants = (node,) if isinstance(node, Constant) else tuple(node.constants())
    operations = () if isinstance(node, Constant) else node.operations
    digest = hashlib.sha256(repr((operations, weight.dtype, weight.shape)).encode())
    for each in constants:
        digest.update(repr((each.type.name, each.shape, each.is_zero)).encode())
        for start in range(0, each.data.size, _PIECE):
            digest.update(each.data[start : start + _PIECE].tobytes())
    weight.release()
    return digest.hexdigest()
