"""Metrics: what they measure, and that higher is better."""

from __future__ import annotations

import math

import numpy as np
import pytest

from corepress.runtime.distances import Distance
from corepress.runtime.metrics import BUILT_IN, Comparing, Metric, evaluate

RNG = np.random.default_rng(0)
EXPECTED = [{"y": RNG.standard_normal((1, 10)).astype(np.float32)} for _ in range(6)]
NEAR, FAR = (
    [{"y": each["y"] + step * np.float32(1 + 0.1 * i)} for i, each in enumerate(EXPECTED)] for step in (0.01, 1)
)


def test_distances_are_those_of_the_formulas():
    noise = np.concatenate([a["y"] - b["y"] for a, b in zip(EXPECTED, NEAR, strict=True)]).astype(np.float64)
    signal = np.concatenate([each["y"] for each in EXPECTED]).astype(np.float64)
    other = np.concatenate([each["y"] for each in NEAR]).astype(np.float64)
    found = {name: evaluate(name, EXPECTED, NEAR, EXPECTED) for name in ("snr", "psnr", "cosine", "max")}
    assert found["snr"] == pytest.approx(10 * math.log10(np.square(signal).sum() / np.square(noise).sum()), rel=1e-9)
    assert found["psnr"] == pytest.approx(10 * math.log10(np.square(signal).max() / np.square(noise).mean()), rel=1e-9)
    assert found["cosine"] == pytest.approx((signal * other).sum() / np.linalg.norm(signal) / np.linalg.norm(other))
    assert found["max"] == pytest.approx(-abs(noise).max())


@pytest.mark.parametrize("name", ["snr", "psnr", "cosine", "max", "kl"])
def test_higher_is_better(name):
    equal, near, far = (evaluate(name, EXPECTED, outputs, EXPECTED) for outputs in (EXPECTED, NEAR, FAR))
    if name == "kl":  # a constant that is added to logits changes nothing
        shuffled = [{"y": each["y"] * 2} for each in EXPECTED]
        near, far = evaluate(name, EXPECTED, NEAR, EXPECTED), evaluate(name, EXPECTED, shuffled, EXPECTED)
        assert far < near == pytest.approx(0, abs=1e-6)
        return
    assert equal > near > far


def test_the_worst_output_counts():
    expected = [{"a": np.ones(4), "b": np.ones(4)}]
    outputs = [{"a": np.ones(4), "b": np.full(4, 1.1)}]
    assert evaluate("snr", expected, outputs, expected) == pytest.approx(20)
    assert evaluate("max", expected, outputs, expected) == pytest.approx(-0.1)


def test_infinite_values_that_agree_are_left_out():
    distance = Distance()
    distance.add(np.array([1.0, -np.inf, np.nan]), np.array([1.5, -np.inf, np.nan]))
    assert distance.max_abs == 0.5
    assert distance.snr_db == pytest.approx(20 * math.log10(2))
    distance.add(np.array([1.0, np.inf]), np.array([1.0, 3.0]))
    assert (distance.snr_db, distance.psnr_db, distance.max_abs) == (-math.inf, -math.inf, math.inf)
    shapes = Distance()
    shapes.add(np.zeros(3), np.zeros(4))
    assert shapes.snr_db == -math.inf


def test_zeros_are_equal_to_zeros():
    distance = Distance()
    distance.add(np.zeros(3), np.zeros(3))
    assert (distance.snr_db, distance.cosine, distance.max_abs) == (math.inf, 1.0, 0.0)


def test_agreement_of_classes():
    classes = "abcdefgh"
    sure = {each: 8.0 - place for place, each in enumerate(classes)}
    swapped, lost = sure | {"a": 7.0, "b": 8.0}, sure | {"a": 0.0}
    expected = [{"p": sure, "label": "a", "y": np.zeros(3)}] * 4
    outputs = [{"p": each, "label": "x", "y": np.ones(3)} for each in (sure, sure, swapped, lost)]
    assert evaluate("top1", expected, outputs, expected) == pytest.approx(0.5)
    assert evaluate("top5", expected, outputs, expected) == pytest.approx(0.75)
    labels = [{"label": each} for each in "aabb"]
    assert evaluate("top1", labels, [{"label": "a"}] * 4, labels) == 0.5
    numbers = [{"label": each} for each in (1, 2, 3, 4)]
    assert evaluate("top1", numbers, [{"label": 1}] * 4, numbers) == 0.25
    logits = [{"y": np.array([[0.0, 1, 2], [5, 1, 2]])}]
    assert evaluate("top1", logits, [{"y": np.array([[0.0, 1, 2], [1, 5, 2]])}], logits) == 0.5
    assert evaluate("top5", logits, [{"y": np.zeros((2, 3))}], logits) == 1


