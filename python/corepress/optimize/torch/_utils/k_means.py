"""Which weights are palettized, and how; `corepress.training.post_training` does it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from attrs import define, field

from ....training import metadata as metadata_of
from ....training.palette_layout import PaletteLayout
from ....training.post_training import PaletteOptions, palettized, store, zeros_kept
from .validation_utils import validate_param_config

SUPPORTED_MODULES = (torch.nn.Linear, torch.nn.Embedding, torch.nn.Conv2d, torch.nn.MultiheadAttention)
_OF_ATTENTION = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")


def _at_least_one(value: int | None) -> int:
    return value or 1


@define(frozen=True)
class KMeansConfig:
    """How one weight is palettized.

    Attributes
    ----------
    n_bits : int
    axis : int
        Of the channels: 0 for output channels, 1 for input channels.
    lut_dtype : torch.dtype, optional
        int8 or uint8 for the entries.
    block_size : int, optional
        Channels that share a palette.
    cluster_dim : int
        Values of an entry; None is 1.
    enable_per_channel_scale : bool
    importance : torch.Tensor, optional
        How much the squared error of each value counts.
    mask : torch.Tensor of bool, optional
        False where values are left unchanged, which no package can express; palettes are for the others.
    enable_fast_kmeans_mode, rounding_precision
        Accepted and without effect: values are never rounded before they are clustered.
    """

    n_bits: int = 4
    axis: int = 0
    lut_dtype: torch.dtype | None = None
    block_size: int | None = None
    cluster_dim: int = field(default=1, converter=_at_least_one)
    enable_per_channel_scale: bool = False
    importance: torch.Tensor | None = None
    mask: torch.Tensor | None = None
    enable_fast_kmeans_mode: bool | None = True
    rounding_precision: int | None = 4


def parameter_names(module: torch.nn.Module) -> list[str]:
    """Return the weights of a module that palettes are for; the output projection of attention is another module."""
    if isinstance(module, torch.nn.MultiheadAttention):
        return [name for name in _OF_ATTENTION if getattr(module, name, None) is not None]
    return ["weight"] if isinstance(module, SUPPORTED_MODULES) else []


def fitting_weights(model: torch.nn.Module, config: Any) -> Iterator[tuple[str, str, Any]]:
    """Yield the weights that a config has options for, which fit them.

    Parameters
    ----------
    model : torch.nn.Module
    config : OptimizationConfig
        Of a palettizer.

    Yields
    ------
    name : str
        Of the module.
    parameter : str
    options : ModuleOptimizationConfig
        Completed.
    """
    for name, module in model.named_modules():
        options = config.get_module_config(name, module)
        for parameter in parameter_names(module) if options is not None else ():
            label = f"{name}.{parameter}" if name else parameter
            checks = ["palettization_group_size", "palettization_cluster_dim"]
            completed = validate_param_config(label, module.get_parameter(parameter), module, options, checks)
            if completed is not None:
                yield name, parameter, completed


class SequentialKMeans:
    """Palettizes the weights of a model."""

    @classmethod
    @torch.no_grad()
    def cluster_weights(
        cls,
        model: torch.nn.Module,
        config: Mapping[str, Mapping[str, KMeansConfig]] | KMeansConfig = KMeansConfig(),  # noqa: B008
        num_workers: int = 1,
    ) -> torch.nn.Module:
        """Palettize weights in place.

        Parameters
        ----------
        model : torch.nn.Module
        config : dict of str to dict of str to KMeansConfig, or KMeansConfig
            By the names of modules and parameters; or for all weights that palettes are for.
        num_workers : int
            Threads.

        Returns
        -------
        torch.nn.Module
            The model.

        Raises
        ------
        ValueError
            If weights are not finite, or compressed already in another way than by pruning.
        """
        if isinstance(config, KMeansConfig):
            modules = dict(model.named_modules())
            config = {name: dict.fromkeys(parameter_names(module), config) for name, module in modules.items()}
        for name, parameters in config.items():
            module = model.get_submodule(name)
            for parameter, options in parameters.items():
                _palettize(module, parameter, options, num_workers)
        metadata_of.register_version(model)
        return model


class ParallelKMeans(SequentialKMeans):
    """The same by several threads; results do not depend on their number."""


def layout_of(weight: torch.Tensor, config: KMeansConfig) -> PaletteLayout:
    """Return how the values of a weight share palettes."""
    return PaletteLayout(tuple(weight.shape), config.block_size, config.cluster_dim, config.axis)


def _palettize(module: torch.nn.Module, parameter: str, config: KMeansConfig, num_threads: int) -> None:
    weight = module.get_parameter(parameter)
    layout = layout_of(weight, config)
    lut_dtype = None if config.lut_dtype is None else str(config.lut_dtype).removeprefix("torch.")
    options = PaletteOptions(config.n_bits, layout, config.enable_per_channel_scale, lut_dtype)
    pruned, importance = zeros_kept(module, parameter), config.importance
    if config.mask is not None:
        importance = config.mask.to(torch.float32) * (1.0 if importance is None else importance)
    values, found = palettized(weight, options, importance, pruned, num_threads)
    if config.mask is not None:
        values = torch.where(config.mask.to(weight.device), values, weight)
    store(module, parameter, values, found)
