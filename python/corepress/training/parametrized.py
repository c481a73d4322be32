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
) -> None:
    """Make a parameter of a module the result of a parametrization, after those that it already has.

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
    """
    parametrize.register_parametrization(module, parameter, parametrization, unsafe=True)
    for name, read in (aliases or {}).items():
        setattr(type(module), name, property(read))  # the class is this module's alone


def find(module: torch.nn.Module, parameter: str, kind: type[Parametrization]) -> Parametrization | None:
    """Return the parametrization of this kind that a parameter of a module has, or None."""
    if not parametrize.is_parametrized(module, parameter):
        return None
    chain = module.parametrizations[parameter]  # type: ignore[index]
    return next((each for each in chain if isinstance(each, kind)), None)


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


def detach(module: torch.nn.Module, parameter: str) -> None:
    """Make what the parametrizations compute the parameter itself, and the module's class what it was."""
    parametrize.remove_parametrizations(module, parameter, leave_parametrized=True)


def class_of(module: torch.nn.Module) -> type[torch.nn.Module]:
    """Return the module's class, as it was before its parameters were parametrized."""
    return parametrize.type_before_parametrizations(module)
