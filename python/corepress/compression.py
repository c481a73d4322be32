"""Quantizing and pruning arrays; and applying any spec to an array or a compressed tensor."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from . import _core, joint
from .arrays import (
    as_importance,
    as_list,
    as_threads,
    as_weight,
    axis_layout,
    block_layout,
    checked_axis,
    is_list,
    item,
    not_finite,
    not_finite_count,
    rounded_to,
)
from .errors import IndivisibleError, TooFewZerosError
from .measure import snr_db
from .palettes import Measured, palettize, palettize_measured
from .piecewise import joined, magnitude_of_rank
from .specs import Palettize, Prune, Quantize, Spec
from .tensor_base import decoded_pieces
from .tensors import QUANTIZED_DTYPES, CompressedTensor, PalettizedTensor, QuantizedTensor, SparseTensor

__all__ = ["apply", "apply_measured", "input_axis", "palettize", "prune", "quantize"]


@overload
def quantize(
    weight: list[Any] | tuple[Any, ...],
    *,
    dtype: str = "int8",
    mode: str = "linear_symmetric",
    granularity: str = "per_channel",
    block_size: int | tuple[int, ...] = 32,
    scale_search: str | None = None,
    channel_axis: int | None = None,
    importance: Any = None,
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
    channel_axis: int | None = None,
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
    channel_axis: int | None = None,
    importance: Any = None,
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
    channel_axis: int | None = None,
    importance: Any = None,
    nonfinite: str = "keep",
    num_threads: int | None = None,
) -> CompressedTensor | list[QuantizedTensor]:
    """Replace weights by integers with a scale: ``weight = scale * (data - zero_point)``.

    Parameters
    ----------
    weight : array_like of float16, bfloat16, float32 or float64, list of them, SparseTensor, or PalettizedTensor
        Any shape and strides; never written to. float64 is narrowed to float32. A list or tuple is several weights and
        gives a list; small ones of it are worked on side by side. Of a sparse tensor the stored values are quantized,
        with the blocks of its shape; of a palettized tensor the tables, to int8 or uint8, with a scale for each
        (``"per_tensor"``: one for all).
    dtype : {"int8", "uint8", "int4", "uint4"}
        Integer type of the codes.
    mode : {"linear_symmetric", "linear"}
        Symmetric about zero (int8 codes -127 to 127 and int4 codes -7 to 7, no zero point; uint8 codes 0 to 254 about
        127, uint4 codes 0 to 14 about 7), or over the range of the values widened to include zero, with zero points.
    granularity : {"per_channel", "per_tensor", "per_block"}
        What shares a scale.
    block_size : int or tuple of int
        For ``"per_block"``. A number: entries of the input channel axis that share a scale, for each output channel;
        other axes whole. A tuple: entries along each axis of the weight, 0 for the whole axis. Must divide the axes.
    scale_search : {"mse"}, optional
        Search each scale, and in ``"linear"`` mode each zero point, for the least squared error.
    channel_axis : int, optional
        Output channel axis, with scales of its own for each entry; None for axis 0. The input channel axis is 1 for 0,
        0 for 1, -2 for -1 and -1 for -2, as in coremltools' operations; blocks along others need a tuple.
    importance : array_like of floats, integers or bool, optional
        With `scale_search`: how much each weight's squared error counts, in the weight's shape; not negative, finite;
        only ratios matter. A block whose importance is 0 everywhere is quantized as if all were alike. Of a list of
        weights a list, with None for those where all are alike.
    nonfinite : {"keep", "error"}
        For an array both raise NonFiniteError if there are infinite or NaN values.
    num_threads : int, optional
        Threads to use; None for all CPUs this process may use, or `COREPRESS_NUM_THREADS`.

    Returns
    -------
    QuantizedTensor or list of QuantizedTensor
        Scales in the weight's dtype. Of a sparse or a palettized tensor such a one, with quantized values or table.

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

    ``scale_search="mse"`` tries scales from 40 to 76 sixty-fourths of that one, so that far values are clipped or codes
    fall better, and improves the best by turns: the least-squares scale for the codes, the codes for that scale,
    neighbouring zero points. Symmetric codes then use the end that is left out otherwise: int4 codes are -8 to 7, those
    of uint4 0 to 15 about 7. The result is never worse than without the search.

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
        channel_axis=channel_axis,
        nonfinite=nonfinite,
    )
    if importance is not None and scale_search is None:
        raise ValueError("quantize: importance needs scale_search 'mse'")
    weights, importances = as_list("quantize", weight, importance)
    quantized = _quantize_all(weights, importances, spec, num_threads, in_list=is_list(weight))
    tensors = [tensor for tensor, _ in quantized]
    return tensors if is_list(weight) else tensors[0]


