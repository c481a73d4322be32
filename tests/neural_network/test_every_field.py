"""Every field of every layer, in every mode and width, against a decoder of the tests' own and against coremltools."""

from __future__ import annotations

import numpy as np
import pytest
from network_helpers import (
    FIELDS,
    coremltools_quantized,
    decode_all,
    network_with,
    payload_bytes,
    weights_in,
)

from corepress import kernels, neural_network

WIDTHS = {
    "linear": range(1, 9),
    "linear_symmetric": range(2, 9),
    "linear_lut": range(1, 9),
    "kmeans_lut": range(1, 9),
}
CASES = [(mode, nbits) for mode, widths in WIDTHS.items() for nbits in widths]


def _channels(mode: str, nbits: int) -> int:
    """So many that even vectors become smaller with a table of their own."""
    table = 0 if mode in ("linear", "linear_symmetric") else 4 * 2**nbits
    return 2 * int(table / (4 - nbits / 8) / 2) + 8


def _quantized(spec, nbits, mode):
    reports = []
    result = neural_network.quantize_weights(spec, nbits, mode, on_report=reports.append)
    return result, {record.name: record for record in reports[0].weights}


def _by_channel(values: np.ndarray, axis: int | None) -> np.ndarray:
    """One row per channel."""
    return values.reshape(1, -1) if axis is None else np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)


@pytest.mark.parametrize(("mode", "nbits"), CASES)
def test_every_field_decodes_to_the_nearest_that_its_width_allows(mode, nbits):
    channels = _channels(mode, nbits)
    spec = network_with(*FIELDS, channels=channels)
    result, records = _quantized(spec, nbits, mode)
    before, after = (decode_all(each.neuralNetwork, channels) for each in (spec, result))
    assert records.keys() == before.keys()
    for name, (params, (_, axis)) in weights_in(result.neuralNetwork).items():
        assert params.quantization.numberOfBits == nbits, name
        error = after[name] - before[name]
        if mode in ("linear", "linear_symmetric"):
            rows = _by_channel(before[name], axis)
            span = np.ptp(rows, 1) if mode == "linear" else 2 * abs(rows).max(1)
            steps = 2**nbits - (1 if mode == "linear" else 2)
            assert (abs(_by_channel(error, axis)).max(1) <= span / steps / 2 * (1 + 1e-5)).all(), name
        elif mode == "linear_lut":
            assert abs(error).max() <= np.ptp(before[name]) / (2**nbits - 1) / 2 * (1 + 1e-5), name
        else:
            _, _, optimum = kernels.kmeans1d(before[name].reshape(-1), 2**nbits)
            assert np.square(error).sum() <= optimum * (1 + 1e-6) + 1e-9, name
        record = records[name]
        assert (record.status, record.bytes_after) == ("compressed", payload_bytes(params))
        signal = np.square(before[name]).sum()
        assert 10 ** (-record.snr_db / 10) == pytest.approx(np.square(error).sum() / signal, rel=1e-3, abs=1e-13), name


@pytest.mark.parametrize(("mode", "nbits"), [case for case in CASES if case[0] == "linear" or case[1] == 8])
def test_no_field_is_farther_off_than_with_coremltools(mode, nbits):
    channels = _channels(mode, nbits)
    shared = [layer for layer in FIELDS if layer != "convolution3d"]  # which coremltools passes over
    spec = network_with(*shared, channels=channels, seed=1)
    if mode == "kmeans_lut":
        with pytest.raises(TypeError):
            coremltools_quantized(spec, nbits, mode)
        return
    theirs = decode_all(coremltools_quantized(spec, nbits, mode).neuralNetwork, channels)
    ours = decode_all(_quantized(spec, nbits, mode)[0].neuralNetwork, channels)
    for name, values in decode_all(spec.neuralNetwork, channels).items():
        error, other = (abs(each[name] - values) for each in (ours, theirs))
        # But for the last digit of scales: coremltools computes them in float32 if protobuf has it so.
        assert (error <= other + 2e-7 * np.ptp(values)).all(), name
        assert np.square(error).sum() <= np.square(other).sum() * (1 + 1e-4), name


@pytest.mark.parametrize("nbits", range(1, 9))
def test_linear_parameters_are_coremltools(nbits):
    spec = network_with("convolution", "deconvolution", "innerProduct", "batchnorm", seed=2)
    theirs = weights_in(coremltools_quantized(spec, nbits, "linear").neuralNetwork)
    ours = weights_in(_quantized(spec, nbits, "linear")[0].neuralNetwork)
    for name, (params, _) in ours.items():
        linear, other = params.quantization.linearQuantization, theirs[name][0].quantization.linearQuantization
        np.testing.assert_allclose(linear.scale, other.scale, rtol=2e-7, err_msg=name)
        assert list(linear.bias) == list(other.bias), name


@pytest.mark.parametrize("mode", ["linear", "kmeans_lut", "custom_lut"])
def test_every_field_becomes_half_precision(mode):
    spec = network_with(*FIELDS, seed=3)
    result, records = _quantized(spec, 16, mode)
    before, after = decode_all(spec.neuralNetwork), decode_all(result.neuralNetwork)
    for name, (params, _) in weights_in(result.neuralNetwork).items():
        assert params.float16Value, name
        np.testing.assert_array_equal(after[name], before[name].astype(np.float16))
        assert records[name].bits_per_weight == 16
    theirs = coremltools_quantized(spec, 16, "linear")
    for name, (params, _) in weights_in(theirs.neuralNetwork).items():
        if "convolution3d" not in name:
            assert params.float16Value == weights_in(result.neuralNetwork)[name][0].float16Value, name


@pytest.mark.parametrize(("mode", "nbits"), [("linear", 5), ("linear_symmetric", 8), ("kmeans_lut", 3), ("linear", 16)])
def test_dequantization_gives_every_field_its_decoded_values(mode, nbits):
    channels = _channels(mode, nbits) if nbits < 16 else 8
    spec = network_with(*FIELDS, channels=channels, seed=4)
    quantized, _ = _quantized(spec, nbits, mode)
    result, records = _quantized(quantized, None, "dequantization")
    decoded = decode_all(quantized.neuralNetwork, channels)
    for name, (params, _) in weights_in(result.neuralNetwork).items():
        values = np.array(params.floatValue, np.float32).reshape(decoded[name].shape)
        np.testing.assert_allclose(values, decoded[name], rtol=1e-6, atol=1e-6)
        assert not params.HasField("quantization")
        assert records[name].status == "decompressed"
    if nbits < 16:  # where coremltools raises IndexError
        theirs = coremltools_quantized(quantized, None, "dequantization").neuralNetwork
        for name, (params, _) in weights_in(theirs).items():
            if "convolution3d" not in name:
                other = np.array(params.floatValue).reshape(decoded[name].shape)
                np.testing.assert_allclose(other, decoded[name], rtol=1e-6, atol=1e-6)
