"""The constant operations of Core ML: which operation stores which compressed tensor, and how.

`check` refuses what a specification version cannot express, `lower` turns a compressed tensor into an operation,
`lift` does the reverse. All are pure functions. A further form gets its functions here, in a module of its own or next
to its siblings, and an entry in the tables.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from numpy.typing import NDArray

from ...errors import FormatError
from ...specs import Palettize, Quantize, Spec
from ...tensors import CompressedTensor, PalettizedTensor, QuantizedTensor, SparseTensor
from ..values import Tensor
from . import palettized, quantized, sparse
from .form import OperationForm, Parameters, Types, UnsupportedForm

__all__ = ["OperationForm", "UnsupportedForm", "check", "check_steps", "constant", "describe", "lift", "lower"]

_IOS16, _IOS18 = 7, 9
_LOWER: dict[type[CompressedTensor], tuple[Callable[[Any], OperationForm], Callable[[Any], OperationForm]]] = {
    PalettizedTensor: (palettized.lower_ios16, palettized.lower_ios18),
    QuantizedTensor: (quantized.lower_ios16, quantized.lower_ios18),
    SparseTensor: (sparse.lower_ios16, sparse.lower_ios18),
}
_LIFT: dict[str, Callable[[Parameters], CompressedTensor]] = {
    palettized.LUT_TO_DENSE: palettized.lift,
    quantized.AFFINE_DEQUANTIZE: quantized.lift_affine_dequantize,
    quantized.BLOCKWISE_SHIFT_SCALE: quantized.lift_blockwise_shift_scale,
    sparse.SPARSE_TO_DENSE: sparse.lift,
}

_DESCRIBE: dict[str, Callable[[Types], str]] = {
    palettized.LUT_TO_DENSE: palettized.describe,
    palettized.LUT_TO_SPARSE: palettized.describe,
    quantized.AFFINE_DEQUANTIZE: quantized.describe,
    quantized.BLOCKWISE_SHIFT_SCALE: quantized.describe,
    quantized.SPARSE_BLOCKWISE_SHIFT_SCALE: quantized.describe,
    sparse.SPARSE_TO_DENSE: sparse.describe,
    "const": lambda types: "plain values",
}


def check(spec: Spec, specification_version: int) -> None:
    """Refuse a spec that no operation of this specification version can express.

    Raises
    ------
    ValueError
        With the version that can express it.
    """
    if specification_version < _IOS16:
        raise ValueError(
            f"{spec.verb}: compressed weights need specification version {_IOS16} (iOS 16), but this package has "
            f"{specification_version}; convert with minimum_deployment_target=iOS16"
        )
    needed = None
    if isinstance(spec, Palettize):
        needed = palettized.needs_ios18(spec)
    elif isinstance(spec, Quantize):
        needed = quantized.needs_ios18(spec)
    if needed and specification_version < _IOS18:
        what, instead = needed
        raise ValueError(
            f"{spec.verb}: {what} needs specification version {_IOS18} (iOS 18), but this package has "
            f"{specification_version}; {instead}, or convert with minimum_deployment_target=iOS18"
        )


def check_steps(steps: Sequence[Spec], specification_version: int) -> None:
    """Refuse a sequence of steps on one weight that no operations of this specification version can express.

    Raises
    ------
    ValueError
        With the version that can express it.
    """
    if len(steps) > 1:
        raise ValueError(
            f"config: {len(steps)} steps; joint compression by several steps is not supported by this version"
        )
    for step in steps:
        check(step, specification_version)


def lower(tensor: CompressedTensor, specification_version: int) -> OperationForm:
    """The operation that stores a compressed tensor."""
    ios16, ios18 = _LOWER[type(tensor)]
    return ios16(tensor) if specification_version < _IOS18 else ios18(tensor)


def constant(array: NDArray[Any]) -> OperationForm:
    """The operation that stores an array as it is."""
    return OperationForm("const", {"val": Tensor.of(array)})


def lift(operation_type: str, parameters: Parameters) -> CompressedTensor:
    """The compressed tensor that an operation stores.

    Raises
    ------
    UnsupportedForm
        If this version has no compressed tensor for it.
    FormatError
        If the parameters contradict each other; the message goes after the operation's name.
    """
    if operation_type not in _LIFT:
        raise UnsupportedForm(f"operation {operation_type}")
    if any(prod(tensor.shape) == 0 for tensor in parameters.values()) and operation_type != sparse.SPARSE_TO_DENSE:
        raise FormatError("has an empty parameter")
    try:
        return _LIFT[operation_type](parameters)
    except FormatError:
        raise
    except ValueError as error:
        raise FormatError(f"is damaged: {error}") from error


def describe(operation_type: str, types: Types) -> str:
    """How an operation stores its constant, in a few words, told from its parameters' types."""
    return _DESCRIBE[operation_type](types) if operation_type in _DESCRIBE else operation_type
