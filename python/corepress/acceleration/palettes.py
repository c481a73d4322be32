"""Palettes, replacing coremltools' k-means and its groups; what coreai-opt has a copy of, there too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import kernels
from ..compression import palettize
from ..compression.joint import with_integers
from ..errors import NonFiniteError, TooManyValuesError
from ..specs import PALETTE_BITS
from ..tensors import PalettizedTensor

Function = Callable[..., Any]
_MODES = ("KMEANS", "UNIFORM", "UNIQUE")
_EXACT_IN_FLOAT16 = 2048  # all whole numbers up to this are
_ENOUGH_FOR_KMEANS1D = 10_000  # float16 weights, from which on coremltools detects one-dimensional palettes


def kmeans_lookup_table(original: Function) -> Function:
    """Replaces ``_get_kmeans_lookup_table_and_weight``: a table and a code for each value or vector."""

    def accelerated(
        nbits: int, weight: Any, force_kmeans1d: bool = False, cluster_dim: int = 1, vector_axis: int | None = None
    ) -> tuple[NDArray[np.float64], NDArray[Any]]:
        array = np.asarray(weight)
        if (force_kmeans1d and cluster_dim > 1) or array.size == 0 or not np.isfinite(array).all():
            return original(nbits, weight, force_kmeans1d, cluster_dim, vector_axis)  # type: ignore[no-any-return]
        table = np.zeros((1 << nbits, cluster_dim))
        if cluster_dim > 1:
            codes, centroids, _ = kernels.kmeans(_vectors(array, cluster_dim, int(vector_axis or 0)), len(table))
            table[:] = centroids
            return table, codes.astype(np.int32)
        codes, centroids = _clusters(array.reshape(-1), nbits)
        table[: centroids.size, 0] = centroids
        # The dtypes and shapes are those of the solver that coremltools would have taken.
        if force_kmeans1d or (array.size >= _ENOUGH_FOR_KMEANS1D and weight.dtype == np.float16):
            return table[:, 0], codes.astype(np.int64)
        return table, codes.astype(np.int32)

    return accelerated


def _vectors(array: NDArray[Any], length: int, axis: int) -> NDArray[Any]:
    """Every `length` neighbours along an axis, in the order that coremltools and coreai-opt have them in."""
    moved = np.swapaxes(array, -1, axis)
    split = moved.reshape(*moved.shape[:-1], moved.shape[-1] // length, length)
    return np.swapaxes(split, -2, axis).reshape(-1, length)


def _clusters(values: NDArray[Any], nbits: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Codes and centroids in double precision."""
    if nbits in PALETTE_BITS and values.dtype in (np.float16, np.float32):
        codes = palettize(values, nbits=nbits).codes()
        # The means before they are rounded to the weight's dtype, of the entries that are used.
        counts = np.bincount(codes, minlength=2**nbits)
        sums = np.bincount(codes, weights=values, minlength=2**nbits)
        used = counts > 0
        return (np.cumsum(used) - 1)[codes], sums[used] / counts[used]
    distinct, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    found = kernels.kmeans1d(distinct, 1 << nbits, counts)
    return found.codes[places.reshape(-1)], found.centroids


def get_lut_and_indices(original: Function) -> Function:
    """Replaces ``palettize_weights._get_lut_and_indices`` for even steps; the other modes call functions that are
    replaced."""

    def accelerated(
        val: Any,
        mode: str,
        nbits: int | None,
        lut_function: Function | None,
        cluster_dim: int = 1,
        vector_axis: int | None = None,
    ) -> Any:
        fits = isinstance(val, np.ndarray) and val.dtype in (np.float16, np.float32) and nbits in PALETTE_BITS
        if mode != "UNIFORM" or cluster_dim > 1 or not fits or val.size == 0 or not np.isfinite(val).all():
            return original(val, mode, nbits, lut_function, cluster_dim, vector_axis)
        tensor = palettize(val, mode="uniform", nbits=nbits)
        return tensor.table.reshape(-1), tensor.codes().reshape(-1)

    return accelerated


