"""Palettes without training: the best there are for the values of each weight."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from attrs import define, field, validators

from .._utils.k_means import SUPPORTED_MODULES, KMeansConfig, ParallelKMeans, SequentialKMeans, fitting_weights
from .._utils.optimizer_utils import ConfigToOptimizerRegistry, ModuleToOptConfigRegistry
from .._utils.report_utils import compute_post_training_report
from .._utils.reports import Report
from .._utils.torch_utils import maybe_convert_str_to_dtype
from ..base_model_optimizer import BasePostTrainingModelOptimizer
from ..optimization_config import ModuleOptimizationConfig, OptimizationConfig, PalettizationGranularity

__all__ = ["ModulePostTrainingPalettizerConfig", "PostTrainingPalettizer", "PostTrainingPalettizerConfig"]


def __dir__() -> list[str]:
    return __all__


_OPTIONAL_INTEGER: Any = validators.optional(validators.instance_of(int))
_AXIS: Any = validators.optional(validators.in_([0, 1]))
_OPTIONAL_BOOL: Any = validators.optional(validators.instance_of(bool))


def _lut_dtype(value: Any) -> Any:
    return maybe_convert_str_to_dtype(value) if value else value


@define
class ModulePaletteConfig(ModuleOptimizationConfig):
    """How the weights of a module are palettized.

    Attributes
    ----------
    n_bits : int
        Of an index: palettes (lookup tables, LUTs) have 2**n_bits entries.
    lut_dtype : torch.dtype or str, optional
        int8 or uint8: entries are stored as integers.
    granularity : {"per_tensor", "per_grouped_channel"}
        One palette for a weight, or one for each group of channels.
    group_size : int, optional
        Channels of a group.
    channel_axis : {0, 1}
        Of the channels: output or input channels.
    cluster_dim : int, optional
        Values of an entry: of neighbouring channels.
    enable_per_channel_scale : bool
        Whether each output channel is divided by its largest magnitude first; not with vectors.
    """

    n_bits: int | None = field(default=4, validator=_OPTIONAL_INTEGER)
    lut_dtype: Any = field(
        default=None, converter=_lut_dtype, validator=validators.optional(validators.in_([torch.int8, torch.uint8]))
    )
    granularity: Any = field(default="per_tensor", converter=PalettizationGranularity)
    group_size: int | None = field(default=None, validator=_OPTIONAL_INTEGER)
    channel_axis: Any = field(default=0, validator=_AXIS)
    cluster_dim: int | None = field(default=None, validator=_OPTIONAL_INTEGER)
    enable_per_channel_scale: bool | None = field(default=False, validator=_OPTIONAL_BOOL)

    def __attrs_post_init__(self) -> None:
        own, size = type(self).__name__, self.group_size
        grouped = self.granularity is PalettizationGranularity.per_grouped_channel
        if grouped and (size is None or size < 1):
            raise ValueError(f"{own}: granularity 'per_grouped_channel' needs a group_size of at least 1, not {size!r}")
        if not grouped and size is not None:
            raise ValueError(f"{own}: group_size goes with granularity 'per_grouped_channel', not 'per_tensor'")
        if self.cluster_dim is not None and self.cluster_dim > 1 and self.enable_per_channel_scale:
            raise ValueError(f"{own}: cluster_dim {self.cluster_dim} goes without enable_per_channel_scale")

    def _k_means(self, **others: Any) -> KMeansConfig:
        return KMeansConfig(
            n_bits=4 if self.n_bits is None else self.n_bits,
            axis=self.channel_axis or 0,
            lut_dtype=self.lut_dtype,
            block_size=self.group_size,
            cluster_dim=self.cluster_dim,
            enable_per_channel_scale=bool(self.enable_per_channel_scale),
            **others,
        )


@define
class ModulePostTrainingPalettizerConfig(ModulePaletteConfig):
    """How the weights of a module are palettized.

    Attributes
    ----------
    n_bits, lut_dtype, granularity, group_size, channel_axis, cluster_dim, enable_per_channel_scale
        As of `ModulePaletteConfig`.
    enable_fast_kmeans_mode, rounding_precision
        Accepted and without effect: values are never rounded before they are clustered.
    """

    enable_fast_kmeans_mode: bool | None = field(default=True, validator=_OPTIONAL_BOOL)
    rounding_precision: int | None = field(default=4, validator=_OPTIONAL_INTEGER)


@ModuleToOptConfigRegistry.register_module_cfg(ModulePostTrainingPalettizerConfig)
@define
class PostTrainingPalettizerConfig(OptimizationConfig):
    """How the modules of a model are palettized; see `OptimizationConfig` for the fields."""

    _module_config: ClassVar[type[ModuleOptimizationConfig]] = ModulePostTrainingPalettizerConfig


@ConfigToOptimizerRegistry.register_config(PostTrainingPalettizerConfig)
class PostTrainingPalettizer(BasePostTrainingModelOptimizer):
    """Palettizes the weights of linear layers, embeddings, 2-D convolutions and attention.

    Palettes are optimal: no others of their size have a smaller squared error, up to the rounding of entries to
    float16. For entries of several values no such method is known; these are good. Weights then hold entries of the
    palettes, with the buffers by which ``coremltools.convert`` finds them again. Zeros of a model that
    `MagnitudePruner` finalized stay zeros, and palettes are for the other values.

    Parameters
    ----------
    model : torch.nn.Module
    config : PostTrainingPalettizerConfig, optional
    """

    _supported_modules = SUPPORTED_MODULES

    def __init__(self, model: torch.nn.Module, config: PostTrainingPalettizerConfig | None = None) -> None:
        super().__init__(model, PostTrainingPalettizerConfig() if config is None else config)

    def compress(self, num_kmeans_workers: int = 1, inplace: bool = False) -> torch.nn.Module:  # type: ignore[override]
        """Return the model with palettized weights.

        Parameters
        ----------
        num_kmeans_workers : int
            Threads; results do not depend on their number.
        inplace : bool
            Whether it is the model itself; otherwise a copy.

        Raises
        ------
        ValueError
            If weights are not finite, or compressed already in another way than by pruning.
        """
        model = super().compress(inplace=inplace)
        configs: dict[str, dict[str, KMeansConfig]] = {}
        for name, parameter, options in fitting_weights(model, self._config):
            fast = {
                "enable_fast_kmeans_mode": options.enable_fast_kmeans_mode,
                "rounding_precision": options.rounding_precision,
            }
            configs.setdefault(name, {})[parameter] = options._k_means(**fast)
        kind = ParallelKMeans if num_kmeans_workers > 1 else SequentialKMeans
        return kind.cluster_weights(model, configs, num_workers=num_kmeans_workers)

    def report(self) -> Report:
        """Return a row for each palettized weight: its root mean square error, elements, palettes."""
        assert self._uncompressed_model is not None, "PostTrainingPalettizer.report: call compress first"
        return compute_post_training_report(self._uncompressed_model, self._model, self._supported_modules)
