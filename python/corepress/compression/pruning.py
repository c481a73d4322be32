"""Magnitude pruning of arrays and compressed tensors."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from .._core import count_bits
from .._core import n_m_keep as n_m_keep_native
from .._core import prune as prune_native
from ..arrays import (
    as_finite_weight,
    as_list,
    as_threads,
    as_weight,
    axis_layout,
    checked_axis,
    for_each,
    is_list,
    not_finite,
    not_finite_count,
    rounded_to,
)
from ..errors import TooFewZerosError
from ..specs import Prune
from ..tensors import CompressedTensor, SparseTensor
from ..tensors.base import decoded_pieces
from . import joint
from .error_feedback import pruned_values, ranks
from .piecewise import joined, magnitude_of_rank
from .weight_data import WeightData

if TYPE_CHECKING:  # only the stub has these
    from .._core import Noise


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
    hessian: Any = None,
    dampening: float = 0.01,
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
    hessian: Any = None,
    dampening: float = 0.01,
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
    hessian: Any = None,
    dampening: float = 0.01,
    nonfinite: str = "keep",
    num_threads: int | None = None,
) -> SparseTensor | list[SparseTensor]:
    """Set the weights of smallest magnitude to zero and store only the others.

    Weights that are already zero, -0 included, are never stored, and decode to +0.

    Parameters
    ----------
    weight : array_like of float16, bfloat16, float32 or float64, list of them, or CompressedTensor
        Any shape and strides; never written to. float64 is rounded to float32. A list or tuple holds several weights
        and gives a list; small ones are processed in parallel. A compressed tensor is pruned by its decompressed
        values, and keeps the codes of the survivors.
    target_sparsity : float, optional
        Fraction s in [0, 1]. Zero where ``|w| <= a[floor((n - 1) * s)]``, `a` the sorted magnitudes of the n weights,
        so that ties can zero more than requested; 1 zeroes all weights, 0 none.
    threshold : float, optional
        Zero where ``|w| <= threshold``, compared exactly.
    n_m_ratio : tuple of int, optional
        ``(n, m)``: of every m consecutive weights along `dim`, for each position of the other axes, the n of smallest
        magnitude become zero, the first ones among equals. An axis that m does not divide is padded with zeros, which
        are removed first. Give exactly one of this, `target_sparsity` and `threshold`.
    block_size : int, optional
        With `target_sparsity`: zero whole blocks of this many consecutive weights along `dim` (the last may be
        shorter). The magnitude of a weight is then the L2 norm of its block.
    dim : {0, 1}, optional
        Axis of `n_m_ratio` (None: 1, the input channels of a convolution or linear layer) or of `block_size` (None:
        0, the output channels).
    minimum_sparsity_percentile : float
        With `threshold`: the minimum fraction of zeros, in [0, 1], that makes pruning worthwhile.
    hessian : array_like of float32 or float64, optional
        Second moments E[x x^T] of the inputs of the layer that this weight belongs to, by which zeros are chosen, and
        the other weights changed, so that the outputs change little (SparseGPT): c by c for the c columns of the weight
        as a matrix whose rows are the entries of axis 0 and whose columns are all other axes in row-major order, or
        (blocks, c, c) of consecutive columns. For a list of weights, a list with one entry per weight, or None. There
        are as many zeros as without it. Not with `threshold`, and not for compressed tensors.
    dampening : float
        With `hessian`: how many times the mean of its diagonal is added to it; more for fewer samples.
    nonfinite : {"keep", "error"}
        For an array both raise NonFiniteError if there are infinite or NaN values.
    num_threads : int, optional
        Threads to use; None for all CPUs this process may use, or `COREPRESS_NUM_THREADS`.

    Returns
    -------
    SparseTensor or list of SparseTensor
        With the surviving weights, in their dtype; for a compressed tensor, with their codes.

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
    WeightData(hessian=hessian, dampening=dampening).require_use(spec)
    weights, hessians = as_list("prune", weight, hessian, "hessian")
    data = [WeightData(hessian=each, dampening=dampening) for each in hessians]
    pruned = prune_measured(weights, spec, num_threads, data, in_list=is_list(weight))
    tensors = [tensor for tensor, _ in pruned]
    return tensors if is_list(weight) else tensors[0]


