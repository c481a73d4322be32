"""Half precision: the portable conversion, and the machine's instructions at every level."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import corepress as cp
from corepress import _core, reference
from helpers.arrays import assert_same_bits

ALL_HALVES = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
FINITE_HALVES = ALL_HALVES[np.isfinite(ALL_HALVES)]


def boundary_floats() -> np.ndarray:
    """Every half, every middle between two halves, and the floats next to both."""
    halves = np.sort(np.abs(FINITE_HALVES.astype(np.float64)))
    middles = np.append((halves[:-1] + halves[1:]) / 2, 65520.0)
    centres = np.concatenate([halves, middles]).astype(np.float32)
    up, down = np.nextafter(centres, np.float32(np.inf)), np.nextafter(centres, np.float32(-np.inf))
    edges = np.array([np.inf, 0.0, 1e-45, 2**-126, 1e38, 3.4028235e38], np.float32)
    positive = np.concatenate([centres, up, down, edges])
    return np.concatenate([positive, -positive])


def numpy_half(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return values.astype(np.float16)


def test_every_boundary_rounds_as_in_numpy():
    floats = boundary_floats()
    np.testing.assert_array_equal(_core.half_bits(floats), numpy_half(floats).view(np.uint16))


def test_every_half_comes_back():
    numbers = ALL_HALVES[~np.isnan(ALL_HALVES)]
    np.testing.assert_array_equal(_core.half_bits(numbers.astype(np.float32)), numbers.view(np.uint16))


def test_nan_stays_nan():
    nans = ALL_HALVES[np.isnan(ALL_HALVES)].astype(np.float32)
    assert np.isnan(_core.half_bits(nans).view(np.float16)).all()


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=64))
def test_any_float_rounds_as_in_numpy(patterns):
    floats = np.array(patterns, np.uint32).view(np.float32)
    floats = floats[~np.isnan(floats)]
    np.testing.assert_array_equal(_core.half_bits(floats), numpy_half(floats).view(np.uint16))


@pytest.mark.parametrize("num_threads", [1, 3])
def test_rounding_is_the_same_at_every_level(simd_level, num_threads):
    payloads = np.array([0x7F800001, 0xFF812345, 0x7FFFFFFF, 0xFFC00000], np.uint32).view(np.float32)
    floats = np.concatenate([boundary_floats(), payloads, np.float32([1.1])])
    assert floats.size % 32
    halves = cp.kernels.to_float16(floats, num_threads=num_threads)
    np.testing.assert_array_equal(halves.view(np.uint16), _core.half_bits(floats))


def test_doubles_are_rounded_once(simd_level):
    centres = boundary_floats().astype(np.float64)
    beside = [
        np.nextafter(centres, np.inf),
        np.nextafter(centres, -np.inf),
        centres * (1 + 2.0**-30),
        centres + 2.0**-60,
    ]
    edges = np.array([5e-324, -5e-324, 1e-300, 1e300, -1e300, 1.7e308, 2.0**-25, -0.0, 0.0, np.inf, -np.inf, np.nan])
    doubles = np.concatenate([centres, *beside, edges])
    with np.errstate(all="ignore"):
        expected, twice = doubles.astype(np.float16), doubles.astype(np.float32).astype(np.float16)
    assert_same_bits(cp.kernels.to_float16(doubles), expected)
    assert (twice != expected).sum() > 100


def test_the_reference_rounds_as_numpy_does():
    floats = boundary_floats()
    assert_same_bits(reference.to_float16(floats), numpy_half(floats))
    # From float64 at once: rounding to float32 first would make a tie of this, and go to the wrong side.
    value = 1 + 2**-11 + 2**-40
    assert reference.to_float16(value) == np.float16(1 + 2**-10)


def test_widening_is_exact_for_every_half(simd_level):
    # With a scale of 1 and codes that reach every integer, a wrong widening would show as a wrong code.
    for scale in (1.0, 2.0**-24, 2.0**-16, 300.0):
        block = np.append(FINITE_HALVES[np.abs(FINITE_HALVES) <= 127 * scale], np.float16([127 * scale]))
        tensor = cp.quantize(block, granularity="per_tensor")
        codes, expected_scale, _ = reference.quantize(block, (-127, 127), True)
        assert tensor.scale.item() == expected_scale
        np.testing.assert_array_equal(tensor.codes(), codes)


@pytest.mark.parametrize("count", [1, 7, 8, 9, 15, 16, 17, 1023, 1024, 1025])
def test_narrowing_is_to_nearest_even_at_every_length(simd_level, count):
    rng = np.random.default_rng(count)
    codes = rng.integers(-128, 128, (40, count)).astype(np.int8)
    patterns = rng.integers(1, 0x5800, 40, dtype=np.uint16)  # subnormal to 128, so that all products are finite
    scale = patterns.view(np.float16).reshape(40, 1)
    tensor = cp.QuantizedTensor((40, count), codes.view(np.uint8).reshape(-1), scale, None, "int8")
    assert_same_bits(tensor.dense(), (codes.astype(np.float32) * scale.astype(np.float32)).astype(np.float16))
