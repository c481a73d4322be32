"""The module that palettizes a weight while a model trains, under coremltools' name."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from ....training.palette_layout import PaletteLayout
from ....training.soft_palette import SoftPalette, SoftPaletteOptions
from .palettization_config import DEFAULT_PALETTIZATION_ADVANCED_OPTIONS


class FakePalettize(SoftPalette):
    """A weight as soft assignments to palettes (lookup tables, LUTs), which its gradients teach.

    Parameters
    ----------
    observer : callable, optional
        Accepted, and without effect: entries that are stored as integers have the scale of their palette's range.
    n_bits : int
        A palette has 2 to this power entries.
    cluster_dim : int
        Values of an entry.
    enable_per_channel_scale : bool
    group_size : int, optional
        Output channels that share a palette; None: all.
    quant_min, quant_max : int
        Accepted, and without effect.
    lut_dtype : str
        How entries are stored.
    advanced_options : dict, optional
        The other options of `ModuleDKMPalettizerConfig`.
    module_parameter_shape : torch.Size
        The weight's shape.
    """

    def __init__(
        self,
        observer: Any = None,
        n_bits: int = 4,
        cluster_dim: int = 1,
        enable_per_channel_scale: bool = False,
        group_size: int | None = None,
        quant_min: int = -128,
        quant_max: int = 127,
        lut_dtype: str = "f32",
        advanced_options: dict[str, Any] | None = None,
        *,
        module_parameter_shape: torch.Size,
    ) -> None:
        options = {**DEFAULT_PALETTIZATION_ADVANCED_OPTIONS, **(advanced_options or {})}
        order = options["cluster_permute"]
        scheme = options["per_channel_scaling_factor_scheme"]
        super().__init__(
            PaletteLayout(tuple(module_parameter_shape), group_size, cluster_dim, order[0] if order else 0),
            SoftPaletteOptions(
                n_clusters=(1 << n_bits) + bool(options["add_extra_centroid"]),
                per_channel_scale=scheme if enable_per_channel_scale else None,
                lut_dtype=lut_dtype,
                temperature=options["palett_tau"],
                iterations=options["kmeans_max_iter"],
                tolerance=options["palett_epsilon"],
                prune_threshold=options["prune_threshold"],
                smallest_weight=options["zero_threshold"],
                enforce_zero=options["enforce_zero"],
                mode=options["palett_mode"],
                enabled_share=options["percentage_palett_enable"],
            ),
        )
        self.n_bits, self.cluster_dim, self.lut_dtype = n_bits, cluster_dim, lut_dtype
        self.cluster_permute = order
        self.enable_per_channel_scale = enable_per_channel_scale

    @classmethod
    def with_args(cls, **kwargs: Any) -> partial[FakePalettize]:
        """Return the class with some of its arguments."""
        return partial(cls, **kwargs)

    @property
    def n_clusters(self) -> int:
        """Entries of a palette."""
        return self.options.n_clusters

    @property
    def kmeans_max_iter(self) -> int:
        """Rounds of k-means in each step, at most."""
        return self.options.iterations
