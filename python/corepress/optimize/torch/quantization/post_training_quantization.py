"""Weights as integers, without training."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from attrs import define, field, validators

from ....training import metadata as metadata_of
from ....training.post_training import IntegerOptions, quantized, store, zeros_kept
from .._utils.optimizer_utils import ConfigToOptimizerRegistry, ModuleToOptConfigRegistry
from .._utils.report_utils import compute_post_training_report
from .._utils.reports import Report
from .._utils.torch_utils import get_n_bits_from_dtype, is_signed_dtype, maybe_convert_str_to_dtype
from .._utils.validation_utils import validate_param_config
from ..base_model_optimizer import BasePostTrainingModelOptimizer
from ..optimization_config import ModuleOptimizationConfig, OptimizationConfig, QuantizationGranularity
from .quantization_config import QuantizationScheme

__all__ = ["ModulePostTrainingQuantizerConfig", "PostTrainingQuantizer", "PostTrainingQuantizerConfig"]


def __dir__() -> list[str]:
    return __all__


_logger = logging.getLogger(__name__)

_DTYPES = ["int8", "uint8", "int4", "uint4", "fp8_e4m3", "fp8_e5m2", "float32"]
_DTYPES += [torch.int8, torch.uint8, torch.float8_e4m3fn, torch.float8_e5m2, torch.float32]  # type: ignore[list-item]
_TRANSPOSED = (torch.nn.ConvTranspose1d, torch.nn.ConvTranspose2d, torch.nn.ConvTranspose3d)
_OF_ATTENTION = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")


def _sizes(value: Any) -> Any:
    return (value,) if type(value) is int else tuple(value) if isinstance(value, list) else value


@define
class ModulePostTrainingQuantizerConfig(ModuleOptimizationConfig):
    """How the weights of a module are quantized.

    Attributes
    ----------
    weight_dtype : str or torch.dtype
        ``"int8"``, ``"uint8"``, ``"int4"`` or ``"uint4"``; ``"float32"`` leaves them unchanged. The 8-bit floats
        ``"fp8_e4m3"`` and ``"fp8_e5m2"`` are stored as int8: conversion has no such floats.
    weight_n_bits : int
        That of the data type.
    granularity : {"per_channel", "per_tensor", "per_block"}
        The weights that share a scale.
    quantization_scheme : {"symmetric", "affine"}
        Around zero, or over the range of the values.
    block_size : int or tuple of int, optional
        With ``"per_block"``: how many input channels share a scale; or how many output channels and how many input
        channels, 0 for all.
    """

    weight_dtype: Any = field(default="int8")
    weight_n_bits: int = field(init=False)
    granularity: Any = field(default="per_channel", converter=QuantizationGranularity)
    quantization_scheme: Any = field(default=QuantizationScheme.symmetric, converter=QuantizationScheme)
    block_size: Any = field(
        default=None,
        converter=_sizes,
        validator=validators.optional(
            validators.deep_iterable(validators.instance_of(int), validators.instance_of(tuple))
        ),
    )

    def __attrs_post_init__(self) -> None:
        own = type(self).__name__
        if self.weight_dtype not in _DTYPES:
            raise ValueError(
                f"{own}: weight_dtype must be one of {', '.join(map(str, _DTYPES))}, not {self.weight_dtype!r}"
            )
        if (self.block_size is not None) != (self.granularity is QuantizationGranularity.per_block):
            raise ValueError(
                f"{own}: block_size goes with granularity 'per_block', not {self.granularity.value!r} and "
                f"{self.block_size!r}"
            )
        self.weight_n_bits = get_n_bits_from_dtype(self.weight_dtype)
        self.weight_dtype = maybe_convert_str_to_dtype(self.weight_dtype)


@ModuleToOptConfigRegistry.register_module_cfg(ModulePostTrainingQuantizerConfig)
@define
class PostTrainingQuantizerConfig(OptimizationConfig):
    """How the modules of a model are quantized; see `OptimizationConfig` for the fields.

    All modules have the same `quantization_scheme`.
    """

    _module_config: ClassVar[type[ModuleOptimizationConfig]] = ModulePostTrainingQuantizerConfig

    def __attrs_post_init__(self) -> None:
        OptimizationConfig.__attrs_post_init__(self)
        self._validate_same_params(["quantization_scheme"])


@ConfigToOptimizerRegistry.register_config(PostTrainingQuantizerConfig)
class PostTrainingQuantizer(BasePostTrainingModelOptimizer):
    """Quantizes the weights of linear layers, convolutions and attention.

    Weights then hold the values of their integers, with the buffers by which ``coremltools.convert`` finds
    them again. Zeros of a model that `MagnitudePruner` finalized stay zeros.

    Parameters
    ----------
    model : torch.nn.Module
    config : PostTrainingQuantizerConfig, optional
    """

    _supported_modules = (
        torch.nn.Conv1d,
        torch.nn.Conv2d,
        torch.nn.Conv3d,
        *_TRANSPOSED,
        torch.nn.Linear,
        torch.nn.MultiheadAttention,
    )

    def __init__(self, model: torch.nn.Module, config: PostTrainingQuantizerConfig | None = None) -> None:
        super().__init__(model, PostTrainingQuantizerConfig() if config is None else config)

    def compress(self, inplace: bool = False) -> torch.nn.Module:  # type: ignore[override]
        """Return the model with quantized weights.

        Parameters
        ----------
        inplace : bool
            Whether it is the model itself; otherwise a copy.

        Raises
        ------
        ValueError
            If weights are not finite, or compressed already in another way than by pruning.
        """
        model = super().compress(inplace=inplace)
        for name, module, parameter, config in self._weights(model):
            options = _options(name, module, parameter, config)
            if options is not None:
                pruned = zeros_kept(module, parameter)
                store(module, parameter, *quantized(module.get_parameter(parameter), options, pruned))
        metadata_of.register_version(model)
        return model

    def report(self) -> Report:
        """Return a row for each quantized weight: its root mean square error, elements, data type."""
        assert self._uncompressed_model is not None, "PostTrainingQuantizer.report: call compress first"
        return compute_post_training_report(self._uncompressed_model, self._model, self._supported_modules)

    def _weights(self, model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module, str, Any]]:
        """Names, modules and parameters to be quantized; attention has the options for all of its weights."""
        inside: set[torch.nn.Module] = set()
        for name, module in model.named_modules():
            if not isinstance(module, self._supported_modules) or module in inside:
                continue
            inside.update(module.modules())
            config = self._config.get_module_config(name, module)  # type: ignore[union-attr]
            if config is None or config.weight_dtype == torch.float32:
                continue
            if not isinstance(module, torch.nn.MultiheadAttention):
                yield name, module, "weight", config
                continue
            for parameter in _OF_ATTENTION:
                if getattr(module, parameter, None) is not None:
                    yield name, module, parameter, config
            yield f"{name}.out_proj" if name else "out_proj", module.out_proj, "weight", config


def _options(name: str, module: torch.nn.Module, parameter: str, config: Any) -> IntegerOptions | None:
    """What is done to a weight, or None if its options do not fit."""
    weight = module.get_parameter(parameter)
    blocks = [0] * weight.ndim
    axes = (1, 0) if isinstance(module, _TRANSPOSED) else (0, 1)  # of output and input channels
    if config.granularity is QuantizationGranularity.per_channel:
        blocks[axes[0]] = 1
    elif config.granularity is QuantizationGranularity.per_block:
        config = validate_param_config(
            f"{name}.{parameter}", weight.transpose(0, axes[0]), module, config, ["quantization_block_size"]
        )
        for axis, size in zip(axes, config.block_size if config else (), strict=False):
            blocks[axis] = size
        # Sizes beyond an axis pass that check.
        if config is None or any(size and length % size for size, length in zip(blocks, weight.shape, strict=True)):
            _logger.warning("PostTrainingQuantizer: %s.%s is not quantized", name, parameter)
            return None
    dtype = ("int" if is_signed_dtype(config.weight_dtype) else "uint") + str(config.weight_n_bits)
    symmetric = config.quantization_scheme is QuantizationScheme.symmetric
    return IntegerOptions(dtype, symmetric, tuple(blocks))
