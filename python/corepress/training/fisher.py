"""How sensitive a loss is to each weight: the diagonal of the Fisher information."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from .per_sample import PerSampleSquares

Loss = Callable[[torch.nn.Module, Any], torch.Tensor]
# Of a batch, whose samples tell whether its loss is their mean or their sum, and whether hooks see their gradients.
FEW = 4
TOLERANCE = 1e-3


def fisher_diagonal(
    model: torch.nn.Module, data: Iterable[Any], loss_fn: Loss, names: set[str]
) -> dict[str, torch.Tensor]:
    """Return the sum over samples of the squared gradient of each parameter.

    Where the loss of a batch is the mean or the sum of those of its samples, it is the loss of each sample that
    counts: their gradients come from one backward pass if they can (see `PerSampleSquares`), otherwise from one each.
    Other batches count as one sample, as do all in a model whose batch normalization is in training mode.

    Parameters
    ----------
    model : torch.nn.Module
        Its parameters, buffers and gradients are what they were, afterwards.
    data : iterable
        What `loss_fn` takes. Batches are tensors, or nested tuples, lists and dicts of them, whose first axis is that
        of samples.
    loss_fn : callable
        Takes the model and one element of the data, returns the loss.
    names : set of str
        The parameters whose gradients are squared for each sample. Those of others may be squared for each batch.

    Returns
    -------
    dict of str to torch.Tensor of float32
        For each parameter that is trained, by its name.
    """
    with _state_kept(model):
        run = _Run(model, loss_fn, names)
        for batch in data:
            run.add(batch)
    return run.sums


class _Run:
    """The sums over the batches so far, and what is known of them."""

    def __init__(self, model: torch.nn.Module, loss_fn: Loss, names: set[str]) -> None:
        self.model, self.loss_fn = model, loss_fn
        self.parameters = {name: each for name, each in model.named_parameters() if each.requires_grad}
        self.sums = self._zeros(set(self.parameters))
        self.names = names & self.parameters.keys()
        self.squares = PerSampleSquares(model, self.names)
        self._checked = False
        self._is_mean: bool | None = None  # None: batches are not divided
        self._together = False

    def add(self, batch: Any) -> None:
        """Add the squares of a batch."""
        count = 1 if _interact(self.model) else samples_of(batch)
        if count > 1 and not self._checked:
            self._check(batch, min(count, FEW))
        if count == 1 or self._is_mean is None:
            self._add_whole(batch, self.sums)
        elif not (self._together and self._add_together(batch, count, self.sums)):
            self._add_each(batch, count, self.sums)

    def _check(self, batch: Any, count: int) -> None:
        """Find out, with some samples and without what is random in training, how batches can be divided."""
        self._checked = True
        modes = {module: module.training for module in self.model.modules()}
        self.model.eval()
        try:
            some = samples(batch, slice(0, count))
            self._is_mean = self._mean_of_samples(some, count)
            if self._is_mean is not None and self.squares.complete:
                expected, found = self._zeros(self.names), self._zeros(self.names)
                self._add_each(some, count, expected)
                self._together = self._add_together(some, count, found) and all(
                    float((found[name] - each).norm()) <= TOLERANCE * float(each.norm())
                    for name, each in expected.items()
                )
        finally:
            for module, training in modes.items():
                module.training = training

    def _mean_of_samples(self, batch: Any, count: int) -> bool | None:
        """Whether the loss of a batch is the mean (True) or the sum (False) of those of its samples, or neither."""
        with torch.no_grad():
            try:
                total = float(self.loss_fn(self.model, batch))
                each = [float(self.loss_fn(self.model, samples(batch, slice(i, i + 1)))) for i in range(count)]
            except (RuntimeError, ValueError, IndexError, TypeError):
                return None  # the first axis is another one
        size = sum(map(abs, each))
        if abs(total - sum(each)) <= TOLERANCE * size:
            return False
        return True if abs(total - sum(each) / count) <= TOLERANCE * size / count else None

    def _add_whole(self, batch: Any, sums: dict[str, torch.Tensor]) -> None:
        self.loss_fn(self.model, batch).backward()  # type: ignore[no-untyped-call]
        self._add_gradients(sums)

    def _add_each(self, batch: Any, count: int, sums: dict[str, torch.Tensor]) -> None:
        for index in range(count):
            self._add_whole(samples(batch, slice(index, index + 1)), sums)

    def _add_together(self, batch: Any, count: int, sums: dict[str, torch.Tensor]) -> bool:
        """Add all samples by one backward pass; False if it turns out that this is not possible."""
        with self.squares.collecting(count, count if self._is_mean else 1, sums):
            loss = self.loss_fn(self.model, batch)
            if not self.squares.consistent:
                return False
            loss.backward()  # type: ignore[no-untyped-call]
        self._add_gradients({name: each for name, each in sums.items() if name not in self.names})
        return True

    def _add_gradients(self, sums: dict[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                if parameter.grad is not None and name in sums:
                    gradient = parameter.grad.to_dense().float()
                    sums[name].addcmul_(gradient, gradient)
                parameter.grad = None

    def _zeros(self, names: set[str]) -> dict[str, torch.Tensor]:
        return {
            name: torch.zeros_like(each, dtype=torch.float32, requires_grad=False)
            for name, each in self.parameters.items()
            if name in names
        }


def samples_of(batch: Any) -> int:
    """Return the length of the first axis of all tensors in a batch; 1 if there is none, or they differ."""
    lengths = {len(each) if each.ndim else 0 for each in _tensors(batch)}
    return max(lengths.pop(), 1) if len(lengths) == 1 else 1


def samples(batch: Any, chosen: slice) -> Any:
    """Return some samples of a batch; what is no tensor belongs to all."""
    if isinstance(batch, torch.Tensor):
        return batch[chosen]
    if isinstance(batch, dict):
        return type(batch)({key: samples(each, chosen) for key, each in batch.items()})
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(samples(each, chosen) for each in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(samples(each, chosen) for each in batch)
    return batch


def _tensors(batch: Any) -> Iterator[torch.Tensor]:
    if isinstance(batch, torch.Tensor):
        yield batch
    elif isinstance(batch, dict | list | tuple):
        for each in batch.values() if isinstance(batch, dict) else batch:
            yield from _tensors(each)


def _interact(model: torch.nn.Module) -> bool:
    """Whether the outputs for a sample depend on the others of its batch."""
    return any(isinstance(each, torch.nn.modules.batchnorm._BatchNorm) and each.training for each in model.modules())


@contextmanager
def _state_kept(model: torch.nn.Module) -> Iterator[None]:
    """Gradients and buffers after the block are those before it."""
    gradients = {each: each.grad for each in model.parameters()}
    buffers = {each: each.clone() for each in model.buffers()}
    for parameter in gradients:
        parameter.grad = None
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in buffers.items():
                buffer.copy_(value)
        for parameter, gradient in gradients.items():
            parameter.grad = gradient
