"""Palettes without training, by how sensitive a loss is to each weight (SKM)."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import torch
from attrs import define

from ....training.fisher import fisher_diagonal
from ....training.post_training import raise_least
from .._utils.fields import instance_of
from .._utils.k_means import (
    SUPPORTED_MODULES,
    KMeansConfig,
    ParallelKMeans,
    SequentialKMeans,
    fitting_weights,
    layout_of,
    parameter_names,
)
from .._utils.optimizer_utils import ConfigToOptimizerRegistry, ModuleToOptConfigRegistry
from .._utils.report_utils import compute_post_training_report
from .._utils.reports import Report
from ..base_model_optimizer import BaseDataCalibratedModelOptimizer
from ..optimization_config import ModuleOptimizationConfig, OptimizationConfig
from .post_training_palettization import ModulePaletteConfig

__all__ = ["ModuleSKMPalettizerConfig", "SKMPalettizer", "SKMPalettizerConfig"]


def __dir__() -> list[str]:
    return __all__


_logger = logging.getLogger(__name__)
_ParallelKMeans, _SequentialKMeans = ParallelKMeans, SequentialKMeans  # coremltools' names


@define
class ModuleSKMPalettizerConfig(ModulePaletteConfig):
    """How the weights of a module are palettized; the fields are those of `ModulePaletteConfig`."""


@ModuleToOptConfigRegistry.register_module_cfg(ModuleSKMPalettizerConfig)
@define
class SKMPalettizerConfig(OptimizationConfig):
    """How the modules of a model are palettized; see `OptimizationConfig` for the other fields.

    Attributes
    ----------
    calibration_nsamples : int
        How many elements of the data are used.
    """

    _module_config: ClassVar[type[ModuleOptimizationConfig]] = ModuleSKMPalettizerConfig

    calibration_nsamples: int = instance_of(int, 128)


@ConfigToOptimizerRegistry.register_config(SKMPalettizerConfig)
class SKMPalettizer(BaseDataCalibratedModelOptimizer):
    """Palettizes weights so that those matter most which change the loss most.

    The squared error of each value counts as much as its sensitivity: the sum over samples of the squared gradient of
    the loss, the diagonal of the Fisher information. Palettes are optimal for these errors.

    Parameters
    ----------
    model : torch.nn.Module
    config : SKMPalettizerConfig, optional

    References
    ----------
    Kim et al., SqueezeLLM: Dense-and-Sparse Quantization, arXiv:2306.07629.
    """

    _supported_modules = SUPPORTED_MODULES
    _SENSITIVITY_CLIP_THR = 1e-12

    def __init__(self, model: torch.nn.Module, config: SKMPalettizerConfig | None = None) -> None:
        super().__init__(model, SKMPalettizerConfig() if config is None else config)

    def compute_sensitivity(
        self,
        dataloader: Iterable[Any],
        loss_fn: Callable[[torch.nn.Module, Any], torch.Tensor],
        sensitivity_path: str | os.PathLike[str] | None = None,
        num_sensitivity_workers: int = 1,
        fsdp_auto_wrap_policy: Any = None,
    ) -> dict[str, torch.Tensor]:
        """Return how sensitive the loss is to each parameter.

        Parameters
        ----------
        dataloader : iterable
            What `loss_fn` takes; the first ``calibration_nsamples`` elements are used. Where they are batches, each
            sample counts: see `corepress.training.fisher`.
        loss_fn : callable
            Takes the model and an element of the data, returns the loss.
        sensitivity_path : path, optional
            Where the result is saved: as safetensors if the name ends so, otherwise by ``torch.save``.
        num_sensitivity_workers : int
            Accepted; one process does the work, on all threads of PyTorch.
        fsdp_auto_wrap_policy : optional
            Accepted and without effect.

        Returns
        -------
        dict of str to torch.Tensor of float32
            By the names of parameters, on the CPU: at most 1, at least 1e-12.

        Raises
        ------
        ValueError
            If there are no data, or gradients are not finite.
        """
        if num_sensitivity_workers > 1:
            _logger.warning("SKMPalettizer: one process computes sensitivities, not %d", num_sensitivity_workers)
        data = self._get_dataset(0, 1, dataloader)
        if not data:
            raise ValueError("SKMPalettizer.compute_sensitivity: the dataloader has no elements; give at least one")
        sums = self._compute_sensitivity_impl_single_worker(data, loss_fn, sensitivity_path)
        sensitivity = self._process_sensitivity(sums)
        if sensitivity_path is not None:
            _save(sensitivity, sensitivity_path)
        return sensitivity

    def compress(  # type: ignore[override]
        self,
        dataloader: Iterable[Any] | None = None,
        loss_fn: Callable[[torch.nn.Module, Any], torch.Tensor] | None = None,
        sensitivity_path: str | os.PathLike[str] | None = None,
        num_kmeans_workers: int = 1,
        num_sensitivity_workers: int = 1,
        inplace: bool = False,
        fsdp_auto_wrap_policy: Any = None,
    ) -> torch.nn.Module:
        """Return the model with palettized weights.

        Parameters
        ----------
        dataloader, loss_fn, num_sensitivity_workers, fsdp_auto_wrap_policy
            As of `compute_sensitivity`; not used with `sensitivity_path`.
        sensitivity_path : path, optional
            A file with the sensitivities, as `compute_sensitivity` saves it: tensors by the names of parameters.
        num_kmeans_workers : int
            Threads; results do not depend on their number.
        inplace : bool
            Whether it is the model itself; otherwise a copy.

        Raises
        ------
        ValueError
            If the file lacks a weight that is to be palettized, or weights are not finite.
        """
        model = super().compress(dataloader=dataloader, inplace=inplace)  # type: ignore[arg-type]
        if sensitivity_path is None:
            sensitivity = self.compute_sensitivity(
                dataloader,  # type: ignore[arg-type]
                loss_fn,  # type: ignore[arg-type]
                sensitivity_path,
                num_sensitivity_workers,
                fsdp_auto_wrap_policy=fsdp_auto_wrap_policy,
            )
        else:
            sensitivity = _load(sensitivity_path)
        configs: dict[str, dict[str, KMeansConfig]] = {}
        for name, parameter, options in fitting_weights(model, self._config):
            label = f"{name}.{parameter}" if name else parameter
            if label not in sensitivity:
                raise ValueError(
                    f"SKMPalettizer.compress: there is no sensitivity of {label}; compute it with this model, in which "
                    "that weight is trained (requires_grad)"
                )
            found = options._k_means(importance=sensitivity[label])
            if _is_changeable(sensitivity[label]):
                raise_least(sensitivity[label], layout_of(model.get_submodule(name).get_parameter(parameter), found))
            configs.setdefault(name, {})[parameter] = found
        if num_kmeans_workers > 1:
            return _ParallelKMeans.cluster_weights(model, configs, num_workers=num_kmeans_workers)
        return _SequentialKMeans.cluster_weights(model, configs)

    def report(self) -> Report:
        """Return a row for each palettized weight: its root mean square error, elements, palettes."""
        assert self._uncompressed_model is not None, "SKMPalettizer.report: call compress first"
        return compute_post_training_report(self._uncompressed_model, self._model, self._supported_modules)

    def _compute_sensitivity_impl_single_worker(
        self,
        dataset: list[Any],
        loss_fn: Callable[[torch.nn.Module, Any], torch.Tensor],
        sensitivity_path: str | os.PathLike[str] | None,
    ) -> dict[str, torch.Tensor]:
        devices = {parameter.device for parameter in self._model.parameters()}
        moved = torch.cuda.is_available() and devices == {torch.device("cpu")}
        if moved:  # as coremltools does, so that loss functions that move the data find the model there
            self._model.cuda()
        try:
            return fisher_diagonal(self._model, dataset, loss_fn, _names_of_weights(self._model))
        finally:
            if moved:
                self._model.cpu()

    def _process_sensitivity(self, sums: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: self._normalized(name, sums.pop(name).cpu()) for name in list(sums)}

    def _get_dataset(self, rank: int, num_workers: int, dataloader: Iterable[Any]) -> list[Any]:
        """The elements of the data that are a worker's."""
        wanted = self._config.calibration_nsamples // num_workers  # type: ignore[union-attr]
        found: list[Any] = []
        for index, element in enumerate(dataloader):
            if len(found) == wanted:
                break
            if index % num_workers == rank:
                found.append(copy.deepcopy(element))  # loaders may use their memory again
        return found

    @classmethod
    def _normalized(cls, name: str, sums: torch.Tensor) -> torch.Tensor:
        """Sums as shares of the largest; the smallest that is not 0 instead of 0."""
        largest = sums.max() if sums.numel() else torch.tensor(0.0)
        if not torch.isfinite(largest):
            raise ValueError(f"SKMPalettizer.compute_sensitivity: the gradients of {name} are not finite")
        if largest == 0:
            return torch.ones_like(sums)
        sums.div_(largest)
        zeros = sums == 0
        if zeros.any():
            sums[zeros] = sums[~zeros].min()
        return sums.clamp_min_(cls._SENSITIVITY_CLIP_THR)


def _is_changeable(importance: Any) -> bool:
    """Whether what palettes are made for is changed in place, not copied."""
    known = isinstance(importance, torch.Tensor)
    return known and importance.dtype == torch.float32 and importance.device.type == "cpu"


def _names_of_weights(model: torch.nn.Module) -> set[str]:
    """The names of all weights that palettes are for."""
    return {
        f"{name}.{parameter}" if name else parameter
        for name, module in model.named_modules()
        for parameter in parameter_names(module)
    }


def _save(sensitivity: Mapping[str, torch.Tensor], path: str | os.PathLike[str]) -> None:
    if os.fspath(path).endswith(".safetensors"):
        from safetensors.torch import save_file

        save_file({name: value.contiguous() for name, value in sensitivity.items()}, path)
    else:
        torch.save(dict(sensitivity), path)


def _load(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    if os.fspath(path).endswith(".safetensors"):
        from safetensors.torch import load_file

        return dict(load_file(path))
    loaded: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return loaded