def _quantize_all(
    weights: list[Any],
    importances: list[Any],
    spec: Quantize,
    num_threads: int | None,
    *,
    in_list: bool,
    measured: bool = False,
) -> list[Measured]:
    num_threads = as_threads("quantize", num_threads)
    if any(isinstance(weight, CompressedTensor) for weight in weights):
        if any(importance is not None for importance in importances):
            raise ValueError("quantize: importance is for arrays, not for compressed tensors")
        quantized: list[Measured] = []
        for index, weight in enumerate(weights):
            with item("quantize", index if in_list else None):
                quantized.append((_quantize_tensor(weight, spec, num_threads), None))
        return quantized
    arrays, blocks, checked_importances = [], [], []
    for index, (weight, importance) in enumerate(zip(weights, importances, strict=True)):
        with item("quantize", index if in_list else None):
            array = as_weight("quantize", weight)
            if array.size == 0:
                raise ValueError(f"quantize: weight has no elements (shape {array.shape})")
            arrays.append(array)
            blocks.append(_block_counts(spec, array.shape))
            checked_importances.append(as_importance("quantize", importance, array))
    return _quantize_blocks(arrays, spec, blocks, checked_importances, num_threads, in_list=in_list, measured=measured)


def _quantize_tensor(weight: Any, spec: Quantize, num_threads: int) -> CompressedTensor:
    def fit(array: NDArray[Any], counts: tuple[int, ...]) -> QuantizedTensor:
        tensor: QuantizedTensor = _quantize_blocks([array], spec, [counts], [None], num_threads)[0][0]
        return tensor

    if not isinstance(weight, CompressedTensor):
        array = as_weight("quantize", weight)
        return fit(array, _block_counts(spec, array.shape))
    if isinstance(weight, SparseTensor) and isinstance(weight.values, np.ndarray):
        if weight.size == 0:
            raise ValueError(f"quantize: weight has no elements (shape {weight.shape})")
        counts, values = _block_counts(spec, weight.shape), as_weight("quantize", weight.values)
        nonfinite = _core.count_nonfinite(values, num_threads)
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
    nbits, storage = QUANTIZED_DTYPES[spec.dtype]
    symmetric, is_signed = spec.mode == "linear_symmetric", storage is np.int8
    search = spec.scale_search == "mse"
    encoded = _core.quantize(arrays, layouts, nbits, is_signed, symmetric, search, importances, measured, num_threads)
    quantized: list[Measured] = []
    for index, (array, counts, result) in enumerate(zip(arrays, blocks, encoded, strict=True)):
        if result is None:
            with item("quantize", index if in_list else None):
                raise not_finite("quantize", array, num_threads)
        data, scale, zero_point, noise = result
        offsets = None if symmetric and is_signed else zero_point.view(storage).reshape(counts)
        quantized.append((QuantizedTensor(array.shape, data, scale.reshape(counts), offsets, spec.dtype), noise))
    return quantized


