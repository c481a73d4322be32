"""Magnitude pruning: the weights of smallest magnitude become zero, more and more of them while the others train."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from attrs import define, field, validators

from ....training import metadata as metadata_of
from ....training import parametrized, quality
from ....training.masks import MaskRule
from ....training.metadata import CompressionType, ParameterMetadata
from ....training.pruned import Pruned
from .._utils.fields import check_module_type, instance_of
from .._utils.optimizer_utils import ConfigToOptimizerRegistry, ModuleToOptConfigRegistry
from .._utils.reports import Report
from .._utils.torch_utils import get_eval_model
from ..base_model_optimizer import BaseTrainingTimeModelOptimizer
from ..optimization_config import ModuleOptimizationConfig, OptimizationConfig
from .pruning_scheduler import ConstantSparsityScheduler, PolynomialDecayScheduler, PruningScheduler

__all__ = ["MagnitudePruner", "MagnitudePrunerConfig", "ModuleMagnitudePrunerConfig"]


def __dir__() -> list[str]:
    return __all__


_logger = logging.getLogger(__name__)

_GRANULARITIES = ("per_scalar", "per_kernel", "per_channel", "per_layer")
_SUPPORTED_MODULES = (torch.nn.Linear, torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)
_SPARSITIES = ("structured_weight_sparsity", "unstructured_weight_sparsity", "block2_weight_sparsity")


def _scheduler(value: Any) -> Any:
    """A schedule from the fields of one: those of files."""
    if not isinstance(value, Mapping):
        return value
    return (ConstantSparsityScheduler if "begin_step" in value else PolynomialDecayScheduler)(**value)


@define
class ModuleMagnitudePrunerConfig(ModuleOptimizationConfig):
    """How the weight of a module is pruned.

    Attributes
    ----------
    scheduler : PruningScheduler
        How sparsity grows. From a dict, it is a `PolynomialDecayScheduler` if there are ``update_steps``.
    initial_sparsity, target_sparsity : float
        The share of zeros at the beginning and at the end.
    granularity : {"per_scalar", "per_kernel", "per_channel"}
        What becomes zero: values, or slices along the first two axes or the first one, by their L2 norms; weights of
        linear layers are pruned by values. ``"per_layer"`` is accepted for these alone.
    block_size : int
        How many neighbours along the output channels become zero together, by their L2 norm.
    n_m_ratio : (int, int), optional
        Of every m neighbours along `dim`, n become zero; `target_sparsity` is not used.
    dim : int
        With `n_m_ratio`: 1 for input channels, 0 for output channels.
    param_name : str
        The parameter that is pruned.
    """

    scheduler: Any = field(default=ConstantSparsityScheduler(begin_step=0), converter=_scheduler)
    initial_sparsity: float = instance_of(float, 0.0)
    target_sparsity: float = instance_of(float, 0.5)
    granularity: str = field(default="per_scalar", validator=validators.in_(_GRANULARITIES))
    block_size: int = instance_of(int, 1)
    n_m_ratio: Any = field(
        default=None,
        validator=validators.optional(
            validators.deep_iterable(validators.instance_of(int), validators.instance_of((tuple, list)))
        ),
    )
    dim: int = instance_of(int, 1)
    param_name: str = instance_of(str, "weight")

    @scheduler.validator
    def _check_scheduler(self, attribute: Any, value: Any) -> None:
        if not isinstance(value, PruningScheduler):
            raise TypeError(f"{type(self).__name__}: scheduler must be a PruningScheduler, not {value!r}")

    def __attrs_post_init__(self) -> None:
        if self.n_m_ratio is None:
            return
        own, ratio = type(self).__name__, self.n_m_ratio
        if len(ratio) != 2 or not 0 <= ratio[0] <= ratio[1] or ratio[1] < 1:
            raise ValueError(f"{own}: n_m_ratio must be two numbers n <= m, m at least 1, not {ratio!r}")
        for name, only in (("block_size", 1), ("granularity", "per_scalar")):
            if getattr(self, name) != only:
                raise ValueError(f"{own}: with n_m_ratio, {name} must be {only!r}, not {getattr(self, name)!r}")

    @property
    def _rule(self) -> MaskRule:
        ratio = None if self.n_m_ratio is None else tuple(self.n_m_ratio)
        return MaskRule(self.granularity, self.block_size, ratio, self.dim)


@ModuleToOptConfigRegistry.register_module_cfg(ModuleMagnitudePrunerConfig)
@define
class MagnitudePrunerConfig(OptimizationConfig):
    """How the modules of a model are pruned; see `OptimizationConfig` for the fields."""

    _module_config: ClassVar[type[ModuleOptimizationConfig]] = ModuleMagnitudePrunerConfig

    @classmethod
    def _check_module_type(cls, key: Any) -> None:
        check_module_type(cls.__name__, key, _SUPPORTED_MODULES)


@define
class _PrunerInfo:
    """A module that is pruned."""

    config: Any
    module: torch.nn.Module
    pruned: Pruned

    @property
    def sparsity_level(self) -> float:
        """The share that the mask removes."""
        return self.pruned.level


@ConfigToOptimizerRegistry.register_config(MagnitudePrunerConfig)
class MagnitudePruner(BaseTrainingTimeModelOptimizer):
    """Prunes weights while a model trains: those of smallest magnitude become zero, by a schedule.

    Weights that are zero have no gradient; when sparsity grows, they are chosen anew. `step` is called after each step
    of training. All state is in the model's state dict, so that training can be resumed at any step.

    With a quantizer or palettizer: prepare one, then the other with ``inplace=True``; finalize that one first, then the
    pruner.

    Parameters
    ----------
    model : torch.nn.Module
    config : MagnitudePrunerConfig, optional

    References
    ----------
    Zhu and Gupta, To prune, or not to prune: exploring the efficacy of pruning for model compression,
    arXiv:1710.01878.
    """

    _supported_modules = _SUPPORTED_MODULES

    def __init__(self, model: torch.nn.Module, config: MagnitudePrunerConfig | None = None) -> None:
        super().__init__(model, MagnitudePrunerConfig() if config is None else config)
        self._pruner_info: dict[str, _PrunerInfo] = {}

    @property
    def _is_prepared(self) -> bool:
        return bool(self._pruner_info)

    def prepare(self, inplace: bool = False) -> torch.nn.Module:
        """Return the model with masks for its weights.

        Parameters
        ----------
        inplace : bool
            Whether it is the model itself; otherwise a copy.

        Raises
        ------
        RuntimeError
            If another optimizer prepared the model and `inplace` is False.
        """
        if self._is_prepared:
            _logger.warning("MagnitudePruner.prepare: the model is prepared already, nothing is done")
            return self._model
        if not inplace:
            for name, _, config in self._modules_to_prune(self._model):
                if _others(self._model.get_submodule(name), config.param_name):
                    raise RuntimeError(
                        f"MagnitudePruner.prepare: another optimizer prepared {name!r}; for joint compression, pass "
                        "inplace=True, so that both work on the same model"
                    )
        self._model = self._get_model_for_compression(inplace)
        for name, module, config in list(self._modules_to_prune(self._model)):
            self._pruner_info[name] = _PrunerInfo(config, module, _prune(module, config))
        return self._model

    def step(self) -> None:
        """Count a step of training, and choose anew what is zero if the schedule says so."""
        if not self._is_prepared:
            _logger.warning("MagnitudePruner.step: the model is not prepared, nothing is done; call prepare first")
            return
        self._step_count = max(info.pruned.count for info in self._pruner_info.values()) + 1
        for info in self._pruner_info.values():
            module, parameter = info.module, info.config.param_name
            pruned = parametrized.find(module, parameter, Pruned)
            if pruned is not None:
                info.pruned = pruned
                sparsity = info.config.scheduler.compute_sparsity(
                    self._step_count, prev_sparsity=pruned.level, config=info.config
                )
                pruned.advance(self._step_count, parametrized.original(module, parameter).detach(), sparsity)

    def finalize(self, model: torch.nn.Module | None = None, inplace: bool = False) -> torch.nn.Module:
        """Return the model with zeros in its weights, a plain module that ``coremltools.convert`` compresses.

        Parameters
        ----------
        model : torch.nn.Module, optional
            The prepared model, if not the one that `prepare` returned.
        inplace : bool
            Whether it is the model itself; otherwise a copy.

        Raises
        ------
        RuntimeError
            If another optimizer prepared the model and has not finalized it.
        ValueError
            If weights are also quantized or palettized, and have values that conversion would make zero.
        """
        model = self._model if model is None else model
        for name, info in self._pruner_info.items():
            if _others(model.get_submodule(name), info.config.param_name):
                raise RuntimeError(
                    f"MagnitudePruner.finalize: another optimizer prepared {name!r}; finalize that one first, then the "
                    "pruner, with the model that it returns"
                )
        finalized = model if inplace else copy.deepcopy(model)
        found = {name: (parameter, module) for name, module, parameter, _ in _all_pruned(finalized)}
        for name, info in self._pruner_info.items():
            found.setdefault(name, (info.config.param_name, finalized.get_submodule(name)))
        for name, (parameter, module) in found.items():
            if parametrized.find(module, parameter, Pruned) is not None:
                parametrized.detach(module, parameter)
            _register(name, module, parameter)
        metadata_of.register_version(finalized)
        return finalized

    def report(self) -> Report:
        """Return a row for each pruned module, and one for all together.

        Returns
        -------
        dict of str to dict
            Elements, and the shares of zeros: values, rows along the first axis, and pairs of neighbouring rows (-1: an
            odd number of rows). ``"global"`` has the means, weighted by elements.
        """
        report = Report()
        with get_eval_model(self._model), torch.no_grad():
            for name, info in self._pruner_info.items():
                if parametrized.find(info.module, info.config.param_name, Pruned) is not None:
                    report[name] = _sparsities(getattr(info.module, info.config.param_name))
        rows = list(report.values())
        total: dict[str, Any] = {"#params": sum(row["#params"] for row in rows)}
        for kind in _SPARSITIES:
            known = [row for row in rows if row[kind] >= 0]
            elements = sum(row["#params"] for row in known)
            total[kind] = sum(row[kind] * row["#params"] for row in known) / elements if known else -1
        report["global"] = total
        return report

    def _modules_to_prune(self, model: torch.nn.Module) -> Any:
        """Names, modules and options of what is pruned; options are copies, with the sparsity that schedules need."""
        for name, module in model.named_modules():
            config = self._config.get_module_config(name, module)  # type: ignore[union-attr]
            if isinstance(module, self._supported_modules) and config is not None:
                config = copy.deepcopy(config)
                if config.n_m_ratio is not None:
                    config.target_sparsity = config.n_m_ratio[0] / config.n_m_ratio[1]
                yield name, module, config


def _prune(module: torch.nn.Module, config: Any) -> Pruned:
    """Attach a mask, before what other optimizers attached."""
    parameter = config.param_name
    pruned = Pruned(parametrized.original(module, parameter).detach(), config._rule, config.initial_sparsity)
    parametrized.attach(
        module,
        parameter,
        pruned,
        {
            f"{parameter}_orig": lambda owner: parametrized.original(owner, parameter),
            f"{parameter}_mask": lambda owner: _of(owner, parameter).mask,
            "pruning_method": lambda owner: _of(owner, parameter),
        },
        first=True,
    )
    return pruned


def _of(module: torch.nn.Module, parameter: str) -> Pruned:
    pruned = parametrized.find(module, parameter, Pruned)
    if pruned is None:
        raise AttributeError(f"{parameter} is not pruned")
    return pruned


def _all_pruned(model: torch.nn.Module) -> list[tuple[str, torch.nn.Module, str, Pruned]]:
    return list(parametrized.parametrized(model, Pruned))


def _others(module: torch.nn.Module, parameter: str) -> bool:
    """Whether a parameter has parametrizations of other optimizers."""
    each = parametrized.find(module, parameter, torch.nn.Module)
    return each is not None and any(
        not isinstance(each, Pruned)
        for each in module.parametrizations[parameter]  # type: ignore[index]
    )


def _register(name: str, module: torch.nn.Module, parameter: str) -> None:
    """Mark a weight as pruned for conversion, besides what its buffers say already."""
    weight = module.get_parameter(parameter)
    known = metadata_of.of_module(module).get(parameter, ParameterMetadata(()))
    lost = metadata_of.lost_by_pruning(weight)
    others = tuple(step for step in known.compression_type if step is not CompressionType.pruning)
    label = f"{name}.{parameter}" if name else parameter
    reason = (
        f"{lost} of {weight.numel()} values of {label} are not zero but at most {metadata_of.LARGEST_LOST:.2g}, which "
        "conversion would make zero"
    )
    if lost and others:
        kinds = " and ".join(map(str, others))
        raise ValueError(
            f"MagnitudePruner.finalize: {reason}, and palettes or scales would no longer fit; convert the model with "
            f"{kinds} alone, or prune more of this weight"
        )
    if lost:
        _logger.warning(
            "MagnitudePruner.finalize: %s; it is left dense. Pass "
            "pass_pipeline=coremltools.PassPipeline.DEFAULT_PRUNING to coremltools.convert, which keeps them",
            reason,
        )
        return
    metadata_of.register(module, parameter, replace(known, compression_type=(CompressionType.pruning, *others)))


def _sparsities(weight: torch.Tensor) -> dict[str, Any]:
    rows = quality.block2_sparsity(weight) if len(weight) % 2 == 0 else -1
    shares = (quality.structured_sparsity(weight), quality.unstructured_sparsity(weight), rows)
    return {"#params": weight.numel(), **dict(zip(_SPARSITIES, shares, strict=True))}
