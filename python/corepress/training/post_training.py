"""Weights compressed without training: integers, and palettes that are the best there are.

The work is done on the CPU by the verbs of the package, for weights of all devices: the same result everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..compression import palettize, quantize
from ..kernels import kmeans1d
from ..specs import PALETTE_BITS
from . import metadata as metadata_of
from .metadata import CompressionType, ParameterMetadata, padded_palette
from .palette_layout import PaletteLayout

Decode = Callable[[torch.Tensor], torch.Tensor]
# Of a group's sum; those of less than 2**-48 are exact only in longer numbers than doubles.
LEAST_IMPORTANCE = 2.0**-44
LARGEST_FLOAT16 = float(torch.finfo(torch.float16).max)


@dataclass(frozen=True)
class IntegerOptions:
    """How a weight is stored as integers.

    Attributes
    ----------
    dtype : {"int8", "uint8", "int4", "uint4"}
    symmetric : bool
        Around zero, or over the range of the values, with zero points.
    blocks : tuple of int
        The size of blocks that share a scale along each axis; 0 is the whole axis.
    """

    dtype: str
    symmetric: bool
    blocks: tuple[int, ...]


@dataclass(frozen=True)
class PaletteOptions:
    """How a weight is stored as palettes.

    Attributes
    ----------
    n_bits : int
        1 to 8, of an index.
    layout : PaletteLayout
        Which values share a palette.
    per_channel_scale : bool
        Whether each output channel is divided by its largest magnitude first.
    lut_dtype : {None, "int8", "uint8"}
        Integers for the entries, around 0 or 127.
    """

    n_bits: int
    layout: PaletteLayout
    per_channel_scale: bool = False
    lut_dtype: str | None = None


def store(module: torch.nn.Module, parameter: str, value: torch.Tensor, metadata: ParameterMetadata) -> None:
    """Set a parameter's values, and the buffers that say how they are compressed."""
    with torch.no_grad():
        module.get_parameter(parameter).copy_(value)
    metadata_of.register(module, parameter, metadata)


def zeros_kept(module: torch.nn.Module, parameter: str) -> bool:
    """Whether a parameter is pruned, so that its zeros stay zeros.

    Raises
    ------
    ValueError
        If it is compressed in another way already.
    """
    known = metadata_of.of_module(module).get(parameter)
    steps = known.compression_type if known else ()
    if set(steps) - {CompressionType.pruning}:
        raise ValueError(
            f"{type(module).__name__}.{parameter} is compressed already ({', '.join(map(str, steps))}); compress the "
            "model that it was before"
        )
    return CompressionType.pruning in steps


def quantized(
    weight: torch.Tensor, options: IntegerOptions, pruned: bool = False, num_threads: int | None = None
) -> tuple[torch.Tensor, ParameterMetadata]:
    """Quantize a weight.

    Parameters
    ----------
    weight : torch.Tensor of floats, 2 axes or more
    options : IntegerOptions
    pruned : bool
        Whether its zeros are stored as a mask.
    num_threads : int, optional

    Returns
    -------
    values : torch.Tensor
        The values of the integers.
    metadata : ParameterMetadata

    Raises
    ------
    ValueError
        If blocks do not divide the axes, or values are not finite.
    """
    tensor = quantize(
        _array(weight),
        dtype=options.dtype,
        mode="linear_symmetric" if options.symmetric else "linear",
        granularity="per_block",
        block_size=options.blocks,
        num_threads=num_threads,
    )
    values = torch.from_numpy(tensor.dense(num_threads=num_threads)).to(weight)
    steps = [CompressionType.quantization]
    if pruned and not metadata_of.lost_by_pruning(values):
        steps.insert(0, CompressionType.pruning)
    return values, ParameterMetadata(
        compression_type=tuple(steps),
        quantization_n_bits=int(options.dtype[-1]),
        quantization_scale=torch.from_numpy(tensor.scale),
        zero_point=None if tensor.zero_point is None else torch.from_numpy(tensor.zero_point),
    )


