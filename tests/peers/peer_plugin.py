"""A pytest plugin: coremltools' own tests, with corepress in the place of what they test.

``COREPRESS_PEERS_WAY`` says how: ``none``, ``optimize`` (the functions of `corepress.optimize.coreml`), or
``accelerate`` (`corepress.accelerate`). What happened goes to the file ``COREPRESS_PEERS_RESULTS`` as JSON.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import sys
import types

import compared_calls

WAY = os.environ.get("COREPRESS_PEERS_WAY", "none")
_outcomes: dict[str, list[str]] = {}


def pytest_configure(config):
    if importlib.util.find_spec("torchvision") is None:
        # Some modules import it for tests of models that it brings; the others need no more than its name.
        sys.modules["torchvision"] = types.ModuleType("torchvision")
    # Some tests are not run on x86-64, where they would compare predictions; without predictions they can be.
    platform.machine = lambda: "arm64"
    if WAY == "optimize":
        compared_calls.replace_functions()
    elif WAY == "accelerate":
        compared_calls.accelerate()


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
