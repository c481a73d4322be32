"""Model files that hold networks, as users run them."""

from __future__ import annotations

import numpy as np
import pytest

from corepress import runtime
from corepress.coreml.format.descriptions import ModelDescription
from corepress.errors import FormatError, UnsupportedOperationError
from corepress.neural_network.byte_sources import BytesSource
from corepress.neural_network.layer_schema import message_class, read_network

LINEAR = {"activation": {"linear": {"alpha": 2, "beta": 1}}}
FLOAT32 = 65568


def feature(name, **kind):
    return {"name": name, "type": kind}


def array(name, *shape):
    return feature(name, multiArrayType={"shape": shape, "dataType": FLOAT32})


def model(layers, inputs, outputs, kind="neuralNetwork", description=None, **network):
    """A model message of a network."""
    described = ModelDescription(input=inputs, output=outputs, **(description or {}))
    found = message_class("Model")(specificationVersion=5)
    found.description.ParseFromString(described.SerializeToString())
    getattr(found, kind).CopyFrom(message_class("NeuralNetwork")(layers=layers, **network))
    return found


def layer(takes, makes, **params):
    return {"name": f"to_{makes}", "input": [takes], "output": [makes], **params}


@pytest.fixture
def save(tmp_path):
    def save(message):
        path = tmp_path / "m.mlmodel"
        path.write_bytes(message.SerializeToString())
        return path

    return save


@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_arrays(save, precision):
    layers = [layer("x", "a", **LINEAR), layer("a", "y", unary={"type": 6})]
    path = save(model(layers, [array("x", 2, 3)], [array("y", 2, 3)], arrayInputShapeMapping=1))
    loaded = runtime.load(path, precision=precision)
    x = np.linspace(-2, 2, 6, dtype=np.float32).reshape(2, 3)
    found = loaded.predict({"x": x})
    assert found["y"].dtype == np.float32
    np.testing.assert_allclose(found["y"], np.abs(2 * x + 1), rtol=1e-6)
    values = dict(loaded.values({"x": x}))
    assert list(values) == ["a", "y"]
    np.testing.assert_allclose(values["a"], 2 * x + 1, rtol=1e-6)
    assert loaded.make_state() is None
    assert [name for name, _ in loaded.module.layers.named_children()] == ["to_a", "to_y"]


def test_sequences_of_an_old_network(save):
    path = save(model([layer("x", "y", **LINEAR)], [array("x", 4)], [array("y", 4)]))
    loaded = runtime.load(path)
    assert loaded.predict({"x": np.zeros(4)})["y"].shape == (4,)
    assert loaded.predict({"x": np.zeros((5, 2, 4))})["y"].shape == (5, 2, 4, 1, 1)


def test_images(save):
    from PIL import Image

    kind = {"imageType": {"colorSpace": 30, "width": 3, "height": 2}}
    steps = [{"featureName": "x", "scaler": {"channelScale": 1, "blueBias": 5}}]
    path = save(model([layer("x", "y", copy={})], [feature("x", **kind)], [feature("y", **kind)], preprocessing=steps))
    pixels = np.random.default_rng(0).integers(0, 200, (2, 3, 3), np.uint8)
    found = runtime.load(path).predict({"x": Image.fromarray(pixels)})["y"]
    np.testing.assert_array_equal(np.asarray(found)[..., :3], pixels + np.array([0, 0, 5], np.uint8))


def test_classifiers(save):
    outputs = [feature("label", stringType={}), feature("chances", dictionaryType={"stringKeyType": {}})]
    description = {"predictedFeatureName": "label", "predictedProbabilitiesName": "chances"}
    labels = {"stringClassLabels": {"vector": ["a", "b"]}, "arrayInputShapeMapping": 1}
    layers = [layer("x", "p", softmaxND={"axis": 0})]
    path = save(model(layers, [array("x", 2)], outputs, "neuralNetworkClassifier", description, **labels))
    found = runtime.load(path).predict({"x": [0.0, np.log(3)]})
    assert found["label"] == "b"
    assert found["chances"] == pytest.approx({"a": 0.25, "b": 0.75})


def test_optional_inputs(save):
    given = array("x", 2)
    given["type"]["isOptional"] = True
    given["type"]["multiArrayType"]["floatDefaultValue"] = 3
    path = save(model([layer("x", "y", **LINEAR)], [given], [array("y", 2)], arrayInputShapeMapping=1))
    assert runtime.load(path).predict({})["y"].tolist() == [7, 7]


def test_pipelines_of_networks(save):
    first = model([layer("x", "m", **LINEAR)], [array("x", 2)], [array("m", 2)], arrayInputShapeMapping=1)
    second = model([layer("m", "y", **LINEAR)], [array("m", 2)], [array("y", 2)], arrayInputShapeMapping=1)
    whole = message_class("Model")(specificationVersion=5)
    described = ModelDescription(input=[array("x", 2)], output=[array("y", 2)])
    whole.description.ParseFromString(described.SerializeToString())
    whole.pipeline.models.extend([first, second])
    loaded = runtime.load(save(whole))
    assert loaded.predict({"x": [0, 1]})["y"].tolist() == [3, 7]


def test_custom_layers_are_refused(save):
    path = save(model([layer("x", "y", custom={"className": "Mine"})], [array("x", 2)], [array("y", 2)]))
    with pytest.raises(UnsupportedOperationError, match=r"layer to_y \(custom\) of class 'Mine'"):
        runtime.load(path)


def test_what_is_no_network():
    with pytest.raises(FormatError, match="the model is no neural network"):
        read_network(BytesSource(message_class("Model")(specificationVersion=5).SerializeToString()))
    with pytest.raises(FormatError):
        read_network(BytesSource(b"\x12"))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_large_weights_are_read_from_the_file(save, weight, dtype):
    values = np.random.default_rng(1).normal(size=(2, 400_000)).astype(dtype)
    layers = [
        layer("x", name, innerProduct={"inputChannels": 400_000, "outputChannels": 1, "weights": weight(row, dtype)})
        for name, row in zip("ab", values, strict=True)
    ]
    path = save(model(layers, [array("x", 400_000)], [array("a", 1), array("b", 1)], arrayInputShapeMapping=1))
    loaded = runtime.load(path)
    stored = [each.numpy().copy() for each in loaded.module.state_dict().values()]
    np.testing.assert_array_equal(stored, values[:, None])
    path.write_bytes(b"")  # nothing of it is used any more
    found = loaded.predict({"x": np.ones(400_000)})
    assert found["a"][0] == pytest.approx(float(values[0].astype(np.float64).sum()), rel=1e-2, abs=0.1)
    np.testing.assert_array_equal([each.numpy() for each in loaded.module.state_dict().values()], stored)
