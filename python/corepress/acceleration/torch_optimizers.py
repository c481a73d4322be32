"""What the optimizers of ``coremltools.optimize.torch`` compute: k-means, masks, layer-wise loops, soft k-means.

`internals` imports this module where torch is installed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .. import kernels
from ..compression import palettize
from ..specs import PALETTE_BITS
from ..training import layer_weights, masks
from ..training.soft_kmeans import soft_kmeans

Function = Callable[..., Any]
_FLOATS = (torch.float16, torch.float32)
_MOST_STARTS = 5  # of k-means of vectors; from the third on, each gains about 0.1 %


def cluster_weights_1d(original: Function) -> Function:
    """Replaces ``KMeans._cluster_weights_1d``: an optimal palette of the weights as they are, not rounded."""

    def accelerated(cls: Any, block_weight: Any, block_importance: Any, config: Any) -> Any:
        values = block_weight.flatten()
        importance = None if block_importance is None else block_importance.flatten()
        found = clusters(values, 2**config.n_bits, importance)
        if found is None:
            return original(cls, block_weight, block_importance, config)
        codes, centroids = found
        return torch.from_numpy(centroids), torch.from_numpy(codes.astype(np.int64))

    return accelerated


def cluster_weights_with_masking(original: Function) -> Function:
    """Replaces ``KMeans._cluster_weights_with_masking``: the same of the weights that a mask leaves."""

    def accelerated(cls: Any, block_weight: Any, block_importance: Any, block_mask: Any, config: Any) -> Any:
        kept = block_weight.flatten()[block_mask]
        importance = None if block_importance is None else block_importance.flatten()[block_mask]
        found = clusters(kept, 2**config.n_bits, importance) if len(kept) else None
        if found is None:
            return original(cls, block_weight, block_importance, block_mask, config)
        codes, centroids = found
        return torch.tensor(centroids.tolist()), torch.from_numpy(codes.astype(np.int64))

    return accelerated


def fit(original: Function) -> Function:
    """Replaces ``_EfficientKMeans.fit`` where it finds the first centroids itself: optimal ones for numbers."""

    def accelerated(self: Any, X: Any, sample_weight: Any = None) -> Any:
        init = self.cluster_centers_
        fits = (
            isinstance(init, str)
            and init in ("kmeans++", "opt1d")
            and X.device.type == "cpu"
            and X.ndim == 2
            and X.dtype in _FLOATS
            and not self.error_bnd
            and not torch.cuda.is_available()
        )
        vectors = X.detach().float() if fits else None
        if vectors is None or not bool(torch.isfinite(vectors).all()):
            return original(self, X, sample_weight)
        importance = None if sample_weight is None else sample_weight.detach().double().flatten()
        if vectors.shape[1] == 1:
            found = clusters(vectors[:, 0], self.n_clusters, importance)
        elif len(torch.unique(vectors, dim=0)) > self.n_clusters:
            shares = None if importance is None else importance.numpy()
            found = vector_clusters(vectors.numpy(), self.n_clusters, shares, self.n_init)
        else:
            found = None
        if found is None or len(found[1]) != self.n_clusters:
            return original(self, X, sample_weight)
        codes, centers = found[0], torch.from_numpy(found[1]).float().reshape(self.n_clusters, -1)
        labels = torch.from_numpy(codes.astype(np.int64))
        squares = (vectors - centers[labels]).square().sum(dim=1)
        self.inertia_ = (squares if importance is None else squares * importance.float()).sum()
        self.labels_ = labels.int() if init == "opt1d" else labels
        self.cluster_centers_ = centers.to(X.dtype) if init == "opt1d" else centers
        return self

    return accelerated


def vector_clusters(
    vectors: NDArray[Any], k: int, shares: NDArray[np.float64] | None, starts: int
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Codes and centroids of the best of several starts, which differ by the order of the vectors."""
    codes, centroids, least = kernels.kmeans(vectors, k, shares)
    orders = np.random.default_rng(0)
    for _ in range(min(starts, _MOST_STARTS) - 1):
        order = orders.permutation(len(vectors))
        found = kernels.kmeans(vectors[order], k, None if shares is None else shares[order])
        if found[2] < least:
            centroids, least = found[1:]
            codes = np.empty_like(codes)
            codes[order] = found[0]
    return codes, centroids.astype(np.float64)


def clusters(
    values: torch.Tensor, k: int, importance: torch.Tensor | None
) -> tuple[NDArray[Any], NDArray[np.float64]] | None:
    """Codes, and means in double precision of the entries that are used; None where coremltools is to do it."""
    nbits = k.bit_length() - 1
    if values.device.type != "cpu" or values.dtype not in _FLOATS or values.numel() == 0:
        return None
    numbers = values.detach().numpy()
    shares = None if importance is None else importance.detach().double().numpy()
    if not np.isfinite(numbers).all() or (shares is not None and not (np.isfinite(shares).all() and shares.max() > 0)):
        return None
    if k != 1 << nbits or nbits not in PALETTE_BITS:
        distinct = len(np.unique(numbers))
        found = kernels.kmeans1d(numbers, min(k, distinct), shares)
        return found.codes, found.centroids
    codes = palettize(numbers, nbits=nbits, importance=shares).codes().reshape(-1)
    totals = np.bincount(codes, weights=shares, minlength=k)
    sums = np.bincount(codes, weights=numbers if shares is None else numbers * shares, minlength=k)
    used = np.bincount(codes, minlength=k) > 0
    if not (totals[used] > 0).all():  # a cluster of values that do not count
        return None
    return (np.cumsum(used) - 1)[codes], sums[used] / totals[used]


