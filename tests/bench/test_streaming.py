"""A model that goes through the kernels a layer at a time is measured as one that is there as a whole."""

from __future__ import annotations

import math

import numpy as np
import pytest

import corepress as cp
from corepress.benchmark import coremltools_jobs, streaming
from corepress.benchmark.architectures import ARCHITECTURES
from corepress.benchmark.drawn_weights import WeightPool, draw, draw_moments
from corepress.benchmark.memory import PeakMeter, tells_peaks
from corepress.benchmark.methods import METHODS
from corepress.benchmark.streaming import Sample, every_layer, one_of_each_shape, stream, stream_peers
from corepress.specs import Palettize, Quantize

QUICK = [method for method in METHODS.values() if not method.slow]


def test_every_method_is_measured_with_every_number_of_threads(tiny):
    told = []
    results = stream(tiny, QUICK, [1, 2], every_layer(tiny), repeat=2, progress=lambda *progress: told.append(progress))
    assert [(result.method, result.threads) for result in results] == [(m.key, n) for m in QUICK for n in (1, 2)]
    for result in results:
        assert result.model == "tiny"
        assert result.weights == result.measured_weights == tiny.weights
        assert min(result.seconds, result.cpu_seconds, result.copy_seconds) > 0
        assert result.weights_per_second == pytest.approx(result.weights / result.seconds)
    assert told[-1] == (tiny.weights, tiny.weights, "second.weight")


def test_bits_and_noise_are_those_of_all_layers_together(tiny):
    pool = WeightPool()
    weights = [pool.draw(layer.shape, index) for index, layer in enumerate(tiny.layers)]
    tensors = [cp.palettize(weight, nbits=4) for weight in weights]
    (result,) = stream(tiny, [METHODS["4bit"]], [1], every_layer(tiny), repeat=1)
    assert result.bits_per_weight == 8 * sum(tensor.nbytes for tensor in tensors) / tiny.weights
    signal = sum(float(np.square(weight, dtype=np.float64).sum()) for weight in weights)
    noise = sum(cp.error(weight, tensor).sse for weight, tensor in zip(weights, tensors, strict=True))
    assert result.snr_db == pytest.approx(10 * math.log10(signal / noise), abs=1e-9)


def test_a_layer_that_groups_do_not_divide_is_kept_and_counts_as_it_is(tiny):
    (result,) = stream(tiny, [METHODS["4bit-groups"]], [1], every_layer(tiny), repeat=1)
    assert result.kept == 1
    narrow = 4 * 64 * 9
    assert result.bits_per_weight > (16 * narrow + 4 * (tiny.weights - narrow)) / tiny.weights


def test_one_layer_of_each_shape_stands_for_the_others(tiny):
    samples = one_of_each_shape(tiny)
    assert [(sample.layer.name, sample.count) for sample in samples] == [
        ("wide.weight", 1),
        ("first.weight", 2),
        ("narrow.weight", 1),
    ]
    (result,) = stream(tiny, [METHODS["int8"]], [1], samples, repeat=1)
    assert (result.weights, result.measured_weights) == (tiny.weights, tiny.weights - 64 * 64)
    assert one_of_each_shape(tiny, 0.5) == samples[:1]


def test_times_are_scaled_from_the_measured_layers_to_all(tiny, monkeypatch):
    def run(times, job):
        times.seconds = times.cpu_seconds = 1.0
        return job()

    monkeypatch.setattr(streaming.Best, "run", run)
    (result,) = stream(tiny, [METHODS["int8"]], [1], one_of_each_shape(tiny), repeat=1)
    assert result.seconds == 4  # a second for each layer, of which one stands for two
    (result,) = stream(tiny, [METHODS["int8"]], [1], one_of_each_shape(tiny)[:1], repeat=1)
    assert result.seconds == pytest.approx(tiny.weights / (64 * 32 * 9))


