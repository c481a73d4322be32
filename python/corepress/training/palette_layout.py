"""How the values of a weight share palettes: groups of channels, and vectors along them."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch


@dataclass(frozen=True)
class PaletteLayout:
    """The groups of a weight that have a palette (lookup table, LUT) each.

    Attributes
    ----------
    shape : tuple of int
        Of the weight.
    group_size : int or None
        Channels a group; they divide the channels. None: one palette for the weight.
    cluster_dim : int
        Values of an entry: those of neighbouring channels. It divides the channels of a group.
    axis : int
        The channels'.
    """

    shape: tuple[int, ...]
    group_size: int | None = None
    cluster_dim: int = 1
    axis: int = 0

    def __post_init__(self) -> None:
        channels = self.shape[self.axis]
        if channels % self.channels_of_group:
            raise ValueError(f"PaletteLayout: group_size {self.group_size} does not divide {channels} channels")
        if self.channels_of_group % self.cluster_dim:
            raise ValueError(
                f"PaletteLayout: cluster_dim {self.cluster_dim} does not divide groups of {self.channels_of_group}"
            )

    @property
    def channels_of_group(self) -> int:
        """Channels that share a palette."""
        return self.group_size or self.shape[self.axis]

    @property
    def groups(self) -> int:
        """The number of palettes."""
        return self.shape[self.axis] // self.channels_of_group

    @property
    def values_of_group(self) -> int:
        """Entries that a group looks up."""
        return prod(self.shape) // self.groups // self.cluster_dim

    def split(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the values by groups: shape (groups, values), with vectors (groups, values, cluster_dim)."""
        channels = weight.movedim(self.axis, 0)
        if self.cluster_dim == 1:
            return channels.reshape(self.groups, -1)
        vectors = channels.reshape(self.groups, -1, self.cluster_dim, prod(channels.shape[1:]))
        return vectors.transpose(2, 3).reshape(self.groups, -1, self.cluster_dim)

    def join(self, values: torch.Tensor) -> torch.Tensor:
        """Return the weight of such values."""
        rest = [size for axis, size in enumerate(self.shape) if axis != self.axis]
        if self.cluster_dim > 1:
            vectors = values.reshape(self.groups, -1, prod(rest), self.cluster_dim)
            values = vectors.transpose(2, 3)
        return values.reshape(self.shape[self.axis], *rest).movedim(0, self.axis)

    def lut(self, palettes: torch.Tensor) -> torch.Tensor:
        """Return palettes as conversion has them.

        Parameters
        ----------
        palettes : torch.Tensor, shape (groups, entries, cluster_dim)

        Returns
        -------
        torch.Tensor
            Shape (groups along each axis of the weight, entries, cluster_dim).
        """
        groups = [self.groups if axis == self.axis else 1 for axis in range(len(self.shape))]
        return palettes.reshape(*groups, *palettes.shape[-2:])
