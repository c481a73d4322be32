"""A pytest plugin: coremltools' own tests predict, with corepress in place of Core ML.

coremltools believes that it is on a Mac, and ``_MLModelProxy``, through which it reaches Core ML, is `Proxy`. With
``COREPRESS_PEERS_SAMPLE=k`` or ``k:offset`` only a part of the tests is run: those whose name has the checksum
``offset`` modulo ``k``. Outcomes go to the file ``COREPRESS_PEERS_RESULTS`` as JSON.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import types
import zlib

import corepress_predictor
import numpy as np
import pytest

MACOS = (15, 5)
_outcomes: dict[str, dict] = {}
_current: dict = {}


class Proxy:
    """A model as coremltools loads it."""

    def __init__(self, path, compute_units="ALL", function_name="", hints=None, asset=None):
        self._error = None
        try:
            self._model = corepress_predictor.load(path, function_name=function_name or None)
        except Exception as error:  # told when it is asked to predict, as Core ML does
            self._error = error

    @staticmethod
    def maximum_supported_specification_version():
        return 10

    def predict(self, inputs, state=None):
        _current["asked"] = True
        if self._error is not None:
            raise self._error
        outputs = self._model.predict(inputs, state)
        _current["predicted"] = True
        return outputs

    def batchPredict(self, inputs):
        return [self.predict(each) for each in inputs]

    def newState(self):
        _current["asked"] = True
        if self._error is not None:
            raise self._error
        return self._model.make_state()


def stand_in():
    """Put a module of ours in place of coremltools' native part, before anything imports coremltools."""
    native = types.ModuleType("coremltools.libcoremlpython")
    native._MLModelProxy = Proxy
    for name in ("_MLModelAssetProxy", "_MLComputePlanProxy"):
        setattr(native, name, type(name, (), {}))
    for name in ("_MLCPUComputeDeviceProxy", "_MLGPUComputeDeviceProxy", "_MLNeuralEngineComputeDeviceProxy"):
        setattr(native, name, type(name, (), {}))
    sys.modules["coremltools.libcoremlpython"] = native


stand_in()


def pytest_configure(config):
    from coremltools.models import utils

    believed = {"_is_macos": lambda: True, "_macos_version": lambda: MACOS, "_IS_MACOS": True}
    utils._is_macos, utils._macos_version = believed["_is_macos"], believed["_macos_version"]
    for name, module in list(sys.modules.items()):
        if name.startswith("coremltools"):
            for attribute, value in believed.items():
                if attribute in vars(module):
                    setattr(module, attribute, value)
    for module, name in (
        (np.testing, "assert_allclose"),
        (np.testing, "assert_array_equal"),
        (np.testing, "assert_almost_equal"),
        (np.testing, "assert_array_almost_equal"),
        (np.testing, "assert_equal"),
        (np, "allclose"),
        (np, "array_equal"),
    ):
        setattr(module, name, _noting(getattr(module, name)))


def _noting(function):
    @functools.wraps(function)
    def compare(*arguments, **options):
        _current["compared"] = _current.get("compared") or _current.get("predicted", False)
        return function(*arguments, **options)

    return compare


def pytest_collection_modifyitems(config, items):
    sample = os.environ.get("COREPRESS_PEERS_SAMPLE")
    if sample:
        every, _, offset = sample.partition(":")
        chosen = [item for item in items if zlib.crc32(item.nodeid.encode()) % int(every) == int(offset or 0)]
        config.hook.pytest_deselected(items=[item for item in items if item not in set(chosen)])
        items[:] = chosen


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item, nextitem):
    _current.clear()


def pytest_runtest_logreport(report):
    outcome = "expected failure" if hasattr(report, "wasxfail") and report.skipped else report.outcome
    if report.when == "call" or outcome != "passed":
        message = str(getattr(getattr(report.longrepr, "reprcrash", None), "message", ""))[:500]
        _outcomes[report.nodeid] = {"outcome": outcome, "message": message, **_current}


def pytest_sessionfinish(session):
    with open(os.environ["COREPRESS_PEERS_RESULTS"], "w") as file:
        json.dump(_outcomes, file)
