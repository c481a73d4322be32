"""Weights at the edges: what their values, sizes and ranges may do to a mode."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from network_helpers import coremltools_quantized, decoded, new_spec

import corepress as cp
from corepress.neural_network import WeightSelector, convert_to_fp16, decompress, quantize_weights, weight_params
from corepress.neural_network.modes import Quantization
from corepress.neural_network.weight_params import half_error

MODES = ["linear", "linear_symmetric", "linear_lut", "kmeans_lut"]
LARGEST = float(np.finfo(np.float32).max)


def dense_spec(weights: np.ndarray, bias: np.ndarray | None = None):
    """A fully connected layer."""
    spec = new_spec()
    layer = spec.neuralNetwork.layers.add(name="fc")
    params = layer.innerProduct
    params.outputChannels, params.inputChannels = weights.shape
    params.weights.floatValue.extend(np.asarray(weights, np.float32).reshape(-1).tolist())
    if bias is not None:
        params.hasBias = True
        params.bias.floatValue.extend(np.asarray(bias, np.float32).tolist())
    return spec


def quantized(spec, *arguments, **options):
    reports = []
    result = quantize_weights(spec, *arguments, on_report=reports.append, **options)
    return result.neuralNetwork.layers[0].innerProduct, {record.name: record for record in reports[0].weights}


def values_of(params, shape) -> np.ndarray:
    return decoded(params, shape, 0 if len(shape) > 1 else None)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("nbits", [2, 3, 8, 16])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_stay_bit_by_bit(mode, nbits, value):
    weights = normal(20, 30)
    weights[4, 5] = value
    layer, records = quantized(dense_spec(weights, normal(20)), nbits, mode)
    np.testing.assert_array_equal(np.array(layer.weights.floatValue, np.float32), weights.reshape(-1))
    assert "infinite or NaN" in records["fc.weights"].reason
    assert not records["fc.weights"].planned
    if nbits == 16:
        assert layer.bias.floatValue
        assert "fc.weights stays float32" in records["fc.bias"].reason


@pytest.mark.parametrize("value", [65520.0, -1e30, LARGEST])
def test_a_layer_with_a_value_beyond_half_precision_stays_as_a_whole(value):
    bias = normal(4)
    bias[1] = value
    layer, records = quantized(dense_spec(normal(4, 4), bias), 16)
    assert layer.weights.floatValue
    assert layer.bias.floatValue
    assert records["fc.bias"].reason == "has values beyond the range of the form"
    assert "fc.bias stays float32" in records["fc.weights"].reason


@pytest.mark.parametrize("value", [65504.0, 65519.0, -65519.0])
def test_values_that_round_to_the_largest_half_are_taken(value):
    bias = np.array([value, 1e-9, -0.0, 6e-8], np.float32)
    layer, _ = quantized(dense_spec(normal(4, 4), bias), 16)
    half = np.frombuffer(layer.bias.float16Value, np.float16)
    np.testing.assert_array_equal(half.view(np.uint16), bias.astype(np.float16).view(np.uint16))


@pytest.mark.parametrize("width", [1e-5, 1e-12, 1e-30, 1e-37])
@pytest.mark.parametrize("nbits", [4, 8])
def test_narrow_channels_keep_their_codes(width, nbits):
    weights = (normal(3, 400) * width).astype(np.float32)
    spec = dense_spec(weights)
    layer, records = quantized(spec, nbits)
    error = abs(values_of(layer.weights, weights.shape) - weights).max(1)
    assert (error <= np.ptp(weights, axis=1) / (2**nbits - 1) / 2 * (1 + 1e-5)).all()
    if width < 1e-5:  # where coremltools stores the smallest value for all
        theirs = coremltools_quantized(spec, nbits, "linear").neuralNetwork.layers[0].innerProduct.weights
        assert not np.unpackbits(np.frombuffer(theirs.rawValue, np.uint8)).any()
        assert records["fc.weights"].snr_db > 15


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("value", [0.0, -0.0, 1.5, -3.25, 1e-45, LARGEST / 4])
def test_constant_channels_are_exact(mode, value):
    weights = np.full((2, 200), value, np.float32)
    layer, _ = quantized(dense_spec(weights), 4, mode)
    decoded_values = values_of(layer.weights, weights.shape).astype(np.float32)
    if mode == "linear_symmetric":
        np.testing.assert_allclose(decoded_values, weights, rtol=1e-6)
    else:
        np.testing.assert_array_equal(decoded_values, weights)


@pytest.mark.parametrize(
    ("mode", "largest"), [("linear", LARGEST / 2), ("linear_lut", LARGEST), ("kmeans_lut", LARGEST)]
)
def test_the_largest_floats(mode, largest):
    weights = np.tile(np.array([largest, -largest, 0, 1], np.float32), (4, 100))
    layer, records = quantized(dense_spec(weights), 2, mode)
    assert records["fc.weights"].status == "compressed"
    values = values_of(layer.weights, weights.shape)
    assert abs(values - weights).max() <= largest / 3 * 1.001
    assert np.isfinite(values.astype(np.float32)).all()


def test_a_range_beyond_float32_keeps_the_weight():
    weights = np.tile(np.array([LARGEST, -LARGEST], np.float32), (4, 100))
    for arguments in ((1, "linear"), (4, "linear"), (8, "linear_symmetric")):
        layer, records = quantized(dense_spec(weights), *arguments)
        assert len(layer.weights.floatValue) == weights.size
        assert records["fc.weights"].reason == "has values beyond the range of the form"


@pytest.mark.parametrize("nbits", range(1, 9))
def test_few_distinct_values_are_exact_with_kmeans(nbits):
    values = normal(2**nbits, seed=nbits)
    weights = np.resize(values, (40, 100))
    layer, records = quantized(dense_spec(weights), nbits, "kmeans_lut")
    np.testing.assert_array_equal(values_of(layer.weights, weights.shape), weights)
    assert records["fc.weights"].snr_db == np.inf


def test_the_symmetric_mode_has_zero_and_both_ends():
    weights = np.array([[-2.0, -1.0, 0.0, 0.5, 2.0], [0.0, 0.0, 0.0, 0.0, 0.0]] * 8, np.float32)
    layer, _ = quantized(dense_spec(weights), 8, "linear_symmetric")
    values = values_of(layer.weights, weights.shape)
    np.testing.assert_allclose(values[:, [0, 4]], weights[:, [0, 4]], rtol=1e-6)
    assert (values[:, 2] == 0).all()
    assert not values[1].any()
    assert min(layer.weights.rawValue) >= 1


def test_zeros_of_variances_never_become_negative():
    """The reason why scales and biases stay those of the range, instead of the best in the mean."""
    spec = new_spec()
    batchnorm = spec.neuralNetwork.layers.add(name="bn").batchnorm
    batchnorm.channels = 64
    variances = np.square(normal(64)) * np.geomspace(1e-6, 10, 64, dtype=np.float32)
    batchnorm.variance.floatValue.extend(variances.tolist())
    for nbits in range(1, 9):
        for mode in ("linear", "linear_lut", "kmeans_lut"):
            params = quantize_weights(spec, nbits, mode).neuralNetwork.layers[0].batchnorm.variance
            assert decoded(params, (64,), None).min() >= 0


@pytest.mark.parametrize("mode", MODES)
def test_weights_that_would_not_become_smaller_stay(mode):
    layer, records = quantized(dense_spec(normal(1, 2), normal(1)), 8, mode)
    assert layer.weights.floatValue
    assert {record.reason for record in records.values()} == {"would not become smaller, with its scales or table"}
    assert all(record.planned for record in records.values())


class TestCustomTables:
    @staticmethod
    def ends(nbits, weights):
        assert not weights.flags.writeable
        table = np.linspace(weights.min(), weights.max(), 2**nbits)
        return table, abs(weights[..., None] - table).argmin(-1)

    @pytest.mark.parametrize("nbits", [1, 3, 5])
    def test_are_stored_as_they_are(self, nbits):
        weights = normal(20, 30)
        shapes = []

        def function(given_bits, given_weights):
            assert given_bits == nbits
            shapes.append(given_weights.shape)
            return self.ends(given_bits, given_weights)

        spec = dense_spec(weights)
        layer, _ = quantized(spec, nbits, "custom_lut", lut_function=function)
        table, codes = self.ends(nbits, spec_view(weights))
        np.testing.assert_array_equal(values_of(layer.weights, weights.shape), table.astype(np.float32)[codes])
        assert shapes == [(20, 30)]

    def test_short_tables_and_flat_codes_are_taken(self):
        weights = normal(20, 30)
        layer, _ = quantized(
            dense_spec(weights),
            4,
            "custom_lut",
            lut_function=lambda _, w: ([-1.0, 1.0], (w > 0).reshape(-1).astype(int)),
        )
        np.testing.assert_array_equal(values_of(layer.weights, weights.shape), np.where(weights > 0, 1, -1))

    @pytest.mark.parametrize(
        ("result", "message"),
        [
            (None, "must return a table and codes"),
            (([0.0] * 17, np.zeros((20, 30), int)), "table of 1 to 16 values"),
            (([np.nan], np.zeros((20, 30), int)), "finite"),
            (([1e300], np.zeros((20, 30), int)), "finite"),
            (([0.0, 1.0], np.full((20, 30), 2)), "600 whole numbers from 0 to 1"),
            (([0.0, 1.0], np.full((20, 30), 0.5)), "600 whole numbers"),
            (([0.0, 1.0], np.zeros(5, int)), "600 whole numbers"),
        ],
    )
    def test_wrong_ones_are_refused(self, result, message):
        with pytest.raises(ValueError, match=f"lut_function must return .*{message}|{message}"):
            quantize_weights(dense_spec(normal(20, 30)), 4, "custom_lut", lut_function=lambda *_: result)


def spec_view(weights):
    view = weights.view()
    view.flags.writeable = False
    return view


_FLOATS = st.floats(-(2.0**40), 2.0**40, width=32)


@settings(max_examples=150, deadline=None)
@given(
    weights=arrays.arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(9, 40)), elements=_FLOATS),
    nbits=st.integers(1, 8),
    mode=st.sampled_from(MODES),
)
def test_any_weights_decode_to_the_nearest_code_or_stay(weights, nbits, mode):
    if mode == "linear_symmetric" and nbits == 1:
        nbits = 2
    layer, records = quantized(dense_spec(weights), nbits, mode, selector=WeightSelector())
    values = values_of(layer.weights, weights.shape)
    if records["fc.weights"].status == "kept":
        np.testing.assert_array_equal(values, weights)
        return
    params = layer.weights.quantization
    if mode.endswith("lut"):
        codebook = np.tile(np.array(params.lookupTableQuantization.floatValue, np.float64), (len(weights), 1))
    else:
        scale, bias = (
            np.array(each, np.float64)[:, None]
            for each in (params.linearQuantization.scale, params.linearQuantization.bias)
        )
        codebook = np.arange(2**nbits) * scale + bias
    nearest = abs(weights[:, :, None].astype(np.float64) - codebook[:, None, :]).min(-1)
    assert (abs(values - weights) <= nearest * (1 + 1e-9)).all()


@settings(max_examples=50, deadline=None)
@given(
    weights=arrays.arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 20)), elements=st.floats(width=32))
)
def test_half_precision_and_back(weights):
    spec = dense_spec(weights)
    reports = []
    half = convert_to_fp16(spec, on_report=reports.append)
    with np.errstate(over="ignore"):
        rounded = weights.astype(np.float16)
    fits = bool(np.isfinite(rounded).all())
    assert reports[0].compressed == fits
    back = decompress(half).neuralNetwork.layers[0].innerProduct.weights
    expected = rounded.astype(np.float32) if fits else weights
    np.testing.assert_array_equal(np.array(back.floatValue, np.float32), expected.reshape(-1))


@pytest.mark.parametrize("mode", ["linear", "linear_symmetric", "linear_lut", "kmeans_lut"])
@pytest.mark.parametrize(("shape", "axis"), [((40, 30, 3, 3), 0), ((30, 40, 3, 3), 1), ((7, 5), None)])
def test_errors_are_those_of_the_decoded_weight(mode, shape, axis):
    weight = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    for nbits in (2, 5, 8):
        encoded = Quantization(nbits, mode).encode(weight, axis, 2)
        assert encoded.error(weight, 2) == cp.error(weight, encoded.dense(2))


def test_errors_in_half_precision_are_those_of_the_widened_weight(monkeypatch):
    monkeypatch.setattr(weight_params, "_PIECE", 1000)
    weight = np.random.default_rng(0).normal(size=(57, 59)).astype(np.float32)
    half = weight.astype(np.float16)
    found, whole = half_error(weight, half), cp.error(weight, half.astype(np.float32))
    assert (found.sse, found.snr_db, found.cosine) == pytest.approx((whole.sse, whole.snr_db, whole.cosine))
    assert found.max_abs == whole.max_abs


@pytest.mark.parametrize("mode", ["linear", "linear_lut", "kmeans_lut"])
def test_no_array_of_a_weights_size_is_made_beside_the_codes(mode):
    weight = np.random.default_rng(0).normal(size=(1 << 10, 1 << 11)).astype(np.float32)
    tracemalloc.start()
    try:
        encoded = Quantization(8, mode).encode(weight, 0, 1)
        encoded.error(weight, 1)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert encoded.codes.nbytes <= peak < 2.5 * encoded.codes.nbytes
