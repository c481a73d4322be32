"""`corepress bench` on a small model."""

from __future__ import annotations

import json

import pytest

from corepress.benchmark.architectures import ARCHITECTURES, Architecture
from corepress.benchmark.methods import METHODS

QUICK = [key for key, method in METHODS.items() if not method.slow]


@pytest.fixture(autouse=True)
def small_model(monkeypatch):
    shapes = {"conv.weight": (64, 32, 3, 3), "linear.weight": (64, 64)}
    monkeypatch.setitem(ARCHITECTURES, "sd15", Architecture("sd15", "Small", lambda: shapes, 22_528, "nowhere"))


def test_all_methods_but_slow_ones_are_shown(shell):
    outcome = shell("bench", "--num-threads", "1")
    assert (outcome.status, outcome.err) == (0, "")
    assert "Small: 22.5 k weights in 2 layers" in outcome.out
    assert "1 thread\n" in outcome.out
    assert all((method.title in outcome.out) != method.slow for method in METHODS.values())
    assert "np.copyto" in outcome.out
    assert "coremltools" not in outcome.out


def test_json_has_machine_and_results(shell):
    outcome = shell("bench", "--method", "int8", "--method", "4bit", "--method", "4bit", "--json")
    document = json.loads(outcome.out)
    assert [result["method"] for result in document["results"]] == ["int8", "4bit"]
    assert document["machine"]["simd_level"]
    assert document["machine"]["versions"]["corepress"]
    assert document["peers"] == []


def test_coremltools_stands_beside_where_asked_for(shell):
    outcome = shell("bench", "--method", "int8", "--peers")
    assert outcome.status == 0
    header = next(line for line in outcome.out.splitlines() if line.startswith("method"))
    assert header.split()[-2:] == ["coremltools", "ratio"]
    peers = json.loads(shell("bench", "--method", "int8", "--peers", "--json").out)["peers"]
    assert [(peer["tool"], peer["method"]) for peer in peers] == [("coremltools", "int8")]


def test_quiet_prints_nothing(shell):
    outcome = shell("bench", "--quiet", "--method", "int8")
    assert (outcome.status, outcome.out, outcome.err) == (0, "", "")


def test_a_model_that_is_not_there_is_wrong_usage(shell):
    outcome = shell("bench", "--model", "sd0")
    assert outcome.status == 2
    assert "'sd0' is not one of" in outcome.err
