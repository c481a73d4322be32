"""Palettization of models while they train."""

from __future__ import annotations

import copy
from collections import namedtuple
from functools import partial
from typing import Any

import torch

from ....training import metadata as metadata_of
from ....training import parametrized, quality
from ....training.fake_quantize import FakeQuantize
from ....training.observers import MinMaxObserver
from ....training.pruned import Pruned
from ....training.quantize_dequantize import QuantizeDequantize
from .._utils.optimizer_utils import ConfigToOptimizerRegistry
from .._utils.reports import Report
from .._utils.torch_utils import get_eval_model, get_parent_child_name, normalize_fsdp_module_name
from .._utils.validation_utils import validate_param_config
from ..base_model_optimizer import BaseTrainingTimeModelOptimizer
from ._supported_modules import DKMPalettizerModulesRegistry
from .fake_palettize import FakePalettize
from .palettization_config import DEFAULT_BITS, DEFAULT_PALETTIZATION_ADVANCED_OPTIONS, DKMPalettizerConfig

__all__ = ["DKMPalettizer", "Palettizer"]


def __dir__() -> list[str]:
    return __all__


_Arguments = namedtuple("_Arguments", "p")
_QConfig = namedtuple("_QConfig", "activation weight")


class Palettizer(BaseTrainingTimeModelOptimizer):
    """What palettizes a model while it trains."""


@ConfigToOptimizerRegistry.register_config(DKMPalettizerConfig)
class DKMPalettizer(Palettizer):
    """Palettes (lookup tables, LUTs) that are learnt with the model, by differentiable k-means.

    Parameters
    ----------
    model : torch.nn.Module
    config : DKMPalettizerConfig, optional
        Without it all modules that can be palettized have the default options.

    Examples
    --------
    ::

        palettizer = DKMPalettizer(model, DKMPalettizerConfig.from_dict({"global_config": {"n_bits": 2}}))
        model = palettizer.prepare()
        for inputs, labels in data:
            optimizer.zero_grad()
            loss(model(inputs), labels).backward()
            optimizer.step()
            palettizer.step()
        model = palettizer.finalize()  # ready for coremltools.convert

    References
    ----------
    Cho et al., DKM: Differentiable K-Means Clustering Layer for Neural Network Compression, ICLR 2022.
    """

    _supported_modules = DKMPalettizerModulesRegistry.get_supported_modules()

    def __init__(self, model: torch.nn.Module, config: DKMPalettizerConfig | None = None) -> None:
        super().__init__(model, DKMPalettizerConfig() if config is None else config)
        self._milestones: dict[str, int] = {}

    def prepare(self, inplace: bool = False) -> torch.nn.Module:
        """Return the model with weights that are palettized as it trains, in training mode.

        Parameters
        ----------
        inplace : bool
            Whether it is the model itself; otherwise a copy.

        Raises
        ------
        RuntimeError
            If the model has been prepared for pruning: prepare it for palettization first.
        """
        if any(True for _ in parametrized.parametrized(self._model, Pruned)):
            raise RuntimeError(
                "DKMPalettizer.prepare: the model has been prepared for pruning; prepare it for palettization first, "
                "and then, with inplace=True, for pruning"
            )
        self._model = self._get_model_for_compression(inplace)
        self._model.train()
        shared: dict[int, FakePalettize] = {}
        for name, module in list(self._model.named_modules()):
            if type(module) in self._supported_modules:
                self._prepare_module(name, module, shared)
        return self._model

    def step(self) -> None:
        """Advance by one step of training: palettization starts where this is a module's milestone."""
        _follow_pruning(self._model)
        milestones: dict[FakePalettize, int] = {}
        for name, module in self._model.named_modules():
            milestone = self._milestones.get(normalize_fsdp_module_name(name))
            if milestone is not None:  # the projections of attention are modules in it
                found = (each for each in module.modules() if isinstance(each, FakePalettize))
                milestones.update((each, milestone) for each in found)
        for palette, milestone in milestones.items():
            palette.advance(milestone)
        self._step_count += 1

    def enable_fake_palett(self, flag: bool) -> None:
        """Use palettes from the next forward call on, or the weights as they are."""
        for module in self._model.modules():
            if isinstance(module, FakePalettize):
                module.enable_fake_palett(flag)

    def finalize(self, model: torch.nn.Module | None = None, inplace: bool = False) -> torch.nn.Module:
        """Return the model with palettized weights, a plain module that ``coremltools.convert`` compresses.

        Parameters
        ----------
        model : torch.nn.Module, optional
            The prepared model, if not the one that `prepare` returned.
        inplace : bool
            Whether it is the model itself; otherwise a copy.

        Returns
        -------
        torch.nn.Module
            In evaluation mode.
        """
        model = self._model if model is None else model
        model.eval()
        finalized = model if inplace else copy.deepcopy(model)
        _finalize_palettes(finalized)
        _finalize_activations(finalized)
        for module in finalized.modules():
            module.__dict__.pop("qconfig", None)
        metadata_of.register_version(finalized)
        return finalized

    def report(self) -> Report:
        """Return a row for each palettized weight.

        Returns
        -------
        dict of str to dict
            By the name of the module, and of the parameter where it has several: device, root mean square error,
            elements, palettes.
        """
        report = Report()
        with get_eval_model(self._model) as model, torch.no_grad():
            for name, module, parameter, palette in parametrized.parametrized(model, FakePalettize):
                weight = parametrized.value_before(module, parameter, palette)
                report[name if parameter == "weight" else f"{name}.{parameter}"] = {
                    "device": weight.device,
                    "error": quality.rmse(palette(weight), weight),
                    "#params": weight.numel(),
                    "#dtype": (
                        f":num_clusters: {palette.n_clusters} <{palette.lut_dtype, palette.cluster_permute}> "
                        f"dim={palette.cluster_dim}"
                    ),
                }
        return report

    def _prepare_module(self, name: str, module: torch.nn.Module, shared: dict[int, FakePalettize]) -> None:
        """Attach palettes to a module's weights, if its options are for weights of their size and fit them."""
        kind = DKMPalettizerModulesRegistry.get_palettizer_module(module)
        parameters = kind.get_palettizable_parameters(module)
        configs = self._config.get_module_config(name, module)  # type: ignore[union-attr]
        module.qconfig = None  # type: ignore[assignment]
        for config in reversed(configs if isinstance(configs, list) else [configs]):
            if config is None or not all(weight.numel() > config.weight_threshold for weight, _ in parameters):
                continue
            arguments = _arguments(config, module)
            fitting = [self._fitting(f"{name}.{each}", weight, module, config) for weight, each in parameters]
            if parameters and all(fitting):
                make = FakePalettize.with_args(**arguments)
                module.qconfig = _QConfig(torch.nn.Identity, _Arguments(make))  # type: ignore[assignment]
                for weight, each in parameters:
                    _attach(module, each, weight, make, shared, enabled=config.milestone == 0)
                self._milestones[name] = config.milestone
                if config.quantize_activations and config.dtype != torch.float32:
                    _attach_fake_quantize(module, parameters[0][0].device)
                return

    @staticmethod
    def _fitting(name: str, weight: torch.Tensor, module: torch.nn.Module, config: Any) -> Any:
        checks = ["palettization_cluster_dim", "palettization_group_size"]
        return validate_param_config(name, weight, module, config, checks, {"cluster_permute": config.cluster_permute})