def magnitude_ranked_mask(original: Function) -> Function:
    """Replaces ``magnitude_ranked_mask``: the same mask, without sorting."""

    def accelerated(weights: Any, sparsity_fraction: Any, block_size: int, granularity: str) -> Any:
        fits = weights.dtype in _FLOATS and (granularity == "per_scalar" or weights.ndim > 1) and weights.numel() > 0
        if not fits or not 0 <= float(sparsity_fraction) <= 1:
            return original(weights, sparsity_fraction, block_size, granularity)
        try:
            return masks.magnitude_mask(weights, float(sparsity_fraction), block_size, granularity)
        except ValueError:
            return original(weights, sparsity_fraction, block_size, granularity)

    return accelerated


def n_m_mask(original: Function) -> Function:
    """Replaces ``n_m_mask``; of equal magnitudes the first becomes zero."""

    def accelerated(weights: Any, nm: tuple[int, int], dim: int | None = 1) -> Any:
        fits = weights.dtype in _FLOATS and 2 <= weights.ndim <= 5 and dim in (0, 1) and 0 < nm[0] < nm[1]
        if not fits or weights.numel() == 0:
            return original(weights, nm, dim)
        return masks.n_m_mask(weights, (int(nm[0]), int(nm[1])), int(dim)).float()  # type: ignore[arg-type]

    return accelerated


def gptq(original: Function) -> Function:
    """Replaces ``GPTQ._compress_impl``."""

    def accelerated(self: Any) -> None:
        config, layer = self._config, self._layer
        quantizer = self._quantizer
        if quantizer is None or quantizer.ready() or not _is_for_kernels(layer):
            original(self)
            return
        try:
            grid = _grid(config, config.granularity, config.block_size)
            found = layer_weights.quantized(layer, self._hessian.cpu().numpy(), grid, config.hessian_dampening)
        except ValueError:
            original(self)
            return
        _take(self, found)

    return accelerated


def sparse_gpt(original: Function) -> Function:
    """Replaces ``SparseGPT._compress_impl``."""

    def accelerated(self: Any) -> None:
        config, layer = self._config, self._layer
        quantizer = self._quantizer
        if (quantizer is not None and quantizer.ready()) or not _is_for_kernels(layer):
            original(self)
            return
        try:
            grid = None if quantizer is None else _grid(config, config.quantization_granularity, None)
            hessian = self._hessian.cpu().numpy()
            found = layer_weights.pruned(
                layer, hessian, config.target_sparsity, config.n_m_ratio, grid, config.hessian_dampening
            )
        except ValueError:
            original(self)
            return
        _take(self, found)

    return accelerated


def _is_for_kernels(layer: Any) -> bool:
    return type(layer) in (torch.nn.Linear, torch.nn.Conv2d) and getattr(layer, "groups", 1) == 1


def _grid(config: Any, granularity: Any, block_size: int | None) -> layer_weights.Grid:
    return layer_weights.Grid(
        config.weight_n_bits,
        granularity.value != "per_tensor",
        config.quantization_scheme.value == "symmetric",
        block_size,
        config.enable_normal_float,
    )


def _take(algorithm: Any, found: layer_weights.CompressedWeight) -> None:
    """Make it the layer's weight; what coremltools sets buffers from is what its own loop leaves."""
    weight, metadata = algorithm._layer.weight, found.metadata
    weight.data = torch.from_numpy(found.values).to(weight.device, weight.dtype)
    del algorithm._hessian
    scale = metadata.quantization_scale if metadata.palettization_scale is None else metadata.palettization_scale
    if scale is not None:
        algorithm._scale = [scale.flatten(1)]
    if metadata.zero_point is not None:
        algorithm._zero_point = [metadata.zero_point.flatten(1)]


def diff_palettize_seq(original: Function) -> Function:
    """Replaces ``FakePalettize.diff_palettize_seq`` for plain soft k-means on the CPU."""

    def accelerated(self: Any, X: Any, cX: Any, pad: Any, partitions: Any) -> Any:
        from coremltools.optimize.torch.palettization._utils import devectorize

        fits = (
            self.palett_mode == "dkm"
            and not self.need_to_quantize
            and not self.autograd_graph
            and self.palett_tau > 0
            and X.device.type == "cpu"
            and X.dtype in (*_FLOATS, torch.bfloat16)
            and not (self.prune_threshold == 0 and any(self.enforce_zero[p] for p in partitions))
            and self.prune_threshold >= 0
        )
        if not fits:
            return original(self, X, cX, pad, partitions)
        for p in partitions:
            vectors, centroids = cX[p], self.centroids[p].detach()
            numbers = vectors.shape[1] == 1
            means, entries = soft_kmeans(
                vectors.T if numbers else vectors[None],
                centroids.T if numbers else centroids[None],
                temperature=self.palett_tau,
                iterations=self.kmeans_max_iter,
                tolerance=self.palett_epsilon,
                prune_threshold=self.prune_threshold,
                smallest_weight=self.zero_threshold,
                enforce_zero=bool(self.enforce_zero[p]),
            )
            of_partition, size = self.partitions[p], X[self.partitions[p]].size()
            found = means.T if numbers else means[0]
            X[of_partition] = devectorize(found, pad[p], size, self.cluster_dim, self.vector_ch_axis).to(X.dtype)
            self.labels[p] = None
            self.centroids[p] = (entries.T if numbers else entries[0]).to(X.dtype)
        return X, -1  # coremltools uses the errors of its rounds for nothing

    return accelerated
