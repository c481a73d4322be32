"""Parametrizations: the weights of a module as functions of what is trained.

The only place that knows what `torch.nn.utils.parametrize` does to a module: the parameter ``weight`` is stored as
``parametrizations.weight.original``, the module's class is made anew for it, and ``module.weight`` computes the weight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

import torch
from torch.nn.utils import parametrize

Parametrization = TypeVar("Parametrization", bound=torch.nn.Module)


def attach(
    module: torch.nn.Module,
    parameter: str,
    parametrization: torch.nn.Module,
    aliases: dict[str, Callable[[torch.nn.Module], Any]] | None = None,
    *,
    first: bool = False,
) -> None:
    """Make a parameter of a module the result of a parametrization.

    Parameters
    ----------
    module : torch.nn.Module
        Changed.
    parameter : str
        The name of one of its parameters.
    parametrization : torch.nn.Module
        Takes the parameter, returns a tensor of the same shape.
    aliases : dict of str to functions of the module, optional
        Attributes that the module gets besides: properties, so that nothing is stored twice.
    first : bool
        Whether it is applied before the parametrizations that the parameter already has; otherwise after them.
    """
    parametrize.register_parametrization(module, parameter, parametrization, unsafe=True)
    if first:
        chain = module.parametrizations[parameter]  # type: ignore[index]
        each = list(chain)
        for place, moved in enumerate([each[-1], *each[:-1]]):
            chain[place] = moved
    parametrization.__dict__["aliases"] = aliases or {}
    _set_aliases(module, parametrization)


def _set_aliases(module: torch.nn.Module, parametrization: torch.nn.Module) -> None:
    for name, read in parametrization.__dict__.get("aliases", {}).items():
        setattr(type(module), name, property(read))  # the class is this module's alone


def find(module: torch.nn.Module, parameter: str, kind: type[Parametrization]) -> Parametrization | None:
    """Return the parametrization of this kind that a parameter of a module has, or None."""
    if not parametrize.is_parametrized(module, parameter):
        return None
    chain = module.parametrizations[parameter]  # type: ignore[index]
    return next((each for each in chain if isinstance(each, kind)), None)


def chain(module: torch.nn.Module, parameter: str) -> list[torch.nn.Module]:
    """Return the parametrizations of a parameter, in the order in which they are applied."""
    return list(module.parametrizations[parameter])  # type: ignore[index]


def original(module: torch.nn.Module, parameter: str) -> torch.nn.Parameter:
    """Return what is trained: the parameter before its parametrizations."""
    if parametrize.is_parametrized(module, parameter):
        found = module.parametrizations[parameter].original  # type: ignore[index,union-attr]
        return cast(torch.nn.Parameter, found)
    return module.get_parameter(parameter)


def parametrized(
    model: torch.nn.Module, kind: type[Parametrization]
) -> Iterator[tuple[str, torch.nn.Module, str, Parametrization]]:
    """Yield the parameters of a model that have a parametrization of a kind.

    Yields
    ------
    name : str
        Of the module.
    module : torch.nn.Module
    parameter : str
    parametrization : kind
    """
    for name, module in model.named_modules():
        if parametrize.is_parametrized(module):
            for parameter in list(module.parametrizations):
                found = find(module, parameter, kind)
                if found is not None:
                    yield name, module, parameter, found


def value_before(module: torch.nn.Module, parameter: str, parametrization: torch.nn.Module) -> torch.Tensor:
    """Return what a parametrization of a parameter is given: the result of those before it."""
    value: torch.Tensor = original(module, parameter)
    for each in module.parametrizations[parameter]:  # type: ignore[index]
        if each is parametrization:
            break
        value = each(value)
    return value


def _own_class(module: torch.nn.Module) -> None:
    """Give a module its class for itself: copies share it, and removing a parametrization changes it."""
    kind = type(module)
    attributes = {name: value for name, value in vars(kind).items() if name not in ("__dict__", "__weakref__")}
    module.__class__ = type(kind.__name__, kind.__bases__, attributes)


def detach(module: torch.nn.Module, parameter: str) -> None:
    """Make what the parametrizations compute the parameter itself, and the module's class what it was."""
    _own_class(module)
    parametrize.remove_parametrizations(module, parameter, leave_parametrized=True)


def replace(
    module: torch.nn.Module, parameter: str, parametrization: torch.nn.Module, value: torch.nn.Parameter
) -> None:
    """Remove one parametrization of a parameter, which becomes `value`, before those that are left."""
    left = [each for each in module.parametrizations[parameter] if each is not parametrization]  # type: ignore[index]
    _own_class(module)
    parametrize.remove_parametrizations(module, parameter, leave_parametrized=False)
    setattr(module, parameter, value)
    for each in left:
        attach(module, parameter, each, each.__dict__.get("aliases"))


def class_of(module: torch.nn.Module) -> type[torch.nn.Module]:
    """Return the module's class, as it was before its parameters were parametrized."""
    return parametrize.type_before_parametrizations(module)
