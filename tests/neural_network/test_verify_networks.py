"""What verification of networks accepts, and each kind of damage that it finds."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from network_helpers import FIELDS, coremltools_quantized, hard_spec, network_with, new_spec, weights_in

from corepress.errors import FormatError
from corepress.neural_network import (
    WeightSelector,
    convert_to_fp16,
    decompress,
    held_values,
    nearness,
    quantize_weights,
    schema,
    verify,
    weight_params,
)

MODES = ["linear", "linear_symmetric", "linear_lut", "kmeans_lut"]


@pytest.fixture(scope="module")
def hard():
    return hard_spec()


@pytest.fixture(scope="module", autouse=True, params=["whole layers", "values held in files"])
def values_held(request):
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "values held in files":
            patch.setattr(held_values, "_LARGE", 16)
        yield


def run(work, *arguments, **options):
    reports = []
    return work(*arguments, on_report=reports.append, **options), reports[0]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("nbits", [2, 5, 8, 16])
def test_results_of_every_mode_are_sound(hard, nbits, mode):
    result, report = run(quantize_weights, hard, nbits, mode)
    found = verify(hard, result)
    assert found.ok, found.all_problems
    same = {"kept": "identical"}
    assert [(each.name, each.function, each.status) for each in found.weights] == [
        (each.name, each.function, same.get(each.status, each.status)) for each in report.weights
    ]
    assert [each.snr_db for each in found.weights] == [each.snr_db for each in report.weights]


@pytest.mark.parametrize("nbits", [4, 16])
def test_restored_models_are_sound(hard, nbits):
    small = quantize_weights(hard, nbits, on_report=lambda _: None)
    found = verify(small, decompress(small))
    assert found.ok, found.all_problems
    assert {each.status for each in found.weights} == {"identical", "decompressed"}
    assert verify(hard, hard).ok


def test_half_precision_can_be_quantized_further(hard):
    half = convert_to_fp16(network_with(*FIELDS, channels=40))
    found = verify(half, quantize_weights(half, 5, "kmeans"))
    assert found.ok
    assert "compressed" in found.totals


@pytest.mark.parametrize("pieces", [7, 64])
@pytest.mark.parametrize("mode", MODES)
def test_pieces_of_any_size_are_compared(monkeypatch, mode, pieces):
    spec = network_with("deconvolution", "convolution", channels=40)
    result = quantize_weights(spec, 4, mode)
    monkeypatch.setattr(nearness, "_PIECE", pieces)
    monkeypatch.setattr(weight_params, "_PIECE", pieces)
    found = verify(spec, result)
    assert found.ok
    before, after = (weights_in(each.neuralNetwork) for each in (spec, decompress(result)))
    for each in (each for each in found.weights if each.status == "compressed"):
        values, decoded = (np.array(weights[each.name][0].floatValue) for weights in (before, after))
        expected = 10 * np.log10(np.square(values).sum() / np.square(values - decoded).sum())
        assert each.snr_db == pytest.approx(expected, abs=1e-3)
    for params, _ in weights_in(result.neuralNetwork).values():
        if params.rawValue:
            before = params.rawValue
            change_code(params, 37)
            assert not verify(spec, result).ok
            params.rawValue = before


def change_code(params, index, change=2):
    """Move one code of 4 or 8 bits by some steps, within its range."""
    nbits = params.quantization.numberOfBits
    raw = bytearray(params.rawValue)
    place, shift = (index, 0) if nbits == 8 else (index // 2, 4 * (1 - index % 2))
    code = raw[place] >> shift & (2**nbits - 1)
    other = code + change if code < 2 ** (nbits - 1) else code - change
    raw[place] ^= (code ^ other) << shift
    params.rawValue = bytes(raw)


def weight(spec, layer=0):
    return spec.neuralNetwork.layers[layer].innerProduct.weights


def scale_up(params):
    params.quantization.linearQuantization.scale[1] *= 1.2


def _of_table(params):
    table = params.quantization.lookupTableQuantization.floatValue
    table[3] = 50.0


def _with_nan(params):
    params.quantization.linearQuantization.bias[0] = np.nan


def _shorter(params):
    params.rawValue = params.rawValue[:-1]


WRONG_WEIGHTS = {
    "a code": (8, "linear", lambda params: change_code(params, 9, 1), "1 of 200 values are more than half a step"),
    "a code of 4 bits": (4, "linear_symmetric", lambda params: change_code(params, 9, 1), "1 of 200 values are more"),
    "an index": (4, "kmeans_lut", lambda params: change_code(params, 9, 6), "1 of 200 values have a nearer entry"),
    "a scale": (4, "linear", scale_up, "values are more than half a step"),
    "a bias": (4, "linear", _with_nan, "scales or biases that are NaN"),
    "a table": (3, "linear_lut", _of_table, "have a nearer entry"),
    "half a half": (16, "linear", lambda params: setattr(params, "float16Value", b"\0" * 399), "are no whole number"),
    "halves that are missing": (
        16,
        "linear",
        lambda params: setattr(params, "float16Value", b"\0\0"),
        "holds 1 values",
    ),
    "codes that are missing": (8, "linear", _shorter, "rawValue must have 200 bytes"),
}


@pytest.mark.parametrize("name", WRONG_WEIGHTS)
def test_wrong_codes_are_found(name):
    nbits, mode, damage, message = WRONG_WEIGHTS[name]
    spec = network_with("innerProduct", channels=40)
    result = quantize_weights(spec, nbits, mode)
    damage(weight(result))
    found = verify(spec, result)
    (problem,) = found.all_problems
    assert problem.startswith("innerProduct.weights: ")
    assert message in problem
    assert found.totals.splitlines()[-1].startswith("FAILED: constants: ")
    assert "1 wrong" in found.totals


def test_halves_are_those_nearest():
    spec = network_with("innerProduct")
    result = convert_to_fp16(spec)
    halves = np.frombuffer(weight(result).float16Value, np.uint16).copy()
    halves[5] ^= 1
    weight(result).float16Value = halves.tobytes()
    assert verify(spec, result).all_problems == (
        "innerProduct.weights: its values are not those of the source in half precision",
    )


def test_values_without_a_compressed_form_must_stay():
    spec = network_with("innerProduct")
    result, half = quantize_weights(spec, 8), convert_to_fp16(spec)
    weight(spec).floatValue[2] = 1e6
    assert "beyond the range of float16" in verify(spec, half).all_problems[0]
    weight(spec).floatValue[2] = np.nan
    assert "NaN or infinite values, which have no" in verify(spec, result).all_problems[0]
    assert "NaN or infinite values, which have no" in verify(spec, half).all_problems[0]


def test_changed_plain_and_compressed_values_are_found():
    spec = network_with("innerProduct", "batchnorm")
    result = quantize_weights(spec, 8, selector=WeightSelector(layer_types=["innerProduct"]))
    result.neuralNetwork.layers[1].batchnorm.gamma.floatValue[0] += 1e-6
    assert verify(spec, result).all_problems == ("batchnorm.gamma: its values changed, although it is not compressed",)
    again = quantize_weights(spec, 4, selector=WeightSelector(layer_types=["innerProduct"]))
    assert verify(quantize_weights(spec, 8), again).all_problems[0].endswith("it was compressed already, and changed")
    restored = decompress(quantize_weights(spec, 8))
    weight(restored).floatValue[1] += 0.5
    assert "are not those that it was stored as" in verify(quantize_weights(spec, 8), restored).all_problems[0]
    # A NaN that signals, of which NumPy warns when it becomes a float64; only damage makes one.
    before, signaling = np.float32(weight(restored).floatValue[1]).tobytes(), np.uint32(0x7FA00000).tobytes()
    damaged = type(restored).FromString(restored.SerializeToString().replace(before, signaling, 1))
    assert "are not those that it was stored as" in verify(quantize_weights(spec, 8), damaged).all_problems[0]
    for mode in MODES:
        small = quantize_weights(network_with("deconvolution", "innerProduct", channels=40), 4, mode)
        restored = decompress(small)
        assert verify(small, restored).ok
        for params, _ in weights_in(restored.neuralNetwork).values():
            value = params.floatValue[9]
            params.floatValue[9] += 1e-4 * max(abs(value), 0.01)
            assert not verify(small, restored).ok, mode
            params.floatValue[9] = value


def test_weights_of_another_shape_or_name_are_found():
    spec = network_with("innerProduct")
    result = quantize_weights(spec, 8)
    result.neuralNetwork.layers[0].innerProduct.inputChannels = 4
    assert verify(spec, result).all_problems[:1] == ("layer innerProduct: more than its weights changed",)
    assert any("its shape was (8, 5), but is (8, 4)" in problem for problem in verify(spec, result).all_problems)
    result.neuralNetwork.layers[0].innerProduct.ClearField("bias")
    assert verify(spec, result).all_problems == ("layer innerProduct: it has other weights",)


CHANGES = {
    "description": (lambda spec: setattr(spec.description.metadata, "author", "x"), "the model: its description"),
    "updatable": (lambda spec: setattr(spec, "isUpdatable", True), "the model: its field 10 differs"),
    "stride": (lambda spec: spec.neuralNetwork.layers[0].convolution.stride.append(2), "layer convolution: more than"),
    "name": (lambda spec: setattr(spec.neuralNetwork.layers[1], "name", "other"), "it has other weights"),
    "preprocessing": (
        lambda spec: spec.neuralNetwork.preprocessing.add(featureName="x"),
        "the model: its field 2 differs",
    ),
    "layer": (lambda spec: spec.neuralNetwork.layers.add(name="more"), "the model: 2 layers became 3"),
    "low version": (lambda spec: setattr(spec, "specificationVersion", 2), "version 2 has no such weights, 3 has"),
    "high version": (lambda spec: setattr(spec, "specificationVersion", 9), "version 1 became 9"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_other_changes_are_found(name):
    edit, message = CHANGES[name]
    spec = network_with("convolution", "innerProduct")
    result = quantize_weights(spec, 8)
    edit(result)
    found = verify(spec, result)
    assert not found.ok
    assert any(message in problem for problem in found.all_problems), found.all_problems


def test_a_version_is_raised_for_new_weights_only():
    spec = network_with("innerProduct")
    other = type(spec)()
    other.CopyFrom(spec)
    other.specificationVersion = 3
    assert verify(spec, other).all_problems == ("the model: specification version 1 became 3",)


def test_the_order_of_a_descriptions_map_is_no_difference():
    def with_metadata(keys):
        entries = b"".join(b"\xa2\x06\x06\x0a\x01" + key + b"\x12\x01x" for key in keys)
        return b"\x08\x01\x12" + bytes([len(entries) + 3]) + b"\xa2\x06" + bytes([len(entries)]) + entries

    first, second = (
        schema.Model.FromString(with_metadata(keys) + network_with("bias").SerializeToString()[2:])
        for keys in ([b"a", b"b"], [b"b", b"a"])
    )
    assert first.SerializeToString() != second.SerializeToString()
    assert verify(first, second).ok
    third = schema.Model.FromString(with_metadata([b"a", b"c"]) + network_with("bias").SerializeToString()[2:])
    assert verify(first, third).all_problems == ("the model: its description differs",)


def test_parts_of_pipelines_are_named(hard):
    result = quantize_weights(hard, 4, on_report=lambda _: None)
    result.pipeline.models[0].specificationVersion = 1
    result.pipeline.models[1].neuralNetwork.layers[0].convolution.nGroups = 5
    problems = verify(hard, result).all_problems
    assert "its part first: specification version 1 has no such weights, 3 has" in problems
    assert "layer half/convolution: more than its weights changed" in problems
    result.pipeline.names[1] = "other"
    assert "the model: its field 2 differs" in verify(hard, result).all_problems
    del result.pipeline.models[1:]
    assert "the model: its parts are others" in verify(hard, result).all_problems


def test_quality_can_be_asked_for():
    spec = network_with("innerProduct")
    result = quantize_weights(spec, 8)
    assert verify(spec, result, min_snr_db=30).ok
    assert "less than 90 dB" in verify(spec, result, min_snr_db=90).all_problems[0]


def test_files_and_packages(tmp_path):
    spec = network_with("innerProduct", channels=40)
    package, small = tmp_path / "Net.mlpackage", tmp_path / "small.mlpackage"
    (package / "Data").mkdir(parents=True)
    (package / "Data/model.mlmodel").write_bytes(spec.SerializeToString())
    item = {"path": "model.mlmodel", "name": "model.mlmodel", "author": "", "description": ""}
    manifest = {"fileFormatVersion": "1.0.0", "itemInfoEntries": {"1": item}, "rootModelIdentifier": "1"}
    (package / "Manifest.json").write_text(json.dumps(manifest))
    report = quantize_weights(package, 4, destination=small)
    found = verify(package, small)
    assert found.ok
    assert (found.bytes_before, found.bytes_after) == (report.bytes_before, report.bytes_after)
    assert json.loads(found.to_json())["ok"]
    assert verify(package / "Data/model.mlmodel", small).ok
    (small / "Data/note.txt").write_text("new")
    assert verify(package, small).all_problems == ("file Data/note.txt was added",)
    shutil.rmtree(small)
    with pytest.raises(FileNotFoundError):
        verify(package, small)


def test_damage_of_the_source_is_an_error_and_of_the_result_a_finding(tmp_path):
    spec = network_with("innerProduct")
    result = quantize_weights(spec, 8)
    (tmp_path / "result.mlmodel").write_bytes(result.SerializeToString()[:-3])
    found = verify(spec, tmp_path / "result.mlmodel")
    assert not found.ok
    assert "not a serialized Core ML model" in found.totals
    assert not verify(spec, new_spec("identity")).ok
    with pytest.raises(ValueError, match=r"verify: .*no neural network"):
        verify(new_spec("identity"), spec)
    weight(spec).floatValue.append(1)
    with pytest.raises(FormatError, match=r"innerProduct\.weights: holds 41 values"):
        verify(spec, result)


@pytest.mark.parametrize("mode", ["linear", "linear_symmetric", "linear_lut"])
def test_results_of_coremltools_are_sound_but_for_what_it_breaks(mode):
    spec = network_with("innerProduct", "gru", "embedding", channels=40)
    for params, _ in weights_in(spec.neuralNetwork).values():
        params.floatValue[:] = [100 * value for value in params.floatValue]
    other = coremltools_quantized(spec, 8, mode)
    assert verify(spec, other).ok, verify(spec, other).all_problems
    narrow = network_with("innerProduct", channels=40)
    weight(narrow).floatValue[:5] = [1e-5, 2e-5, -1e-5, 3e-6, 0]  # a channel of little range, which it collapses
    found = verify(narrow, coremltools_quantized(narrow, 8, mode))
    assert found.ok == (mode == "linear_lut")
    assert verify(narrow, quantize_weights(narrow, 8, mode)).ok


@settings(max_examples=60)
@given(seed=st.integers(0, 1000), mode=st.sampled_from(MODES), nbits=st.sampled_from([4, 8]), data=st.data())
def test_any_other_code_is_found(seed, mode, nbits, data):
    spec = network_with("innerProduct", channels=80, seed=seed)
    result = quantize_weights(spec, nbits, mode)
    params = weight(result)
    if not params.rawValue:
        return
    change_code(params, data.draw(st.integers(0, 399)), 2)
    assert not verify(spec, result).ok
