"""Figures for compressed weights: errors, zeros, bits a weight."""

from __future__ import annotations

import torch

from .metadata import CompressionType, ParameterMetadata

BITS_OF_LUT = 16  # palettes are stored as float16 unless they are quantized


def rmse(compressed: torch.Tensor, uncompressed: torch.Tensor) -> float:
    """Return the root of the mean squared difference, computed in double precision."""
    difference = compressed.detach().double() - uncompressed.detach().double()
    return float(difference.square().mean().sqrt()) if difference.numel() else 0.0


def unstructured_sparsity(weight: torch.Tensor) -> float:
    """Return the share of elements that are zero."""
    return float((weight == 0).float().mean())


def structured_sparsity(weight: torch.Tensor) -> float:
    """Return the share of rows, along the first axis, that are all zero."""
    return float((weight.flatten(1) == 0).all(dim=1).float().mean())


def block2_sparsity(weight: torch.Tensor) -> float:
    """Return the share of pairs of elements, in neighbouring rows, that are both zero; the rows are even in number."""
    pairs = weight.flatten(1).reshape(len(weight) // 2, 2, -1)
    return float((pairs == 0).all(dim=1).float().mean())


def compressed_bits(weight: torch.Tensor, metadata: ParameterMetadata) -> int:
    """Return the bits that conversion stores of a weight, with its palettes, scales and mask.

    Parameters
    ----------
    weight : torch.Tensor
        The decompressed values.
    metadata : ParameterMetadata
    """
    steps = metadata.compression_type
    elements = weight.numel()
    stored, bits = elements, 0
    if CompressionType.pruning in steps:
        stored = int((weight != 0).sum())
        bits += elements  # the mask
    if CompressionType.palettization in steps and metadata.lut is not None:
        entries, length = metadata.lut.shape[-2:]
        bits += stored // length * max(entries - 1, 1).bit_length()
        bits += metadata.lut.numel() * (metadata.quantization_n_bits or BITS_OF_LUT)
    elif CompressionType.quantization in steps:
        bits += stored * (metadata.quantization_n_bits or 8)
    else:
        bits += stored * 16
    for parameter in (metadata.quantization_scale, metadata.palettization_scale):
        if parameter is not None:
            bits += parameter.numel() * 16
    if metadata.zero_point is not None:
        bits += metadata.zero_point.numel() * (metadata.quantization_n_bits or 8)
    return bits
