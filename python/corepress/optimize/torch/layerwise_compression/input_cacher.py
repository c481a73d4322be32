"""What the first block of a model is called with."""

from __future__ import annotations

import itertools
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import torch

from ....training.layerwise import captured_calls, moved
from .._utils.python_utils import ClassRegistryMixin


class FirstLayerInputCacher(ABC, ClassRegistryMixin):
    """Keeps the inputs of the first block that is compressed; for models whose blocks are a chain.

    The two that are registered, ``"default"`` and ``"gpt"``, are here for coremltools' interface: for them
    `LayerwiseCompressor` looks at what blocks are called with itself. Another class, registered under a name of its own
    with `register`, is asked for the inputs, and each block is then called with what the one before it returned.

    Parameters
    ----------
    model : torch.nn.Module
    layers : list of str or torch.nn.Module, or str, or None
        The blocks: regular expressions of names, or modules.
    """

    def __init__(self, model: torch.nn.Module, layers: Any) -> None:
        self._model = model
        self._layers = layers

    @abstractmethod
    def cache(self, dataloader: Iterable[Any], nsamples: int, device: str) -> tuple[list[Any], dict[str, Any]]:
        """Return what the first block is called with.

        Parameters
        ----------
        dataloader : iterable
            Inputs of the model.
        nsamples : int
            How many of them are taken.
        device : str
            Where the tensors are returned.

        Returns
        -------
        inputs : list
            For each sample, a tensor or a tuple of arguments.
        kwarg_inputs : dict of str to values
            Named arguments of all calls.
        """


@FirstLayerInputCacher.register("default")
class DefaultInputCacher(FirstLayerInputCacher):
    """For models whose first block takes the model's inputs."""

    def cache(self, dataloader: Iterable[Any], nsamples: int, device: str) -> tuple[list[Any], dict[str, Any]]:
        """Return the first samples; parameters as for `FirstLayerInputCacher.cache`."""
        return [moved(sample, device) for sample in itertools.islice(dataloader, nsamples)], {}


@FirstLayerInputCacher.register("gpt")
class GPTFirstLayerInputCacher(FirstLayerInputCacher):
    """For models with other layers before the first block, such as embeddings.

    Raises
    ------
    ValueError
        If no module of the model is one of the blocks.
    """

    def __init__(self, model: torch.nn.Module, layers: Any) -> None:
        super().__init__(model, layers)
        wanted = list(layers) if isinstance(layers, list | torch.nn.ModuleList) else [layers]
        found = (module for name, module in model.named_modules() if _is_one(name, module, wanted))
        self._first_layer = next(found, None)

    def cache(self, dataloader: Iterable[Any], nsamples: int, device: str) -> tuple[list[Any], dict[str, Any]]:
        """Return what the first block was called with; parameters as for `FirstLayerInputCacher.cache`."""
        if self._first_layer is None:
            raise ValueError(f"GPTFirstLayerInputCacher: no module of the model is one of {self._layers}")
        samples = list(itertools.islice(dataloader, nsamples))
        self._model.to(device)
        calls = captured_calls(self._model, self._first_layer, samples, device)
        named = {key: value for _, kwargs in calls for key, value in kwargs.items()}
        return [args for args, _ in calls], named


def _is_one(name: str, module: torch.nn.Module, wanted: list[Any]) -> bool:
    return any(re.fullmatch(each, name) if isinstance(each, str) else each is module for each in wanted)
