"""What coreai-opt computes of PyTorch models: palettes by k-means, masks, packed integers. Imports torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .. import kernels
from ..compression import palettize
from ..specs import PALETTE_BITS
from .coreai_programs import loses_nothing_in_float16
from .torch_optimizers import clusters, vector_clusters

Function = Callable[..., Any]
_FLOATS = (torch.float16, torch.bfloat16, torch.float32)


def cluster_to_centroids(original: Function) -> Function:
    """Replaces ``_KMeansFakePalettize._cluster_to_centroids`` for palettes of numbers: all groups in one call."""

    def accelerated(self: Any, original_weights: Any, sensitivities: Any = None) -> Any:
        granularity, weight = self.granularity, original_weights.detach()
        kinds = {"PerTensorGranularity": "per_tensor", "PerGroupedChannelGranularity": "per_grouped_channel"}
        grouped = kinds.get(type(granularity).__name__, "")
        fits = (
            grouped
            and sensitivities is None
            and self.cluster_dim == 1
            and self._sparsity_mask is None
            and self.n_bits in PALETTE_BITS
            and weight.dtype in _FLOATS
            and weight.numel() > 0
        )
        if not fits:
            return original(self, original_weights, sensitivities)
        weight = weight.cpu()
        axis = self._resolved_axis
        blocks, _ = self._reshape_and_block(weight)  # raises what coreai-opt expects of shapes that do not fit
        del blocks
        if self.enable_per_channel_scale:
            weight = self._scale_by_per_channel_scale(weight)
        matrix = _numbers(self.reshape_strategy.reshape_for_kmeans(weight, axis))
        if not np.isfinite(matrix).all():
            return original(self, original_weights, sensitivities)
        size = granularity.group_size if grouped == "per_grouped_channel" else 0
        if self.enable_fast_kmeans_mode and loses_nothing_in_float16(matrix, axis, size, self.n_bits):
            matrix = kernels.to_float16(matrix)
        tensor = palettize(matrix, nbits=self.n_bits, granularity=grouped, group_size=size or 32, channel_axis=axis)
        entries = torch.from_numpy(tensor.table.reshape(-1, 1 << self.n_bits, 1)).to(weight.dtype)
        codes = torch.from_numpy(tensor.codes())
        indices = self.reshape_strategy.reshape_to_original(codes, axis, original_weights.shape)
        return entries.to(original_weights.device), indices

    return accelerated


def cluster_weights_1d(original: Function) -> Function:
    """Replaces ``_KMeansFakePalettize._cluster_weights_1d``: an optimal palette of the weights, not rounded."""

    def accelerated(self: Any, block_weight: Any, block_sensitivity: Any, num_clusters: int | None = None) -> Any:
        values = block_weight.detach().flatten()
        importance = None if block_sensitivity is None else block_sensitivity.detach().flatten()
        k = num_clusters or 2**self.n_bits
        if values.dtype not in _FLOATS or values.device.type != "cpu" or values.numel() == 0:
            return original(self, block_weight, block_sensitivity, num_clusters)
        values = values.float() if values.dtype == torch.bfloat16 else values
        found = clusters(values, k, importance)
        if found is None:
            try:
                shares = None if importance is None else importance.double().numpy()
                codes, centroids, _ = kernels.kmeans1d(values.numpy(), min(k, values.numel()), shares)
            except ValueError:
                return original(self, block_weight, block_sensitivity, num_clusters)
        else:
            codes, centroids = found
        return torch.from_numpy(centroids), torch.from_numpy(codes.astype(np.int64))

    return accelerated


def assign_indices(original: Function) -> Function:
    """Replaces ``_KMeansFakePalettize._assign_indices``: the nearest entries, without a table of distances."""

    def accelerated(self: Any, original_weights: Any, centroids: Any) -> Any:
        weight = original_weights.detach()
        fits = (
            self.cluster_dim == 1
            and self._sparsity_mask is None
            and weight.device.type == centroids.device.type == "cpu"
            and weight.dtype in _FLOATS
        )
        if not fits:
            return original(self, original_weights, centroids)
        blocks, axis = self._scale_reshape_and_block(weight)
        entries = centroids.detach().float().squeeze(-1).numpy()
        found = []
        try:
            for block, table in zip(blocks, entries, strict=True):
                order = np.argsort(table, kind="stable")
                codes = kernels.assign(np.ascontiguousarray(_numbers(block), np.float32), table[order])
                found.append(torch.from_numpy(order.astype(np.uint8)[codes]))
        except ValueError:
            return original(self, original_weights, centroids)
        return self._combine_block_indices(found, axis, original_weights)

    return accelerated


def cluster_vectors(original: Function) -> Function:
    """Replaces ``cluster_vectors`` where it would use scikit-learn, or torch on the CPU."""

    def accelerated(
        blocks: list[Any],
        sensitivities: list[Any] | None,
        n_clusters: int,
        n_local_trials: int | None,
        n_init: int,
        max_iter: int,
        tol: float,
    ) -> Any:
        if torch.cuda.is_available() or any(block.dtype not in _FLOATS for block in blocks):
            return original(blocks, sensitivities, n_clusters, n_local_trials, n_init, max_iter, tol)
        found = []
        try:
            for index, block in enumerate(blocks):
                vectors = np.ascontiguousarray(_numbers(block), np.float32)
                shares = None if sensitivities is None else sensitivities[index].detach().double().numpy()
                codes, centroids = vector_clusters(vectors, n_clusters, shares, n_init)
                found.append((torch.from_numpy(centroids).float(), torch.from_numpy(codes.astype(np.int64))))
        except ValueError:
            return original(blocks, sensitivities, n_clusters, n_local_trials, n_init, max_iter, tol)
        return found

    return accelerated


def calculate_centroids(original: Function) -> Function:
    """Wraps ``KMeansPalettizer._calculate_centroids``: what it would start processes for is done in this one."""

    def accelerated(self: Any) -> None:
        workers, self._num_workers = self._num_workers, 1
        try:
            original(self)
        finally:
            self._num_workers = workers

    return accelerated


def unstructured_mask(original: Function) -> Function:
    """Replaces ``_MagnitudePruneImpl._compute_unstructured_mask``; of equal magnitudes the first are kept."""

    def accelerated(weight: Any, sparsity: float) -> Any:
        if weight.dtype not in _FLOATS or weight.device.type != "cpu" or weight.numel() == 0:
            return original(weight, sparsity)
        count = weight.numel()
        removed = math.floor(count * sparsity)
        if not 0 < removed < count:
            return original(weight, sparsity)
        values = _numbers(weight.detach()).reshape(-1)
        magnitudes = np.abs(values)
        least = np.partition(magnitudes, removed)[removed]
        if not np.isfinite(magnitudes).all():
            return original(weight, sparsity)
        mask = magnitudes >= least
        surplus = np.count_nonzero(mask) - (count - removed)
        if surplus:
            mask[np.flatnonzero(magnitudes == least)[-surplus:]] = False
        return torch.from_numpy(mask).to(weight.dtype).reshape(weight.shape)

    return accelerated


def pack_uintx(original: Function) -> Function:
    """Replaces ``pack_uintx``; packs 3 bits too, and 6 bits without unused bytes."""
    return _packing(original, torch.uint8)


def pack_intx(original: Function) -> Function:
    """Replaces ``pack_intx``."""
    return _packing(original, torch.int8)


def _packing(original: Function, dtype: torch.dtype) -> Function:
    def accelerated(data: Any, nbits: int) -> Any:
        if data.dtype != dtype or data.device.type != "cpu" or nbits not in (1, 2, 3, 4, 6):
            return original(data, nbits)
        try:
            return torch.from_numpy(kernels.pack_bits(data.detach().contiguous().numpy().reshape(-1), nbits))
        except ValueError:
            return original(data, nbits)

    return accelerated


def _numbers(tensor: torch.Tensor) -> NDArray[Any]:
    """The values of a tensor on the CPU; those of bfloat16 as float32."""
    found: NDArray[Any] = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return found