def prune_measured(
    weights: list[Any],
    spec: Prune,
    num_threads: int | None,
    data: list[WeightData] | None = None,
    *,
    in_list: bool,
    measured: bool = False,
) -> list[tuple[SparseTensor, Noise | None]]:
    num_threads = as_threads("prune", num_threads)
    if data is not None and any(each.hessian is not None for each in data):
        return for_each(
            "prune",
            in_list,
            lambda weight, known: _prune_by_outputs(weight, known, spec, num_threads, measured),
            weights,
            data,
        )
    if any(isinstance(weight, CompressedTensor) for weight in weights):
        return for_each("prune", in_list, lambda weight: (_prune_tensor(weight, spec, num_threads), None), weights)
    arrays = for_each("prune", in_list, lambda weight: as_weight("prune", weight), weights)
    rules = for_each("prune", in_list, lambda array: _prune_rule(array, spec), arrays)

    def tensor_of(array: NDArray[Any], pruned: tuple[Any, ...]) -> tuple[SparseTensor, Noise | None]:
        mask, values, noise, nonfinite = pruned
        if nonfinite:
            raise not_finite("prune", array, num_threads)
        _require_zeros(array.size - values.size, array.shape, spec)
        return SparseTensor._of_pruned(array.shape, mask, values), noise

    return for_each("prune", in_list, tensor_of, arrays, prune_native(arrays, rules, measured, num_threads))


def _prune_by_outputs(
    weight: Any, data: WeightData, spec: Prune, num_threads: int, measured: bool
) -> tuple[SparseTensor, Noise | None]:
    """Prune a weight by what its layer's outputs lose, and let what stays make up for it."""
    if data.hessian is None:
        return prune_measured([weight], spec, num_threads, in_list=False, measured=measured)[0]
    if isinstance(weight, CompressedTensor):
        data.moments(spec, weight)  # raises
    array = as_finite_weight("prune", weight, num_threads)
    moments = data.moments(spec, array)
    if moments is None or array.size == 0:
        return prune_measured([array], spec, num_threads, in_list=False, measured=measured)[0]
    mask = prune_measured([ranks(array, moments, num_threads)], spec, num_threads, in_list=False)[0][0].mask
    values = pruned_values(array, mask, moments, num_threads, moves_mask=not spec.is_structured)
    return prune_measured([values], Prune(threshold=0), num_threads, in_list=False)[0]


def _require_zeros(zeros: int, shape: tuple[int, ...], spec: Prune) -> None:
    least = spec.minimum_sparsity_percentile
    if zeros < least * math.prod(shape):
        raise TooFewZerosError(
            f"prune: {zeros} of {math.prod(shape)} values become zero, less than minimum_sparsity_percentile {least} "
            f"(shape {shape})"
        )


def _prune_tensor(weight: Any, spec: Prune, num_threads: int) -> SparseTensor:
    if not isinstance(weight, CompressedTensor):
        return prune_measured([weight], spec, num_threads, in_list=False)[0][0]
    mask = _mask_of(weight, spec, num_threads)
    _require_zeros(weight.size - count_bits(mask, weight.size), weight.shape, spec)
    return joint.prune(weight, mask, num_threads)


def _mask_of(tensor: CompressedTensor, spec: Prune, num_threads: int) -> NDArray[np.uint8]:
    """The mask of the values of a compressed tensor that survive, computed a piece at a time."""
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
            ((mask, _, _, wrong),) = prune_native([piece], [of_piece], False, num_threads)
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
    return n_m_keep_native(weight, axis_layout(weight.shape, axis), *n_m_ratio, num_threads)


def threshold_rule(threshold: float, dtype: np.dtype[Any]) -> tuple[str, NDArray[Any]]:
    """What `_core.prune` is to do to values of `dtype` for a threshold.

    It is rounded down: comparing with the result is comparing with the threshold itself.
    """
    rounded = rounded_to(dtype, [threshold])
    if float(rounded[0]) > threshold:
        rounded.view(f"u{dtype.itemsize}")[0] -= 1
    return "threshold", rounded