def test_divergence_of_probabilities_and_logits():
    p, q = np.array([0.5, 0.25, 0.25]), np.array([0.25, 0.5, 0.25])
    expected = float((p * np.log(p / q)).sum())
    for ours, theirs in ((p, q), (np.log(p) + 3, np.log(q) - 2)):
        assert evaluate("kl", [{}], [{"y": theirs}], [{"y": ours}]) == pytest.approx(-expected)
    given = {"p": dict(zip("abc", p, strict=True))}, {"p": dict(zip("abc", q, strict=True))}
    assert evaluate("kl", [{}], [given[1]], [given[0]]) == pytest.approx(-expected)
    certain = {"y": np.array([1.0, 0.0])}
    assert evaluate("kl", [{}], [certain], [certain]) == 0
    assert math.isfinite(evaluate("kl", [{}], [{"y": np.array([0.0, 1.0])}], [certain]))


def test_metrics_of_a_file(tmp_path):
    (tmp_path / "helper.py").write_text("FACTOR = 2\n")
    (tmp_path / "score.py").write_text(
        "from helper import FACTOR\n"
        "def accuracy(samples, outputs):\n"
        "    assert isinstance(samples, list) and isinstance(outputs, list)\n"
        "    return FACTOR * sum(s['label'] == o['y'] for s, o in zip(samples, outputs))\n"
        "def text(samples, outputs): return 'high'\n"
        "def alone(samples): return 1\n"
        "number = 3\n"
        "def wrong(samples, outputs): return 1 / 0\n"
    )
    path = tmp_path / "score.py"
    metric = Metric.of("compare", f"{path}:accuracy")
    assert not metric.compares
    assert metric.score([{"label": 1}, {"label": 2}], [{"y": 1}, {"y": 1}]) == 2.0
    assert evaluate(f"{path}:accuracy", [{"label": 1}], [{"y": 1}]) == 2.0
    with pytest.raises(TypeError, match="must return a number, not str"):
        evaluate(f"{path}:text", [], [])
    for name, message in (
        ("missing", "has no function 'missing'"),
        ("number", "has no function"),
        ("alone", "must take"),
    ):
        with pytest.raises(ValueError, match=message):
            Metric.of("compare", f"{path}:{name}")
    with pytest.raises(ValueError, match=r"raised ZeroDivisionError in line 8 of .*score.py: division by zero"):
        evaluate(f"{path}:wrong", [], [])
    (tmp_path / "syntax.py").write_text("def x(:\n")
    with pytest.raises(ValueError, match=r"syntax.py:x' raised SyntaxError: invalid syntax"):
        Metric.of("compare", f"{tmp_path}/syntax.py:x")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        Metric.of("compare", f"{tmp_path}/other.py:accuracy")


def test_functions_are_metrics():
    def negative(samples, outputs):
        return np.float32(-len(samples))

    metric = Metric.of("compare", negative)
    assert (metric.name, metric.score([{}, {}], [])) == ("negative", -2.0)
    assert Metric.of("compare", metric) is metric


def test_unknown_metrics_are_refused():
    with pytest.raises(ValueError, match=r"compare: metric is 'pnsr', but must be one of .* did you mean 'psnr'\?"):
        Metric.of("compare", "pnsr")
    with pytest.raises(TypeError, match="must be a name or a function, not int"):
        Metric.of("compare", 3)
    with pytest.raises(ValueError, match="compares two models; pass expected="):
        evaluate("snr", [], [])
    with pytest.raises(ValueError, match="no outputs in common that it could compare"):
        evaluate("snr", [{}], [{"a": np.ones(1)}], [{"b": np.ones(1)}])
    assert all(Metric(name).in_words for name in BUILT_IN)
    assert Comparing(Metric("snr"))
