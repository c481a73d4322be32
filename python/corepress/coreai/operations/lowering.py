"""Compressed tensors as chains of operations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...arrays import rounded_to
from ...tensors import CompressedTensor, PalettizedTensor, QuantizedTensor, SparseTensor
from ..format.data_types import dtype_of
from . import palettized, quantized, sparse
from .form import BUILD_SPARSE, LUT_TO_DENSE, LUT_TO_SPARSE, SHIFT_SCALE, SPARSE_TO_DENSE, Form

COMPRESSING = frozenset((LUT_TO_DENSE, LUT_TO_SPARSE, BUILD_SPARSE, SPARSE_TO_DENSE, SHIFT_SCALE))

_LOWER: dict[type[CompressedTensor], Callable[[Any], Form]] = {
    PalettizedTensor: palettized.lower,
    QuantizedTensor: quantized.lower,
    SparseTensor: sparse.lower,
}


def lower(tensor: CompressedTensor, dtype: str) -> Form:
    """The chain of operations that stores a compressed tensor.

    Parameters
    ----------
    tensor : CompressedTensor
        What is stored.
    dtype : {"float16", "bfloat16", "float32"}
        Type of the weight in the program. Tables and scales of another one are rounded to it, see `rounded`.

    Returns
    -------
    Form
        Its last operation, with those that it builds on.

    Raises
    ------
    ValueError
        If Core AI has no form for it.
    """
    return _LOWER[type(tensor)](rounded(tensor, dtype))


def rounded(tensor: CompressedTensor, dtype: str) -> CompressedTensor:
    """The same tensor with its tables, scales and values rounded to a float type; itself if it is of that type."""
    if tensor.dtype.name == dtype:
        return tensor
    target = dtype_of(dtype)
    changes: dict[str, Any] = {}
    if isinstance(tensor, SparseTensor):
        changes["values"] = _rounded(tensor.values, target)
    elif isinstance(tensor, PalettizedTensor):
        changes["lut"] = _rounded(tensor.lut, target)
        changes["scale"] = None if tensor.scale is None else _rounded(tensor.scale, target)
    else:
        assert isinstance(tensor, QuantizedTensor)
        if tensor.scale_dtype is not None:
            changes["decoded_dtype"] = target
        else:
            changes["scale"] = _rounded(tensor.scale, target)
    return replace(tensor, **changes)


def _rounded(values: NDArray[Any] | CompressedTensor, dtype: np.dtype[Any]) -> NDArray[Any] | CompressedTensor:
    if isinstance(values, CompressedTensor):
        return rounded(values, dtype.name)
    if dtype.name in ("float16", "float32", "bfloat16"):
        return rounded_to(dtype, values)
    return values.astype(dtype)
