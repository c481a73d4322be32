"""What coremltools 9 cannot do with a network, breaks or passes over, and corepress does; the guide lists the same."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from network_helpers import FIELDS, coremltools_quantized, network_with, new_spec, weights_in

from corepress.neural_network import convert_to_fp16, quantize_weights, verify

GUIDE = Path(__file__).parents[2] / "docs/guides/neural-networks.md"
HEADING = "| case | coremltools 9 |"


def _weights(spec: Any) -> Any:
    return spec.neuralNetwork.layers[0].innerProduct.weights


def _with_values(*values: float) -> Any:
    spec = network_with("innerProduct", channels=40)
    for place, value in enumerate(values):
        _weights(spec).floatValue[place] = value
    return spec


def _pipeline(kind: str) -> Any:
    spec = new_spec(kind)
    pipeline = spec.pipeline if kind == "pipeline" else getattr(spec, kind).pipeline
    pipeline.models.add().CopyFrom(network_with("innerProduct", channels=40))
    pipeline.names.append("a")
    return spec


def _grouped() -> Any:
    spec = network_with("deconvolution")
    params = spec.neuralNetwork.layers[0].convolution
    params.nGroups = 2
    del params.weights.floatValue[len(params.weights.floatValue) // 2 :]
    return spec


def _normalized() -> Any:
    spec = network_with("convolution", "batchnorm", channels=40)
    spec.neuralNetwork.layers[1].input[:] = spec.neuralNetwork.layers[0].output
    variance = spec.neuralNetwork.layers[1].batchnorm.variance.floatValue
    variance[:] = [abs(value) for value in variance]
    return spec


def _half() -> Any:
    return convert_to_fp16(network_with("innerProduct", channels=40))


ALL = tuple(FIELDS)
LARGEST = float(np.finfo(np.float32).max)
# What is asked for: the model, bits and mode; and the error that coremltools raises, or what `verify` says of its
# result.
CASES: dict[str, tuple[Callable[[], Any], int | None, str, type[Exception] | str]] = {
    "`kmeans_lut`, for any layer": (lambda: network_with(*ALL, channels=40), 4, "kmeans_lut", TypeError),
    "`linear_symmetric` in 2 to 7 bits": (
        lambda: network_with("innerProduct", channels=40),
        4,
        "linear_symmetric",
        Exception,
    ),
    "3-D convolutions": (
        lambda: network_with("convolution3d", channels=40),
        8,
        "linear",
        "the model: specification version 1 became 3",
    ),
    "float16 weights in fewer bits": (_half, 8, "linear", "the model: specification version 2 became 3"),
    "float16 weights back to float32": (_half, None, "dequantization", IndexError),
    "a convolution before a batch normalization": (_normalized, 8, "linear", TypeError),
    "deconvolutions with groups": (
        _grouped,
        8,
        "linear",
        "deconvolution.weights: linear quantization must have 1 or 1 scales and as many biases or none, not 4 and 4",
    ),
    "channels whose values are close together": (
        lambda: _with_values(1e-5, 2e-5, -1e-5, 3e-6, 0),
        8,
        "linear",
        "innerProduct.weights: 4 of 200 values are more than half a step from the values of their codes",
    ),
    "NaN and infinite values": (
        lambda: _with_values(np.nan),
        8,
        "linear",
        "innerProduct.weights: it has NaN or infinite values, which have no compressed form",
    ),
    "values from one end of the float32 range to the other": (
        lambda: _with_values(LARGEST, -LARGEST),
        4,
        "linear_lut",
        "innerProduct.weights: its table has entries that are NaN or infinite",
    ),
    "a value out of float16 range": (lambda: _with_values(7e4), 16, "linear", Exception),
    "pipelines": (
        lambda: _pipeline("pipeline"),
        8,
        "linear",
        "the model: specification version 1 has no such weights, 3 has",
    ),
    "pipelines that are classifiers": (lambda: _pipeline("pipelineClassifier"), 8, "linear", ValueError),
    "pipelines that are regressors": (lambda: _pipeline("pipelineRegressor"), 8, "linear", ValueError),
}
LEFT_ALONE = ("NaN and infinite values", "a value out of float16 range")  # and named


@pytest.mark.filterwarnings("ignore:(invalid value|overflow) encountered:RuntimeWarning")
@pytest.mark.parametrize("name", CASES)
def test_coremltools_fails_and_corepress_does_not(name):
    make, nbits, mode, expected = CASES[name]
    spec = make()
    reports = []
    result = quantize_weights(spec, nbits, mode, on_report=reports.append)
    found = verify(spec, result)
    assert found.ok, found.all_problems
    kept = [each.name for each in reports[0].weights if each.status == "kept" and not each.planned]
    assert bool(kept) == (name in LEFT_ALONE)
    assert any(each.status != "kept" for each in reports[0].weights) or kept
    if isinstance(expected, str):
        assert expected in verify(spec, coremltools_quantized(spec, nbits, mode)).all_problems
    else:
        with pytest.raises(expected):
            coremltools_quantized(spec, nbits, mode)


@pytest.mark.parametrize("layer", [layer for layer in FIELDS if layer != "convolution3d"])  # which is passed over
def test_kmeans_fails_for_each_layer(layer):
    with pytest.raises(TypeError):
        coremltools_quantized(network_with(layer, channels=40), 4, "kmeans_lut")


@pytest.mark.parametrize("nbits", range(2, 8))
def test_symmetric_steps_fail_in_each_width(nbits):
    spec = network_with("innerProduct", channels=40)
    with pytest.raises(Exception, match="only applicable for 8 bit"):
        coremltools_quantized(spec, nbits, "linear_symmetric")
    assert verify(spec, quantize_weights(spec, nbits, "linear_symmetric")).ok


@pytest.mark.parametrize("nbits", range(1, 9))
def test_elsewhere_what_coremltools_makes_is_sound(nbits):
    layers = [layer for layer in FIELDS if layer != "convolution3d"]
    spec = network_with(*layers, channels=600 if nbits == 8 else 40)
    for params, _ in weights_in(spec.neuralNetwork).values():
        params.floatValue[:] = [100 * value for value in params.floatValue]
    for mode in ("linear", "linear_lut", *(["linear_symmetric"] if nbits == 8 else [])):
        other = coremltools_quantized(spec, nbits, mode)
        assert verify(spec, other).ok, (mode, verify(spec, other).all_problems)
        assert verify(other, coremltools_quantized(other, None, "dequantization")).ok, mode


def test_the_guide_lists_them():
    lines = GUIDE.read_text(encoding="utf-8").splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith(HEADING)) + 2
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append(re.split(r" *\| *", line.strip("| "))[0])
    assert rows == list(CASES)