def _block_counts(spec: Quantize, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Number of blocks along each axis."""
    sizes = [0] * len(shape)
    if spec.granularity == "per_block" and not isinstance(spec.block_size, int):
        if len(spec.block_size) != len(shape):
            raise ValueError(f"quantize: block_size {spec.block_size} must have one entry per axis (shape {shape})")
        sizes = list(spec.block_size)
    elif spec.granularity != "per_tensor":
        output = checked_axis("quantize", "channel_axis", spec.channel_axis or 0, shape)
        sizes[output] = 1
        if spec.granularity == "per_block" and isinstance(spec.block_size, int):
            sizes[input_axis(spec.channel_axis or 0, shape)] = spec.block_size
    for axis, (size, length) in enumerate(zip(sizes, shape, strict=True)):
        if size and length % size:
            which = "last axis" if axis == len(shape) - 1 else f"axis {axis} of length"
            raise IndivisibleError(f"quantize: {which} {length} is not a multiple of block_size {size} (shape {shape})")
    return tuple(length // size if size else 1 for size, length in zip(sizes, shape, strict=True))


def input_axis(output_axis: int, shape: tuple[int, ...]) -> int:
    """The input channel axis that goes with an output channel axis in coremltools' operations."""
    pairs = {0: 1, 1: 0, -1: -2, -2: -1}
    if output_axis not in pairs:
        raise ValueError(
            f"quantize: a block_size of one number needs a channel_axis of 0, 1, -1 or -2, not {output_axis}; "
            f"give one per axis (shape {shape})"
        )
    return checked_axis("quantize", "block_size's input axis", pairs[output_axis], shape)


@overload
def prune(
    weight: list[Any] | tuple[Any, ...],
    *,
    target_sparsity: float | None = None,
    threshold: float | None = None,
    n_m_ratio: tuple[int, int] | None = None,
    block_size: int | None = None,
    dim: int | None = None,
    minimum_sparsity_percentile: float = 0.0,
    nonfinite: str = "keep",
    num_threads: int | None = None,
) -> list[SparseTensor]: ...
@overload
def prune(
    weight: Any,
    *,
    target_sparsity: float | None = None,
    threshold: float | None = None,
    n_m_ratio: tuple[int, int] | None = None,
    block_size: int | None = None,
    dim: int | None = None,
    minimum_sparsity_percentile: float = 0.0,
    nonfinite: str = "keep",
    num_threads: int | None = None,
) -> SparseTensor: ...
def prune(
    weight: Any,
    *,
    target_sparsity: float | None = None,
    threshold: float | None = None,
    n_m_ratio: tuple[int, int] | None = None,
    block_size: int | None = None,
    dim: int | None = None,
    minimum_sparsity_percentile: float = 0.0,
    nonfinite: str = "keep",
    num_threads: int | None = None,
) -> SparseTensor | list[SparseTensor]:
    """Set the weights of smallest magnitude to zero and store only the others.

    Weights that are zero already, -0 included, are never stored, and decode to +0.

    Parameters
    ----------
    weight : array_like of float16, bfloat16, float32 or float64, list of them, or CompressedTensor
        Any shape and strides; never written to. float64 is narrowed to float32. A list or tuple is several weights and
        gives a list; small ones of it are worked on side by side. What is compressed is pruned by its decompressed
        values, and the codes of what stays are kept.
    target_sparsity : float, optional
        Fraction s in [0, 1]. Zero where ``|w| <= a[floor((n - 1) * s)]``, `a` the sorted magnitudes of the n weights,
        so that ties can zero more than asked; 1 zeroes all weights, 0 none.
    threshold : float, optional
        Zero where ``|w| <= threshold``, compared exactly.
    n_m_ratio : tuple of int, optional
        ``(n, m)``: of every m consecutive weights along `dim`, for each position of the other axes, the n of smallest
        magnitude become zero, of equal ones the first. An axis that m does not divide ends as if zeros followed, which
        are the first to go. Give exactly one of this, `target_sparsity` and `threshold`.
    block_size : int, optional
        With `target_sparsity`: zero whole blocks of this many consecutive weights along `dim` (the last may be
        shorter). The magnitude of a weight is then the L2 norm of its block.
    dim : {0, 1}, optional
        Axis of `n_m_ratio` (None: 1, the input channels of a convolution or linear layer) or of `block_size` (None:
        0, the output channels).
    minimum_sparsity_percentile : float
        With `threshold`: the least fraction of zeros, in [0, 1], that makes pruning worth it.
    nonfinite : {"keep", "error"}
        For an array both raise NonFiniteError if there are infinite or NaN values.
    num_threads : int, optional
        Threads to use; None for all CPUs this process may use, or `COREPRESS_NUM_THREADS`.

    Returns
    -------
    SparseTensor or list of SparseTensor
        With the weights that stay, in their dtype; of a compressed tensor, with their codes.

    Raises
    ------
    TypeError
        If the weight is not a float array.
    ValueError
        For values out of range, NaN or infinite weights, and fewer zeros than `minimum_sparsity_percentile`
        (`TooFewZerosError`).

    Notes
    -----
    Magnitudes are compared exactly, and norms as sums of squares in double precision, so that neither the range nor
    the precision of float16 decides.

    Examples
    --------
    >>> sparse = prune(np.float32([[4, -1, 2, -3], [1, 2, 3, 4]]), n_m_ratio=(2, 4))
    >>> sparse
    <SparseTensor 4 of 8 float32 values (50.0% zero), shape (2, 4), 17.000 bits/weight>
    >>> sparse.dense().tolist()
    [[4.0, 0.0, 0.0, -3.0], [0.0, 0.0, 3.0, 4.0]]
    """
    spec = Prune(
        target_sparsity=target_sparsity,
        threshold=threshold,
        n_m_ratio=n_m_ratio,
        block_size=block_size,
        dim=dim,
        minimum_sparsity_percentile=minimum_sparsity_percentile,
        nonfinite=nonfinite,
    )
    weights, _ = as_list("prune", weight, None)
    pruned = _prune_all(weights, spec, num_threads, in_list=is_list(weight))
    tensors = [tensor for tensor, _ in pruned]
    return tensors if is_list(weight) else tensors[0]


def _prune_all(
    weights: list[Any], spec: Prune, num_threads: int | None, *, in_list: bool, measured: bool = False
) -> list[tuple[SparseTensor, _core.Noise | None]]:
    num_threads = as_threads("prune", num_threads)
    if any(isinstance(weight, CompressedTensor) for weight in weights):
        compressed: list[tuple[SparseTensor, _core.Noise | None]] = []
        for index, weight in enumerate(weights):
            with item("prune", index if in_list else None):
                compressed.append((_prune_tensor(weight, spec, num_threads), None))
        return compressed
    arrays, rules = [], []
    for index, weight in enumerate(weights):
        with item("prune", index if in_list else None):
            array = as_weight("prune", weight)
            arrays.append(array)
            rules.append(_prune_rule(array, spec))
    pruned = _core.prune(arrays, rules, measured, num_threads)
    tensors = []
    for index, (array, (mask, values, noise, nonfinite)) in enumerate(zip(arrays, pruned, strict=True)):
        with item("prune", index if in_list else None):
            if nonfinite:
                raise not_finite("prune", array, num_threads)
            _require_zeros(array.size - values.size, array.shape, spec)
        tensors.append((SparseTensor._of_pruned(array.shape, mask, values), noise))
    return tensors


def _require_zeros(zeros: int, shape: tuple[int, ...], spec: Prune) -> None:
    least = spec.minimum_sparsity_percentile
    if zeros < least * math.prod(shape):
        raise TooFewZerosError(
            f"prune: {zeros} of {math.prod(shape)} values become zero, less than minimum_sparsity_percentile {least} "
            f"(shape {shape})"
        )


def _prune_tensor(weight: Any, spec: Prune, num_threads: int) -> SparseTensor:
    if not isinstance(weight, CompressedTensor):
        return _prune_all([weight], spec, num_threads, in_list=False)[0][0]
    mask = _mask_of(weight, spec, num_threads)
    _require_zeros(weight.size - _core.count_bits(mask, weight.size), weight.shape, spec)
    return joint.prune(weight, mask, num_threads)


def _mask_of(tensor: CompressedTensor, spec: Prune, num_threads: int) -> NDArray[np.uint8]:
    """Which values of a compressed tensor stay, found a piece at a time."""
    as_weight("prune", np.empty(0, tensor.dtype))  # refuses integers
    rule = _prune_rule(tensor, spec)
    together = [1] * len(tensor.shape)
    if rule[0] == "n_m":
        together[spec.axis] = rule[3]
    elif rule[0] == "blocks":
        together = list(tensor.shape)  # the norms of all decide

    def pieces() -> Iterator[NDArray[Any]]:
        return (as_weight("prune", piece) for (piece,) in decoded_pieces((tensor,), num_threads, together))

    if rule[0] == "rank":
        rule = "threshold", magnitude_of_rank(pieces, rule[1])
    nonfinite = 0

    def masks() -> Iterator[tuple[NDArray[np.uint8], int]]:
        nonlocal nonfinite
        for piece in pieces():
            of_piece = ("n_m", axis_layout(piece.shape, spec.axis), *rule[2:]) if rule[0] == "n_m" else rule
            ((mask, _, _, wrong),) = _core.prune([piece], [of_piece], False, num_threads)
            nonfinite += wrong
            yield mask, piece.size

    mask = joined(tensor.size, 1, masks())
    if nonfinite:
        raise not_finite_count("prune", nonfinite, tensor.shape)
    return mask


def _prune_rule(weight: NDArray[Any] | CompressedTensor, spec: Prune) -> tuple[Any, ...]:
    """What `_core.prune` is to do."""
    axis = checked_axis("prune", "dim", spec.axis, weight.shape) if spec.is_structured else 0
    if spec.threshold is not None:
        return threshold_rule(spec.threshold, weight.dtype)
    if spec.target_sparsity == 0 or weight.size == 0:
        return "threshold", np.zeros(1, weight.dtype)
    if spec.n_m_ratio is not None:
        return "n_m", axis_layout(weight.shape, axis), *spec.n_m_ratio
    if spec.target_sparsity == 1:
        return "threshold", rounded_to(weight.dtype, [math.inf])
    assert spec.target_sparsity is not None
    rank = math.floor((weight.size - 1) * float(spec.target_sparsity))
    if spec.block_size is None:
        return "rank", rank
    return "blocks", axis_layout(weight.shape, axis), int(spec.block_size), rank


def n_m_keep(weight: NDArray[Any], n_m_ratio: tuple[int, int], axis: int, num_threads: int | None) -> NDArray[np.uint8]:
    """Return one byte per weight: 0 for the n smallest of every m along an axis, 1 for the others."""
    if weight.size == 0:
        return np.zeros(0, np.uint8)
    return _core.n_m_keep(weight, axis_layout(weight.shape, axis), *n_m_ratio, num_threads)


def threshold_rule(threshold: float, dtype: np.dtype[Any]) -> tuple[str, NDArray[Any]]:
    """What `_core.prune` is to do to values of `dtype` for a threshold.

    It is rounded down: comparing with the result is comparing with the threshold itself.
    """
    rounded = rounded_to(dtype, [threshold])
    if float(rounded[0]) > threshold:
        rounded.view(f"u{dtype.itemsize}")[0] -= 1
    return "threshold", rounded


def _palettize_one(weight: Any, spec: Palettize, num_threads: int | None, _measured: bool) -> Measured:
    return palettize_measured([weight], spec, num_threads, in_list=False)[0]


def _quantize_one(weight: Any, spec: Quantize, num_threads: int | None, measured: bool) -> Measured:
    return _quantize_all([weight], [None], spec, num_threads, in_list=False, measured=measured)[0]


def _prune_one(weight: Any, spec: Prune, num_threads: int | None, measured: bool) -> Measured:
    return _prune_all([weight], spec, num_threads, in_list=False, measured=measured)[0]


_APPLY: dict[type, Callable[..., Measured]] = {Palettize: _palettize_one, Quantize: _quantize_one, Prune: _prune_one}


def apply(weight: Any, spec: Spec, *, num_threads: int | None = None) -> CompressedTensor:
    """Compress an array or a compressed tensor as `spec` says; what this module's functions do with their arguments."""
    tensor: CompressedTensor = _APPLY[type(spec)](weight, spec, num_threads, False)[0]
    return tensor


def apply_measured(weight: Any, spec: Spec, *, num_threads: int | None = None) -> tuple[CompressedTensor, float]:
    """Do what `apply` does, and tell the signal-to-noise ratio in decibel that `error` would find.

    Where the kernels cannot tell the error on their way, it takes another pass over the weight.
    """
    weight = as_weight(spec.verb, weight)
    tensor, noise = _APPLY[type(spec)](weight, spec, num_threads, True)
    squared_error, squared_first = noise or tensor.error_sums(weight, num_threads)[:2]
    return tensor, snr_db(squared_first, squared_error)
