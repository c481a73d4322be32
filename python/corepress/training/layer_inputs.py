"""Second moments of what the weight of a module is multiplied with."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..calibration.moments import Moments
from ..calibration.observers import windows
from ..calibration.places import spread
from ..compression.matrix_view import MatrixView

Layer: TypeAlias = torch.nn.Linear | torch.nn.Conv1d | torch.nn.Conv2d | torch.nn.Conv3d

LAYERS: tuple[type[torch.nn.Module], ...] = (torch.nn.Linear, torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)
MOST_VECTORS = 1 << 16  # of one call of a layer; more are taken as samples, each of which counts for several
_ELEMENTS = 1 << 24  # of vectors that are made at a time


def matrix_view(layer: torch.nn.Module) -> MatrixView:
    """How a layer's weight, with all axes but the first in one, multiplies its inputs."""
    weight = layer.get_parameter("weight")
    groups = int(getattr(layer, "groups", 1))
    return MatrixView((weight.shape[0], weight[0].numel()), (0,), (1,), groups, 0)


class InputMoments:
    """Sums of products of a layer's inputs.

    Products of some hundred vectors are computed in float32, where the inputs are, and added in float64 on the CPU.

    Parameters
    ----------
    layer : torch.nn.Linear, Conv1d, Conv2d or Conv3d
    most : int
        Vectors that are taken of one call, evenly spread over all: those of a convolution are its windows.

    Raises
    ------
    TypeError
        If the layer is of another type.
    """

    def __init__(self, layer: torch.nn.Module, most: int = MOST_VECTORS) -> None:
        if not isinstance(layer, LAYERS):
            names = ", ".join(kind.__name__ for kind in LAYERS)
            raise TypeError(f"InputMoments: layer must be one of {names}, not {type(layer).__name__}")
        self._layer, self._most = layer, most
        self.view = matrix_view(layer)
        self._moments = Moments(self.view.groups, self.view.columns, self.view.columns)

    @property
    def count(self) -> int:
        """How many vectors there were."""
        return self._moments.count

    def add(self, inputs: Tensor) -> None:
        """Add the inputs of a call.

        Parameters
        ----------
        inputs : torch.Tensor of floats
            As the layer takes them, on any device.
        """
        for vectors, factor, count in self._vectors(inputs.detach()):
            self._moments.add(vectors, factor, count)

    def mean(self) -> NDArray[np.float32]:
        """The moments, (groups, 1, columns, columns); zero without inputs."""
        return self._moments.mean()

    @property
    def is_finite(self) -> bool:
        """Whether all inputs were."""
        return self._moments.is_finite

    def _vectors(self, inputs: Tensor) -> Iterator[tuple[Tensor, float, int]]:
        if inputs.numel() == 0:
            return
        layer = self._layer
        if isinstance(layer, torch.nn.Linear):
            yield from self._rows(inputs.reshape(-1, inputs.shape[-1]))
            return
        assert isinstance(layer, torch.nn.Conv1d | torch.nn.Conv2d | torch.nn.Conv3d)
        kernel = layer.kernel_size
        if inputs.dim() == len(kernel) + 1:
            inputs = inputs[None]
        padded = _padded(inputs, layer)
        samples = max(1, self._most * 16 // max(1, prod(padded.shape[2:])))  # a batch of pictures may be large
        parts = -(-len(padded) // samples)
        for part in torch.split(padded, samples):
            yield from windows(
                part.float(), kernel, layer.stride, layer.dilation, layer.groups, max(1, self._most // parts)
            )

    def _rows(self, rows: Tensor) -> Iterator[tuple[Tensor, float, int]]:
        chosen = spread(len(rows), self._most)
        taken = rows if chosen is None else rows[torch.from_numpy(chosen).to(rows.device)]
        size = max(1, _ELEMENTS // rows.shape[1])
        for start in range(0, len(taken), size):
            part = taken[start : start + size].float()
            yield part[None], len(rows) / len(taken), len(rows) if start + size >= len(taken) else 0


def _padded(inputs: Tensor, layer: torch.nn.Conv1d | torch.nn.Conv2d | torch.nn.Conv3d) -> Tensor:
    pads: list[int] = []
    for axis in reversed(range(len(layer.kernel_size))):
        if layer.padding == "same":
            total = layer.dilation[axis] * (layer.kernel_size[axis] - 1)
            pads += [total // 2, total - total // 2]
        elif layer.padding == "valid":
            pads += [0, 0]
        else:
            pads += [int(layer.padding[axis])] * 2
    if not any(pads):
        return inputs
    return F.pad(inputs, pads, mode="constant" if layer.padding_mode == "zeros" else layer.padding_mode)
