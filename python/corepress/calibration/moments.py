"""Second moments of the inputs of weights, E[x x^T], summed over samples with PyTorch."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from .block_sums import BlockSums


class Moments(BlockSums):
    """Sums of products of tensors on any device; the sums themselves are NumPy's."""

    def add(self, inputs: Tensor, factor: float, count: int) -> None:
        """Add input vectors; see `BlockSums.add`."""
        self._waiting = [each.to(inputs.device) for each in self._waiting]  # where an interrupted run is continued
        super().add(inputs, factor, count)

    def _wait(self, inputs: Tensor) -> None:
        self._waiting.append(inputs.clone())  # what it is a view of may be large, or change

    def _joined(self) -> Tensor:
        return torch.cat(self._waiting, dim=1)

    def _product(self, inputs: Tensor, rows: slice, columns: slice) -> NDArray[Any]:
        product = torch.bmm(inputs.transpose(1, 2)[:, rows], inputs[:, :, columns])
        return product.cpu().numpy()

    def state(self) -> dict[str, NDArray[Any]]:
        """The sums so far, and what waits to be added, as arrays by name."""
        self._waiting = [each.cpu() for each in self._waiting]
        return super().state()

    def _restored(self, waiting: NDArray[Any]) -> Tensor:
        return torch.from_numpy(waiting)
