"""How far two networks are apart."""

from __future__ import annotations

import json
import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from network_helpers import add_layer, decode_all, network_with, new_spec

from corepress.neural_network import compare_models, held_values, predictions, quantize_weights, weight_params
from corepress.neural_network.predictions import compare_outputs


@pytest.fixture(scope="module", autouse=True, params=["whole layers", "values held in files, by pieces"])
def values_held(request):
    with pytest.MonkeyPatch.context() as patch:
        if request.param != "whole layers":
            patch.setattr(held_values, "_LARGE", 16)
            patch.setattr(weight_params, "_PIECE", 7)
        yield


def test_weights_are_compared_by_name():
    spec = network_with("convolution", "gru", "batchnorm")
    quantized = quantize_weights(spec, 6)
    comparison = compare_models(spec, quantized)
    before, after = decode_all(spec.neuralNetwork), decode_all(quantized.neuralNetwork)
    assert [weight.name for weight in comparison.weights] == list(before)
    total = [0.0, 0.0]
    for weight in comparison.weights:
        values, noise = before[weight.name], after[weight.name] - before[weight.name]
        expected = 10 * math.log10(np.square(values).sum() / np.square(noise).sum())
        assert weight.snr_db == pytest.approx(expected, abs=1e-3)
        assert weight.max_abs == pytest.approx(abs(noise).max(), rel=1e-4)
        total[0] += np.square(values).sum()
        total[1] += np.square(noise).sum()
    assert comparison.snr_db == pytest.approx(10 * math.log10(total[0] / total[1]), abs=1e-3)
    assert comparison.note is None
    assert json.loads(comparison.to_json())["outputs"] == []


def test_weights_that_one_lacks_and_layers_of_the_same_name():
    first, second = new_spec(), new_spec()
    for spec, kinds in ((first, ("bias", "bias", "batchnorm")), (second, ("bias", "bias", "scale"))):
        for seed, kind in enumerate(kinds):
            add_layer(spec.neuralNetwork, kind, np.random.default_rng(seed), name=f"{kind}s")
    comparison = compare_models(first, second)
    assert [weight.snr_db for weight in comparison.weights] == [math.inf, math.inf]
    assert comparison.only_in_first == ("batchnorms.gamma", "batchnorms.beta", "batchnorms.mean", "batchnorms.variance")
    assert comparison.only_in_second == ("scales.scale", "scales.bias")


def test_other_shapes_are_named():
    first, second = network_with("innerProduct"), network_with("innerProduct", channels=12)
    assert [weight.problem for weight in compare_models(first, second).weights] == [
        "shapes (8, 5) and (12, 5)",
        "shapes (8,) and (12,)",
    ]


def test_samples_are_run_on_macos_only(monkeypatch):
    spec = network_with("innerProduct")
    monkeypatch.setattr(sys, "platform", "linux")
    comparison = compare_models(spec, quantize_weights(spec, 8), [{"x": np.zeros(5)}])
    assert "predictions need macOS" in comparison.note
    assert comparison.outputs == ()
    assert len(comparison.weights) == 2
    assert "macOS" in str(comparison)


def test_samples_are_run_on_both_models(monkeypatch):
    spec = network_with("innerProduct")
    quantized = quantize_weights(spec, 8)

    def model(given, compute_units):
        assert compute_units == "cpu"
        scale = 1.0 if given == spec else 1.01
        return SimpleNamespace(predict=lambda inputs: {"y": scale * inputs["x"]}, get_spec=lambda: given)

    fake = SimpleNamespace(models=SimpleNamespace(MLModel=model), ComputeUnit=SimpleNamespace(CPU_ONLY="cpu"))
    monkeypatch.setitem(sys.modules, "coremltools", fake)
    monkeypatch.setattr("corepress.neural_network.compare.prediction_obstacle", lambda function: None)
    samples = [{"x": np.array([1.0, -2.0])}, {"x": np.array([0.5, 0.0])}]
    (output,) = compare_models(spec, quantized, samples).outputs
    assert (output.name, output.samples) == ("y", 2)
    assert output.snr_db == pytest.approx(40)
    assert output.psnr_db == pytest.approx(10 * math.log10(4 / (5.25e-4 / 4)))
    assert output.max_abs == pytest.approx(0.02)
    assert "output y: 40.0 dB" in str(output)


@pytest.mark.parametrize(
    ("samples", "error", "message"),
    [
        ([], TypeError, "must be a list of dicts"),
        ([1], TypeError, "must be a list of dicts"),
        (3, TypeError, "must be a list of dicts"),
        ("no/such/folder", FileNotFoundError, "no such folder"),
    ],
)
def test_what_is_no_sample_is_refused(samples, error, message):
    spec = network_with("innerProduct")
    with pytest.raises(error, match=message):
        compare_models(spec, spec, samples)


def test_a_folder_without_images_is_refused(tmp_path):
    spec = network_with("innerProduct")
    with pytest.raises(ValueError, match="has no images"):
        compare_models(spec, spec, tmp_path)


def test_folders_of_images_become_inputs(tmp_path):
    image = pytest.importorskip("PIL.Image")
    spec = new_spec()
    feature = spec.description.input.add(name="photo")
    feature.type.imageType.width, feature.type.imageType.height = 4, 6
    image.new("RGB", (20, 20), (255, 0, 0)).save(tmp_path / "b.png")
    image.new("RGB", (20, 20), (0, 255, 0)).save(tmp_path / "a.png")
    (tmp_path / "notes.txt").write_text("no image")
    inputs = list(predictions._images(tmp_path, spec))
    assert [np.asarray(each["photo"]).shape for each in inputs] == [(6, 4, 3)] * 2
    assert np.asarray(inputs[0]["photo"])[0, 0].tolist() == [0, 255, 0]
    feature.type.multiArrayType.SetInParent()
    with pytest.raises(ValueError, match="only input is an image"):
        list(predictions._images(tmp_path, spec))


def test_outputs_of_all_kinds():
    labels = "abcdefgh"
    sure = {label: float(8 - place) for place, label in enumerate(labels)}
    swapped = sure | {"a": 7.0, "b": 8.0}
    lost = sure | {"a": 0.0}
    found = compare_outputs(
        [
            (
                {"label": "a", "number": 3, "p": sure, "x": np.ones(3)},
                {"label": "a", "number": 3, "p": sure, "x": np.ones(3)},
            ),
            (
                {"label": "a", "number": 3, "p": sure, "x": np.ones(3)},
                {"label": "b", "number": 4, "p": swapped, "x": np.ones(3)},
            ),
            (
                {"label": "a", "number": 3, "p": sure, "x": np.ones(3)},
                {"label": "b", "number": 3, "p": lost, "x": np.ones(3)},
            ),
        ]
    )
    by_name = {output.name: output for output in found}
    assert list(by_name) == ["label", "number", "p", "x"]
    assert by_name["label"].top_1 == pytest.approx(1 / 3)
    assert by_name["number"].top_1 == pytest.approx(2 / 3)
    assert (by_name["p"].top_1, by_name["p"].top_5) == (pytest.approx(1 / 3), pytest.approx(2 / 3))
    assert (by_name["x"].snr_db, by_name["x"].psnr_db, by_name["x"].top_1) == (math.inf, math.inf, None)
    assert str(by_name["label"]) == "output label: top 1 agreement 33.3 %"
    assert "top 5 agreement 66.7 %" in str(by_name["p"])
    for output in found:
        assert json.dumps(output.to_dict(), allow_nan=False)