def _arguments(config: Any, module: torch.nn.Module) -> dict[str, Any]:
    """The arguments of FakePalettize for a module."""
    bits = DEFAULT_BITS.get(type(module), 4) if config.n_bits is None else config.n_bits
    return {
        "observer": None,
        "n_bits": bits,
        "cluster_dim": config.cluster_dim or 1,
        "enable_per_channel_scale": config.enable_per_channel_scale,
        "group_size": config.group_size,
        "quant_min": config.quant_min,
        "quant_max": config.quant_max,
        "lut_dtype": config.lut_dtype,
        "advanced_options": {name: getattr(config, name) for name in DEFAULT_PALETTIZATION_ADVANCED_OPTIONS},
    }


def _attach(
    module: torch.nn.Module,
    name: str,
    weight: torch.Tensor,
    make: partial[FakePalettize],
    shared: dict[int, FakePalettize],
    enabled: bool,
) -> None:
    """Attach palettes to a parameter; modules that share it share them."""
    inside, parameter = get_parent_child_name(name)
    owner = module.get_submodule(inside)
    palette = shared.get(id(weight))
    if palette is None:
        palette = shared[id(weight)] = make(module_parameter_shape=weight.shape).to(weight.device)
        palette.enable_fake_palett(enabled)
    parametrized.attach(
        owner,
        parameter,
        palette,
        {f"{parameter}_fake_quant": lambda owner: parametrized.find(owner, parameter, FakePalettize)},
    )


def _attach_fake_quantize(module: torch.nn.Module, device: torch.device) -> None:
    """Quantize what a module returns, as unsigned integers of 8 bits over the range of what it returned."""
    observer = MinMaxObserver(torch.quint8, torch.per_tensor_affine, averaging_constant=0.01)
    module.activation_post_process = FakeQuantize(observer).to(device)
    module.register_forward_hook(_process_result)


def _process_result(module: torch.nn.Module, arguments: Any, result: Any) -> Any:
    process: Any = module.activation_post_process
    if isinstance(result, tuple):  # of attention: the outputs, and its weights, which are not quantized
        return (process(result[0]), *result[1:])
    return process(result)


def _finalize_activations(model: torch.nn.Module) -> None:
    """Fix the ranges of quantized results."""
    for module in model.modules():
        fake_quantize = module._modules.get("activation_post_process")
        if isinstance(fake_quantize, FakeQuantize) and _process_result in module._forward_hooks.values():
            scale, zero_point = float(fake_quantize.scale), int(fake_quantize.zero_point)
            module.activation_post_process = QuantizeDequantize(scale, zero_point).to(fake_quantize.scale.device)


def _follow_pruning(model: torch.nn.Module) -> None:
    """Palettes of weights that are pruned are for the values that are kept."""
    for name, module, parameter, palette in parametrized.parametrized(model, FakePalettize):
        pruned = parametrized.find(module, parameter, Pruned)
        if pruned is not None and (palette.cluster_dim > 1 or palette.lut_quantization is not None):
            raise ValueError(
                f"DKMPalettizer: {name} has cluster_dim {palette.cluster_dim} and lut_dtype {palette.lut_dtype!r} and "
                "is pruned too, which coremltools cannot convert; use cluster_dim 1 and lut_dtype 'f16' for this "
                "module, or do not prune it"
            )
        palette.keep_zeros = pruned is not None


def _finalize_palettes(model: torch.nn.Module) -> None:
    """Make palettized weights parameters, with the buffers of conversion; shared ones are shared still."""
    _follow_pruning(model)
    made: dict[int, torch.nn.Parameter] = {}
    for _, module, parameter, palette in list(parametrized.parametrized(model, FakePalettize)):
        trained = parametrized.original(module, parameter)
        metadata = None
        if palette.palettizes:
            weight, metadata = palette.palettized(parametrized.value_before(module, parameter, palette))
        else:
            weight = trained
        value = made.setdefault(id(trained), torch.nn.Parameter(weight.detach().clone(), trained.requires_grad))
        parametrized.replace(module, parameter, palette, value)
        if metadata is not None:
            metadata_of.register(module, parameter, metadata)
