"""Quantization-aware training."""

from __future__ import annotations

import copy
import functools
import logging
import re
from collections.abc import Iterator
from typing import Any

import torch

from ....training import (
    activation_hooks,
    batch_norm,
    dataflow,
    metadata,
    parametrized,
    placement,
    quality,
    quantized_weights,
)
from ....training.batch_norm import FrozenStatistics
from ....training.fake_quantize import FakeQuantize, LearnableFakeQuantize
from ....training.observers import FixedObserver, MinMaxObserver, quantized_range
from ....training.placement import EMBEDDINGS, SUPPORTED, TRANSPOSED, WEIGHTED, Range
from ....training.quantize_dequantize import QuantizeDequantize
from .._utils.optimizer_utils import ConfigToOptimizerRegistry
from .._utils.reports import Report
from ..base_model_optimizer import BaseTrainingTimeModelOptimizer
from .modules import learnable_fake_quantize
from .quantization_config import (
    LinearQuantizerConfig,
    ModuleLinearQuantizerConfig,
    ObserverType,
    QuantizationScheme,
)

__all__ = ["LinearQuantizer", "Quantizer"]


def __dir__() -> list[str]:
    return __all__


_logger = logging.getLogger(__name__)
_ALIAS = "activation_post_process_"


class Quantizer(BaseTrainingTimeModelOptimizer):
    """What quantizes a model while it trains."""


