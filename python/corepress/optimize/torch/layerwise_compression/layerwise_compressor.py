"""Compression of a model's layers one after another, with samples."""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from attrs import define, field, validators

from ....training import metadata
from ....training.layer_inputs import LAYERS
from ....training.layerwise import Block, Call, compress_blocks, compress_chain
from .._utils.optimizer_utils import ConfigToOptimizerRegistry, ModuleToOptConfigRegistry
from .._utils.python_utils import ConfigError
from .._utils.report_utils import compute_post_training_report
from .._utils.reports import Report
from .._utils.torch_utils import get_eval_model
from ..base_model_optimizer import BaseDataCalibratedModelOptimizer
from ..optimization_config import OptimizationConfig
from .algorithms import LayerwiseCompressionAlgorithm, LayerwiseCompressionAlgorithmConfig
from .input_cacher import DefaultInputCacher, FirstLayerInputCacher, GPTFirstLayerInputCacher

__all__ = ["LayerwiseCompressor", "LayerwiseCompressorConfig"]

_logger = logging.getLogger(__name__)


def __dir__() -> list[str]:
    return __all__


def _input_cacher(name: Any) -> Any:
    return FirstLayerInputCacher.get_class(name) if isinstance(name, str) else name


@ModuleToOptConfigRegistry.register_module_cfg(LayerwiseCompressionAlgorithmConfig)
@define
class LayerwiseCompressorConfig(OptimizationConfig):
    """Which layers of a model are compressed, and how.

    In dictionaries and YAML, the options of a module have the name of their algorithm: ``gptq``, ``sparse_gpt``,
    ``gptq_palettize``, or that of a class registered with `LayerwiseCompressionAlgorithmConfig`.

    Attributes
    ----------
    layers : list of torch.nn.Module or str, or torch.nn.ModuleList, optional
        The blocks whose layers are compressed: modules, names, or regular expressions of names. Default: all of the
        model. Blocks need not follow each other; where they do, as a chain, each one runs only twice.
    global_config, module_type_configs, module_name_configs
        As of `OptimizationConfig`.
    input_cacher : str
        ``"default"`` and ``"gpt"`` do the same; or the name of a class registered with `FirstLayerInputCacher`.
    calibration_nsamples : int
        How many elements of the data loader, batches if it makes batches, are used at most.
    """

    _module_config = LayerwiseCompressionAlgorithmConfig

    layers: Any = field(
        default=None,
        validator=validators.optional(
            validators.deep_iterable(
                validators.instance_of((torch.nn.Module, str)), validators.instance_of((list, torch.nn.ModuleList))
            )
        ),
    )
    input_cacher: Any = field(default="default", converter=_input_cacher)
    calibration_nsamples: int = field(default=128, validator=[validators.instance_of(int), validators.ge(1)])

    @classmethod
    def _structured(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        if "algorithm" not in value:
            known = ", ".join(LayerwiseCompressionAlgorithmConfig.REGISTRY)
            reason = f"the options of a module need the name of an algorithm, one of {known}: {dict(value)!r}"
            raise ConfigError(f"{cls.__name__}.from_dict: {reason}", [ValueError(reason)], cls)
        kind: Any = LayerwiseCompressionAlgorithmConfig.get_class(value["algorithm"])
        return kind.from_dict(value)

    def _set_defaults(self) -> None:
        """As in coremltools, nothing is compressed without options."""

    def get_layers(self, model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
        """Yield the blocks of a model.

        Yields
        ------
        name : str
        module : torch.nn.Module
        """
        if self.layers is None:
            yield from model.named_children()
            return
        for name, module in model.named_modules():
            for layer in self.layers:
                if re.fullmatch(layer, name) if isinstance(layer, str) else layer is module:
                    yield name, module
                    break


@ConfigToOptimizerRegistry.register_config(LayerwiseCompressorConfig)
class LayerwiseCompressor(BaseDataCalibratedModelOptimizer):
    """Compresses layers one after another, each with the inputs that the compressed ones before it make.

    Any model will do, not only chains of layers: the first sample shows how its modules call each other
    (`corepress.training.layerwise` says what is run again for that). Of HuggingFace models, ``use_cache`` must be off.
    A layer that cannot be compressed as requested is left unchanged, with a warning.

    Parameters
    ----------
    model : torch.nn.Module
        Its Linear, Conv1d, Conv2d and Conv3d modules are compressed.
    config : LayerwiseCompressorConfig

    Examples
    --------
    >>> model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 8))
    >>> samples = [torch.randn(16, 64) for _ in range(8)]
    >>> config = LayerwiseCompressorConfig.from_dict({"global_config": {"algorithm": "gptq", "weight_dtype": "uint4"}})
    >>> compressed = LayerwiseCompressor(model, config).compress(samples, device="cpu")
    """

    _supported_modules = LAYERS

    def __init__(self, model: torch.nn.Module, config: LayerwiseCompressorConfig) -> None:
        super().__init__(model, config)
        self._input_cacher: FirstLayerInputCacher = config.input_cacher(model, config.layers)

    def compress(  # type: ignore[override]
        self, dataloader: Iterable[Any], device: torch.device | str | None = None, inplace: bool = False
    ) -> torch.nn.Module:
        """Compress the model.

        Parameters
        ----------
        dataloader : iterable
            Inputs of the model: tensors, tuples or lists of arguments, or mappings of named ones.
        device : torch.device or str, optional
            Where the model runs; weights are compressed on the CPU. Default: where the model is.
        inplace : bool
            Whether the model itself is changed, instead of a copy.

        Returns
        -------
        torch.nn.Module
            Where it was before, with the buffers that ``coremltools.convert`` reads.

        Raises
        ------
        ValueError
            If there are no samples, or none of the layers is one of the model.
        """
        config = self._config
        assert isinstance(config, LayerwiseCompressorConfig)
        names = _outermost([name for name, _ in config.get_layers(self._model)])
        if config.layers is not None and not names:
            raise ValueError(f"LayerwiseCompressor.compress: no module of the model is one of layers {config.layers}")
        model = super().compress(dataloader, inplace=inplace)
        homes = {name: tensor.device for name, tensor in _tensors(model)}
        target = next(iter(homes.values()), torch.device("cpu")) if device is None else torch.device(device)
        blocks = [self._block(name, model.get_submodule(name)) for name in names] or [self._block("", model)]
        if config.layers is None and len(_layers("", model)) > len(
            {id(each) for b in blocks for each in b.layers.values()}
        ):
            blocks = [self._block("", model)]  # the model itself is a layer
        with get_eval_model(model):
            model.to(target)
            try:
                self._run(model, blocks, dataloader, target, config)
            finally:
                if len(set(homes.values())) <= 1:
                    model.to(next(iter(homes.values()), torch.device("cpu")))
        metadata.register_version(model)
        return model

    def report(self) -> Report:
        """Return the error of each compressed weight, and what it is compressed to."""
        if self._uncompressed_model is None:
            raise ValueError("LayerwiseCompressor.report: call compress first")
        return compute_post_training_report(self._uncompressed_model, self._model, self._supported_modules)

    def _run(
        self,
        model: torch.nn.Module,
        blocks: list[Block],
        dataloader: Iterable[Any],
        device: torch.device,
        config: LayerwiseCompressorConfig,
    ) -> None:
        started: dict[int, torch.nn.Module] = {}
        shared: list[tuple[torch.nn.Module, torch.nn.Module]] = []

        def start(name: str, layer: torch.nn.Module) -> Any:
            options = config.get_module_config(name, layer)
            if options is None:
                return None
            weight = id(layer.get_parameter("weight"))
            if weight in started:
                shared.append((started[weight], layer))
                return None
            kind: Any = LayerwiseCompressionAlgorithm.get_class(options.algorithm)
            try:
                algorithm = kind(layer, options)
            except ValueError as error:
                _logger.warning("%s is left unchanged: %s", name, error)
                return None
            started[weight] = layer
            return algorithm

        if config.input_cacher in (DefaultInputCacher, GPTFirstLayerInputCacher):
            samples = list(itertools.islice(dataloader, config.calibration_nsamples))
            if not samples:
                raise ValueError("LayerwiseCompressor.compress: dataloader has no samples")
            compress_blocks(model, blocks, samples, start, device, by_block=config.layers is not None)
        else:
            given, named = self._input_cacher.cache(dataloader, config.calibration_nsamples, str(device))
            calls: list[Call] = [((each,) if isinstance(each, torch.Tensor) else tuple(each), named) for each in given]
            if not calls:
                raise ValueError("LayerwiseCompressor.compress: the input cacher has no inputs")
            compress_chain(blocks, calls, start)
        for first, other in shared:
            if "weight" in metadata.of_module(first):
                metadata.register(other, "weight", metadata.of_module(first)["weight"])

    def _block(self, name: str, module: torch.nn.Module) -> Block:
        return Block(name, module, _layers(name, module))


def _layers(name: str, module: torch.nn.Module) -> dict[str, torch.nn.Module]:
    found = {
        ".".join(filter(None, (name, inner))): each
        for inner, each in module.named_modules()
        if isinstance(each, LAYERS)
    }
    return {key: each for key, each in found.items() if isinstance(getattr(each, "weight", None), torch.Tensor)}


def _tensors(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _outermost(names: list[str]) -> list[str]:
    """Names of modules without those of modules inside them, and without the model itself if there are others."""
    inner = [name for name in names if name] or names
    return [name for name in inner if not any(name.startswith(f"{other}.") for other in inner)]
