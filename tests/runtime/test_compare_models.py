"""Comparing two models on samples: outputs, metrics, and where their results part."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from corepress import coreml, runtime
from corepress.engine.comparison import DIVERGED, ComparedOutput
from corepress.errors import UnsupportedOperationError
from corepress.neural_network import NetworkOutput
from corepress.runtime import compare as comparing
from corepress.runtime.compare import LayerTally

pytest.importorskip("torch")
X = np.random.default_rng(1).standard_normal((6, 4)).astype(np.float32)


def outputs(path, precision="float16"):
    model = runtime.load(path, precision=precision)
    return np.concatenate([model.predict({"x": row[None]})["y"] for row in X])


def test_outputs_on_samples(linear, crooked):
    comparison = coreml.compare(linear, crooked, inputs={"x": X})
    (output,) = comparison.outputs
    expected, actual = outputs(linear), outputs(crooked)
    signal, noise = (np.square(each, dtype=np.float64).sum() for each in (expected, expected - actual))
    assert type(output) is ComparedOutput
    assert (output.name, output.samples) == ("y", 6)
    assert output.snr_db == pytest.approx(10 * math.log10(signal / noise), rel=1e-6)
    assert output.max_abs == pytest.approx(abs(expected - actual).max(), rel=1e-5)
    assert (comparison.backend, comparison.precision) == ("torch", "float16")
    assert (comparison.drawn, comparison.note) == (0, None)
    assert "run by torch in float16" in comparison.totals
    assert len(comparison.weights) > 0
    assert coreml.compare(linear, linear, inputs={"x": X}).outputs[0].snr_db == math.inf


def test_drawn_inputs_say_so(linear, crooked):
    comparison = coreml.compare(linear, crooked, predictions=True, draw=3)
    assert (comparison.drawn, comparison.outputs[0].samples) == (3, 3)
    assert "outputs for 3 inputs drawn from a normal distribution" in comparison.totals
    assert json.loads(comparison.to_json())["drawn"] == 3
    assert coreml.compare(linear, crooked, predictions=True, draw=3).outputs == comparison.outputs
    with pytest.raises(ValueError, match="compare: draw is 0, but must be at least 1"):
        coreml.compare(linear, crooked, predictions=True, draw=0)


def test_weights_alone_run_nothing(linear, crooked, monkeypatch):
    monkeypatch.setattr(comparing, "load", None)
    comparison = coreml.compare(linear, crooked)
    assert (comparison.outputs, comparison.backend, comparison.layers) == ((), None, ())


@pytest.mark.parametrize("metric", ["snr", "psnr", "cosine", "max", "top1", "top5", "kl"])
def test_metrics(linear, crooked, metric):
    comparison = coreml.compare(linear, crooked, inputs={"x": X}, metric=metric)
    expected = runtime.evaluate(
        metric, [], [{"y": row} for row in outputs(crooked)], [{"y": row} for row in outputs(linear)]
    )
    assert comparison.metric == metric
    assert comparison.scores == (pytest.approx(expected),)
    assert f"metric {metric}: " in comparison.totals
    assert json.loads(comparison.to_json())["scores"] == [pytest.approx(expected)]


def test_a_function_measures_both_models_with_labels(linear, crooked, tmp_path):
    labels = outputs(linear).argmax(axis=1)
    (tmp_path / "score.py").write_text(
        "def accuracy(samples, outputs):\n"
        "    right = [out['y'].argmax() == sample['label'] for sample, out in zip(samples, outputs)]\n"
        "    return sum(right) / len(right)\n"
    )
    np.savez(tmp_path / "samples.npz", x=X, label=labels)
    metric = f"{tmp_path}/score.py:accuracy"
    comparison = coreml.compare(linear, crooked, inputs=tmp_path / "samples.npz", metric=metric)
    assert comparison.scores == (1.0, (outputs(crooked).argmax(axis=1) == labels).mean())


def test_sequences_share_a_state(accumulator):
    step = {"x": np.float32([1, 2, 3])}
    seen = []

    def last(samples, results):
        seen.append([each["y"].tolist() for each in results])
        return 0.0

    coreml.compare(accumulator, accumulator, inputs=[[step, step], step], metric=last)
    assert seen[0] == [[1, 2, 3], [2, 4, 6], [1, 2, 3]]


def test_classifiers_agree_or_not(classifier):
    found = coreml.compare(classifier, classifier, inputs={"x": X}).outputs
    assert all(isinstance(each, NetworkOutput) for each in found)
    assert [each.top_1 for each in found] == [1.0, 1.0]
    assert coreml.compare(classifier, classifier, inputs={"x": X}, metric="top5").scores == (1.0,)


def test_where_two_models_part(linear, crooked, linear_weight):
    comparison = coreml.compare(linear, crooked, inputs={"x": X}, layers=True, precision="float32")
    assert [each.name for each in comparison.layers] == ["product", "y"]
    product = comparison.layers[0]
    expected, actual = (X @ each.T + 1 for each in (linear_weight, np.round(linear_weight * 4) / 4))
    noise = np.square(expected - actual).sum()
    assert product.shape == (1, 5)
    assert product.snr_db == pytest.approx(10 * math.log10(np.square(expected).sum() / noise), rel=1e-3)
    assert comparison.unmatched_layers == 1
    assert comparison.first_different_layer is product
    text = str(comparison)
    assert "2 intermediate results in both; 1 are in one model only" in text
    assert f"the first that differs: product, {product.snr_db:.1f} dB" in text
    same = coreml.compare(linear, linear, inputs={"x": X}, layers=True)
    assert same.first_different_layer is None
    assert "none differs" in same.totals


def test_divergence_is_told_by_name():
    tally = LayerTally()
    rng = np.random.default_rng(0)
    a, b, c = (rng.standard_normal(1000) for _ in range(3))
    for _ in range(2):
        tally.add(
            iter([("a", a), ("b", b), ("mine", b), ("c", c), ("c", c), ("list", [a])]),
            iter([("c", c + 0.5), ("a", a), ("theirs", a), ("b", 1.01 * b), ("c", c)]),
        )
    records = {each.name: each for each in tally.records}
    assert list(records) == ["a", "b", "c"]
    assert records["a"].snr_db == math.inf
    assert records["b"].snr_db == pytest.approx(40)
    assert records["c"].snr_db < DIVERGED
    assert tally.unmatched == 2


def test_progress_is_told(linear, crooked):
    told = []
    coreml.compare(linear, crooked, inputs={"x": X[:3]}, progress=lambda *each: told.append(each))
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]
    told.clear()
    coreml.compare(linear, crooked, inputs=iter([{"x": X[:1]}]), progress=lambda *each: told.append(each))
    assert told == [(0, None), (1, 1)]


def test_what_cannot_be_run_is_a_note_or_an_error(linear, monkeypatch):
    def refuse(*_):
        raise UnsupportedOperationError("load: operation conjure cannot be run")

    monkeypatch.setattr(comparing, "load", refuse)
    comparison = coreml.compare(linear, linear, predictions=True)
    assert comparison.note == "no predictions were made: operation conjure cannot be run"
    assert comparison.note in comparison.totals
    assert comparison.weights
    with pytest.raises(UnsupportedOperationError):
        coreml.compare(linear, linear, inputs={"x": X})


def test_samples_that_do_not_fit_are_refused(linear):
    with pytest.raises(ValueError, match=r"input 'x' has shape \(1, 5\), but must have \(1, 4\)"):
        coreml.compare(linear, linear, inputs={"x": np.zeros((1, 5))})
    with pytest.raises(ValueError, match="compare: there are no samples"):
        coreml.compare(linear, linear, inputs=[])
    with pytest.raises(ValueError, match="compare: metric is 'good'"):
        coreml.compare(linear, linear, metric="good")


def test_an_error_says_which_model_does_not_take_the_samples(linear, photo_package):
    with pytest.raises(ValueError, match=f"{photo_package}: the model has no input 'x'"):
        coreml.compare(linear, photo_package, inputs={"x": X})
