"""Affine quantization of arrays and compressed tensors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from .._core import count_nonfinite
from .._core import quantize as quantize_native
from ..arrays import (
    as_list,
    as_threads,
    as_weight,
    block_layout,
    for_each,
    is_list,
    not_finite,
    not_finite_count,
)
from ..specs import Palettize, Quantize
from ..tensors import (
    FLOAT_CODES,
    QUANTIZED_DTYPES,
    CompressedTensor,
    PalettizedTensor,
    QuantizedTensor,
    SparseTensor,
)
from ..tensors.dtypes import powers_of_two
from . import joint
from .divisions import block_counts
from .error_feedback import Moments, quantize_codes
from .float_feedback import quantize_float_codes
from .palettes import Measured
from .weight_data import WeightData


@overload
def quantize(
    weight: list[Any] | tuple[Any, ...],
    *,
    dtype: str = "int8",
    mode: str = "linear_symmetric",
    granularity: str = "per_channel",
    block_size: int | tuple[int, ...] = 32,
    scale_search: str | None = None,
    scale_dtype: str | None = None,
    channel_axis: int | None = None,
    importance: Any = None,
    hessian: Any = None,
    dampening: float = 0.01,
    nonfinite: str = "keep",
    num_threads: int | None = None,
) -> list[QuantizedTensor]: ...
@overload
def quantize(
    weight: PalettizedTensor,
    *,
    dtype: str = "int8",
    mode: str = "linear_symmetric",
    granularity: str = "per_channel",
    block_size: int | tuple[int, ...] = 32,
    scale_search: str | None = None,
    scale_dtype: str | None = None,
    channel_axis: int | None = None,
    num_threads: int | None = None,
) -> PalettizedTensor: ...
@overload
def quantize(
    weight: SparseTensor,
    *,
    dtype: str = "int8",
    mode: str = "linear_symmetric",
    granularity: str = "per_channel",
    block_size: int | tuple[int, ...] = 32,
    scale_search: str | None = None,
    scale_dtype: str | None = None,
    channel_axis: int | None = None,
    hessian: Any = None,
    dampening: float = 0.01,
    num_threads: int | None = None,
) -> SparseTensor: ...
@overload
def quantize(
    weight: Any,
    *,
    dtype: str = "int8",
    mode: str = "linear_symmetric",
    granularity: str = "per_channel",
    block_size: int | tuple[int, ...] = 32,
    scale_search: str | None = None,
    scale_dtype: str | None = None,
    channel_axis: int | None = None,
    importance: Any = None,
    hessian: Any = None,
    dampening: float = 0.01,
    nonfinite: str = "keep",
    num_threads: int | None = None,
) -> QuantizedTensor: ...
def quantize(
    weight: Any,
    *,
    dtype: str = "int8",
    mode: str = "linear_symmetric",
    granularity: str = "per_channel",
    block_size: int | tuple[int, ...] = 32,
    scale_search: str | None = None,
    scale_dtype: str | None = None,
    channel_axis: int | None = None,
    importance: Any = None,
    hessian: Any = None,
    dampening: float = 0.01,
    nonfinite: str = "keep",
    num_threads: int | None = None,
) -> CompressedTensor | list[QuantizedTensor]:
    """Replace weights by integers, or floats of few bits, with a scale: ``weight = scale * (data - zero_point)``.

    Parameters
    ----------
    weight : array_like of float16, bfloat16, float32 or float64, list of them, SparseTensor, or PalettizedTensor
        Any shape and strides; never written to. float64 is rounded to float32. A list or tuple holds several weights
        and gives a list; small ones are processed in parallel. For a sparse tensor the stored values are quantized,
        with the blocks of its shape; for a palettized tensor the palettes (lookup tables, LUTs), to 8 bits, with a
        scale for each (``"per_tensor"``: one for all).
    dtype : {"int8", "uint8", "int4", "uint4", "int2", "uint2", "float8_e4m3fn", "float8_e5m2", "float4_e2m1fn"}
        Type of the codes. Those of 2 bits and floats are for Core AI; Core ML has no form for them.
    mode : {"linear_symmetric", "linear"}
        Symmetric around zero (int8 codes -127 to 127, int4 codes -7 to 7 and int2 codes -1 to 1, no zero point; uint8
        codes 0 to 254 around 127, uint4 codes 0 to 14 around 7, uint2 codes 0 to 2 around 1; the only mode of floats),
        or over the range of the values widened to include zero, with zero points.
    granularity : {"per_channel", "per_tensor", "per_block"}
        The weights that share a scale.
    block_size : int or tuple of int
        For ``"per_block"``. A number: how many input channels share a scale, within each output channel; blocks span
        the other axes. A tuple: the size along each axis of the weight, 0 for the whole axis. Must divide the axes.
    scale_search : {"mse"}, optional
        Search for each scale, and in ``"linear"`` mode each zero point, with the least squared error.
    scale_dtype : {"float8_e8m0fnu"}, optional
        Symmetric, with scales that are powers of two, of a byte each; for Core AI. None: scales in the weight's dtype.
    channel_axis : int, optional
        Output channel axis, whose entries each have their own scales; None for axis 0. The input channel axis is 1 for
        0, 0 for 1, -2 for -1 and -1 for -2, as in coremltools' operations; blocks along others need a tuple.
    importance : array_like of floats, integers or bool, optional
        With `scale_search`: how much each weight's squared error counts, in the weight's shape; not negative, finite;
        only ratios matter. A block whose importance is 0 everywhere is quantized with equal importance. For a list of
        weights, a list with one entry per weight, None for equal importance.
    hessian : array_like of float32 or float64, optional
        Second moments E[x x^T] of the inputs of the layer that this weight belongs to, by which codes are chosen so
        that the outputs change little (error feedback): c by c for the c columns of the weight as a matrix whose rows
        are the entries of `channel_axis` and whose columns are all other axes in row-major order, or (blocks, c, c) of
        consecutive columns. For a list of weights, a list with one entry per weight, or None. Scales and zero points
        are those of the call without it; with `scale_search` the diagonal is their importance.
    dampening : float
        With `hessian`: how many times the mean of its diagonal is added to it; more for fewer samples.
    nonfinite : {"keep", "error"}
        For an array both raise NonFiniteError if there are infinite or NaN values.
    num_threads : int, optional
        Threads to use; None for all CPUs this process may use, or `COREPRESS_NUM_THREADS`.

    Returns
    -------
    QuantizedTensor or list of QuantizedTensor
        Scales in the weight's dtype, or with a `scale_dtype` float32. For a sparse or a palettized tensor, a tensor of
        the same class with quantized values or palettes.

    Raises
    ------
    TypeError
        If the weight is not a float array.
    ValueError
        For values out of range, a block size that does not divide the axis (`IndivisibleError`), and NaN or infinite
        weights.

    Notes
    -----
    The scale is coremltools' (the range over the number of codes, rounded to the weight's dtype), found in double
    precision, so that float16 ranges beyond 32,768 do not overflow and tiny ones do not give a scale of 0. Codes are
    the quotients in float32, rounded half to even. An all-zero block has scale 1. Where the scale is subnormal, and so
    has few digits, the next one above is taken if its squared error is smaller.

    ``scale_search="mse"`` tries scales from 40 to 76 sixty-fourths of that one, so that outliers are clipped or codes
    fit better, and improves the best ones iteratively: the least-squares scale for the codes, the codes for that scale,
    neighbouring zero points. Symmetric codes then use the end that is otherwise unused: int4 codes are -8 to 7, those
    of uint4 0 to 15 around 7. The result is never worse than without the search.

    Codes that are floats are the quotients, rounded to the nearest value, ties to even as ml_dtypes does, but never
    beyond the largest finite one; the scale is the largest magnitude over that value (448, 57344 or 6). What a code
    decodes to is its value times the scale, rounded once to the weight's dtype.

    With a `scale_dtype`, the scale is the smallest power of two by which the largest magnitude becomes at most the
    largest code, or half of that where codes would decode to infinity. The rule of OCP's microscaling formats takes
    half of it, and clips, where the exponent of the largest magnitude is still that of the largest code: the search
    takes the one of less error, out of two scales below and one above too. Symmetric integers use no further code then.

    Examples
    --------
    >>> weight = np.linspace(-1, 1, 4096, dtype=np.float16).reshape(64, 64)
    >>> quantized = quantize(weight, dtype="int4", granularity="per_block", block_size=32)
    >>> quantized
    <QuantizedTensor int4 of float16, blocks of (1, 32), shape (64, 64), 4.500 bits/weight>
    >>> quantized.scale.shape, quantized.codes()[0, :3]
    ((64, 2), array([-7, -7, -7], dtype=int8))
    """
    spec = Quantize(
        dtype=dtype,
        mode=mode,
        granularity=granularity,
        block_size=block_size,
        scale_search=scale_search,
        scale_dtype=scale_dtype,
        channel_axis=channel_axis,
        nonfinite=nonfinite,
    )
    WeightData(importance, hessian, dampening=dampening).require_use(spec)
    weights, importances = as_list("quantize", weight, importance)
    _, hessians = as_list("quantize", weight, hessian, "hessian")
    data = [WeightData(*each, dampening=dampening) for each in zip(importances, hessians, strict=True)]
    quantized = quantize_measured(weights, data, spec, num_threads, in_list=is_list(weight))
    tensors = [tensor for tensor, _ in quantized]
    return tensors if is_list(weight) else tensors[0]


def quantize_measured(
    weights: list[Any],
    data: list[WeightData],
    spec: Quantize,
    num_threads: int | None,
    *,
    in_list: bool,
    measured: bool = False,
) -> list[Measured]:
    num_threads = as_threads("quantize", num_threads)
    if any(isinstance(weight, CompressedTensor) for weight in weights):
        for of_weight in data:
            of_weight.require_plain("quantize")
        if any(of_weight.hessian is not None for of_weight in data):
            return for_each(
                "quantize",
                in_list,
                lambda weight, known: _quantize_mixed(weight, known, spec, num_threads, measured),
                weights,
                data,
            )
        return for_each(
            "quantize", in_list, lambda weight: (_quantize_tensor(weight, spec, num_threads), None), weights
        )

    def importance(array: NDArray[Any], of_weight: WeightData, known: Moments | None) -> NDArray[np.float32] | None:
        if known is not None and spec.scale_search is not None:
            return known.importance()
        return of_weight.error_weights("quantize", array.shape)

    def fed_back(array: NDArray[Any], result: Measured, known: Moments | None) -> Measured:
        if known is None:
            return result
        return _fed_back(array, result[0], spec, known, num_threads), None

    arrays = for_each("quantize", in_list, _checked, weights)
    blocks = for_each("quantize", in_list, lambda array: block_counts(spec, array.shape), arrays)
    moments = for_each("quantize", in_list, lambda array, each: each.moments(spec, array), arrays, data)
    importances = for_each("quantize", in_list, importance, arrays, data, moments)
    results = _quantize_blocks(arrays, spec, blocks, importances, num_threads, in_list=in_list, measured=measured)
    return for_each("quantize", in_list, fed_back, arrays, results, moments)


def _checked(weight: Any) -> NDArray[Any]:
    array = as_weight("quantize", weight)
    if array.size == 0:
        raise ValueError(f"quantize: weight has no elements (shape {array.shape})")
    return array


def _quantize_mixed(weight: Any, data: WeightData, spec: Quantize, num_threads: int, measured: bool) -> Measured:
    """Quantize a weight of any kind by second moments."""
    if not isinstance(weight, CompressedTensor):
        return quantize_measured([weight], [data], spec, num_threads, in_list=False, measured=measured)[0]
    moments = data.moments(spec, weight)
    tensor = _quantize_tensor(weight, spec, num_threads)
    if moments is None:
        return tensor, None
    assert isinstance(tensor, SparseTensor)
    assert isinstance(tensor.values, QuantizedTensor)
    dense = weight.dense(num_threads=num_threads)
    return replace(tensor, values=_fed_back(dense, tensor.values, spec, moments, num_threads)), None


def _fed_back(
    weight: NDArray[Any], tensor: QuantizedTensor, spec: Quantize, moments: Moments, num_threads: int
) -> QuantizedTensor:
    if spec.dtype in FLOAT_CODES:
        return quantize_float_codes(weight, tensor, moments, num_threads)
    return quantize_codes(weight, tensor, code_range(spec), moments, num_threads)


def code_range(spec: Quantize) -> tuple[int, int]:
    """The lowest and the highest code of a spec of integers; a search uses the end that is otherwise left out, unless
    scales are powers of two."""
    nbits, storage = QUANTIZED_DTYPES[spec.dtype]
    lowest, highest = (-(2 ** (nbits - 1)), 2 ** (nbits - 1) - 1) if storage is np.int8 else (0, 2**nbits - 1)
    if spec.mode == "linear" or (spec.scale_search is not None and spec.scale_dtype is None):
        return lowest, highest
    return (lowest + 1, highest) if storage is np.int8 else (lowest, highest - 1)


def quantize_tables(
    measured: list[Measured], spec: Palettize, num_threads: int | None, *, in_list: bool
) -> list[Measured]:
    """Quantize the tables of palettized weights as `lut_dtype` says, with one scale for all tables of a weight.

    Parameters
    ----------
    measured : list of (CompressedTensor, Noise or None)
        What `palettize_measured` returns for `spec`.
    spec : Palettize
        How they were palettized.
    num_threads : int or None
        Threads to use.
    in_list : bool
        Whether the weights are those of a list, whose places messages tell.
    """
    if spec.lut_dtype is None:
        return measured
    threads, of_tables = as_threads("palettize", num_threads), Quantize(dtype=spec.lut_dtype, granularity="per_tensor")

    def quantized(result: Measured) -> Measured:
        tensor = result[0]
        if isinstance(tensor, QuantizedTensor) or (
            isinstance(tensor, SparseTensor) and isinstance(tensor.values, QuantizedTensor)
        ):
            raise ValueError("palettize: lut_dtype is for weights, not for codes of a QuantizedTensor; leave it out")
        return _quantize_tensor(tensor, of_tables, threads), None

    return for_each("palettize", in_list, quantized, measured)


def _quantize_tensor(weight: Any, spec: Quantize, num_threads: int) -> CompressedTensor:
    def fit(array: NDArray[Any], counts: tuple[int, ...]) -> QuantizedTensor:
        tensor: QuantizedTensor = _quantize_blocks([array], spec, [counts], [None], num_threads)[0][0]
        return tensor

    if not isinstance(weight, CompressedTensor):
        array = _checked(weight)
        return fit(array, block_counts(spec, array.shape))
    if isinstance(weight, SparseTensor) and isinstance(weight.values, np.ndarray):
        if weight.size == 0:
            raise ValueError(f"quantize: weight has no elements (shape {weight.shape})")
        counts, values = block_counts(spec, weight.shape), as_weight("quantize", weight.values)
        nonfinite = count_nonfinite(values, num_threads)
        if nonfinite:
            raise not_finite_count("quantize", nonfinite, weight.shape)
        return joint.quantize_values(weight, spec, counts, fit, num_threads)
    return joint.quantize_table(weight, spec, fit)


def _quantize_blocks(
    arrays: list[NDArray[Any]],
    spec: Quantize,
    blocks: list[tuple[int, ...]],
    importances: list[NDArray[np.float32] | None],
    num_threads: int,
    *,
    in_list: bool = False,
    measured: bool = False,
) -> list[Measured]:
    layouts = [block_layout(array.shape, counts) for array, counts in zip(arrays, blocks, strict=True)]
    _, storage = QUANTIZED_DTYPES[spec.dtype]
    symmetric, search, binary = (
        spec.mode == "linear_symmetric",
        spec.scale_search == "mse",
        spec.scale_dtype is not None,
    )
    no_offsets = symmetric and (storage is np.int8 or spec.dtype in FLOAT_CODES)
    encoded = quantize_native(
        arrays, layouts, spec.dtype, symmetric, search, binary, importances, measured, num_threads
    )

    def measured_tensor(array: NDArray[Any], counts: tuple[int, ...], result: Any) -> Measured:
        if result is None:
            raise not_finite("quantize", array, num_threads)
        data, scale, zero_point, noise = result
        offsets = None if no_offsets else zero_point.view(storage).reshape(counts)
        scale = (powers_of_two(scale) if binary else scale).reshape(counts)
        decoded = array.dtype if binary else None
        return QuantizedTensor(array.shape, data, scale, offsets, spec.dtype, None, spec.scale_dtype, decoded), noise

    return for_each("quantize", in_list, measured_tensor, arrays, blocks, encoded)
