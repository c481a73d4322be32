"""The functions of coremltools that the kernels replace: where they are and which parameters they take."""

from __future__ import annotations

import importlib
from importlib.util import find_spec

from ..extras import load
from . import decompression, packing, palettes, pruning, quantization
from .swaps import Internal, Swaps, UnknownInternalError, is_known

KNOWN_VERSIONS = ("9.0",)

_PASSES = "coremltools.optimize.coreml._quantization_passes"
_UTILS = "coremltools.optimize._utils"
_NEURAL_NETWORK = "coremltools.models.neural_network.quantization_utils"
_IOS16 = "coremltools.converters.mil.mil.ops.defs.iOS16.constexpr_ops"
_IOS18 = "coremltools.converters.mil.mil.ops.defs.iOS18.compression"
_TORCH = "coremltools.optimize.torch"
_KMEANS = ("nbits", "weight", "force_kmeans1d", "cluster_dim", "vector_axis")


INTERNALS = (
    Internal(_NEURAL_NETWORK, "_get_kmeans_lookup_table_and_weight", _KMEANS, palettes.kmeans_lookup_table),
    Internal(_PASSES, "_get_kmeans_lookup_table_and_weight", _KMEANS, palettes.kmeans_lookup_table),
    Internal(
        _PASSES,
        "palettize_weights._get_lut_and_indices",
        ("val", "mode", "nbits", "lut_function", "cluster_dim", "vector_axis"),
        palettes.get_lut_and_indices,
    ),
    Internal(
        _PASSES,
        "palettize_weights.grouped_channelwise_compress",
        (
            "original_data",
            "mode",
            "nbits",
            "channel_axis",
            "channel_group_size",
            "lut_function",
            "cluster_dim",
            "num_kmeans_workers",
        ),
        palettes.grouped_channelwise_compress,
    ),
    Internal(_PASSES, "palettize_weights.transform_op", ("self", "op"), palettes.transform_op),
    Internal(
        _UTILS,
        "compute_qparams_by_dtype",
        ("weight", "dtype", "quantization_mode", "block_sizes"),
        quantization.compute_qparams_by_dtype,
    ),
    Internal(
        _UTILS,
        "dequantize_by_scale_and_zp",
        ("quantized_data", "scale", "zero_point", "axis"),
        quantization.dequantize_by_scale_and_zp,
    ),
    Internal(_PASSES, "prune_weights._produce_sparse_param", ("val",), pruning.produce_sparse_param),
    Internal(
        _PASSES,
        "prune_weights.compress_by_threshold",
        ("val", "threshold", "minimum_sparsity_percentile"),
        pruning.compress_by_threshold,
    ),
    Internal(
        _PASSES,
        "prune_weights.compress_by_magnitude",
        ("val", "target_sparsity", "block_size", "dim"),
        pruning.compress_by_magnitude,
    ),
    Internal(
        _PASSES, "prune_weights.compress_by_nm_sparsity", ("val", "n_m_ratio", "dim"), pruning.compress_by_nm_sparsity
    ),
    Internal(_UTILS, "ios16_sparse_params_to_ios18", ("sparse_params",), packing.ios16_sparse_params_to_ios18),
    Internal(_UTILS, "ios18_sparse_params_to_ios16", ("sparse_params",), packing.ios18_sparse_params_to_ios16),
    Internal(_UTILS, "pack_elements_into_bits", ("elements", "nbits"), packing.pack_elements_into_bits),
    Internal(
        _UTILS,
        "restore_elements_from_packed_bits",
        ("packed_values", "nbits", "element_num", "are_packed_values_signed"),
        packing.restore_elements_from_packed_bits,
    ),
    Internal(_UTILS, "lut_to_dense", ("indices", "lut", "vector_axis"), decompression.lut_to_dense),
    Internal(_UTILS, "sparse_to_dense", ("nonzero_data", "mask"), decompression.sparse_to_dense),
    Internal(
        _IOS16, "constexpr_lut_to_dense.decompress", ("lut", "indices", "shape"), decompression.ios16_lut_to_dense
    ),
    Internal(
        _IOS16,
        "constexpr_sparse_to_dense.decompress",
        ("nonzero_data", "mask", "shape"),
        decompression.ios16_sparse_to_dense,
    ),
    Internal(_IOS18, "constexpr_sparse_to_dense.decompress", ("nonzero_data", "mask"), decompression.sparse_to_dense),
    Internal(
        _IOS18,
        "constexpr_blockwise_shift_scale.decompress",
        ("data", "scale", "offset"),
        quantization.blockwise_shift_scale,
    ),
)


def _of_torch() -> tuple[Internal, ...]:
    """The functions of the optimizers of PyTorch models; none without torch."""
    if find_spec("torch") is None or find_spec("coremltools.optimize.torch") is None:
        return ()
    from . import torch_optimizers as ours

    kmeans, algorithms = f"{_TORCH}._utils.k_means", f"{_TORCH}.layerwise_compression.algorithms"
    ranked = ("weights", "sparsity_fraction", "block_size", "granularity"), ours.magnitude_ranked_mask
    n_m = ("weights", "nm", "dim"), ours.n_m_mask
    block, palettization = ("cls", "block_weight", "block_importance"), f"{_TORCH}.palettization"
    sequence = ("self", "X", "cX", "pad", "partitions")
    return (
        Internal(kmeans, "KMeans._cluster_weights_1d", (*block, "config"), ours.cluster_weights_1d),
        Internal(
            kmeans,
            "KMeans._cluster_weights_with_masking",
            (*block, "block_mask", "config"),
            ours.cluster_weights_with_masking,
        ),
        Internal(
            f"{palettization}._efficient_kmeans", "_EfficientKMeans.fit", ("self", "X", "sample_weight"), ours.fit
        ),
        Internal(
            f"{palettization}.fake_palettize", "FakePalettize.diff_palettize_seq", sequence, ours.diff_palettize_seq
        ),
        Internal(f"{_TORCH}.pruning._utils", "magnitude_ranked_mask", *ranked),
        Internal(f"{_TORCH}.pruning.magnitude_pruner", "_magnitude_ranked_mask", *ranked),
        Internal(f"{_TORCH}.pruning._utils", "n_m_mask", *n_m),
        Internal(f"{_TORCH}.pruning.magnitude_pruner", "_n_m_mask", *n_m),
        Internal(algorithms, "GPTQ._compress_impl", ("self",), ours.gptq),
        Internal(algorithms, "SparseGPT._compress_impl", ("self",), ours.sparse_gpt),
    )


def internals() -> tuple[Internal, ...]:
    """All functions that are replaced where they are installed."""
    return INTERNALS + _of_torch()


def replace(swaps: Swaps) -> None:
    """Replace all of them.

    Raises
    ------
    MissingExtraError
        If there is no coremltools.
    RuntimeError
        If the internals of this coremltools are not known. Nothing has changed then.
    """
    coremltools = load("accelerate", "coremltools")
    importlib.import_module("coremltools.optimize.coreml")
    version = str(coremltools.__version__)
    if not is_known(version, KNOWN_VERSIONS):
        raise _unknown(f"its version is {version}")
    try:
        swaps.replace(internals())
    except UnknownInternalError as failure:
        raise _unknown(str(failure)) from None


def _unknown(what: str) -> RuntimeError:
    known = ", ".join(KNOWN_VERSIONS)
    return RuntimeError(
        f"accelerate: the internals of this coremltools are not known: {what}; known are those of {known}. "
        "corepress.optimize.coreml, which uses none of them, can be used instead"
    )
