"""Neural networks by PyTorch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...neural_network.layer_schema import StoredNetwork
from ..backend import State
from .network import NetworkModule


def load_network(stored: StoredNetwork, device: str = "cpu") -> NetworkBackend:
    """A neural network, ready to run. All its values are float32, as on a CPU.

    Parameters
    ----------
    stored : StoredNetwork
        The network.
    device : str
        A PyTorch device.

    Raises
    ------
    FormatError
        If a layer is damaged.
    UnsupportedOperationError
        If the network has a layer that cannot be run.
    """
    return NetworkBackend(NetworkModule(stored.network, stored.description, stored.held).to(device))


class NetworkBackend:
    """A loaded neural network; see `corepress.runtime.backend.Backend`."""

    name = "torch"

    def __init__(self, module: NetworkModule) -> None:
        self.module = module

    def predict(self, inputs: Mapping[str, Any], state: State | None = None) -> dict[str, Any]:
        """Run once."""
        with torch.inference_mode():
            return self._results(self.module(self._tensors(inputs)))

    def values(self, inputs: Mapping[str, Any], state: State | None = None) -> Iterator[tuple[str, Any]]:
        """Run once, and yield every intermediate result."""
        results = self.module.values(self._tensors(inputs))
        while True:
            with torch.inference_mode():  # not while the caller looks at a result
                name, result = next(results, (None, None))
            if name is None or result is None:
                return
            yield name, result.cpu().numpy()

    def make_state(self) -> State | None:
        """None: networks have no states."""
        return None

    def _tensors(self, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
        device = self.module.device
        return {name: torch.from_numpy(np.array(value, np.float32)).to(device) for name, value in inputs.items()}

    def _results(self, outputs: Mapping[str, Tensor]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in outputs.items():
            if name == self.module.scores_name:
                label, found[name] = self.module.classify(value)
                found[self.module.label_name] = label
            else:
                found[name] = value.cpu().numpy()
        return found
