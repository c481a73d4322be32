"""Every signature of a verb, its overloads included, has the spec's options and their defaults."""

from __future__ import annotations

import ast
import inspect
from dataclasses import fields
from typing import Any

import pytest

import corepress as cp
from corepress import neural_network
from corepress.specs import Palettize, Prune, Quantize

NOT_OF_THE_SPEC = {"weight", "importance", "hessian", "dampening", "lut", "num_threads"}


def signatures(function: Any) -> list[dict[str, Any]]:
    """The defaults of all functions of this name in its module: of the overloads, and of the function itself."""
    module = inspect.getmodule(function)
    found = []
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.FunctionDef) and node.name == function.__name__:
            arguments = [*node.args.posonlyargs, *node.args.args]
            pairs = list(zip(reversed(arguments), reversed(node.args.defaults), strict=False))
            pairs += [pair for pair in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True) if pair[1]]
            names = {each.arg: inspect.Parameter.empty for each in (*arguments, *node.args.kwonlyargs)}
            values = {each.arg: eval(ast.unparse(value), vars(module)) for each, value in pairs}
            found.append(names | values)
    return found


@pytest.mark.parametrize(("function", "spec"), [(cp.palettize, Palettize), (cp.quantize, Quantize), (cp.prune, Prune)])
def test_signatures_have_the_options_of_the_spec(function, spec):
    defaults = {each.name: each.default for each in fields(spec) if each.name != "lut_function"}
    assert len(signatures(function)) > 2
    for names in signatures(function):
        options = {name: value for name, value in names.items() if name not in NOT_OF_THE_SPEC}
        given = {name: value for name, value in options.items() if value is not inspect.Parameter.empty}
        assert given.items() <= defaults.items()
        assert options.keys() <= defaults.keys()
    missing = defaults.keys() - signatures(function)[-1].keys()
    assert not missing


def test_signatures_of_networks_agree():
    *overloads, implementation = signatures(neural_network.quantize_weights)
    assert overloads
    for names in overloads:
        given = {name: value for name, value in names.items() if value is not inspect.Parameter.empty}
        assert given.items() <= implementation.items()
        assert names.keys() == implementation.keys()
