"""Hooks that quantize what goes into modules and what comes out, at each call of a forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from .placement import Placement, Plan, Range

Options = TypeVar("Options")
# Their children are what they call one after the other, or lists for others to go through: nothing can be added.
_ITERATED = (torch.nn.Sequential, torch.nn.ModuleList, torch.nn.ModuleDict)


@dataclass(eq=False)
class Spot:
    """A place where a tensor is quantized.

    Attributes
    ----------
    quantize : torch.nn.Module
        A child of some module of the model.
    observe : bool
        See `Placement`.
    redundant : bool
        See `Placement`; skipped in training.
    """

    quantize: torch.nn.Module
    observe: bool
    redundant: bool
    training: bool = True

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            return x if self.redundant else self.quantize(x, self.observe)
        return self.quantize(x)  # type: ignore[no-any-return]


class _Calls:
    """The spots of each call of a module during a forward pass of the model."""

    def __init__(self, calls: int) -> None:
        self.spots: list[dict[int | str | None, Spot]] = [{} for _ in range(calls)]
        self.number = 0

    def next(self) -> dict[int | str | None, Spot]:
        if len(self.spots) == 1:
            return self.spots[0]
        spots = self.spots[self.number]
        self.number = (self.number + 1) % len(self.spots)
        return spots


class ArgumentsHook(_Calls):
    """Forward pre-hook: arguments are quantized."""

    def __call__(self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        values, named = list(args), dict(kwargs)
        for key, spot in self.next().items():
            if isinstance(key, int) and key < len(values):
                values[key] = spot(values[key])
            elif key in named:
                named[key] = spot(named[key])
        return tuple(values), named


class ResultHook(_Calls):
    """Forward hook: the result is quantized."""

    def __call__(self, module: torch.nn.Module, args: Any, result: Any) -> Any:
        for item, spot in self.next().items():
            if item is None:
                result = spot(result)
            elif isinstance(item, int):
                result = type(result)(spot(each) if index == item else each for index, each in enumerate(result))
        return result


class FirstCallHook:
    """Forward pre-hook of the model: calls are counted anew, also after one that was not finished."""

    def __init__(self, counted: list[_Calls]) -> None:
        self.counted = counted

    def __call__(self, module: torch.nn.Module, args: Any) -> None:
        for calls in self.counted:
            calls.number = 0


def attach(
    model: torch.nn.Module,
    plan: Plan[Options],
    make: Callable[[Range[Options]], torch.nn.Module],
) -> dict[Range[Options], torch.nn.Module]:
    """Set hooks that quantize tensors.

    Parameters
    ----------
    model : torch.nn.Module
        Changed.
    plan : Plan
    make : function
        Makes the module that quantizes the tensors of a range. It becomes a child of a module at which they are.

    Returns
    -------
    dict of Range to torch.nn.Module
    """
    owners: dict[Range[Options], torch.nn.Module] = {}
    for placement in plan.placements:
        if not isinstance(_module(placement), _ITERATED):
            owners.setdefault(placement.range, _module(placement))
    made: dict[Range[Options], torch.nn.Module] = {}
    hooks: dict[tuple[torch.nn.Module, bool], _Calls] = {}
    for placement in plan.placements:
        module, argument = _module(placement), placement.argument
        if placement.range not in owners:
            continue
        if placement.range not in made:
            made[placement.range] = make(placement.range)
            _add_child(owners[placement.range], made[placement.range], of_result=argument is None)
        key = (module, argument is None)
        if key not in hooks:
            if argument is None:
                hooks[key] = ResultHook(plan.times[module])
                module.register_forward_hook(hooks[key])  # type: ignore[arg-type]
            else:
                hooks[key] = ArgumentsHook(plan.times[module])
                module.register_forward_pre_hook(hooks[key], with_kwargs=True)  # type: ignore[arg-type]
        spot = Spot(made[placement.range], placement.observe, placement.redundant)
        hooks[key].spots[placement.call.number][placement.item if argument is None else argument] = spot
    counted = [hook for hook in hooks.values() if len(hook.spots) > 1]
    if counted:
        model.register_forward_pre_hook(FirstCallHook(counted))
    return made


def _add_child(owner: torch.nn.Module, child: torch.nn.Module, of_result: bool) -> None:
    stem = "activation_post_process" if of_result else "input_activation_post_process"
    names = [stem, *(f"{stem}_{index}" for index in range(1, len(owner._modules) + 1))]
    owner.add_module(next(name for name in names if name not in owner._modules), child)


def _module(placement: Placement[Any]) -> torch.nn.Module:
    module = placement.call.module
    assert module is not None
    return module


def spots(model: torch.nn.Module) -> Iterator[Spot]:
    """Yield the places where tensors of a model are quantized."""
    for module in model.modules():
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values()):
            if isinstance(hook, _Calls):
                for each in hook.spots:
                    yield from each.values()


def replace(model: torch.nn.Module, make: Callable[[torch.nn.Module], torch.nn.Module]) -> None:
    """Replace the modules that quantize tensors, for inference: redundant places count too.

    Parameters
    ----------
    model : torch.nn.Module
        Changed.
    make : function
        Takes the module so far, returns the new one.
    """
    made: dict[torch.nn.Module, torch.nn.Module] = {}
    for spot in list(spots(model)):
        if spot.quantize not in made:
            made[spot.quantize] = make(spot.quantize)
        spot.quantize = made[spot.quantize]
        spot.training = False
    for module in list(model.modules()):
        for name, child in list(module._modules.items()):
            if child in made:
                module._modules[name] = made[child]
