"""Files that are damaged, cut short, or written in ways that protobuf allows and nobody uses."""

from __future__ import annotations

import numpy as np
import pytest
from network_helpers import decode_all, network_with, new_spec

from corepress.coreml.format.wire_format import varint
from corepress.errors import FormatError
from corepress.neural_network import decompress, inspect, quantize_weights
from corepress.neural_network.document import Document


@pytest.fixture
def spec():
    return network_with("innerProduct", "batchnorm")


def _field(number: int, payload: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def _model(network: bytes) -> bytes:
    return b"\x08\x04" + _field(500, network)


def test_every_cut_is_refused_or_is_another_whole_model(tmp_path, spec):
    data = spec.SerializeToString()
    path = tmp_path / "cut.mlmodel"
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises((FormatError, ValueError)):
            inspect(path)


def test_changed_bytes_are_refused_or_give_a_model_that_can_be_read(tmp_path, spec):
    data, rng = spec.SerializeToString(), np.random.default_rng(0)
    path, out = tmp_path / "in.mlmodel", tmp_path / "out.mlmodel"
    refused = 0
    for _ in range(600):
        changed = bytearray(data)
        for place in rng.integers(0, len(data), rng.integers(1, 4)):
            changed[place] = rng.integers(0, 256)
        path.write_bytes(changed)
        try:
            quantize_weights(path, 4, destination=out, overwrite=True)
        except (ValueError, TypeError):
            refused += 1
            continue
        inspect(out)
        decompress(out, tmp_path / "back.mlmodel", overwrite=True)
    assert 0 < refused < 600
    assert sorted(each.name for each in tmp_path.iterdir()) == ["back.mlmodel", "in.mlmodel", "out.mlmodel"]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda params: params.floatValue.append(1.0), r"holds 41 values, .* require 40 \(shape \(8, 5\)\)"),
        (lambda params: setattr(params, "float16Value", b"\0\0"), "one way, not as float32 and float16"),
    ],
)
def test_weights_that_do_not_fit_their_layer_are_refused_by_name(spec, edit, message):
    edit(spec.neuralNetwork.layers[0].innerProduct.weights)
    for nbits in (8, 16):
        with pytest.raises(FormatError, match=rf"innerProduct\.weights: .*{message}"):
            quantize_weights(spec, nbits)


def test_floats_cut_in_two_are_refused_by_name(tmp_path):
    path = tmp_path / "in.mlmodel"
    layer = _field(1, b"fc") + _field(140, b"\x08\x05\x10\x08" + _field(20, _field(1, b"\0" * 159)))
    path.write_bytes(_model(_field(1, layer)))
    with pytest.raises(FormatError, match=r"fc\.weights: 159 bytes are no whole number of values of 4 bytes"):
        quantize_weights(path, 8, destination=tmp_path / "out.mlmodel")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda params: setattr(params, "rawValue", params.rawValue[:-1]), "rawValue must have 20 bytes"),
        (lambda params: setattr(params.quantization, "numberOfBits", 9), "numberOfBits must be 1 to 8, not 9"),
        (lambda params: params.quantization.linearQuantization.scale.append(1.0), "1 or 8 scales"),
        (lambda params: params.quantization.linearQuantization.bias.pop(), "as many biases or none"),
        (lambda params: params.quantization.ClearField("linearQuantization"), "neither linear nor by a lookup table"),
        (lambda params: params.quantization.lookupTableQuantization.floatValue.append(1.0), "must have 16 entries"),
    ],
)
def test_quantized_weights_that_are_damaged_are_refused_by_name(spec, edit, message):
    quantized = quantize_weights(spec, 4)
    edit(quantized.neuralNetwork.layers[0].innerProduct.weights)
    with pytest.raises(FormatError, match=rf"innerProduct\.weights: .*{message}"):
        decompress(quantized)


def test_quantized_weights_of_layers_without_size_are_refused(spec):
    quantized = quantize_weights(spec, 4)
    quantized.neuralNetwork.layers[0].innerProduct.ClearField("inputChannels")
    with pytest.raises(FormatError, match=r"innerProduct\.weights: holds values, .* require none \(shape \(8, 0\)\)"):
        decompress(quantized)


def test_longer_data_than_needed_and_no_biases_are_allowed(spec):
    quantized = quantize_weights(spec, 4)
    params = quantized.neuralNetwork.layers[0].innerProduct.weights
    before = decompress(quantized)
    params.rawValue += b"\xff"
    assert decompress(quantized) == before
    del params.quantization.linearQuantization.bias[:]
    values = decode_all(decompress(quantized).neuralNetwork)["innerProduct.weights"]
    assert (values >= 0).all()
    assert values.any()


def test_floats_in_several_pieces_are_joined_and_unpacked_ones_stay(tmp_path):
    values = np.arange(1, 41, dtype="<f4")
    packed = _field(1, values[:10].tobytes()) + _field(1, values[10:].tobytes())
    unpacked = b"".join(b"\x0d" + value.tobytes() for value in values)
    sizes = b"\x08\x05\x10\x08"  # 5 inputs, 8 outputs
    path, out = tmp_path / "in.mlmodel", tmp_path / "out.mlmodel"
    for weights, expected in ((packed, "compressed"), (unpacked, "kept")):
        layer = _field(1, b"fc") + _field(140, sizes + _field(20, weights))
        path.write_bytes(_model(_field(1, layer)))
        report = quantize_weights(path, 8, destination=out, overwrite=True)
        assert [record.status for record in report.weights] == [expected]
        result = type(new_spec()).FromString(out.read_bytes())
        if expected == "kept":
            assert "does not know" in report.weights[0].reason
            assert out.read_bytes() == path.read_bytes()
        else:
            step = (values[4::5] - values[::5]).max() / 255
            weight = result.neuralNetwork.layers[0].innerProduct.weights
            decoded = (
                np.frombuffer(weight.rawValue, np.uint8).reshape(8, 5)
                * np.array(weight.quantization.linearQuantization.scale)[:, None]
                + np.array(weight.quantization.linearQuantization.bias)[:, None]
            )
            np.testing.assert_allclose(decoded.reshape(-1), values, atol=step)


def test_networks_in_several_pieces_are_merged(tmp_path, spec):
    network = spec.neuralNetwork.SerializeToString()
    first, second = (spec.neuralNetwork.layers[index].SerializeToString() for index in (0, 1))
    path = tmp_path / "in.mlmodel"
    path.write_bytes(_model(_field(1, first)) + _field(500, _field(1, second)))
    merged = type(spec).FromString(path.read_bytes())
    assert merged.neuralNetwork.SerializeToString() == network
    report = quantize_weights(path, 8, destination=tmp_path / "out.mlmodel")
    result = type(spec).FromString((tmp_path / "out.mlmodel").read_bytes())
    assert len(report.weights) == 6
    assert result.neuralNetwork == quantize_weights(spec, 8).neuralNetwork


def test_pipelines_nested_without_end_are_refused():
    data = _field(202, b"")
    for _ in range(60):
        data = b"\x08\x04" + _field(202, _field(1, data))
    with pytest.raises(FormatError, match="nested more than"):
        Document(data)


@pytest.mark.parametrize("data", [b"", b"hello world, this is no model", b"\x08\x04", b"\xff" * 20, b"\x0b\x0c"])
def test_what_is_no_model_is_refused(tmp_path, data):
    path = tmp_path / "in.mlmodel"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"in\.mlmodel"):
        inspect(path)
