"""How far two networks are apart."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from network_helpers import add_layer, decode_all, network_with, new_spec

from corepress.neural_network import compare_models, held_values, quantize_weights, weight_params
from corepress.runtime.outputs import compare_outputs


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
