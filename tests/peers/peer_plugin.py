"""A pytest plugin: coremltools' own tests, with corepress in the place of what they test.

``COREPRESS_PEERS_WAY`` says how: ``none``, ``optimize`` (the functions of `corepress.optimize.coreml`), ``accelerate``
(`corepress.accelerate`), or ``torch`` (the modules of `corepress.optimize.torch`). Of many tests, one in
``COREPRESS_PEERS_SAMPLE`` is run. What happened goes to the file ``COREPRESS_PEERS_RESULTS`` as JSON.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import random
import sys

import compared_calls
import torch_modules

WAY = os.environ.get("COREPRESS_PEERS_WAY", "none")
_outcomes: dict[str, list[str]] = {}


def pytest_load_initial_conftests():
    if importlib.util.find_spec("torchvision") is None:
        # Some modules import it for tests of models that it brings; the others need no more than its name.
        torch_modules.stand_in_for_torchvision()
    if WAY == "torch":
        torch_modules.replace()


def pytest_configure(config):
    # Some tests are not run on x86-64, where they would compare predictions; without predictions they can be.
    platform.machine = lambda: "arm64"
    if WAY == "optimize":
        compared_calls.replace_functions()
    elif WAY == "accelerate":
        compared_calls.accelerate()


def pytest_collection_modifyitems(config, items):
    sample = int(os.environ.get("COREPRESS_PEERS_SAMPLE", "1"))
    config.hook.pytest_deselected(items=[item for place, item in enumerate(items) if place % sample])
    items[:] = items[::sample]


def pytest_runtest_setup(item):
    if "torch" in sys.modules:  # the same weights and data each way
        random.seed(0)
        sys.modules["numpy"].random.seed(0)
        sys.modules["torch"].manual_seed(0)


def pytest_runtest_protocol(item, nextitem):
    compared_calls.current_test = item.nodeid


def pytest_runtest_logreport(report):
    kind = report.outcome
    if hasattr(report, "wasxfail"):
        kind = "xfailed" if report.skipped else "xpassed"
    if report.when == "call" or kind != "passed":
        reason = ""
        if kind == "failed":
            reason = str(getattr(getattr(report.longrepr, "reprcrash", None), "message", report.longrepr))
        elif kind == "skipped" and isinstance(report.longrepr, tuple):
            reason = report.longrepr[2]
        _outcomes[report.nodeid] = [kind, reason[:2000]]


def pytest_sessionfinish(session):
    results = {"outcomes": _outcomes, "calls": compared_calls.calls}
    with open(os.environ["COREPRESS_PEERS_RESULTS"], "w") as file:
        json.dump(results, file)
