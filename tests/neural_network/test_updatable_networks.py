"""Updatable networks: the layers that are trained on the device stay float32, the frozen ones are compressed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from network_helpers import network_with, new_spec

from corepress.neural_network import compare_models, convert_to_fp16, decompress, plan, quantize_weights, verify


def updatable_network(tmp_path):
    """A frozen convolution and a trained head, with loss, optimizer and epochs."""
    pytest.importorskip("coremltools")
    from coremltools.models import datatypes
    from coremltools.models.neural_network import NeuralNetworkBuilder
    from coremltools.models.neural_network.update_optimizer_utils import SgdParams

    rng = np.random.default_rng(0)
    builder = NeuralNetworkBuilder([("x", datatypes.Array(3, 8, 8))], [("y", datatypes.Array(10))])
    kernel, matrix = rng.standard_normal((3, 3, 3, 64)), rng.standard_normal((10, 4096))
    shape = {"kernel_channels": 3, "output_channels": 64, "height": 3, "width": 3, "border_mode": "same"}
    strides = {"stride_height": 1, "stride_width": 1, "groups": 1, "has_bias": True}
    builder.add_convolution("frozen", W=kernel, b=np.zeros(64), input_name="x", output_name="h", **shape, **strides)
    builder.add_flatten("flat", 0, "h", "f")
    builder.add_inner_product("head", matrix, np.zeros(10), 4096, 10, True, "f", "l")
    builder.add_softmax("softmax", "l", "y")
    builder.make_updatable(["head"])
    builder.set_categorical_cross_entropy_loss("loss", "y")
    builder.set_sgd_optimizer(SgdParams(lr=0.01, batch=8))
    builder.set_epochs(1)
    path = tmp_path / "updatable.mlmodel"
    path.write_bytes(builder.spec.SerializeToString())
    return path, builder.spec


@pytest.mark.parametrize("nbits", [16, 8])
def test_only_frozen_layers_are_compressed(tmp_path, nbits):
    path, spec = updatable_network(tmp_path)
    out = tmp_path / "out.mlmodel"
    report = quantize_weights(path, nbits, destination=out)
    records = {record.name: record for record in report.weights}
    assert records["frozen.weights"].status == "compressed"
    assert [records[f"head.{field}"].reason for field in ("weights", "bias")] == ["is updatable"] * 2
    assert [(each.name, each.reason) for each in plan(path, nbits).weights] == [
        (each.name, each.reason) for each in report.weights
    ]
    assert plan(path, nbits).bytes_after == report.bytes_after
    result = type(spec).FromString(out.read_bytes())
    network = result.neuralNetwork
    assert result.isUpdatable
    assert network.updateParams == spec.neuralNetwork.updateParams
    assert network.layers[2] == spec.neuralNetwork.layers[2]
    assert verify(path, out).ok
    decompress(out, tmp_path / "back.mlmodel")
    assert verify(out, tmp_path / "back.mlmodel").ok


@pytest.mark.parametrize("nbits", [16, 8])
@pytest.mark.parametrize("part", [False, True])
@pytest.mark.parametrize("flagged", ["layer", "weight"])
def test_the_flag_of_a_layer_or_of_a_weight_keeps_the_layer(nbits, part, flagged):
    spec = network_with("innerProduct", "convolution", channels=40)
    layer = spec.neuralNetwork.layers[0]
    (layer if flagged == "layer" else layer.innerProduct.weights).isUpdatable = True
    spec.isUpdatable = True
    if part:
        inner, spec = spec, new_spec("pipeline")
        spec.pipeline.models.add().CopyFrom(inner)
        spec.pipeline.names.append("head")
    reports = []
    result = quantize_weights(spec, nbits, on_report=reports.append)
    reasons = {record.name: record.reason for record in reports[0].weights}
    assert reasons["innerProduct.weights"] == reasons["innerProduct.bias"] == "is updatable"
    assert reasons["convolution.weights"] is None
    network = (result.pipeline.models[0] if part else result).neuralNetwork
    assert network.layers[0] == layer
    assert verify(spec, result).ok


@pytest.mark.parametrize("nbits", [16, 8])
def test_a_compressed_updatable_layer_is_wrong(nbits):
    spec = network_with("innerProduct", channels=40)
    result = quantize_weights(spec, nbits)
    for each in (spec, result):
        each.isUpdatable = each.neuralNetwork.layers[0].isUpdatable = True
    assert any("updatable" in problem for problem in verify(spec, result).all_problems)
    assert verify(result, decompress(result)).ok


def test_half_precision_is_for_frozen_layers(tmp_path):
    path, spec = updatable_network(tmp_path)
    out = tmp_path / "out.mlmodel"
    report = convert_to_fp16(path, destination=out)
    records = {record.name: record for record in report.weights}
    assert {name: record.reason for name, record in records.items()} == {
        "frozen.weights": None,
        "frozen.bias": None,
        "head.weights": "is updatable",
        "head.bias": "is updatable",
    }
    frozen, _, head, _ = type(spec).FromString(out.read_bytes()).neuralNetwork.layers
    kernel = np.array(spec.neuralNetwork.layers[0].convolution.weights.floatValue, np.float32)
    assert frozen.convolution.weights.float16Value == kernel.astype("<f2").tobytes()
    assert not frozen.convolution.weights.floatValue
    assert head == spec.neuralNetwork.layers[2]
    assert verify(path, out).ok
    assert convert_to_fp16(spec) == type(spec).FromString(out.read_bytes())


@pytest.mark.parametrize("nbits", [16, 8, 4])
def test_only_frozen_layers_differ(tmp_path, nbits):
    path, spec = updatable_network(tmp_path)
    comparison = compare_models(path, quantize_weights(spec, nbits))
    snr_db = {weight.name: weight.snr_db for weight in comparison.weights}
    assert snr_db["head.weights"] == snr_db["head.bias"] == math.inf
    assert 6 * min(nbits, 12) - 15 < snr_db["frozen.weights"] < 80  # half precision has 12 bits at best
    assert comparison.only_in_first == comparison.only_in_second == ()
    trained = type(spec)()
    trained.CopyFrom(spec)
    head = trained.neuralNetwork.layers[2].innerProduct
    head.weights.floatValue[0] += 1
    apart = {weight.name: weight.snr_db for weight in compare_models(spec, trained).weights}
    assert apart.pop("head.weights") < 60
    assert set(apart.values()) == {math.inf}
