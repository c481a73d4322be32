"""How far two packages are apart."""

import json
import math
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from coreml_helpers import constants, model_file

import corepress
from corepress import coreml
from corepress.specs import Palettize, Quantize


def test_each_weight_as_measured_by_coremltools_values(ios18_package, tmp_path):
    other = tmp_path / "other.mlpackage"
    coreml.compress(ios18_package, other, Palettize(nbits=3))
    comparison = coreml.compare(ios18_package, other)
    before, after = constants(ios18_package), constants(other)
    assert len(comparison.weights) > 20
    for weight in comparison.weights:
        expected = corepress.error(before[weight.name], after[weight.name]) if weight.name != "integers_x_0" else None
        if expected is None or math.isnan(expected.snr_db):
            continue
        assert (weight.snr_db, weight.cosine, weight.max_abs) == (expected.snr_db, expected.cosine, expected.max_abs)
        assert (weight.snr_db == math.inf) == np.array_equal(before[weight.name], after[weight.name])
    assert comparison.bytes > comparison.other_bytes
    assert "palettized 3 bits" in str(comparison)
    signal = noise = 0.0
    for weight in comparison.different:
        if weight.name != "infinite_x_0":
            difference = before[weight.name].astype(np.float64) - after[weight.name]
            signal += np.square(before[weight.name], dtype=np.float64).sum()
            noise += np.square(difference).sum()
    assert comparison.snr_db == pytest.approx(10 * math.log10(signal / noise))


def test_two_compressed_packages(trained_package, tmp_path):
    coarse, fine = tmp_path / "coarse.mlpackage", tmp_path / "fine.mlpackage"
    coreml.compress(trained_package, coarse, Palettize(nbits=2))
    coreml.compress(trained_package, fine, Quantize())
    comparison = coreml.compare(fine, coarse)
    assert {weight.storage.split()[0] for weight in comparison.different} == {"quantized"}
    assert {weight.other_storage for weight in comparison.different} == {"palettized 2 bits"}
    assert all(0 < weight.snr_db < 20 for weight in comparison.different)


@pytest.mark.parametrize("fixture", ["trained_package", "ios18_package"])
def test_a_package_equals_itself_infinite_values_included(request, fixture):
    package = request.getfixturevalue(fixture)
    comparison = coreml.compare(package, package)
    assert comparison.different == ()
    assert comparison.snr_db is None
    assert all(json.loads(comparison.to_json())["weights"][i]["lossless"] for i in range(len(comparison.weights)))


def test_what_only_one_has_and_what_differs_in_shape(build):
    def body_of(shape, extra):
        def body(mb, x):
            return mb.linear(x=x, weight=np.ones(shape, np.float32), name="same"), mb.add(x=x, y=extra, name="extra")

        return body

    extra = np.arange(64, dtype=np.float32)
    first = build(body_of((8, 64), extra), {"x": ((2, 64), np.float32)})
    second = build(body_of((16, 64), np.float32(1)), {"x": ((2, 64), np.float32)})
    comparison = coreml.compare(first, second)
    assert comparison.only_in_first == ("extra_y_0",)
    problem = {weight.name: weight.problem for weight in comparison.weights}["same_weight_0"]
    assert problem == "float32 (8, 64) and float32 (16, 64)"
    assert "only in" in comparison.totals


def test_predictions_elsewhere_are_refused_in_one_line(trained_package):
    if sys.platform == "darwin":
        pytest.skip("this is macOS")
    comparison = coreml.compare(trained_package, trained_package, predictions=True)
    assert comparison.outputs == ()
    assert comparison.note == "predictions need macOS, which runs Core ML; the weights are compared"
    assert comparison.note in comparison.totals


@pytest.fixture
def runnable(monkeypatch, ct):
    """A stand-in for coremltools on macOS: a model predicts its inputs, scaled by a factor of its path."""
    from coremltools.proto import Model_pb2

    made = []

    class MLModel:
        def __init__(self, path):
            self.path, self.seen = path, []
            made.append(self)

        def get_spec(self):
            return Model_pb2.Model.FromString(model_file(Path(self.path)).read_bytes())

        def predict(self, inputs):
            self.seen.append(inputs)
            factor = 0.5 if "other" in str(self.path) else 1
            values = np.concatenate([np.ravel(value) for value in inputs.values()]).astype(np.float32)
            return {"scaled": values * factor, "text": "class"}

    fake = ModuleType("coremltools")
    fake.models = SimpleNamespace(MLModel=MLModel)
    monkeypatch.setitem(sys.modules, "coremltools", fake)
    monkeypatch.setattr(sys.modules["corepress.coreml.compare"], "prediction_obstacle", lambda function: None)
    return made


def test_predictions_on_drawn_inputs(ios18_package, tmp_path, runnable):
    other = tmp_path / "other.mlpackage"
    coreml.compress(ios18_package, other, Quantize())
    (output,) = coreml.compare(ios18_package, other, predictions=True, samples=3).outputs
    assert (output.name, output.samples) == ("scaled", 3)
    assert output.snr_db == pytest.approx(20 * math.log10(2))
    assert output.cosine == pytest.approx(1)
    first, second = (model.seen for model in runnable)
    assert len(first) == 3
    for sample, same in zip(first, second, strict=True):
        assert {name: value.shape for name, value in sample.items()} == {
            "image": (1, 16, 8, 8), "flag": (1,), "ids": (2,)
        }  # fmt: skip
        assert sample["ids"].dtype == np.int32
        assert all(np.array_equal(sample[name], same[name]) for name in sample)
    again = coreml.compare(ios18_package, other, predictions=True, samples=3).outputs
    assert again == (output,)


def test_predictions_on_given_inputs(trained_package, runnable):
    (output,) = coreml.compare(trained_package, trained_package, inputs={"x": np.arange(5.0)}).outputs
    assert output.snr_db == math.inf
    assert output.to_dict()["lossless"]
    with pytest.raises(ValueError, match="no inputs"):
        coreml.compare(trained_package, trained_package, inputs=[])
