"""Neural networks by PyTorch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..backend import State
from .network import NetworkModule, load_network


class NetworkBackend:
    """A loaded neural network; see `corepress.runtime.backend.Backend`. It is computed in float32.

    Parameters
    ----------
    data : bytes
        The serialized model.
    predicted_feature : str
        Name of the output for the best class of a classifier.
    device : str
        A PyTorch device.
    """

    name = "torch"

    def __init__(self, data: bytes, predicted_feature: str, device: str) -> None:
        self.module: NetworkModule = load_network(data).to(device)
        self._device, self._predicted_feature = torch.device(device), predicted_feature

    def predict(self, inputs: Mapping[str, Any], state: State | None) -> dict[str, Any]:
        """Run once."""
        with torch.inference_mode():
            results = self.module(self._tensors(inputs))
        outputs: dict[str, Any] = {name: _array(result) for name, result in results.items()}
        if self.module.class_labels is not None:
            scores = self.module.scores_name
            outputs[self._predicted_feature], outputs[scores] = self.module.classify(results[scores])
        return outputs

    def values(self, inputs: Mapping[str, Any], state: State | None) -> Iterator[tuple[str, Any]]:
        """Run once, and yield what each layer computes, by its name."""
        results = self.module.values(self._tensors(inputs))
        while True:
            with torch.inference_mode():  # not while the caller looks at a result
                name, result = next(results, (None, None))
            if name is None or result is None:
                return
            yield name, _array(result)

    def make_state(self) -> None:
        """None: networks have no states."""
        return

    def _tensors(self, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
        return {name: _tensor(value).to(self._device) for name, value in inputs.items()}


def _tensor(value: Any) -> Tensor:
    return torch.from_numpy(np.array(value, np.float32, copy=True))


def _array(tensor: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = tensor.detach().cpu().numpy()
    return array