def palettized(
    weight: torch.Tensor,
    options: PaletteOptions,
    importance: torch.Tensor | None = None,
    pruned: bool = False,
    num_threads: int | None = None,
) -> tuple[torch.Tensor, ParameterMetadata]:
    """Palettize a weight: by exact k-means, vectors by k-means.

    Parameters
    ----------
    weight : torch.Tensor of floats, 2 axes or more
    options : PaletteOptions
    importance : torch.Tensor, optional
        How much the squared error of each value counts; in the weight's shape, not negative.
    pruned : bool
        Whether its zeros are stored as a mask: the palettes are for the other values then.
    num_threads : int, optional

    Returns
    -------
    values : torch.Tensor
        Entries of the palettes, which are values of float16, times the scale of their channel.
    metadata : ParameterMetadata

    Raises
    ------
    ValueError
        If values are not finite, or too large for float16.
    """
    kept = (weight != 0).to("cpu") if pruned else None
    values, metadata = _palettized(weight, options, importance, kept, num_threads)
    if kept is not None and metadata_of.lost_by_pruning(values):
        values, metadata = _palettized(weight, options, importance, None, num_threads)
    return values.to(weight), metadata


def _palettized(
    weight: torch.Tensor,
    options: PaletteOptions,
    importance: torch.Tensor | None,
    kept: torch.Tensor | None,
    num_threads: int | None,
) -> tuple[torch.Tensor, ParameterMetadata]:
    scale = _channel_scale(weight) if options.per_channel_scale else None
    scaled = weight.detach().cpu() if scale is None else weight.detach().cpu().float() / scale
    weights = None if importance is None else importance.detach().cpu().float()
    if weights is not None and scale is not None:
        weights = weights * scale.square()  # the error that counts is the weight's, not that of the quotients
    if kept is not None:
        weights = kept.float() if weights is None else weights * kept
    if weights is not None:
        weights = _raised(weights, options.layout)
    lut, decode = _clustered(_array(scaled), options, None if weights is None else weights.numpy(), num_threads)
    del scaled, weights
    palettes = torch.from_numpy(lut.astype(np.float32))
    if float(palettes.abs().max()) > LARGEST_FLOAT16:
        raise ValueError(
            f"palettized: a weight of shape {tuple(weight.shape)} has values up to {float(palettes.abs().max()):.3g}; "
            f"palettes are stored as float16, whose largest value is {LARGEST_FLOAT16:g}; enable_per_channel_scale "
            "makes them smaller"
        )
    of_lut: dict[str, Any] = {}
    stored = palettes.half().float()
    if options.lut_dtype is not None:
        stored, of_lut = _quantized_lut(palettes, options.lut_dtype)
    values = decode(stored)
    if scale is not None:
        values *= scale
    steps = [CompressionType.palettization]
    if kept is not None:
        values *= kept
        steps.insert(0, CompressionType.pruning)
    if of_lut:
        steps.append(CompressionType.quantization)
    return values, ParameterMetadata(
        compression_type=tuple(steps),
        lut=padded_palette(stored),
        vector_axis=options.layout.axis if options.layout.cluster_dim > 1 else None,
        palettization_scale=scale,
        **of_lut,
    )


def _array(weight: torch.Tensor) -> np.ndarray[Any, Any]:
    weight = weight.detach().cpu()
    return (weight if weight.dtype == torch.float16 else weight.float()).numpy()


def _raised(importance: torch.Tensor, layout: PaletteLayout) -> torch.Tensor:
    """Importance whose smallest values, but for 0, do not vanish in a sum of their group in double precision.

    Exact sums of such values take k-means hundreds of times as long, and change nothing that could be seen.
    """
    groups, least = _least(importance, layout)
    if not bool(((groups < 0.5 * least) & (groups > 0)).any()):  # not those that have been raised
        return importance
    return _of_groups(layout).join(torch.maximum(groups, least).masked_fill_(groups == 0, 0))


def raise_least(importance: torch.Tensor, layout: PaletteLayout) -> None:
    """Change importance to what `palettized` makes of it, so that it needs no copy."""
    groups, least = _least(importance, layout)
    if groups.data_ptr() == importance.data_ptr():
        zeros = groups == 0
        torch.maximum(groups, least, out=groups).masked_fill_(zeros, 0)


def _of_groups(layout: PaletteLayout) -> PaletteLayout:
    return PaletteLayout(layout.shape, layout.group_size, axis=layout.axis)


