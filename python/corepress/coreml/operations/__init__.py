"""The constant operations of Core ML: how each of them stores a compressed tensor.

`check` and `check_steps` refuse what a specification version cannot express, `lower` turns a compressed tensor into an
operation or a chain of them, `lift` does the reverse for each operation. All are pure functions. A further form gets
its functions here, in a separate module or next to its siblings, and an entry in the tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import prod
from typing import Any

from numpy.typing import NDArray

from ...engine.joint_steps import Rule, check_joint
from ...errors import FormatError
from ...specs import Palettize, Quantize, Spec
from ...tensors import CompressedTensor, PalettizedTensor, QuantizedTensor, SparseTensor
from ..format.values import Tensor
from ..format.versions import IOS15, IOS16, IOS18, IOS26
from . import palettized, quantized, sparse
from .form import OperationForm, Output, Parameters, Types, UnsupportedForm
from .palettized import MOST_WEIGHTS_PER_BYTE

__all__ = [
    "FIRST_VERSION",
    "MOST_WEIGHTS_PER_BYTE",
    "RAISABLE_VERSION",
    "OperationForm",
    "Output",
    "UnsupportedForm",
    "check",
    "check_steps",
    "constant",
    "constant_of",
    "describe",
    "lift",
    "lift_output",
    "lower",
    "lower_to",
]

FIRST_VERSION = IOS16  # of specifications, with compressed weights
RAISABLE_VERSION = IOS15  # its programs become ones of `FIRST_VERSION` where that is asked for
# From each of these versions on, the next one not included.
_LOWER: dict[type[CompressedTensor], dict[int, Callable[[Any], OperationForm]]] = {
    PalettizedTensor: {
        IOS16: palettized.lower_ios16,
        IOS18: palettized.lower_ios18,
        IOS26: palettized.lower_ios26,
    },
    QuantizedTensor: {IOS16: quantized.lower_ios16, IOS18: quantized.lower_ios18, IOS26: quantized.lower_ios26},
    SparseTensor: {IOS16: sparse.lower_ios16, IOS18: sparse.lower_ios18},
}
_LIFT: dict[str, Callable[[Parameters], CompressedTensor | Tensor]] = {
    palettized.LUT_TO_DENSE: palettized.lift,
    palettized.LUT_TO_SPARSE: palettized.lift_sparse,
    quantized.AFFINE_DEQUANTIZE: quantized.lift_affine_dequantize,
    quantized.BLOCKWISE_SHIFT_SCALE: quantized.lift_blockwise_shift_scale,
    quantized.SPARSE_BLOCKWISE_SHIFT_SCALE: quantized.lift_sparse,
    sparse.SPARSE_TO_DENSE: sparse.lift,
}
# Operations whose first output is a mask and whose second one are the values, and all that may have no values.
_TWO_OUTPUTS = (palettized.LUT_TO_SPARSE, quantized.SPARSE_BLOCKWISE_SHIFT_SCALE)
_MAY_BE_EMPTY = (*_TWO_OUTPUTS, sparse.SPARSE_TO_DENSE)

_DESCRIBE: dict[str, Callable[[Types], str]] = {
    palettized.LUT_TO_DENSE: palettized.describe,
    palettized.LUT_TO_SPARSE: palettized.describe,
    quantized.AFFINE_DEQUANTIZE: quantized.describe,
    quantized.BLOCKWISE_SHIFT_SCALE: quantized.describe,
    quantized.SPARSE_BLOCKWISE_SHIFT_SCALE: quantized.describe,
    sparse.SPARSE_TO_DENSE: sparse.describe,
    "const": lambda types: "plain values",
}


def check(spec: Spec, version: int, declared: int | None = None) -> None:
    """Refuse a spec that no operation of this specification version can express.

    Parameters
    ----------
    spec : Spec
        What is asked for.
    version : int
        Specification version whose operations the program may use; programs at `RAISABLE_VERSION` are raised.
    declared : int, optional
        The package's specification version, if it may be different.

    Raises
    ------
    ValueError
        With the version that can express it; for what only Core AI can express, with this.
    """
    given = _in_words(version, declared)
    if version < RAISABLE_VERSION:
        raise ValueError(
            f"{spec.verb}: compressed weights need specification version {IOS16} (iOS 16), but {given}; "
            f"{_convert_again('iOS16')}"
        )
    needed = refusal = None
    if isinstance(spec, Palettize):
        needed, refusal = palettized.needs_ios18(spec), palettized.needs_core_ai(spec)
    elif isinstance(spec, Quantize):
        needed, refusal = quantized.needs_ios18(spec), quantized.needs_core_ai(spec)
    if refusal is not None:
        raise ValueError(f"{spec.verb}: {refusal}")
    if needed and version < IOS18:
        what, instead = needed
        raise ValueError(
            f"{spec.verb}: {what} needs specification version {IOS18} (iOS 18), but {given}; {instead}, or "
            f"{_convert_again('iOS18')}"
        )
    scaled_vectors = isinstance(spec, Palettize) and spec.cluster_dim > 1 and spec.enable_per_channel_scale
    if scaled_vectors and version < IOS26:
        raise ValueError(
            f"{spec.verb}: enable_per_channel_scale with cluster_dim above 1 needs specification version {IOS26} "
            f"(iOS 26), but {given}; leave one out, or {_convert_again('iOS26')}"
        )


def _in_words(version: int, declared: int | None) -> str:
    """The version of a program, for messages; its opset decides, whatever number the package declares."""
    if declared in (None, version):
        return f"this package has {version}"
    return (
        f"the operations of this package are those of {version} (opset CoreML{version - 1}), although its "
        f"specification version is {declared}"
    )


def _convert_again(target: str) -> str:
    return f"convert again with minimum_deployment_target=ct.target.{target}"


def check_steps(specs: Sequence[Spec], version: int, declared: int | None = None) -> None:
    """Refuse steps of joint compression, in the order given, that have no form in this specification version.

    Parameters
    ----------
    specs : sequence of Spec
        The steps.
    version, declared
        As for `check`.

    Raises
    ------
    ValueError
        With the version that can express them, if there is one.
    """
    for spec in specs:
        check(spec, version, declared)
    if len(specs) < 2:
        return
    joint = check_joint(specs, _JOINT_RULES)
    if version < IOS18:
        raise ValueError(
            f"config: joint compression ({joint.description}) needs specification version {IOS18} (iOS 18), but "
            f"{_in_words(version, declared)}; {_convert_again('iOS18')}"
        )


_JOINT_RULES: tuple[Rule, ...] = (
    (
        lambda joint: (
            (joint.palettizes_codes or joint.quantizes_tables) and joint.scales.dtype not in ("int8", "uint8")
        ),
        "tables hold int8 or uint8, not {joint.scales.dtype}",
    ),
)


def lower(tensor: CompressedTensor, specification_version: int) -> OperationForm:
    """The operation that stores a compressed tensor, with those that it builds on; the first form is also for
    `RAISABLE_VERSION`.

    Raises
    ------
    ValueError
        If the specification version has no form for it, or (`TooLargeTablesError`) only one of larger tables.
    """
    for part in _parts_of(tensor):
        if isinstance(part, QuantizedTensor):
            quantized.require_core_ml(part)
    forms, least = _LOWER[type(tensor)], max(specification_version, FIRST_VERSION)
    return forms[max(version for version in forms if version <= least)](tensor)


def lower_to(specification_version: int) -> Callable[[CompressedTensor], OperationForm]:
    """`lower` for one specification version."""
    return partial(lower, specification_version=specification_version)


def _parts_of(tensor: CompressedTensor) -> Iterator[CompressedTensor]:
    """A tensor, and those that it nests."""
    yield tensor
    for part in vars(tensor).values():
        if isinstance(part, CompressedTensor):
            yield from _parts_of(part)


def constant(array: NDArray[Any]) -> OperationForm:
    """The operation that stores a plain array."""
    return constant_of(Tensor.of(array))


def constant_of(tensor: Tensor) -> OperationForm:
    """The operation that stores plain values."""
    return OperationForm("const", {"val": tensor})


def lift(operation_type: str, parameters: Parameters) -> CompressedTensor | Tensor:
    """The compressed tensor that an operation stores; plain values where it only scales such.

    Parameters
    ----------
    operation_type : str
        Operation type.
    parameters : mapping of str to Tensor or CompressedTensor
        Its parameters: stored ones, and those that operations before it yield, as `lift_output` gives them.

    Raises
    ------
    UnsupportedForm
        If this version of corepress has no compressed tensor for it.
    FormatError
        If the parameters contradict each other; the message goes after the operation's name.
    """
    if operation_type not in _LIFT:
        raise UnsupportedForm(f"operation {operation_type}")
    if any(prod(each.shape) == 0 for each in parameters.values()) and operation_type not in _MAY_BE_EMPTY:
        raise FormatError("has an empty parameter")
    try:
        return _LIFT[operation_type](parameters)
    except FormatError:
        raise
    except ValueError as error:
        raise FormatError(f"is damaged: {error}") from error


def lift_output(operation_type: str, lifted: CompressedTensor | Tensor, index: int) -> Tensor | CompressedTensor:
    """The parameter for an operation that takes an output of another one, which has been lifted.

    Raises
    ------
    FormatError
        If there is no such output.
    """
    if index >= (2 if operation_type in _TWO_OUTPUTS else 1):
        raise FormatError(f"takes output {index} of {operation_type}")
    if operation_type not in _TWO_OUTPUTS:
        return lifted
    assert isinstance(lifted, SparseTensor)
    assert isinstance(lifted.values, CompressedTensor)
    return Tensor.packed("uint1", lifted.shape, lifted.mask) if index == 0 else lifted.values


def describe(operation_type: str, types: Types) -> str:
    """A short description of how an operation stores its constant, from the types of its parameters."""
    return _DESCRIBE[operation_type](types) if operation_type in _DESCRIBE else operation_type
