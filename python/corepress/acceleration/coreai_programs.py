"""What ``coreai_opt.coreai_utils`` computes of programs of Core AI, on arrays: palettes, scales, masks."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import kernels
from ..compression import prune, quantize
from ..errors import NonFiniteError, TooManyValuesError
from ..tensors import QUANTIZED_DTYPES
from .palettes import is_for_kernels, palettized
from .pruning import is_divided
from .pruning import is_for_kernels as is_prunable

Function = Callable[..., Any]
_FLOATS = (np.float16, np.float32)
_MODES = {"symmetric": "linear_symmetric", "asymmetric": "linear"}
# Between these float16 rounds by much less than palettes do.
_SMALLEST_FOR_FLOAT16, _LARGEST_OF_FLOAT16 = 2.0**-10, 65504.0
_ALIGNMENT = 16  # of data in a program
_logger = logging.getLogger("coreai_opt")


class UnroundedArray(np.ndarray):
    """A weight that does not change where coreai-opt casts it to float16 and rounds it to some decimals.

    Its pass does both before it calls anything that can be replaced. Quotients, by scales, are such arrays too.
    """

    def astype(self, dtype: Any, *arguments: Any, **options: Any) -> Any:
        """Itself for float16."""
        return self if np.dtype(dtype) == np.float16 else np.asarray(self).astype(dtype, *arguments, **options)

    def round(self, decimals: Any = 0, out: Any = None) -> Any:
        """Itself."""
        return self

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        plain = [np.asarray(each) if isinstance(each, UnroundedArray) else each for each in inputs]
        found = getattr(ufunc, method)(*plain, **options)
        return found.view(UnroundedArray) if ufunc is np.divide and method == "__call__" else found


def constant_value(original: Function) -> Function:
    """Replaces ``_get_constant_value_as_np_array``: copies once."""

    def accelerated(constant_op: Any) -> Any:
        found = _constant_value(constant_op)
        return original(constant_op) if found is None else found

    return accelerated


def constant_to_palettize(original: Function) -> Function:
    """Replaces ``_get_constant_value_as_np_array`` where weights are palettized."""

    def accelerated(constant_op: Any) -> Any:
        found = _constant_value(constant_op)
        found = original(constant_op) if found is None else found
        return found.view(UnroundedArray) if found.dtype in _FLOATS else found

    return accelerated


def _constant_value(constant_op: Any) -> NDArray[Any] | None:
    """The values of a constant of float16 or float32 with a shape; None for others."""
    from coreai._compiler._mlir_libs._coreaiIR import _bindings
    from coreai._compiler.ir import F16Type, F32Type, RankedTensorType

    kind = constant_op.result.type if constant_op.name == "coreai.constant" else None
    if not isinstance(kind, RankedTensorType) or not kind.has_static_shape or kind.rank == 0:
        return None
    dtypes: dict[Any, Any] = {F16Type: np.float16, F32Type: np.float32}
    dtype = dtypes.get(type(kind.element_type))
    if dtype is None or "value" not in constant_op.attributes:
        return None
    values = np.empty(tuple(kind.shape), dtype)
    _bindings.compiler.copy_constant_value_to_array(
        constant_op=constant_op, destination=values.reshape(-1).view(np.uint8)
    )
    return values


def constant_of_codes(original: Function) -> Function:
    """Replaces ``constant`` where weights are quantized: packs fp4, of which coreai-opt stores one code a byte.

    Core AI's run-time expects two, and ends the process.
    """

    def accelerated(value: Any, *, dtype: Any = None, loc: Any = None) -> Any:
        kind = str(getattr(value, "dtype", ""))
        if kind != "float4_e2m1fn" or dtype is None or loc is not None:
            return original(value, dtype=dtype, loc=loc)
        from coreai.authoring import TensorType, Value

        types: Any = import_module("coreai._compiler.ir")
        dialect: Any = import_module("coreai._compiler.dialects.coreai")
        packed = kernels.pack_bits(np.ascontiguousarray(value).view(np.uint8).reshape(-1) & 15, 4)
        packed.flags.writeable = False
        tensor = TensorType(shape=list(value.shape), dtype=dtype)._to_mlir()
        name = f"fp4_{hashlib.sha256(packed.data).hexdigest()[:24]}"
        attribute = types.DenseResourceElementsAttr.get_from_buffer(packed, name, tensor, alignment=_ALIGNMENT)
        return Value._from_mlir(dialect.ConstantOp(value=attribute).result)

    return accelerated


def kmeans1d(original: Function) -> Function:
    """Replaces ``_kmeans1d.cluster``, which compiles its own solver when it is first used."""

    def accelerated(array: Any, k: int, *, weights: Any = None) -> Any:
        from coreai_opt.deps._kmeans1d.core import Clustered

        try:
            numbers = np.asarray(array, np.float64)
            k = min(int(k), len(numbers))
            found = kernels.kmeans1d(numbers, k, weights)
        except (TypeError, ValueError):
            return original(array, k, weights=weights)
        missing = k - len(found.centroids)
        return Clustered(found.codes.tolist(), [*found.centroids.tolist(), *[float(found.centroids[-1])] * missing])

    return accelerated


def grouped_channelwise_compress(original: Function) -> Function:
    """Replaces ``_grouped_channelwise_compress``: all groups in one call, in this process."""

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
        from coreai_opt.coreai_utils._utils.palettize_utils import LutParams

        unrounded = isinstance(original_data, UnroundedArray)
        array = np.asarray(original_data) if isinstance(original_data, np.ndarray) else original_data
        fits = is_for_kernels(array, mode, nbits, channel_axis, channel_group_size, cluster_dim)
        if not fits or array.dtype not in _FLOATS:
            array = array.astype(np.float16) if unrounded else array
            arguments = (array, mode, nbits, channel_axis, channel_group_size, lut_function, cluster_dim)
            return original(*arguments, 1)
        if unrounded and loses_nothing_in_float16(array, channel_axis, channel_group_size, nbits):
            array = kernels.to_float16(array)
        options = {
            "mode": mode.lower(),
            "granularity": "per_grouped_channel" if channel_group_size else "per_tensor",
            "group_size": channel_group_size or 32,
            "cluster_dim": cluster_dim,
            "channel_axis": channel_axis,
        }
        try:
            tensor = palettized(array, nbits, options)
        except (NonFiniteError, TooManyValuesError) as failure:
            _logger.warning("Can't perform palettization: %s", failure)
            return None
        return LutParams(tensor.codes().reshape(tensor.index_shape), tensor.lut, tensor.vector_axis)

    return accelerated


def loses_nothing_in_float16(array: NDArray[Any], channel_axis: int, group_size: int, nbits: int | None) -> bool:
    """Whether palettes of groups are as good if the weight is rounded to float16, as coreai-opt does.

    Float16 is several times as fast. Entries of more than 6 bits would feel the rounding, and so would palettes that
    are there already.
    """
    if array.dtype != np.float32 or nbits is None or nbits > 6:
        return False
    groups = array.shape[channel_axis] // group_size if group_size else 1
    some = np.sort(np.moveaxis(array, channel_axis, 0).reshape(groups, -1)[:, : 8 << nbits], axis=1)
    if (np.count_nonzero(np.diff(some, axis=1), axis=1) < 1 << nbits).any():
        return False
    axes = tuple(axis for axis in range(array.ndim) if axis != channel_axis % array.ndim)
    largest = np.maximum(array.max(axis=axes), -array.min(axis=axes))
    fits = (largest == 0) | ((largest >= _SMALLEST_FOR_FLOAT16) & (largest <= _LARGEST_OF_FLOAT16))
    return bool(fits.all())


def compute_qparams_by_dtype(original: Function) -> Function:
    """Replaces ``_compute_qparams_by_dtype``: codes, scales, and zero points if there are any.

    Scales of fp4, which coreai-opt rounds to powers of two after it has found the codes, are that from the start.
    """

    def accelerated(weight: Any, dtype: Any, quantization_mode: Any, block_sizes: Any) -> Any:
        from coreai_opt.coreai_utils._coreai_imports import compression_types

        is_integer = compression_types.is_int(dtype)
        name = compression_types.builtin_to_string(dtype) if is_integer else getattr(dtype, "__name__", "")
        fits = (
            isinstance(weight, np.ndarray)
            and weight.dtype in _FLOATS
            and name in QUANTIZED_DTYPES
            and str(quantization_mode) in _MODES
            and 0 < len(block_sizes) == weight.ndim
            and all(size <= 0 or length % size == 0 for length, size in zip(weight.shape, block_sizes, strict=True))
            and weight.size > 0
        )
        if not fits:
            return original(weight, dtype, quantization_mode, block_sizes)
        sizes = tuple(max(0, int(size)) for size in block_sizes)
        options: dict[str, Any] = {"granularity": "per_block", "block_size": sizes}
        if is_integer:
            options["mode"] = _MODES[str(quantization_mode)]
        elif name.startswith("float4"):
            options["scale_dtype"] = "float8_e8m0fnu"
        try:
            tensor = quantize(np.asarray(weight), dtype=name, **options)
        except NonFiniteError:
            return original(weight, dtype, quantization_mode, block_sizes)
        if is_integer:
            return tensor.codes(), tensor.scale, tensor.zero_point
        return tensor.codes().view(dtype), tensor.scale, np.zeros(tensor.scale.shape, dtype)

    return accelerated


def produce_sparse_param(original: Function) -> Function:
    """Replaces ``_produce_sparse_param``, which stores what is not zero."""

    def accelerated(val: Any) -> Any:
        found = _sparse_params(val, {"threshold": 0.0}) if is_prunable(val) else None
        return original(val) if found is None else found

    return accelerated


def compress_by_magnitude(original: Function) -> Function:
    """Replaces ``_compress_by_magnitude``, of single weights or of blocks."""

    def accelerated(val: Any, target_sparsity: float, block_size: int | None = None, dim: int | None = None) -> Any:
        structured = block_size is not None
        found = None
        if is_prunable(val) and 0 <= target_sparsity <= 1 and (not structured or is_divided(val, block_size, dim)):
            options = {"target_sparsity": target_sparsity, "block_size": block_size}
            found = _sparse_params(val, options | ({"dim": dim} if structured else {}))
        return original(val, target_sparsity, block_size, dim) if found is None else found

    return accelerated


def compress_by_nm_sparsity(original: Function) -> Function:
    """Replaces ``_compress_by_nm_sparsity``."""

    def accelerated(val: Any, n_m_ratio: tuple[int, int], dim: int) -> Any:
        found = None
        if is_prunable(val) and is_divided(val, n_m_ratio[1], dim):
            found = _sparse_params(val, {"n_m_ratio": tuple(n_m_ratio), "dim": dim})
        return original(val, n_m_ratio, dim) if found is None else found

    return accelerated


def _sparse_params(val: NDArray[Any], options: dict[str, Any]) -> Any:
    from coreai_opt.coreai_utils._utils.sparse_utils import SparseParams

    try:
        tensor = prune(val, **options)
    except NonFiniteError:
        return None
    mask = kernels.unpack_mask(tensor.mask, val.size)
    return SparseParams(nonzero_data=tensor.values, mask=mask.view(np.uint8).reshape(val.shape))
