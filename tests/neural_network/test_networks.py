"""Whole models: what is changed, what is not, and in what form models come and go."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from network_helpers import (
    FIELDS,
    add_layer,
    coremltools_quantized,
    decode_all,
    network_with,
    new_spec,
    quietly,
    weights_in,
)

from corepress import neural_network
from corepress.neural_network import WeightSelector, convert_to_fp16, decompress, inspect, quantize_weights


def _with_report(work, *arguments, **options):
    reports = []
    result = work(*arguments, on_report=reports.append, **options)
    return result, reports[0]


def _kept(report):
    return {record.name: record.reason for record in report.weights if record.status == "kept"}


@pytest.fixture
def model_path(tmp_path):
    path = tmp_path / "model.mlmodel"
    path.write_bytes(network_with("convolution", "innerProduct", "batchnorm").SerializeToString())
    return path


@pytest.mark.parametrize("kind", ["neuralNetwork", "neuralNetworkClassifier", "neuralNetworkRegressor"])
def test_all_kinds_of_networks(kind):
    spec = network_with("innerProduct", kind=kind)
    if kind == "neuralNetworkClassifier":
        spec.neuralNetworkClassifier.stringClassLabels.vector.extend(["cat", "dog"])
        spec.neuralNetworkClassifier.labelProbabilityLayerName = "innerProduct_out"
    result = quantize_weights(spec, 4)
    assert decode_all(getattr(result, kind)).keys() == {"innerProduct.weights", "innerProduct.bias"}
    for each in (spec, result):
        del getattr(each, kind).layers[:]
        each.specificationVersion = 0
    assert result == spec


@pytest.mark.parametrize("nbits", [16, 8, 4])
@pytest.mark.parametrize("kind", ["pipeline", "pipelineClassifier", "pipelineRegressor"])
def test_pipelines_and_pipelines_within_them(kind, nbits):
    spec = new_spec(kind)
    outer = spec.pipeline if kind == "pipeline" else getattr(spec, kind).pipeline
    outer.models.add().CopyFrom(network_with("innerProduct"))
    outer.models.add(specificationVersion=1).identity.SetInParent()
    inner = outer.models.add(specificationVersion=1).pipeline
    inner.models.add().CopyFrom(network_with("convolution"))
    outer.names.extend(["first", "glue", "last"])
    result, report = _with_report(quantize_weights, spec, nbits)
    assert [(record.function, record.name) for record in report.weights] == [
        ("first", "innerProduct.weights"),
        ("first", "innerProduct.bias"),
        ("last/0", "convolution.weights"),
        ("last/0", "convolution.bias"),
    ]
    changed = result.pipeline if kind == "pipeline" else getattr(result, kind).pipeline
    version = 2 if nbits == 16 else 3
    assert result.specificationVersion == changed.models[0].specificationVersion == version
    assert changed.models[1] == outer.models[1]
    assert changed.models[2].specificationVersion == version
    decode_all(changed.models[2].pipeline.models[0].neuralNetwork)
    if kind == "pipelineClassifier":
        with pytest.raises(ValueError):  # noqa: PT011 (protobuf says so)
            coremltools_quantized(spec, nbits, "linear")


def test_networks_in_loops_and_branches():
    spec, rng = new_spec(), np.random.default_rng(5)
    loop = spec.neuralNetwork.layers.add(name="loop").loop
    add_layer(loop.conditionNetwork, "loadConstantND", rng)
    add_layer(loop.bodyNetwork, "innerProduct", rng)
    branch = loop.bodyNetwork.layers.add(name="branch").branch
    add_layer(branch.ifBranch, "gru", rng)
    add_layer(branch.elseBranch, "bias", rng)
    result, report = _with_report(quantize_weights, spec, 8)
    assert {record.function for record in report.weights} == {
        "loop.conditionNetwork",
        "loop.bodyNetwork",
        "loop.bodyNetwork/branch.ifBranch",
        "loop.bodyNetwork/branch.elseBranch",
    }
    ours, theirs = result.neuralNetwork, coremltools_quantized(spec, 8, "linear").neuralNetwork
    for get in (
        lambda network: network.layers[0].loop.bodyNetwork,
        lambda network: network.layers[0].loop.conditionNetwork,
        lambda network: network.layers[0].loop.bodyNetwork.layers[1].branch.ifBranch,
        lambda network: network.layers[0].loop.bodyNetwork.layers[1].branch.elseBranch,
    ):
        other = decode_all(get(theirs))
        for name, values in decode_all(get(ours)).items():
            np.testing.assert_allclose(values, other[name], rtol=1e-5, atol=1e-6)


def test_a_blobs_own_flag_is_kept():
    spec = network_with("innerProduct")
    spec.neuralNetwork.layers[0].innerProduct.weights.isUpdatable = True
    result = quantize_weights(spec, 8)
    assert result.neuralNetwork.layers[0].innerProduct.weights.isUpdatable


def test_what_is_not_a_weight_stays_byte_by_byte(tmp_path):
    spec = network_with("convolution", "batchnorm")
    spec.description.metadata.userDefined["a"] = "b"
    spec.neuralNetwork.preprocessing.add().scaler.channelScale = 0.5
    spec.neuralNetwork.layers.add(name="softmax").softmax.SetInParent()
    unknown = b"\xfa\x3e\x03new"  # field 1007
    spec.MergeFromString(unknown)
    spec.neuralNetwork.MergeFromString(unknown)
    spec.neuralNetwork.layers[0].convolution.MergeFromString(unknown)
    spec.neuralNetwork.layers[0].convolution.weights.MergeFromString(unknown)
    path, out = tmp_path / "a.mlmodel", tmp_path / "b.mlmodel"
    path.write_bytes(spec.SerializeToString())
    quantize_weights(path, 8, destination=out)
    assert out.read_bytes().count(unknown) == 4
    result = type(spec).FromString(out.read_bytes())
    for each in (spec, result):
        each.specificationVersion = 0
        for layer, fields in (("convolution", ["weights", "bias"]), ("batchnorm", FIELDS["batchnorm"])):
            for field in fields:
                index = 0 if layer == "convolution" else 1
                params = getattr(getattr(each.neuralNetwork.layers[index], layer), field)
                for name in ("floatValue", "rawValue", "quantization"):
                    params.ClearField(name)
    assert result == spec


def test_nothing_to_do_gives_the_same_bytes(tmp_path):
    spec = network_with("convolution", "gru")
    spec.neuralNetwork.layers.add(name="relu").activation.ReLU.SetInParent()
    path, once, twice = (tmp_path / f"{name}.mlmodel" for name in ("full", "once", "twice"))
    path.write_bytes(spec.SerializeToString())
    quantize_weights(path, 4, destination=once)
    report = quantize_weights(once, 8, destination=twice)
    assert once.read_bytes() == twice.read_bytes()
    assert (report.compressed, report.bytes_before) == (0, report.bytes_after)
    assert all(record.planned and "compressed already" in record.reason for record in report.weights)


@pytest.mark.parametrize("nbits", [16, 4])
def test_same_bytes_for_every_thread_count(tmp_path, model_path, nbits):
    results = set()
    for threads in (1, 2, 5):
        out = tmp_path / "out.mlmodel"
        quantize_weights(model_path, nbits, "kmeans_lut", destination=out, overwrite=True, num_threads=threads)
        results.add(out.read_bytes())
    assert len(results) == 1


def test_specs_give_specs_and_stay_unchanged():
    spec = network_with("innerProduct")
    before = spec.SerializeToString()
    result = quantize_weights(spec, 8)
    assert type(result) is type(spec)
    assert result != spec
    assert spec.SerializeToString() == before


def test_models_give_models():
    import coremltools

    spec = network_with("innerProduct")
    with warnings.catch_warnings(), quietly():
        warnings.simplefilter("ignore")
        model = coremltools.models.MLModel(spec, skip_model_load=True)
        result = quantize_weights(model, 8)
    assert isinstance(result, coremltools.models.MLModel)
    assert result.get_spec() == quantize_weights(spec, 8)


def test_paths_give_reports(model_path, tmp_path):
    out = tmp_path / "out.mlmodel"
    report = quantize_weights(model_path, 8, destination=out)
    assert (report.source, report.destination) == (str(model_path), str(out))
    assert (report.bytes_before, report.bytes_after) == (model_path.stat().st_size, out.stat().st_size)
    assert report.from_json(report.to_json()) == report
    assert out.read_bytes() == quantize_weights(_spec_of(model_path), 8).SerializeToString(deterministic=True)


def _spec_of(path):
    from coremltools.proto import Model_pb2

    return Model_pb2.Model.FromString(path.read_bytes())


def test_an_object_with_a_destination_gives_a_report(tmp_path):
    report = convert_to_fp16(network_with("innerProduct"), destination=tmp_path / "half.mlmodel")
    assert report.compressed == 2
    assert decompress(tmp_path / "half.mlmodel", tmp_path / "full.mlmodel").decompressed == 2


def test_weights_that_could_not_be_stored_are_named_in_a_warning_if_there_is_no_report():
    spec = network_with("innerProduct")
    spec.neuralNetwork.layers[0].innerProduct.weights.floatValue[3] = np.nan
    with pytest.warns(UserWarning, match=r"1 weights left unchanged: innerProduct\.weights: .*NaN"):
        result = quantize_weights(spec, 8)
    assert result.neuralNetwork.layers[0].innerProduct.weights.floatValue
    with pytest.raises(ValueError, match=r"quantize_weights: 1 weights left unchanged.*innerProduct\.weights"):
        quantize_weights(spec, 8, strict=True)


@pytest.mark.parametrize("mode", ["linear", "linear_symmetric", "linear_lut", "kmeans_lut"])
def test_half_precision_weights_are_quantized_too(mode):
    spec = network_with(*FIELDS, channels=400)
    half = convert_to_fp16(spec)
    result, report = _with_report(quantize_weights, half, 8, mode)
    assert not [record for record in report.weights if record.status == "kept" and not record.planned]
    before, after = decode_all(half.neuralNetwork, 400), decode_all(result.neuralNetwork, 400)
    for record in report.weights:
        error = np.square(after[record.name] - before[record.name]).sum()
        assert error <= np.square(before[record.name]).sum() * 1e-2, record.name
    sizes = {record.name: record.status for record in report.weights}
    assert sizes["convolution.weights"] == "compressed"
    with pytest.raises(IndexError):
        coremltools_quantized(half, None, "dequantization")


class TestSelection:
    SPEC = staticmethod(lambda: network_with("convolution", "innerProduct", "batchnorm"))

    @pytest.mark.parametrize(
        ("selector", "chosen"),
        [
            (WeightSelector(layer_types=["convolution"]), ["convolution.bias", "convolution.weights"]),
            (
                WeightSelector(skip_layer_types=("batchnorm", "convolution"), weight_threshold=8),
                ["innerProduct.weights"],
            ),
            (WeightSelector(weight_threshold=40), ["convolution.weights"]),
            (WeightSelector(names=["inner*"], skip_names=["*.bias"]), ["innerProduct.weights"]),
            (WeightSelector(names=[r"re:.*\.(gamma|beta)"]), ["batchnorm.beta", "batchnorm.gamma"]),
            (WeightSelector(names=["nothing"]), []),
        ],
        ids=str,
    )
    def test_by_layer_type_size_and_name(self, selector, chosen):
        result, report = _with_report(quantize_weights, self.SPEC(), 4, selector=selector)
        assert {record.name for record in report.weights if record.status == "compressed"} == set(chosen)
        stored = {name for name, (params, _) in weights_in(result.neuralNetwork).items() if params.rawValue}
        assert stored == set(chosen)
        assert all(record.planned for record in report.weights if record.status == "kept")

    def test_with_16_bits_layers_are_chosen_as_a_whole(self):
        _, report = _with_report(convert_to_fp16, self.SPEC(), selector=WeightSelector(weight_threshold=39))
        assert {record.name for record in report.weights if record.status == "compressed"} == {
            *("convolution.weights", "convolution.bias", "innerProduct.weights", "innerProduct.bias"),
        }

    def test_coremltools_selectors(self, ct):
        from coremltools.models.neural_network import quantization_utils

        spec = self.SPEC()
        selectors = [
            quantization_utils.QuantizedLayerSelector(),
            quantization_utils.AdvancedQuantizedLayerSelector(["batchnorm", "bias"], 4, 100),
            quantization_utils.AdvancedQuantizedLayerSelector([], 100, 100),
            quantization_utils.MatrixMultiplyLayerSelector(),
            SimpleNamespace(do_quantize=lambda layer, **_: layer.name == "innerProduct"),
        ]
        for selector in selectors:
            ours = quantize_weights(spec, 8, selector=selector)
            theirs = coremltools_quantized(spec, 8, "linear", selector=selector)
            for name, (params, _) in weights_in(ours.neuralNetwork).items():
                other = weights_in(theirs.neuralNetwork)[name][0]
                assert bool(params.rawValue) == bool(other.rawValue), (selector, name)

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"layer_types": ["convolutoin"]}, ValueError, "did you mean 'convolution'"),
            ({"skip_layer_types": "convolution"}, TypeError, "must be a list of strings"),
            ({"weight_threshold": -1}, ValueError, "must not be negative"),
            ({"names": ["re:("]}, ValueError, "not a regular expression"),
        ],
    )
    def test_wrong_selectors_are_refused(self, options, error, message):
        with pytest.raises(error, match=message):
            WeightSelector(**options)


def test_batch_normalizations_are_not_fused_with_the_convolution_before_them():
    spec = network_with("convolution", "batchnorm")
    spec.neuralNetwork.layers[1].input[:] = spec.neuralNetwork.layers[0].output
    variance = spec.neuralNetwork.layers[1].batchnorm.variance.floatValue
    variance[:] = [abs(value) for value in variance]
    result = quantize_weights(spec, 8)
    assert [layer.name for layer in result.neuralNetwork.layers] == ["convolution", "batchnorm"]
    with pytest.raises(TypeError):  # coremltools fuses them with shapes that do not fit
        coremltools_quantized(spec, 8, "linear")


def test_dynamically_quantized_layers_become_plain_ones():
    from coremltools.models.neural_network.quantization_utils import activate_int8_int8_matrix_multiplications

    spec = network_with("innerProduct", "batchedMatmul")
    for layer in spec.neuralNetwork.layers:
        getattr(layer, layer.WhichOneof("layer")).hasBias = False
    before = decode_all(spec.neuralNetwork)
    with quietly():
        dynamic = activate_int8_int8_matrix_multiplications(spec)
    assert inspect(dynamic).weights[0].storage == "int8, inputs quantized too"
    _, report = _with_report(quantize_weights, dynamic, 8)
    assert [record.status for record in report.weights] == ["kept", "kept"]
    result = decompress(dynamic)
    assert not result.neuralNetwork.layers[0].innerProduct.int8DynamicQuantize
    assert not result.neuralNetwork.layers[1].batchedMatmul.int8DynamicQuantize
    for name in ("innerProduct.weights", "batchedMatmul.weights"):
        step = abs(before[name]).max() / 127
        np.testing.assert_allclose(decode_all(result.neuralNetwork)[name], before[name], atol=step)


def test_int8_weights_of_layers_that_take_inputs_as_they_are_are_restored():
    spec = quantize_weights(network_with("gru"), 8, selector=WeightSelector(names=["*.updateGateWeightMatrix"]))
    params = spec.neuralNetwork.layers[0].gru.updateGateWeightMatrix
    params.int8RawValue, params.rawValue = params.rawValue, b""
    result = decompress(spec)
    assert len(result.neuralNetwork.layers[0].gru.updateGateWeightMatrix.floatValue) == 40
    assert neural_network.verify(spec, result).ok


def test_inspect_tells_how_weights_are_stored(model_path, tmp_path):
    quantize_weights(model_path, 4, destination=tmp_path / "out.mlmodel", selector=WeightSelector(names=["conv*"]))
    inspection = inspect(tmp_path / "out.mlmodel")
    storages = {weight.name: weight.storage for weight in inspection.weights}
    assert storages["convolution.weights"] == "4 bits, linear, 8 scales"
    assert storages["innerProduct.weights"] == "float32"
    assert (inspection.specification_version, inspection.functions) == (3, ())
    assert inspection.package_bytes == (tmp_path / "out.mlmodel").stat().st_size
    assert "convolution.weights" in str(inspection)
    assert "functions" not in str(inspection)


@pytest.mark.parametrize(
    ("nbits", "mode", "options", "message"),
    [
        (0, "linear", {}, "nbits must be 1 to 8, or 16, not 0"),
        (9, "linear", {}, "nbits must be 1 to 8, or 16, not 9"),
        (15, "kmeans", {}, "not 15"),
        (True, "linear", {}, "not True"),
        (None, "linear", {}, "not None"),
        (4.0, "linear", {}, "not 4.0"),
        (4, "kmeans_lot", {}, "did you mean 'kmeans_lut'"),
        (1, "linear_symmetric", {}, "needs nbits of at least 2"),
        (4, "custom_lut", {}, "'custom_lut' needs lut_function"),
        (4, "linear", {"lut_function": print}, "'linear' does not take lut_function"),
    ],
)
def test_wrong_arguments_are_refused(nbits, mode, options, message):
    with pytest.raises(ValueError, match=f"quantize_weights: .*{message}"):
        quantize_weights(network_with("innerProduct"), nbits, mode, **options)


def test_what_holds_no_network_is_refused_with_what_to_call():
    with pytest.raises(TypeError, match="must be a path, a spec or an MLModel, not dict"):
        quantize_weights({}, 8)
    for kind, message in (
        ("mlProgram", r"an ML program; use corepress\.coreml\.compress"),
        ("identity", "no neural network"),
    ):
        with pytest.raises(ValueError, match=message):
            quantize_weights(new_spec(kind), 8)


def test_names_of_the_module_are_documented():
    assert all(getattr(neural_network, name).__doc__ for name in neural_network.__all__ if name[0].islower())


def test_what_stays_as_large_is_left_unchanged():
    """Eight halves take as many bytes as eight codes with a scale and a bias."""
    half = convert_to_fp16(network_with("loadConstant"))
    _, report = _with_report(quantize_weights, half, 8)
    (record,) = report.weights
    assert (record.status, record.bytes_before, record.bytes_after) == ("kept", 16, 16)
    assert record.reason == "would not become smaller, with its scales or table"
