"""Palettes whose entries are stored as integers of 8 bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

NAMES = {"i8": "i8", "int8": "i8", "u8": "u8", "uint8": "u8"}
FLOATS = ("f32", "f16", "b16", "bf16", "float32", "float16", "bfloat16")


@dataclass(frozen=True)
class QuantizedLut:
    """Integers of 8 bits for each palette.

    Attributes
    ----------
    scale : torch.Tensor, shape (groups, 1, 1)
    zero_point : torch.Tensor or None, shape (groups, 1, 1)
        None: all are 0.
    smallest, largest : int
        Of the integers.
    """

    scale: torch.Tensor
    zero_point: torch.Tensor | None
    smallest: int
    largest: int

    def values(self, palettes: torch.Tensor) -> torch.Tensor:
        """Return the nearest entries that these integers express; palettes have shape (groups, entries, length)."""
        shift = 0 if self.zero_point is None else self.zero_point
        codes = torch.clamp(torch.round(palettes / self.scale) + shift, self.smallest, self.largest)
        return (codes - shift) * self.scale

    def metadata(self, rank: int) -> dict[str, Any]:
        """Return the fields of `ParameterMetadata`; `rank` is that of the palettes in it."""
        shape = (-1, *[1] * (rank - 1))
        found = {"quantization_n_bits": 8, "quantization_scale": self.scale.reshape(shape)}
        if self.zero_point is not None:
            found["zero_point"] = self.zero_point.reshape(shape).to(torch.uint8)
        return found


@dataclass(frozen=True)
class LutQuantization:
    """How entries are stored: as int8 around 0, or as uint8 over the range of a palette."""

    signed: bool

    @classmethod
    def of(cls, lut_dtype: str) -> LutQuantization | None:
        """Return that of a data type, or None for those that are floats.

        Raises
        ------
        ValueError
            If it is no data type of palettes.
        """
        if lut_dtype in NAMES:
            return cls(NAMES[lut_dtype] == "i8")
        if lut_dtype not in FLOATS:
            names = ", ".join((*NAMES, *FLOATS))
            raise ValueError(f"SoftPalette: lut_dtype must be one of {names}, not {lut_dtype!r}")
        return None

    def fit(self, palettes: torch.Tensor) -> QuantizedLut:
        """Return the quantization of each palette over its range; scales are values of float16."""
        values = palettes.float().flatten(1)
        if self.signed:
            scale = _float16(values.abs().amax(1) / 127)
            return QuantizedLut(scale[:, None, None], None, -127, 127)
        low, high = values.amin(1).clamp_max(0), values.amax(1).clamp_min(0)
        scale = _float16((high - low) / 255)
        zero_point = torch.clamp(torch.round(-low / scale), 0, 255)
        return QuantizedLut(scale[:, None, None], zero_point[:, None, None], 0, 255)


def _float16(scale: torch.Tensor) -> torch.Tensor:
    """The next larger values of float16, so that the ends of the range stay in it; 1 for palettes of zeros."""
    rounded = scale.to(torch.float16)
    rounded = torch.where(
        rounded.float() < scale, torch.nextafter(rounded, torch.full_like(rounded, torch.inf)), rounded
    )
    return torch.where(rounded > 0, rounded, torch.ones_like(rounded)).float()
