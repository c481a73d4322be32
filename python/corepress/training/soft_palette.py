"""Palettes that are learnt: the parametrization of differentiable k-means (DKM)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from .attention import attended
from .lut_quantization import LutQuantization
from .metadata import CompressionType, ParameterMetadata, padded_palette
from .palette_layout import PaletteLayout
from .soft_kmeans import hard_assignment, initial_centroids, soft_kmeans

SCALING = ("min_max", "abs")


@dataclass(frozen=True)
class SoftPaletteOptions:
    """Options of differentiable k-means.

    Attributes
    ----------
    n_clusters : int
        Entries of a palette (lookup table, LUT).
    per_channel_scale : {None, "min_max", "abs"}
        What each channel is divided by: half of its range, its largest magnitude, or nothing.
    lut_dtype : {"f32", "f16", "b16", "i8", "u8"}
        How entries are stored.
    temperature : float
        Of the softmax over squared distances.
    iterations : int
        Rounds of k-means in each step, at most.
    tolerance : float
        Rounds end where the sum of squared distances changes by no more.
    prune_threshold : float
        What is subtracted from squared distances to the first entry.
    smallest_weight : float
        Of an entry in the mean that a value becomes.
    enforce_zero : bool
        Whether the first entry is 0.
    mode : {"dkm", "hard", "gsm", "topk"}
        Softmax; the nearest entry; Gumbel softmax; softmax over the two nearest.
    enabled_share : float
        Of the groups whose palettes are learnt, from the first on; the others keep their first ones.
    """

    n_clusters: int
    per_channel_scale: str | None = None
    lut_dtype: str = "f32"
    temperature: float = 1e-4
    iterations: int = 3
    tolerance: float = 1e-4
    prune_threshold: float = 1e-7
    smallest_weight: float = 1e-7
    enforce_zero: bool = False
    mode: str = "dkm"
    enabled_share: float = 1.0


class SoftPalette(torch.nn.Module):
    """A weight as soft assignments to palettes, which its gradients teach.

    While it trains, each value becomes a mean of the entries, weighted by how near they are, and the palettes move with
    the values, from one forward call to the next. In evaluation each value is the nearest entry. What it learns is in
    buffers, so that state dicts hold all of it.

    Parameters
    ----------
    layout : PaletteLayout
        Which values share a palette.
    options : SoftPaletteOptions

    References
    ----------
    Cho et al., DKM: Differentiable K-Means Clustering Layer for Neural Network Compression, ICLR 2022.
    """

    centroids: torch.Tensor
    scale: torch.Tensor
    fake_palett_enabled: torch.Tensor
    initialized: torch.Tensor
    steps: torch.Tensor

    def __init__(self, layout: PaletteLayout, options: SoftPaletteOptions) -> None:
        super().__init__()
        self.layout, self.options = layout, options
        self.lut_quantization = LutQuantization.of(options.lut_dtype)
        channels = layout.shape[layout.axis] if options.per_channel_scale else 0
        self.register_buffer("centroids", torch.zeros(layout.groups, options.n_clusters, layout.cluster_dim))
        self.register_buffer("scale", torch.ones(channels))
        self.register_buffer("fake_palett_enabled", torch.zeros(1, dtype=torch.uint8))
        self.register_buffer("initialized", torch.zeros(1, dtype=torch.uint8))
        self.register_buffer("steps", torch.zeros(1, dtype=torch.int64))
        self.keep_zeros = False  # a pruned weight: its zeros are no values of a palette
        self._enabled = self._initialized = False  # what the buffers say, for control flow that graphs can guard

    @property
    def palettizes(self) -> bool:
        """Whether the weight is palettized: enabled, and called at least once, which makes the first palettes."""
        return self._enabled and self._initialized

    def enable_fake_palett(self, enabled: bool = True) -> None:
        """Use palettes from the next forward call on, or the weight as it is."""
        self.fake_palett_enabled.fill_(enabled)
        self._enabled = enabled

    def disable_fake_palett(self) -> None:
        """Use the weight as it is."""
        self.enable_fake_palett(False)

    def advance(self, milestone: int) -> None:
        """Count a step of training; palettes are used from this many steps on."""
        if int(self.steps) == milestone:
            self.enable_fake_palett()
        self.steps += 1

    def right_inverse(self, weight: torch.Tensor) -> torch.Tensor:
        """Return what is trained when a module's weight is assigned: the weight itself."""
        return weight

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the weight with each value made of entries of its palette."""
        if not self._enabled:
            return weight
        if not self._initialized:
            self._initialize(weight.detach())
        values = self.layout.split(self._scaled(weight))
        if self.keep_zeros:
            values = self._of_kept(values)
        else:
            values = self._soft(values) if self.training else self._hard(values)
        return self._unscaled(self.layout.join(values)).to(weight.dtype)

    def palettized(self, weight: torch.Tensor) -> tuple[torch.Tensor, ParameterMetadata]:
        """Return the weight that conversion stores, and its metadata.

        Parameters
        ----------
        weight : torch.Tensor
            Before the palettes.

        Returns
        -------
        values : torch.Tensor
            Exactly entries of the palettes, times the scale.
        metadata : ParameterMetadata
        """
        with torch.no_grad():
            palettes, quantization = self._stored_palettes()
            values = self.layout.split(self._scaled(weight))
            kept = values != 0 if self.layout.cluster_dim == 1 else (values != 0).any(-1, keepdim=True)
            found = self._nearest(values, palettes)
            if self.keep_zeros:
                found = torch.where(kept, found, torch.zeros_like(found))
            rank = len(self.layout.shape)
            scale = self._scale_of(rank) if self.options.per_channel_scale else None
            steps = [CompressionType.palettization]
            if self.keep_zeros:
                steps.insert(0, CompressionType.pruning)
            if quantization:
                steps.append(CompressionType.quantization)
            metadata = ParameterMetadata(
                compression_type=tuple(steps),
                lut=self.layout.lut(padded_palette(palettes)),
                vector_axis=self.layout.axis if self.layout.cluster_dim > 1 else None,
                palettization_scale=scale,
                **quantization.metadata(rank + 2) if quantization else {},
            )
            return self._unscaled(self.layout.join(found)).to(weight.dtype), metadata

    def extra_repr(self) -> str:
        """Return the options that matter most, for the module's text."""
        options = self.options
        return (
            f"n_clusters={options.n_clusters}, cluster_dim={self.layout.cluster_dim}, groups={self.layout.groups}, "
            f"lut_dtype={options.lut_dtype}, temperature={options.temperature:g}, mode={options.mode}"
        )

    def _initialize(self, weight: torch.Tensor) -> None:
        """The scale, and the palettes that k-means finds."""
        with torch.no_grad():
            if self.options.per_channel_scale:
                rows = weight.movedim(self.layout.axis, 0).flatten(1).float()
                half_range = 0.5 * (rows.amax(1) - rows.amin(1))
                magnitude = half_range if self.options.per_channel_scale == "min_max" else rows.abs().amax(1)
                self.scale.copy_(torch.where(magnitude > 0, magnitude, torch.ones_like(magnitude)))
            values = self.layout.split(self._scaled(weight))
            for group, each in enumerate(values):
                if self.keep_zeros:
                    each = each[(each != 0) if each.ndim == 1 else (each != 0).any(-1)]
                if len(each):
                    self.centroids[group] = self._first_palette(each).to(self.centroids)
            self.initialized.fill_(1)
        self._initialized = True

    def _first_palette(self, values: torch.Tensor) -> torch.Tensor:
        entries = initial_centroids(values[None], self.options.n_clusters)[0]
        entries = entries.reshape(self.options.n_clusters, self.layout.cluster_dim)
        if self.options.enforce_zero:
            nearest = entries.square().sum(-1).argmin()
            entries = entries.clone()
            entries[nearest] = entries[0]
            entries[0] = 0
        return entries

    def _scale_of(self, rank: int) -> torch.Tensor:
        return self.scale.reshape([-1 if axis == self.layout.axis else 1 for axis in range(rank)])

    def _scaled(self, weight: torch.Tensor) -> torch.Tensor:
        return weight / self._scale_of(weight.ndim).to(weight.dtype) if self.options.per_channel_scale else weight

    def _unscaled(self, weight: torch.Tensor) -> torch.Tensor:
        return weight * self._scale_of(weight.ndim).to(weight.dtype) if self.options.per_channel_scale else weight

    def _of_kept(self, values: torch.Tensor) -> torch.Tensor:
        """The values that are not zero, made of entries; zeros stay, and palettes are for the others only."""
        found = []
        for group, each in enumerate(values):
            kept = (each != 0) if each.ndim == 1 else (each != 0).any(-1)
            some = each[kept][None]
            groups = slice(group, group + 1)
            if some.shape[1]:
                some = self._soft(some, groups) if self.training else self._hard(some, groups)
            found.append(torch.zeros_like(each).masked_scatter(kept if each.ndim == 1 else kept[:, None], some))
        return torch.stack(found)

    def _soft(self, values: torch.Tensor, groups: slice = slice(None)) -> torch.Tensor:
        """Means of entries; the palettes that result are where the next call starts."""
        options = self.options
        learnt = max(1, int(options.enabled_share * self.layout.groups))
        if groups == slice(None) and learnt < self.layout.groups:
            rest = self._hard(values[learnt:], slice(learnt, None))
            return torch.cat((self._soft(values[:learnt], slice(0, learnt)), rest))
        self._separate(groups)
        start = self.centroids[groups].clone()  # the palettes change before the gradient is computed
        start = start if self.layout.cluster_dim > 1 else start[..., 0]
        common: dict[str, Any] = {
            "temperature": options.temperature,
            "iterations": options.iterations,
            "tolerance": options.tolerance,
            "prune_threshold": options.prune_threshold,
            "enforce_zero": options.enforce_zero,
        }
        if options.mode == "dkm":
            found, palettes = soft_kmeans(values, start, smallest_weight=options.smallest_weight, **common)
        else:
            found, palettes = attended(values, start, mode=options.mode, **common)
        with torch.no_grad():
            self.centroids[groups] = palettes.detach().reshape_as(self.centroids[groups]).to(self.centroids)
        return found

    def _hard(self, values: torch.Tensor, groups: slice = slice(None)) -> torch.Tensor:
        palettes, _ = self._stored_palettes()
        return self._nearest(values, palettes[groups])

    def _nearest(self, values: torch.Tensor, palettes: torch.Tensor) -> torch.Tensor:
        flat = palettes if self.layout.cluster_dim > 1 else palettes[..., 0]
        return hard_assignment(values.detach(), flat, prune_threshold=self.options.prune_threshold)

    def _stored_palettes(self) -> tuple[torch.Tensor, Any]:
        """Palettes as conversion stores them, with the quantization of their entries, if there is any."""
        if self.lut_quantization is None:
            return self.centroids.to(torch.float16).float(), None
        quantized = self.lut_quantization.fit(self.centroids)
        return quantized.values(self.centroids), quantized

    def _separate(self, groups: slice) -> None:
        """Move entries that are equal apart: the last of equal ones to the middle between it and the next."""
        if self.layout.cluster_dim > 1 or self.options.temperature <= 0:
            return
        with torch.no_grad():
            entries = self.centroids[groups, :, 0]
            ascending, order = entries.sort(dim=1)
            repeats = torch.zeros_like(ascending, dtype=torch.bool)
            repeats[:, 1:] = ascending[:, 1:] == ascending[:, :-1]
            following = torch.cat((ascending[:, 1:], ascending[:, -1:]), dim=1)
            middle = 0.5 * (ascending + following)
            ascending = torch.where(repeats & (following != ascending), middle, ascending)
            if self.options.enforce_zero:
                ascending = torch.where(order == 0, torch.zeros_like(ascending), ascending)
            self.centroids[groups, :, 0] = torch.empty_like(entries).scatter(1, order, ascending)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._enabled = bool(self.fake_palett_enabled.item())
        self._initialized = bool(self.initialized.item())
