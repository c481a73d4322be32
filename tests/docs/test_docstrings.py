"""The examples in docstrings run, and whatever is public has a docstring."""

from __future__ import annotations

import doctest
import importlib
import inspect

import numpy as np
import pytest

import corepress

MODULES = (
    "corepress",
    "corepress.kernels",
    "corepress.coreml",
    "corepress.neural_network",
    "corepress.optimize.coreml",
)


@pytest.mark.parametrize(
    "name", [f"corepress.compression.{name}" for name in ("palettization", "quantization", "pruning", "metrics")]
)
def test_examples_of_docstrings_run(name):
    module = importlib.import_module(name)
    found = doctest.testmod(module, extraglobs={"np": np}, optionflags=doctest.ELLIPSIS)
    assert found.attempted > 0
    assert found.failed == 0


@pytest.mark.parametrize("name", MODULES)
def test_everything_public_is_documented(name):
    module = importlib.import_module(name)
    for public in module.__all__:
        value = getattr(module, public)
        if getattr(value, "__module__", "").startswith("corepress") and callable(value):
            assert inspect.getdoc(value), public
    if name == "corepress":
        assert inspect.getdoc(corepress.Config)