def _least(importance: torch.Tensor, layout: PaletteLayout) -> tuple[torch.Tensor, torch.Tensor]:
    """Importance by groups, and the least that counts in each."""
    groups = _of_groups(layout).split(importance)
    sums = groups.numpy().sum(1, keepdims=True, dtype=np.float64)  # PyTorch would copy all values as doubles
    return groups, torch.from_numpy(sums * LEAST_IMPORTANCE).float()


def _channel_scale(weight: torch.Tensor) -> torch.Tensor:
    """The largest magnitude of each output channel, as a value of float16; 1 where that is 0."""
    largest = weight.detach().cpu().float().flatten(1).abs().amax(1).clamp_max(LARGEST_FLOAT16).half().float()
    scale = torch.where(largest > 0, largest, torch.ones_like(largest))
    return scale.reshape(-1, *[1] * (weight.ndim - 1))


def _clustered(
    weight: np.ndarray[Any, Any],
    options: PaletteOptions,
    importance: np.ndarray[Any, Any] | None,
    num_threads: int | None,
) -> tuple[np.ndarray[Any, Any], Decode]:
    """The palettes, shape (groups along each axis, entries, length), and what looks values up in such palettes."""
    layout = options.layout
    if options.n_bits not in PALETTE_BITS:
        return _clustered_by_groups(weight, options, importance, num_threads)
    tensor = palettize(
        weight,
        nbits=options.n_bits,
        granularity="per_tensor" if layout.group_size is None else "per_grouped_channel",
        group_size=layout.channels_of_group,
        cluster_dim=layout.cluster_dim,
        channel_axis=layout.axis,
        importance=importance,
        num_threads=num_threads,
    )

    def decode(table: torch.Tensor) -> torch.Tensor:
        values = torch.empty(layout.shape)
        tensor.look_up(table.numpy(), values.numpy(), num_threads)
        return values

    return tensor.table, decode


def _clustered_by_groups(
    weight: np.ndarray[Any, Any],
    options: PaletteOptions,
    importance: np.ndarray[Any, Any] | None,
    num_threads: int | None,
) -> tuple[np.ndarray[Any, Any], Decode]:
    """The same for 5 and 7 bits, which packages store as 6 and 8."""
    layout = options.layout
    if options.n_bits not in range(1, 9) or layout.cluster_dim > 1:
        kinds = "1 to 8 bits; those of several values " + ", ".join(map(str, PALETTE_BITS))
        raise ValueError(f"palettized: entries have {kinds}, not {options.n_bits}")
    groups = layout.split(torch.from_numpy(weight)).float().numpy()
    weights = None if importance is None else layout.split(torch.from_numpy(importance)).numpy()
    entries = 2**options.n_bits
    luts = np.empty((layout.groups, entries, 1), np.float32)
    codes = torch.empty(groups.shape, dtype=torch.int32)
    for group, values in enumerate(groups):
        k = min(entries, values.size)
        known = None if weights is None or not weights[group].any() else weights[group]
        found = kmeans1d(values, k, known, num_threads=num_threads)
        luts[group, :, 0] = np.pad(found.centroids, (0, entries - len(found.centroids)), mode="edge")
        codes[group] = torch.from_numpy(found.codes.astype(np.int32))

    def decode(table: torch.Tensor) -> torch.Tensor:
        return layout.join(table.reshape(layout.groups, -1).gather(1, codes.long()))

    return layout.lut(torch.from_numpy(luts)).numpy(), decode


def _quantized_lut(palettes: torch.Tensor, dtype: str) -> tuple[torch.Tensor, dict[str, Any]]:
    """Entries as integers around 0 or 127, with a scale for each palette, and the fields that say so."""
    largest = palettes.abs().amax((-2, -1), keepdim=True)
    scale = (largest / 127).half().float()
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    codes = torch.clamp(torch.round(palettes / scale), -127, 127)
    fields: dict[str, Any] = {"quantization_n_bits": 8, "quantization_scale": scale}
    if dtype == "uint8":
        fields["zero_point"] = torch.full_like(scale, 127, dtype=torch.uint8)
    return codes * scale, fields
