"""Compressed weights of layers whose outputs change little: GPTQ, SparseGPT, and palettes found in the same way.

Codes and kept values are found one input channel after another, each making up for the errors of those before it, by
second moments of the inputs (`corepress.compression.error_feedback` has the algorithm and its sources), and then once
more. Weights are moved to the CPU for that.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..arrays import as_threads
from ..compression import palettize, prune
from ..compression.error_feedback import Moments, checked_moments, palettize_codes, pruned_values, quantize_codes
from ..kernels import pack_mask
from ..tensors import PalettizedTensor, QuantizedTensor, SparseTensor, packed_size
from ..tensors.base import Support
from . import metadata
from .grids import block_scales, normal_float_entries, normal_float_scales
from .layer_inputs import InputMoments, matrix_view
from .metadata import CompressionType, ParameterMetadata
from .n_m_masks import n_m_mask

Array = NDArray[Any]

_SWEEPS = 2  # one more than with packages, where all weights wait for them
_HARMLESS = 1e-4  # of the sum of squares: values that conversion makes zero may be zeros before it

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Grid:
    """What quantized weights can be.

    Attributes
    ----------
    n_bits : int
        1 to 8.
    per_channel : bool
        A scale for each output channel; otherwise one for all.
    symmetric : bool
        The middle of the codes is zero; otherwise codes cover the range of the values.
    block_size : int, optional
        Input channels that share a scale; None for all.
    normal_float : bool
        A palette of normal floats, 3 or 4 bits, instead of integers.
    """

    n_bits: int = 8
    per_channel: bool = True
    symmetric: bool = True
    block_size: int | None = None
    normal_float: bool = False

    def blocks(self, layer: torch.nn.Module) -> tuple[int, int]:
        """How many scales there are along the outputs and the inputs of a layer.

        Raises
        ------
        ValueError
            If the block size does not divide the input channels.
        """
        rows, channels = layer.get_parameter("weight").shape[:2]
        size = channels if self.block_size is None else self.block_size
        if size < 1 or channels % size:
            raise ValueError(f"block_size {size} must divide the {channels} input channels of the layer's weight")
        return (rows if self.per_channel else 1), channels // size


@dataclass(frozen=True)
class CompressedWeight:
    """A weight that was compressed.

    Attributes
    ----------
    values : numpy.ndarray of float32
        Decompressed, in the weight's shape.
    metadata : ParameterMetadata
    """

    values: NDArray[np.float32]
    metadata: ParameterMetadata


def store(layer: torch.nn.Module, compressed: CompressedWeight) -> None:
    """Make the weight of a layer what was found, and set the buffers for its conversion."""
    weight = layer.get_parameter("weight")
    with torch.no_grad():
        weight.copy_(torch.from_numpy(compressed.values))
    metadata.register(layer, "weight", compressed.metadata)


def quantized(
    layer: torch.nn.Module, inputs: InputMoments | Array, grid: Grid, dampening: float = 0.01
) -> CompressedWeight:
    """Quantize the weight of a layer (GPTQ: Frantar et al., arXiv:2210.17323).

    Parameters
    ----------
    layer : torch.nn.Module
        Not changed.
    inputs : InputMoments or numpy.ndarray of float32
        Of this layer; an array has the moments, (columns, columns), times any number.
    grid : Grid
    dampening : float
        How many times the mean of the diagonal of the moments is added to it.

    Returns
    -------
    CompressedWeight
        With integers, or with a palette of normal floats and scales.

    Raises
    ------
    ValueError
        If the block size does not divide, or weights or inputs are not finite.
    """
    matrix, moments = _matrix(layer), _moments(layer, inputs, dampening)
    return _on_grid(layer, matrix, None, moments, grid)


def pruned(
    layer: torch.nn.Module,
    inputs: InputMoments | Array,
    target_sparsity: float = 0.5,
    n_m_ratio: tuple[int, int] | None = None,
    grid: Grid | None = None,
    dampening: float = 0.01,
) -> CompressedWeight:
    """Prune the weight of a layer (SparseGPT: Frantar and Alistarh, arXiv:2301.00774), and quantize what is left.

    Parameters
    ----------
    layer, inputs, dampening
        As for `quantized`.
    target_sparsity : float
        Share of the weights that become zero.
    n_m_ratio : tuple of int, optional
        Instead: n zeros in each m consecutive inputs of an output. Inputs of a convolution are its windows: channels,
        then positions.
    grid : Grid, optional
        What the other weights can be; None leaves them unchanged.

    Returns
    -------
    CompressedWeight
    """
    matrix, moments = _matrix(layer), _moments(layer, inputs, dampening)
    if n_m_ratio is not None:
        sparse = _pruned_n_m(matrix, moments, *map(int, n_m_ratio))
    else:
        sparse = prune(matrix, target_sparsity=target_sparsity, hessian=moments)
    values = sparse.dense()
    if grid is None:
        _warn_of_lost(layer, values)
        found = ParameterMetadata((CompressionType.pruning,))
        return CompressedWeight(_without_lost(values).reshape(layer.get_parameter("weight").shape), found)
    return _on_grid(layer, values, sparse, moments, grid)


def _pruned_n_m(matrix: NDArray[np.float32], moments: Moments, n: int, m: int) -> SparseTensor:
    if matrix.shape[1] % m:
        raise ValueError(f"n_m_ratio ({n}, {m}): {m} must divide the {matrix.shape[1]} inputs of an output")
    kept = n_m_mask(matrix, moments, n, m)
    if kept is None:
        return prune(matrix, n_m_ratio=(n, m), dim=1, hessian=moments)
    threads = as_threads("prune", None)
    packed = pack_mask(np.ascontiguousarray(kept).view(np.uint8))
    return prune(pruned_values(matrix, packed, moments, threads, moves_mask=False), threshold=0.0)


def palettized(
    layer: torch.nn.Module,
    inputs: InputMoments | Array,
    n_bits: int = 4,
    group_size: int | None = None,
    enable_per_channel_scale: bool = False,
    dampening: float = 0.01,
) -> CompressedWeight:
    """Palettize the weight of a layer: optimal palettes, entries chosen as GPTQ chooses codes.

    Parameters
    ----------
    layer, inputs, dampening
        As for `quantized`.
    n_bits : int
        1, 2, 3, 4, 6 or 8.
    group_size : int, optional
        Output channels that share a palette; None for one palette.
    enable_per_channel_scale : bool
        Whether output channels are divided by a scale first.

    Returns
    -------
    CompressedWeight
        Entries are float16 values, as packages store them, wherever weights are in their range.
    """
    matrix, moments = _matrix(layer), _moments(layer, inputs, dampening)
    largest = float(np.abs(matrix).max(initial=0))
    if 2.0**-6 <= largest < 65504:
        matrix = matrix.astype(np.float16)
    grouped = {"granularity": "per_grouped_channel", "group_size": group_size} if group_size else {}
    options: dict[str, Any] = {"enable_per_channel_scale": enable_per_channel_scale, **grouped}
    tensor = palettize(matrix, nbits=n_bits, hessian=moments, **options)
    shape = layer.get_parameter("weight").shape
    lut = np.asarray(tensor.table, np.float32).reshape(-1, *(1,) * (len(shape) - 1), 2**n_bits, 1)
    found = ParameterMetadata(
        (CompressionType.palettization,),
        lut=torch.from_numpy(lut),
        palettization_scale=None if tensor.scale is None else _of_rank(tensor.scale, len(shape)),
    )
    # The product in float32, as conversion divides by the scale.
    values = tensor.dense() if tensor.scale is None else _scaled(tensor)
    return CompressedWeight(values.astype(np.float32).reshape(shape), found)


def _scaled(tensor: PalettizedTensor) -> Array:
    assert tensor.scale is not None
    plain = replace(tensor, scale=None).dense().astype(np.float32)
    return plain * tensor.scale.astype(np.float32)


def _matrix(layer: torch.nn.Module) -> NDArray[np.float32]:
    weight = layer.get_parameter("weight").detach()
    matrix = weight.reshape(weight.shape[0], -1).to("cpu", torch.float32, copy=True).contiguous().numpy()
    if not np.isfinite(matrix).all():
        raise ValueError("the weight has values that are not finite")
    return matrix


def _moments(layer: torch.nn.Module, inputs: InputMoments | Array, dampening: float) -> Moments:
    if not isinstance(inputs, InputMoments):
        view = matrix_view(layer)
        return replace(checked_moments("hessian", inputs, view, dampening, view.shape, 0), kept=[], sweeps=_SWEEPS)
    if inputs.count == 0:
        raise ValueError("the layer had no inputs")
    if not inputs.is_finite:
        raise ValueError("the layer had inputs that are not finite")
    shape = inputs.view.shape
    return replace(checked_moments("hessian", inputs.mean(), inputs.view, dampening, shape, 0), kept=[], sweeps=_SWEEPS)


def _on_grid(
    layer: torch.nn.Module, matrix: NDArray[np.float32], sparse: SparseTensor | None, moments: Moments, grid: Grid
) -> CompressedWeight:
    """Quantize a matrix, or the values of a sparse one."""
    shape, blocks, threads = layer.get_parameter("weight").shape, grid.blocks(layer), as_threads("quantize", None)
    support = None if sparse is None else Support(sparse.shape, sparse.mask)
    importance = moments.importance()
    if support is not None:
        importance = importance * (matrix != 0)
    of_values: tuple[int, ...] = matrix.shape if support is None else (support.count,)
    count = matrix.size if support is None else support.count
    steps = () if sparse is None else (CompressionType.pruning,)
    tensor: PalettizedTensor | QuantizedTensor
    if grid.normal_float:
        entries = normal_float_entries(grid.n_bits)
        scale = normal_float_scales(matrix, blocks, grid.n_bits, importance)
        codes = np.zeros(packed_size(count, grid.n_bits), np.uint8)
        lut = entries.reshape(1, 1, -1, 1)
        tensor = PalettizedTensor(of_values, codes, lut, grid.n_bits, scale=scale, support=support)
        tensor = palettize_codes(matrix, tensor, moments, threads)
        found = ParameterMetadata(
            (*steps, CompressionType.palettization),
            lut=torch.from_numpy(entries.reshape(*(1,) * len(shape), -1, 1).copy()),
            palettization_scale=_of_rank(_of_rows(scale, shape[0]), 2 if len(shape) == 4 else len(shape)),
        )
    else:
        scale, zero_point = block_scales(matrix, blocks, grid.n_bits, grid.symmetric, importance)
        tensor = QuantizedTensor(of_values, np.zeros(count, np.uint8), scale, zero_point, "uint8", support)
        tensor = quantize_codes(matrix, tensor, (0, 2**grid.n_bits - 1), moments, threads)
        found = ParameterMetadata(
            (*steps, CompressionType.quantization),
            quantization_n_bits=grid.n_bits,
            quantization_scale=_of_rank(_of_rows(scale, shape[0]), len(shape)),
            zero_point=_of_rank(_of_rows(zero_point.astype(np.float32), shape[0]), len(shape)),
        )
    values = tensor.dense() if sparse is None else replace(sparse, values=tensor).dense()
    if sparse is not None:
        _warn_of_lost(layer, values)
        values = _without_lost(values)
    return CompressedWeight(values.reshape(shape), found)


def _of_rows(scale: Array, rows: int) -> Array:
    """Scales, one for each row even if all are the same: coremltools has them so."""
    return np.broadcast_to(scale, (rows, scale.shape[1]))


def _of_rank(scale: Array, rank: int) -> torch.Tensor:
    return torch.from_numpy(np.array(scale, np.float32).reshape(*scale.shape, *(1,) * (rank - scale.ndim)))


def _lost(values: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Values that conversion makes zero where a weight is marked as pruned."""
    found: NDArray[np.bool_] = (values != 0) & (np.abs(values) <= metadata.LARGEST_LOST)
    return found


def _is_harmless(values: NDArray[np.float32]) -> bool:
    lost = values[_lost(values)].astype(np.float64)
    return float(lost @ lost) <= _HARMLESS * float(np.einsum("ij,ij->", values, values, dtype=np.float64))


def _without_lost(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.where(_lost(values), np.float32(0), values) if _is_harmless(values) else values


def _warn_of_lost(layer: torch.nn.Module, values: NDArray[np.float32]) -> None:
    if not _is_harmless(values):
        _logger.warning(
            "SparseGPT: %d of the %d values that %s keeps are not larger than %.2g; coremltools.convert makes them "
            "zero. Scale the layer's weight and inputs so that its weights are larger",
            int(_lost(values).sum()),
            int((values != 0).sum()),
            type(layer).__name__,
            metadata.LARGEST_LOST,
        )
