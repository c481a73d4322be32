"""The buffers that tell ``coremltools.convert`` how the weights of a PyTorch model are compressed.

A module's parameter ``p`` has buffers named ``_COREML_/p/<key>``, the model one with the version of this format.
Conversion makes codes and integers anew from the parameter, which holds the decompressed values: where it does not hold
exactly what a palette or a scale can express, conversion would change it without a word, so that is checked here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import Enum

import torch

from ..specs import PALETTE_BITS

PREFIX = "_COREML_"
VERSION_BUFFER = f"{PREFIX}/metadata_version"
VERSION = torch.tensor(1)
# Conversion takes values for zeros, where a parameter is marked as pruned, that are not larger than this.
LARGEST_LOST = float(torch.finfo(torch.float16).eps)


class CompressionType(Enum):
    """Steps of compression, by their numbers in the buffers."""

    pruning = 1
    palettization = 2
    quantization = 3

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class ParameterMetadata:
    """How a parameter is compressed.

    Attributes
    ----------
    compression_type : tuple of CompressionType
        In the order in which they were applied.
    lut : torch.Tensor, optional
        Shape (groups along each axis of the weight, entries, length of an entry); as many entries as a power of two.
    vector_axis : int, optional
        Along which entries of several values lie.
    palettization_scale : torch.Tensor, optional
        What the values of the palettes are multiplied by; of the weight's rank.
    quantization_n_bits : int, optional
        1 to 8.
    quantization_scale, zero_point : torch.Tensor, optional
        Of the weight's rank, one element a block; of a palette's rank where the palette is quantized.
    """

    compression_type: tuple[CompressionType, ...]
    lut: torch.Tensor | None = None
    vector_axis: int | None = None
    palettization_scale: torch.Tensor | None = None
    quantization_n_bits: int | None = None
    quantization_scale: torch.Tensor | None = None
    zero_point: torch.Tensor | None = None


def buffer_name(parameter: str, key: str) -> str:
    """Return the name of a buffer of a parameter."""
    return "/".join((PREFIX, parameter, key))


def register(module: torch.nn.Module, parameter: str, metadata: ParameterMetadata) -> None:
    """Set the buffers of a parameter, instead of those that it had.

    Parameters
    ----------
    module : torch.nn.Module
        Which the parameter belongs to.
    parameter : str
    metadata : ParameterMetadata
    """
    remove(module, parameter)
    for each in fields(metadata):
        value = getattr(metadata, each.name)
        if value is None:
            continue
        if each.name == "compression_type":
            value = torch.tensor([step.value for step in value])
        module.register_buffer(buffer_name(parameter, each.name), torch.as_tensor(value).detach())


def remove(module: torch.nn.Module, parameter: str) -> None:
    """Remove the buffers of a parameter."""
    for name in [name for name, _ in module.named_buffers(recurse=False)]:
        if name.startswith(buffer_name(parameter, "")):
            delattr(module, name)


def register_version(model: torch.nn.Module) -> None:
    """Set the buffer of the format's version, which the model itself has."""
    model.register_buffer(VERSION_BUFFER, VERSION.clone())


def read(buffers: Mapping[str, torch.Tensor]) -> dict[str, ParameterMetadata]:
    """Return what the buffers of one module say of its parameters.

    Parameters
    ----------
    buffers : mapping of str to torch.Tensor
        As `torch.nn.Module.state_dict` returns them, without those of modules inside.

    Returns
    -------
    dict of str to ParameterMetadata
        By the names of parameters.
    """
    values: dict[str, dict[str, torch.Tensor]] = {}
    for name, value in buffers.items():
        if name.startswith(f"{PREFIX}/") and name != VERSION_BUFFER:
            _, parameter, key = name.split("/")
            values.setdefault(parameter, {})[key] = value
    return {parameter: _from_tensors(each) for parameter, each in values.items()}


def of_module(module: torch.nn.Module) -> dict[str, ParameterMetadata]:
    """Return what a module's own buffers say of its parameters, by their names."""
    return read(dict(module.named_buffers(recurse=False)))


def _from_tensors(values: Mapping[str, torch.Tensor]) -> ParameterMetadata:
    steps = values.get("compression_type")
    numbers = {key: int(values[key]) for key in ("vector_axis", "quantization_n_bits") if key in values}
    return ParameterMetadata(
        compression_type=tuple(CompressionType(int(each)) for each in steps.tolist()) if steps is not None else (),
        **{key: value for key, value in values.items() if key not in ("compression_type", *numbers)},  # type: ignore[arg-type]
        **numbers,  # type: ignore[arg-type]
    )


def padded_palette(lut: torch.Tensor) -> torch.Tensor:
    """Return palettes with as many entries as an index of Core ML reaches; the new ones repeat the last.

    Parameters
    ----------
    lut : torch.Tensor, shape (..., entries, length of an entry)

    Raises
    ------
    ValueError
        If there are more entries than the largest index reaches.
    """
    entries = lut.shape[-2]
    sizes = [1 << bits for bits in PALETTE_BITS if 1 << bits >= entries]
    if not sizes:
        raise ValueError(f"padded_palette: palettes have at most {1 << PALETTE_BITS[-1]} entries, not {entries}")
    last = lut[..., -1:, :].expand(*lut.shape[:-2], sizes[0] - entries, lut.shape[-1])
    return torch.cat((lut, last), dim=-2)


def lost_by_pruning(weight: torch.Tensor) -> int:
    """Return how many values that are not zero conversion would make zero if the weight were marked as pruned."""
    return int(((weight != 0) & (weight.abs() <= LARGEST_LOST)).sum())
