"""Squared gradients of each sample of a batch, from one backward pass.

A weight's gradient is a sum over samples of products of what its module was given and of the gradient of what it
returned; both are seen by hooks, so that the products of each sample can be squared before they are added.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import grad as gradients

_CONVOLUTIONS = {
    torch.nn.Conv1d: gradients.conv1d_weight,
    torch.nn.Conv2d: gradients.conv2d_weight,
    torch.nn.Conv3d: gradients.conv3d_weight,
}


class PerSampleSquares:
    """Adds the squared gradients of samples, for the weights of linear layers, convolutions and embeddings.

    Parameters
    ----------
    model : torch.nn.Module
    names : set of str
        Of the parameters that gradients are wanted of.

    Attributes
    ----------
    complete : bool
        Whether hooks see all of them. Not if a parameter belongs to another module, or to several.
    """

    def __init__(self, model: torch.nn.Module, names: set[str]) -> None:
        owners = dict(model.named_modules())
        every = [id(each) for _, each in model.named_parameters(remove_duplicate=False)]
        self._modules: dict[torch.nn.Module, str] = {}
        for name in names:
            owner, _, parameter = name.rpartition(".")
            module = owners[owner]
            if parameter == "weight" and _is_known(module) and every.count(id(module.weight)) == 1:
                self._modules[module] = name
        self.complete = len(self._modules) == len(names)
        self._seen: list[tuple[torch.nn.Module, int]] = []
        self._samples, self._factor = 1, 1.0
        self._sums: dict[str, torch.Tensor] = {}

    @contextmanager
    def collecting(self, samples: int, factor: float, sums: dict[str, torch.Tensor]) -> Iterator[None]:
        """Add the squares that backward passes in the block give.

        Parameters
        ----------
        samples : int
            Of the batch.
        factor : float
            What gradients are multiplied by, before they are squared.
        sums : dict of str to torch.Tensor
            Changed.
        """
        self._samples, self._factor, self._sums, self._seen = samples, factor, sums, []
        handles = [module.register_forward_hook(self._watch) for module in self._modules]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @property
    def consistent(self) -> bool:
        """Whether each module was called once, with inputs that samples divide; asked before the backward pass."""
        modules = [module for module, _ in self._seen]
        divided = all(length % self._samples == 0 for _, length in self._seen)
        return divided and len(modules) == len(set(modules)) == len(self._modules)

    def _watch(self, module: torch.nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        given = inputs[0].detach() if inputs else None
        self._seen.append((module, len(given) if given is not None and given.ndim else 1))
        if given is not None and output.requires_grad and self.consistent_so_far(given):
            output.register_hook(lambda gradient: self._add(module, given, gradient))  # type: ignore[no-untyped-call]

    def consistent_so_far(self, given: torch.Tensor) -> bool:
        """Whether samples divide what a module was given."""
        return given.ndim > 0 and len(given) % self._samples == 0

    @torch.no_grad()
    def _add(self, module: torch.nn.Module, given: torch.Tensor, gradient: torch.Tensor) -> None:
        total, square = self._sums[self._modules[module]], self._factor**2
        rows = len(given) // self._samples
        pairs = zip(torch.split(given, rows), torch.split(gradient, rows), strict=True)
        if isinstance(module, torch.nn.Embedding):
            width = gradient.shape[-1]
            for ids, each in pairs:
                found, places = torch.unique(ids.flatten(), return_inverse=True)
                sums = each.new_zeros(len(found), width, dtype=torch.float32)
                sums.index_add_(0, places, each.reshape(-1, width).float())
                if module.padding_idx is not None:
                    sums[found == module.padding_idx] = 0
                total.index_add_(0, found, sums.square_(), alpha=square)
        elif isinstance(module, torch.nn.Linear):
            inputs = given.reshape(self._samples, -1, given.shape[-1]).float()
            outputs = gradient.reshape(self._samples, -1, gradient.shape[-1]).float()
            if inputs.shape[1] == 1:
                total.addmm_(outputs[:, 0].square().t(), inputs[:, 0].square(), alpha=square)
                return
            for each, result in zip(inputs, outputs, strict=True):
                product = result.t() @ each
                total.addcmul_(product, product, value=square)
        else:
            of_weight: Any = _CONVOLUTIONS[type(module)]  # type: ignore[index]
            shared = [getattr(module, name) for name in ("stride", "padding", "dilation", "groups")]
            for each, result in pairs:
                product = of_weight(each, module.weight.shape, result, *shared).float()
                total.addcmul_(product, product, value=square)


def _is_known(module: torch.nn.Module) -> bool:
    """Whether a weight's gradient is such a sum of products; subclasses may use their weights in other ways."""
    if isinstance(module, torch.nn.Embedding):
        plain = module.max_norm is None and not module.scale_grad_by_freq and not module.sparse
        return type(module) is torch.nn.Embedding and plain
    if type(module) in _CONVOLUTIONS:
        return module.padding_mode == "zeros" and not isinstance(module.padding, str)
    return type(module) is torch.nn.Linear
