"""The functions of coreai-opt that the kernels replace: where they are and which parameters they take."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from . import coreai_programs as programs
from . import palettes
from .swaps import Internal

Function = Callable[..., Any]

_UTILS = "coreai_opt.coreai_utils._utils"
_PASSES = "coreai_opt.coreai_utils.passes"
_KMEANS = "coreai_opt.palettization.kmeans"
_FAKE_PALETTIZE = f"{_KMEANS}.kmeans_fake_palettize"
_PRUNE = "coreai_opt.pruning.spec.prune"
_ALL_PASSES = tuple(f"{_PASSES}.weight_{name}" for name in ("palettization", "quantization", "sparsification"))
_VECTORS = ("blocks", "sensitivities", "n_clusters", "n_local_trials", "n_init", "max_iter", "tol")


def _of_models(name: str) -> Callable[[Function], Function]:
    """A function of `coreai_models`, which imports torch: coreai-opt has done so when it is replaced."""

    def replace(original: Function) -> Function:
        module = importlib.import_module(".coreai_models", __package__)
        replacement: Function = getattr(module, name)(original)
        return replacement

    return replace


def _at(modules: tuple[str, ...], name: str, parameters: tuple[str, ...], replace: Any) -> tuple[Internal, ...]:
    """A function by each name that modules import it by."""
    return tuple(Internal(module, name, parameters, replace) for module in modules)


_SOLVER = _at(
    ("coreai_opt.deps._kmeans1d.core", "coreai_opt.deps._kmeans1d"),
    "cluster",
    ("array", "k", "weights"),
    programs.kmeans1d,
)

_OF_PROGRAMS = (
    Internal(
        f"{_UTILS}.palettize_utils",
        "_get_kmeans_lookup_table_and_weight",
        ("nbits", "weight", "force_kmeans1d", "cluster_dim", "vector_axis"),
        palettes.kmeans_lookup_table,
    ),
    Internal(
        f"{_UTILS}.palettize_utils",
        "_grouped_channelwise_compress",
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
        programs.grouped_channelwise_compress,
    ),
    *_at(
        (f"{_UTILS}.quantize_utils", *_ALL_PASSES),
        "_compute_qparams_by_dtype",
        ("weight", "dtype", "quantization_mode", "block_sizes"),
        programs.compute_qparams_by_dtype,
    ),
    Internal(f"{_UTILS}.sparse_utils", "_produce_sparse_param", ("val",), programs.produce_sparse_param),
    *_at(
        (f"{_UTILS}.sparse_utils", f"{_PASSES}.weight_sparsification"),
        "_compress_by_magnitude",
        ("val", "target_sparsity", "block_size", "dim"),
        programs.compress_by_magnitude,
    ),
    *_at(
        (f"{_UTILS}.sparse_utils", f"{_PASSES}.weight_sparsification"),
        "_compress_by_nm_sparsity",
        ("val", "n_m_ratio", "dim"),
        programs.compress_by_nm_sparsity,
    ),
    Internal(
        f"{_PASSES}.weight_palettization",
        "_get_constant_value_as_np_array",
        ("constant_op",),
        programs.constant_to_palettize,
    ),
    *_at(
        (f"{_PASSES}.weight_quantization", f"{_PASSES}.weight_sparsification"),
        "_get_constant_value_as_np_array",
        ("constant_op",),
        programs.constant_value,
    ),
    Internal(
        f"{_PASSES}.weight_quantization", "_authoring_constant", ("value", "dtype", "loc"), programs.constant_of_codes
    ),
    Internal(f"{_UTILS}.graph_utils", "pack_uintx", ("uint8_data", "nbits"), _of_models("pack_uintx")),
    Internal(f"{_UTILS}.graph_utils", "pack_intx", ("int8_data", "nbits"), _of_models("pack_intx")),
)

_OF_MODELS = (
    Internal(
        _FAKE_PALETTIZE,
        "_KMeansFakePalettize._cluster_to_centroids",
        ("self", "original_weights", "sensitivities"),
        _of_models("cluster_to_centroids"),
    ),
    Internal(
        _FAKE_PALETTIZE,
        "_KMeansFakePalettize._cluster_weights_1d",
        ("self", "block_weight", "block_sensitivity", "num_clusters"),
        _of_models("cluster_weights_1d"),
    ),
    Internal(
        _FAKE_PALETTIZE,
        "_KMeansFakePalettize._assign_indices",
        ("self", "original_weights", "centroids"),
        _of_models("assign_indices"),
    ),
    Internal(f"{_KMEANS}._vector_kmeans", "cluster_vectors", _VECTORS, _of_models("cluster_vectors")),
    Internal(_FAKE_PALETTIZE, "_cluster_vectors", _VECTORS, _of_models("cluster_vectors")),
    Internal(
        f"{_KMEANS}.palettizer",
        "KMeansPalettizer._calculate_centroids",
        ("self",),
        _of_models("calculate_centroids"),
    ),
    Internal(
        _PRUNE,
        "_MagnitudePruneImpl._compute_unstructured_mask",
        ("weight", "sparsity"),
        _of_models("unstructured_mask"),
    ),
)

INTERNALS = _SOLVER + _OF_PROGRAMS + _OF_MODELS