def test_slow_methods_do_a_layer_of_each_of_the_commonest_shapes(tiny):
    (result,) = stream(tiny, [METHODS["4bit-vectors"]], [1], every_layer(tiny), repeat=1, sampled_shapes=2)
    assert result.measured_weights == 64 * 32 * 9 + 64 * 64


def test_error_feedback_loses_less_of_the_outputs_that_moments_describe():
    weight, moments = WeightPool().draw((64, 1500)), draw_moments(1500)
    assert moments.shape == (2, 750, 750)

    def loss(method: str) -> float:
        errors = weight.astype(np.float64) - METHODS[method].compress(weight, 1, moments).dense()
        blocks = errors.reshape(64, 2, 750).transpose(1, 0, 2)
        return float(((blocks @ moments) * blocks).sum())

    assert loss("4bit-feedback") < 0.75 * loss("4bit")


def test_coremltools_does_every_method_as_a_peer(tiny):
    times = stream_peers(tiny, list(METHODS.values()), {"coremltools": coremltools_jobs.job}, sampled_shapes=1)
    assert [each.method for each in times] == [key for key, each in METHODS.items() if not each.needs_moments]
    assert all(each.seconds > 0 and each.measured_weights == 64 * 32 * 9 for each in times)


@pytest.mark.parametrize("key", ["4bit", "int8", "int4-blocks"])
def test_coremltools_jobs_do_what_the_method_says(key):
    weight = WeightPool().draw((64, 64, 3, 3))
    result = coremltools_jobs.job(METHODS[key].steps, weight)()
    decode = coremltools_jobs.palette_decoded if key == "4bit" else coremltools_jobs.quantized_decoded
    theirs = cp.error(weight, decode(result).astype(np.float16)).sse
    assert cp.error(weight, METHODS[key].compress(weight)).sse == pytest.approx(theirs, rel=0.01)


def test_what_coremltools_cannot_be_asked_for_is_no_job():
    weight = WeightPool().draw((64, 64))
    assert coremltools_jobs.job((Palettize(nbits=4, mode="uniform"),), weight) is None
    assert coremltools_jobs.job((Quantize(scale_search="mse"),), weight) is None


def test_drawn_weights_are_reproducible_and_spread_like_those_drawn_one_by_one():
    pool, shape = WeightPool(), (512, 1152)
    fast = pool.draw(shape, 1)
    assert np.array_equal(fast, WeightPool().draw(shape, 1))
    assert not np.array_equal(fast, pool.draw(shape, 2))
    assert fast.dtype == np.float16
    exact = draw(shape, np.float32)
    for power in (2, 4):
        ours = float((np.abs(fast.astype(np.float64)) ** power).mean())
        assert ours == pytest.approx(float((np.abs(exact.astype(np.float64)) ** power).mean()), rel=0.08)
    rows = fast.astype(np.float64).std(axis=1)
    assert rows.std() / rows.mean() == pytest.approx(float((s := exact.std(axis=1)).std() / s.mean()), rel=0.2)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5, 7), (2, WeightPool.PART + 3), (1, 4_000_100)])
def test_any_shape_can_be_drawn(shape):
    weight = WeightPool(size=4_099).draw(shape)
    assert weight.shape == shape
    assert np.isfinite(weight).all()
    assert weight.any()


@pytest.mark.skipif(not tells_peaks(), reason="the system does not tell")
def test_the_peak_of_a_call_is_what_it_adds():
    before = np.ones(8_000_000)
    del before  # history does not count
    meter = PeakMeter()
    at_first = meter.largest
    result, peak = meter.call(lambda: np.ones(8_000_000))
    assert result.nbytes <= peak < 1.2 * result.nbytes
    assert peak <= meter.largest < at_first + 1.2 * result.nbytes


def test_samples_of_real_models_hold_most_weights():
    for model in ARCHITECTURES.values():
        samples = one_of_each_shape(model)[: streaming.SAMPLED_SHAPES]
        assert isinstance(samples[0], Sample)
        assert sum(sample.layer.size * sample.count for sample in samples) > 0.5 * model.weights
