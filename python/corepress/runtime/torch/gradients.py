"""Gradients of weights, a use at a time, in float32, and without a second copy of the model in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .dtypes import WATCHED
from .module import ProgramModule

Sink = Callable[[str, Tensor], None]
_SOURCE = "corepress_source"


class _Use(torch.autograd.Function):
    """A weight as it is computed with; the gradient of this use goes to a function, and nowhere else."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, receive: Callable[[Tensor], None]) -> Tensor:
        ctx.receive = receive
        return weight.float() if weight.dtype is torch.float16 else weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None]:
        ctx.receive(gradients[0].detach())
        return None, None


@contextmanager
def watched(module: ProgramModule, names: Iterable[str], sink: Sink) -> Iterator[None]:
    """Compute gradients of some parameters, and give them to a function as they arrive.

    What the backward pass needs of a weight is widened again when it is needed, so that the widened weights are not all
    in memory between the passes. Other parameters have no gradients.

    Parameters
    ----------
    module : ProgramModule
        The module.
    names : iterable of str
        The parameters.
    sink : callable
        Called with the name of a parameter and the gradient of one of its uses, in float32 and of the parameter's
        shape; a backward pass calls it once for each use.
    """
    parameters = dict(module.named_parameters())
    chosen = {name: parameters[name] for name in names}
    required = {name: parameter.requires_grad for name, parameter in parameters.items()}
    hooks = []

    def receive_rest(name: str, parameter: Tensor) -> None:
        """The gradient of uses that did not ask for the weight in float32."""
        if parameter.grad is not None:
            gradient, parameter.grad = parameter.grad, None
            sink(name, gradient.float())

    def use(name: str, parameter: Tensor, weight: Tensor) -> Tensor:
        wide = _Use.apply(weight, partial(sink, name))
        setattr(wide, _SOURCE, parameter)
        result: Tensor = wide
        return result

    try:
        for name, parameter in parameters.items():
            parameter.requires_grad_(name in chosen)
            if name in chosen:
                hook = partial(receive_rest, name)
                hooks.append(parameter.register_post_accumulate_grad_hook(hook))  # type: ignore[no-untyped-call]
                setattr(parameter, WATCHED, partial(use, name, parameter))
            elif parameter.dtype is torch.float16:
                setattr(parameter, WATCHED, partial(_remembered, parameter))
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(_packed, _unpacked):
            yield
    finally:
        for hook in hooks:
            hook.remove()
        for name, parameter in parameters.items():
            parameter.requires_grad_(required[name])
            parameter.grad = None
            if hasattr(parameter, WATCHED):
                delattr(parameter, WATCHED)


def _remembered(parameter: Tensor, weight: Tensor) -> Tensor:
    """A widened weight without a gradient that is made again for the backward pass."""
    wide = weight.float()
    setattr(wide, _SOURCE, parameter)
    return wide


def _packed(tensor: Tensor) -> Any:
    """What is kept of a tensor for the backward pass: of a widened weight, where to find it."""
    base = tensor._base if tensor._is_view() else tensor
    source = getattr(base, _SOURCE, None)
    if source is None or source.dtype is not torch.float16 or base is None:
        return tensor
    if source.stride() != base.stride():
        return tensor
    return source.detach(), tensor.size(), tensor.stride(), tensor.storage_offset()


def _unpacked(kept: Any) -> Tensor:
    if isinstance(kept, Tensor):
        return kept
    source, size, stride, offset = kept
    wide: Tensor = source.float()
    return wide.as_strided(size, stride, offset)