@ConfigToOptimizerRegistry.register_config(LinearQuantizerConfig)
class LinearQuantizer(Quantizer):
    """Quantization-aware training: weights and activations are rounded in training as they will be in the model.

    ::

        quantizer = LinearQuantizer(model, config)
        prepared = quantizer.prepare(example_inputs=(image,))
        for image, label in data:
            loss(prepared(image), label).backward()
            optimizer.step()
            quantizer.step()
        finalized = quantizer.finalize()

    The prepared model is the model itself, of the same classes and with the same names: weights have a
    parametrization, and hooks quantize activations. What is quantized where is found by running the model once on
    the example, not by tracing its code. Functions between modules are seen, but only what goes into a module or
    comes out of one can be quantized: the operands of an addition are, where modules make them, and its result is
    where a module takes it.

    Parameters
    ----------
    model : torch.nn.Module
    config : LinearQuantizerConfig, optional
        Weights of 8 signed bits, activations of 8 unsigned ones by default.
    """

    _supported_modules = tuple(sorted(SUPPORTED, key=lambda kind: kind.__name__))
    _observer_sync: bool = True

    def __init__(self, model: torch.nn.Module, config: LinearQuantizerConfig | None = None) -> None:
        config = LinearQuantizerConfig() if config is None else config
        super().__init__(model, config)
        configs = (config.global_config, *config.module_type_configs.values(), *config.module_name_configs.values())
        shared = next((each for each in configs if each is not None), ModuleLinearQuantizerConfig())
        self._linear_config = config
        self._is_prepared = False
        self._quantization_scheme: QuantizationScheme = shared.quantization_scheme
        self._milestones: list[int] | None = shared.milestones
        for name in config.module_name_configs:
            if not any(re.fullmatch(name, each) for each, _ in model.named_modules()):
                _logger.warning("LinearQuantizer: no module of the model is named %r", name)

    def prepare(self, example_inputs: Any, inplace: bool = False) -> torch.nn.Module:
        """Return the model with fake quantization.

        Parameters
        ----------
        example_inputs : tuple
            Arguments of the model, with which it runs once, without gradients and in evaluation mode. A dict has
            keyword arguments.
        inplace : bool
            Whether to change the model itself instead of a copy.

        Returns
        -------
        torch.nn.Module
            In training mode.
        """
        if self._is_prepared:
            _logger.warning("Model has already been prepared for QAT. This API call will be a no-op.")
            return self._model
        model = self._get_model_for_compression(inplace=inplace)
        model.train()
        recording = dataflow.record(model, example_inputs, self._linear_config.non_traceable_module_names)
        if recording.failure is not None:
            _logger.warning(
                "LinearQuantizer.prepare: the model does not run on the example (%s); activations after that are not "
                "quantized. Give an example that the model can run on",
                recording.failure,
            )
        plan = placement.plan(recording, self._activation_config)
        self._quantize_weights(model, dict(plan.batch_norms))
        device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
        make = functools.partial(self._activation_fake_quantize, device=device)
        made = activation_hooks.attach(model, plan, make)
        for index, each in enumerate(plan.ranges):
            if each is not None and each in made:
                model.__dict__[f"{_ALIAS}{index}"] = made[each]  # coremltools' names for these, not children
        if self._milestones is not None:
            for fake_quantize in _fake_quantizes(model):
                fake_quantize.disable_observer()
                fake_quantize.disable_fake_quant()
        self._model = model
        self._is_prepared = True
        return model

    def step(self) -> None:
        """Advance by one step of training; without milestones, nothing changes.

        At the steps that the milestones say, observers are turned on, fake quantization is turned on, observers are
        turned off, and the statistics of the batch normalization after convolutions and linear layers are frozen.
        Steps are counted in the state dict: a run that continues from one goes on where it was.
        """
        if not self._is_prepared:
            _logger.warning(
                "Model has not been prepared for QAT. This API call will be a no-op. prepare method must be called "
                "before a call to the step method."
            )
            return
        if self._milestones is None:
            return
        counter = next(_fake_quantizes(self._model), None)
        self._step_count = self._step_count if counter is None else counter.count
        reached = [milestone == self._step_count for milestone in self._milestones]
        for fake_quantize in _fake_quantizes(self._model) if any(reached[:3]) else ():
            if reached[0]:
                fake_quantize.enable_observer()
            if reached[1]:
                fake_quantize.enable_fake_quant()
            if reached[2]:
                fake_quantize.disable_observer()
        if reached[3]:
            for module in self._model.modules():
                if isinstance(module, FrozenStatistics):
                    module.freeze_bn_stats()
        self._step_count += 1
        if counter is not None:
            counter.count_steps(self._step_count)

    def finalize(self, model: torch.nn.Module | None = None, inplace: bool = False) -> torch.nn.Module:
        """Return the model with quantized weights, for conversion.

        Weights have the values of their integers, and the buffers that say so to ``coremltools.convert``; batch
        normalization is folded into them; activations are quantized and dequantized by fixed scales, which
        conversion turns into operations (iOS17 and newer).

        Parameters
        ----------
        model : torch.nn.Module, optional
            The prepared model by default.
        inplace : bool
            Whether to change the model itself instead of a copy.

        Returns
        -------
        torch.nn.Module
            In evaluation mode.
        """
        if not self._is_prepared:
            _logger.warning(
                "Model has not been prepared for QAT. This API call will be a no-op. prepare method must be called "
                "before a call to the finalize method."
            )
            return self._model
        model = self._model if model is None else model
        if not inplace:
            model = copy.deepcopy(model)
        model.eval()
        for name in [name for name in vars(model) if re.fullmatch(_ALIAS + r"\d+", name)]:
            del model.__dict__[name]
        folded = {quantized_weights.finalize(module) for _, module in list(quantized_weights.quantized_modules(model))}
        quantized_weights.remove_batch_norms(model, {norm for norm in folded if norm is not None})
        activation_hooks.replace(model, _fixed)
        metadata.register_version(model)
        return model

    def report(self) -> Report:
        """Return how each weight and each range of activations is quantized.

        Returns
        -------
        dict of str to dict
            By the names of modules. ``error`` is the root mean square error of a weight, with the batch
            normalization folded in; NaN for activations, whose ``#params`` is -1.
        """
        report = Report()
        of_weights: set[FakeQuantize | None] = set()
        with torch.no_grad():
            for name, module in quantized_weights.quantized_modules(self._model):
                fake_quantize = quantized_weights.fake_quantize_of(module)
                assert fake_quantize is not None
                of_weights.add(fake_quantize)
                weight = quantized_weights.as_folded(module, parametrized.original(module, "weight").detach())
                quantized = copy.deepcopy(fake_quantize).quantized(weight)
                row = {"type": "weight", "device": weight.device, **_description(fake_quantize)}
                report[name] = {**row, "error": quality.rmse(quantized, weight), "#params": weight.numel()}
            for name, module in self._model.named_modules():
                if isinstance(module, FakeQuantize) and module not in of_weights:
                    row = {"type": "activation", "device": module.scale.device, **_description(module)}
                    report[name] = {**row, "error": float("nan"), "#params": -1}
        return report

    def enable_observer_sync(self) -> None:
        """Let observers of activations take the ranges of all processes of `torch.distributed`, as by default."""
        self._set_observer_sync(True)

    def disable_observer_sync(self) -> None:
        """Let observers take the ranges of their own process, for example to validate on one process alone."""
        self._set_observer_sync(False)

    def _set_observer_sync(self, to_sync: bool) -> None:
        if self._is_prepared:
            self._observer_sync = to_sync
            for fake_quantize in _fake_quantizes(self._model):
                fake_quantize.activation_post_process.synchronize = to_sync

    def _activation_config(self, call: dataflow.Call) -> ModuleLinearQuantizerConfig | None:
        if call.module is not None:
            config = self._config_of(call.name, call.module)
        else:
            named = [
                each
                for key, each in self._linear_config.module_type_configs.items()
                if not isinstance(key, type) and getattr(key, "__name__", key).strip("_") == call.function
            ]
            config = named[0] if named else self._linear_config.global_config
        return config if config is not None and config.activation_dtype != torch.float32 else None

    def _config_of(self, name: str, module: torch.nn.Module) -> ModuleLinearQuantizerConfig | None:
        config = self._linear_config
        for expression, found in config.module_name_configs.items():
            if re.fullmatch(expression, name):
                return found  # type: ignore[no-any-return]
        kind = parametrized.class_of(module)
        for key in (kind, kind.__name__):
            if key in config.module_type_configs:
                return config.module_type_configs[key]  # type: ignore[no-any-return]
        return config.global_config  # type: ignore[no-any-return]

    def _quantize_weights(self, model: torch.nn.Module, norms: dict[torch.nn.Module, torch.nn.Module]) -> None:
        left_alone = self._linear_config.non_traceable_module_names
        for name, module in dataflow.whole_modules(model, left_alone).items():
            kind = parametrized.class_of(module)
            if name in left_alone or kind not in (*WEIGHTED, *EMBEDDINGS):
                continue
            config = self._config_of(name, module)
            if config is None:
                continue
            norm = norms.get(module)
            if norm is not None:
                batch_norm.attach_freezing(norm)
            if config.weight_dtype == torch.float32:
                continue
            fake_quantize = self._weight_fake_quantize(module, kind, config)
            axis, groups = (1, getattr(module, "groups", 1)) if kind in TRANSPOSED else (0, 1)
            quantized_weights.attach(module, fake_quantize, norm, axis, groups)

    def _weight_fake_quantize(
        self, module: torch.nn.Module, kind: type[torch.nn.Module], config: ModuleLinearQuantizerConfig
    ) -> FakeQuantize:
        weight = parametrized.original(module, "weight")
        axis = (1 if kind in TRANSPOSED else 0) if config.weight_per_channel else -1
        observer = MinMaxObserver(
            config.weight_dtype,
            QuantizationScheme.get_qscheme(config.quantization_scheme, config.weight_per_channel),
            *quantized_range(config.weight_n_bits, config.weight_dtype),
            ch_axis=axis,
            averaging_constant=ObserverType(config.weight_observer).averaging_constant,
            channels=weight.shape[axis] if axis != -1 else None,
        )
        return _made(config, observer).to(weight.device)

    def _activation_fake_quantize(
        self, each: Range[ModuleLinearQuantizerConfig], device: torch.device
    ) -> torch.nn.Module:
        if each.fixed is not None:
            return FakeQuantize(FixedObserver(*each.fixed)).to(device)
        config = each.options
        affine = each.nonnegative or config.quantization_scheme is QuantizationScheme.affine
        scheme = QuantizationScheme.affine if affine else QuantizationScheme.symmetric
        observer = MinMaxObserver(
            config.activation_dtype,
            QuantizationScheme.get_qscheme(scheme, is_per_channel=False),
            averaging_constant=ObserverType(config.activation_observer).averaging_constant,
        )
        return _made(config, observer).to(device)


def _made(config: ModuleLinearQuantizerConfig, observer: MinMaxObserver) -> FakeQuantize:
    if config.algorithm == "learnable":
        return learnable_fake_quantize.LearnableFakeQuantize(observer)
    return FakeQuantize(observer)


def _fake_quantizes(model: torch.nn.Module) -> Iterator[FakeQuantize]:
    return (module for module in model.modules() if isinstance(module, FakeQuantize))


def _description(fake_quantize: FakeQuantize) -> dict[str, Any]:
    return {
        "algorithm": "learnable" if isinstance(fake_quantize, LearnableFakeQuantize) else "vanilla",
        "qscheme": "symmetric" if fake_quantize.symmetric else "affine",
        "per_channel": fake_quantize.per_channel,
        "dtype": fake_quantize.dtype,
        "qmin": fake_quantize.quant_min,
        "qmax": fake_quantize.quant_max,
    }


def _fixed(fake_quantize: torch.nn.Module) -> torch.nn.Module:
    assert isinstance(fake_quantize, FakeQuantize)
    scale, zero_point = fake_quantize.calculate_qparams()
    return QuantizeDequantize(float(scale), int(zero_point)).to(scale.device)
