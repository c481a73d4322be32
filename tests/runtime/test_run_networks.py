"""Neural networks as users run them: features, classifiers, images, pipelines, and comparisons."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from coreml_helpers import quiet

from corepress import neural_network, runtime
from corepress.neural_network import NetworkOutput, compare_models, quantize_weights

pytest.importorskip("torch")
WEIGHT = np.random.default_rng(0).standard_normal((8, 5)).astype(np.float32)
X = np.random.default_rng(1).standard_normal((6, 5)).astype(np.float32)


def builder_of(ct, inputs, outputs, **options):
    with quiet():
        from coremltools.models.neural_network import NeuralNetworkBuilder

        return NeuralNetworkBuilder(inputs, outputs, **options)


def arrays(ct, **features):
    return [(name, ct.models.datatypes.Array(*shape)) for name, shape in features.items()]


def add_product(builder, name="product", weight=WEIGHT, blob_in="x", blob_out="y"):
    outputs, inputs = weight.shape
    bias = np.zeros(outputs, np.float32)
    builder.add_inner_product(name, weight, bias, inputs, outputs, True, input_name=blob_in, output_name=blob_out)


@pytest.fixture(scope="session")
def network(ct):
    """y = W x, in float32."""
    builder = builder_of(ct, arrays(ct, x=(5,)), arrays(ct, y=(8,)), disable_rank5_shape_mapping=True)
    add_product(builder)
    return builder.spec


@pytest.fixture(scope="session")
def network_classifier(ct):
    builder = builder_of(ct, arrays(ct, x=(5,)), arrays(ct, y=(8,)), mode="classifier")
    add_product(builder, blob_out="z")
    builder.add_softmax("softmax", "z", "y")
    builder.set_class_labels(list("abcdefgh"), "label", "y")
    return builder.spec


@pytest.fixture(scope="session")
def mean_of_image(ct):
    """The mean of each colour of an image of 4 x 6 pixels, halved."""
    builder = builder_of(ct, arrays(ct, photo=(3, 6, 4)), arrays(ct, y=(3, 1, 1)))
    builder.add_pooling("pool", 1, 1, 1, 1, "AVERAGE", "VALID", "photo", "y", is_global=True)
    builder.set_pre_processing_parameters(["photo"], image_scale=0.5, is_bgr=False)
    return builder.spec


def test_a_network_is_described_and_run(network, tmp_path):
    path = tmp_path / "net.mlmodel"
    path.write_bytes(network.SerializeToString())
    model = runtime.load(path)
    assert (model.kind, model.backend, model.precision) == ("a neural network", "torch", "float32")
    assert [each.name for each in model.inputs] == ["x"]
    np.testing.assert_allclose(model.predict({"x": X[0]})["y"], WEIGHT @ X[0], rtol=1e-5)
    assert [name for name, _ in model.values({"x": X[0]})] == ["y"]
    assert sum(each.size for each in (value.detach().numpy() for value in model.module.parameters())) == 48
    with pytest.raises(ValueError, match=r"input 'x' has shape \(4,\), but must have \(5,\)"):
        model.predict({"x": np.zeros(4)})
    same = runtime.load(network).predict({"x": X[0]})["y"]
    np.testing.assert_array_equal(same, model.predict({"x": X[0]})["y"])


def test_classifiers_return_a_label_and_probabilities(network_classifier):
    found = runtime.load(network_classifier).predict({"x": X[0]})
    scores = np.exp(WEIGHT @ X[0])
    assert found["label"] == "abcdefgh"[scores.argmax()]
    assert found["y"] == pytest.approx(dict(zip("abcdefgh", scores / scores.sum(), strict=True)), rel=1e-4)


def test_images_go_in(mean_of_image, image_module):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 3)).astype(np.uint8)
    model = runtime.load(mean_of_image)
    assert model.inputs[0].kind == "image"
    found = model.predict({"photo": image_module.fromarray(pixels)})["y"]
    np.testing.assert_allclose(found.reshape(3), pixels.mean(axis=(0, 1)) / 2, rtol=1e-5)
    with pytest.raises(ValueError, match="is an image of 12 x 8 pixels"):
        model.predict({"photo": image_module.new("RGB", (12, 8))})


def test_pipelines_of_networks(ct, network):
    from coremltools.proto import Model_pb2

    second = builder_of(ct, arrays(ct, y=(8,)), arrays(ct, z=(8,)), disable_rank5_shape_mapping=True)
    second.add_activation("relu", "RELU", "y", "z")
    outer = Model_pb2.Model(specificationVersion=4)
    outer.description.input.add().CopyFrom(network.description.input[0])
    outer.description.output.add().CopyFrom(second.spec.description.output[0])
    for each in (network, second.spec):
        outer.pipeline.models.add().CopyFrom(each)
    outer.pipeline.names.extend(["product", "relu"])
    model = runtime.load(outer)
    np.testing.assert_allclose(model.predict({"x": X[0]})["z"], np.maximum(WEIGHT @ X[0], 0), rtol=1e-5)
    assert [name for name, _ in model.values({"x": X[0]})] == ["product/y", "relu/z"]


def test_both_networks_are_run_on_samples(network):
    quantized = quantize_weights(network, 4)
    comparison = compare_models(network, quantized, {"x": X}, metric="snr", layers=True)
    (output,) = comparison.outputs
    assert isinstance(output, NetworkOutput)
    assert (output.name, output.samples, comparison.precision) == ("y", 6, "float32")
    model = runtime.load(quantized)
    actual = np.stack([model.predict({"x": row})["y"] for row in X]).astype(np.float64)
    expected = X.astype(np.float64) @ WEIGHT.T
    noise = np.square(expected - actual)
    assert output.snr_db == pytest.approx(10 * math.log10(np.square(expected).sum() / noise.sum()), rel=1e-3)
    assert output.psnr_db == pytest.approx(10 * math.log10(np.square(expected).max() / noise.mean()), rel=1e-3)
    assert comparison.scores == (output.snr_db,)
    assert [each.name for each in comparison.layers] == ["y"]
    assert json.loads(comparison.to_json())["outputs"][0]["psnr_db"] == output.psnr_db
    assert compare_models(network, network, [{"x": X[0]}]).outputs[0].snr_db == math.inf


def test_drawn_inputs_say_so(network):
    comparison = compare_models(network, quantize_weights(network, 8), predictions=True, draw=3)
    assert (comparison.drawn, comparison.outputs[0].samples) == (3, 3)
    assert compare_models(network, network).outputs == ()


def test_classes_agree(network_classifier):
    comparison = compare_models(network_classifier, quantize_weights(network_classifier, 8), {"x": X}, metric="top1")
    by_name = {each.name: each for each in comparison.outputs}
    assert by_name["label"].top_1 == by_name["y"].top_1 == comparison.scores[0] >= 0.5
    assert by_name["y"].top_5 == 1


def test_folders_of_images_are_samples(mean_of_image, image_module, tmp_path):
    for index in range(3):
        image_module.new("RGB", (20, 20), (index, 100, 200)).save(tmp_path / f"{index}.png")
    comparison = compare_models(mean_of_image, mean_of_image, tmp_path)
    assert [(each.name, each.samples, each.snr_db) for each in comparison.outputs] == [("y", 3, math.inf)]


@pytest.mark.parametrize(
    ("samples", "error", "message"),
    [
        ([], ValueError, "there are no samples"),
        ([1], TypeError, "samples must be dicts"),
        (3, TypeError, "samples must be a path, a dict or an iterable of dicts"),
        ("no/such/folder", FileNotFoundError, "no such file or folder"),
    ],
)
def test_what_is_no_sample_is_refused(network, samples, error, message):
    with pytest.raises(error, match=f"compare_models: .*{message}"):
        neural_network.compare_models(network, network, samples)