def grouped_channelwise_compress(original: Function) -> Function:
    """Replaces ``palettize_weights.grouped_channelwise_compress``: all groups in one call."""

    def accelerated(
        original_data: Any,
        mode: str,
        nbits: int | None,
        channel_axis: int,
        channel_group_size: int,
        lut_function: Function | None = None,
        cluster_dim: int = 1,
        num_kmeans_workers: int = 1,
    ) -> Any:
        if not is_for_kernels(original_data, mode.upper(), nbits, channel_axis, channel_group_size, cluster_dim):
            arguments = (original_data, mode, nbits, channel_axis, channel_group_size, lut_function, cluster_dim)
            return original(*arguments, 1)
        from coremltools import _logger as logger

        options = {
            "mode": mode.lower(),
            "granularity": "per_grouped_channel" if channel_group_size else "per_tensor",
            "group_size": channel_group_size or 32,
            "cluster_dim": cluster_dim,
            "channel_axis": channel_axis,
        }
        try:
            return _lut_params(palettized(original_data, nbits, options))
        except TooManyValuesError:
            logger.warning(
                "Can't perform palettization:Unique values in weight cannot be represented by 8 bits palettization."
            )
        except NonFiniteError as failure:
            logger.warning(f"Can't perform palettization: {failure}")
        return None

    return accelerated


def is_for_kernels(
    array: Any, mode: str, nbits: int | None, channel_axis: int, group_size: int, cluster_dim: int
) -> bool:
    """Whether the kernels support it; everything else is left to coremltools, with its errors and warnings."""
    if not isinstance(array, np.ndarray) or array.size == 0 or mode not in _MODES:
        return False
    if not -array.ndim <= channel_axis < array.ndim or (nbits is not None and nbits not in PALETTE_BITS):
        return False
    if array.dtype.kind == "i":
        if mode != "KMEANS" or cluster_dim > 1 or max(-int(array.min()), int(array.max())) > _EXACT_IN_FLOAT16:
            return False
    elif array.dtype not in (np.float16, np.float32):
        return False
    length = array.shape[channel_axis]
    group_size = group_size or length
    return length % group_size == 0 and group_size % cluster_dim == 0 and (cluster_dim == 1 or mode != "UNIFORM")


def palettized(array: NDArray[Any], nbits: int | None, options: dict[str, Any]) -> PalettizedTensor:
    if array.dtype.kind == "i":
        codes = array.astype(np.float16)
        return with_integers(codes, palettize(codes, nbits=nbits, **options), array.dtype.type)
    if options["mode"] != "unique":
        return palettize(array, nbits=nbits, **options)
    found: PalettizedTensor = palettize(array, **options)
    return found if nbits is None or nbits <= found.nbits else palettize(array, nbits=nbits, **options)


def _lut_params(tensor: PalettizedTensor) -> Any:
    from coremltools.converters.mil.mil import types
    from coremltools.optimize import _utils

    dtype = types.nptype_from_builtin(types.string_to_builtin(f"uint{tensor.nbits}"))
    indices = tensor.codes().reshape(tensor.index_shape)
    return _utils.LutParams(indices.view(dtype), tensor.lut, tensor.vector_axis)


def transform_op(original: Function) -> Function:
    """Wraps ``palettize_weights.transform_op``: a weight that is not palettized is left unchanged.

    coremltools divides a weight by its scales in place before it finds out that it cannot palettize it.
    """

    def accelerated(self: Any, op: Any) -> Any:
        config = self.config._get_const_op_config(op)
        if not getattr(config, "enable_per_channel_scale", False):
            return original(self, op)
        values = op.outputs[0].val
        before = np.array(values)
        result = original(self, op)
        if op.enclosing_block is not None and not np.array_equal(values, before, equal_nan=before.dtype.kind == "f"):
            values[...] = before
        return result

    return accelerated
