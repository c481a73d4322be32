"""bfloat16: the conversion, and what becomes of such weights."""

from __future__ import annotations

import math
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import corepress as cp
from corepress import kernels, reference
from corepress.arrays import rounded_to
from helpers.arrays import BFLOAT16, assert_same_bits, draw, normal
from helpers.processes import TIMEOUT

PATTERNS = np.arange(1 << 16, dtype=np.uint16)
FINITE = PATTERNS[PATTERNS & 0x7FFF < 0x7F80].view(BFLOAT16)


def native(numbers: np.ndarray) -> np.ndarray:
    return rounded_to(np.dtype(BFLOAT16), numbers)


def test_every_number_and_every_middle_rounds_to_nearest_even():
    exact = np.sort(FINITE.astype(np.float64))
    middles = (exact[:-1] + exact[1:]) / 2
    edges = np.array([math.inf, 3.4e38, 3.3961775292304e38, 1e300, 5e-324])
    for numbers in (exact, middles, np.nextafter(middles, math.inf), np.nextafter(middles, -math.inf), edges, -edges):
        assert_same_bits(native(numbers), reference.round_to(numbers, BFLOAT16) + BFLOAT16(0))


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=64))
def test_any_float_rounds_as_in_ml_dtypes(patterns):
    floats = np.array(patterns, np.uint32).view(np.float32)
    floats = floats[~np.isnan(floats)]
    assert_same_bits(native(floats.astype(np.float64)), floats.astype(BFLOAT16) + BFLOAT16(0))


def test_a_number_is_rounded_once():
    # As a float this is the middle of two, which would go to the even one.
    assert float(native(np.array([1 + 2.0**-8 + 2.0**-40]))[0]) == 1 + 2.0**-7


def test_every_finite_pattern_survives(simd_level):
    sparse = cp.prune(FINITE, target_sparsity=0)
    assert_same_bits(sparse.dense(), np.where(FINITE == 0, BFLOAT16(0), FINITE))
    values = FINITE[FINITE.view(np.uint16) != 0x8000]
    for part in np.split(values, range(256, values.size, 256)):
        assert_same_bits(cp.palettize(part, mode="unique").dense(), part)


@pytest.mark.parametrize("count", [1, 7, 8, 9, 63, 64, 65, 4095, 4096, 4097, 70_001])
def test_figures_are_those_of_the_same_numbers_as_floats(simd_level, count):
    first, second = draw("laplace", count, BFLOAT16), draw("normal", count, BFLOAT16)
    assert cp.error(first, second) == cp.error(first.astype(np.float32), second.astype(np.float32))


@pytest.mark.parametrize("nbits", [1, 3, 4, 8])
def test_a_palette_is_that_of_the_same_numbers_as_floats_but_for_the_rounding_of_its_entries(nbits):
    weight = draw("t3", 60_000, BFLOAT16)
    _, centroids, inertia = kernels.kmeans1d(weight.astype(np.float64), 2**nbits)
    tensor = cp.palettize(weight, nbits=nbits)
    assert tensor.dtype == BFLOAT16
    np.testing.assert_array_equal(
        np.unique(tensor.lut.astype(np.float64)), np.unique(reference.round_to(centroids, BFLOAT16).astype(np.float64))
    )
    exact = weight.astype(np.float64)
    rounded = reference.round_to(centroids, BFLOAT16).astype(np.float64)
    slack = (np.abs(rounded - centroids)).max() ** 2 * weight.size
    assert inertia <= ((tensor.dense().astype(np.float64) - exact) ** 2).sum() <= inertia + slack


def test_results_have_the_dtype_of_the_weight():
    weight = normal(8, 64, dtype=BFLOAT16)
    blocks = cp.quantize(weight, dtype="int4", granularity="per_block", block_size=32, scale_search="mse")
    tensors = [
        cp.palettize(weight, nbits=2, granularity="per_grouped_channel", group_size=2),
        cp.palettize(weight, lut=[-1, 0, 1]),
        cp.palettize(weight, nbits=3, mode="uniform"),
        cp.quantize(weight, mode="linear"),
        blocks,
        cp.prune(weight, n_m_ratio=(2, 4)),
        cp.prune(weight, target_sparsity=0.5, block_size=4),
    ]
    for tensor in tensors:
        assert tensor.dtype == BFLOAT16
        assert tensor.dense().dtype == BFLOAT16
        assert math.isfinite(cp.error(weight, tensor).sse)
    assert blocks.scale.dtype == BFLOAT16
    with pytest.raises(TypeError, match="error: weight is bfloat16, tensor is float32"):
        cp.error(weight, weight.astype(np.float32))


def test_parts_take_it_too():
    weight = normal(6, 9, dtype=BFLOAT16)
    mask = kernels.magnitude_mask(weight, 0.05)
    np.testing.assert_array_equal(mask, np.abs(weight.astype(np.float64)) > 0.05)
    values = kernels.encode_sparse(weight, mask)
    assert_same_bits(values, weight[mask])
    assert_same_bits(kernels.decode_sparse(values, mask, (6, 9)), np.where(mask, weight, BFLOAT16(0)))
    assert kernels.n_m_mask(weight, 1, 3).tolist() == reference.n_m_mask(weight.astype(np.float32), (1, 3), 1).tolist()
    assert kernels.assign(weight, [-0.1, 0.1]).tolist() == (weight.astype(np.float64) > 0).astype(int).tolist()


def test_an_object_that_only_gives_an_array():
    weight = normal(4, 6, dtype=BFLOAT16)

    class Tensor:
        def __array__(self, dtype=None, copy=None):
            return weight

    assert_same_bits(cp.quantize(Tensor()).dense(), cp.quantize(weight).dense())


def test_dlpack_that_numpy_does_not_know_is_a_wrong_dtype():
    class Tensor:
        def __dlpack__(self, **options):
            raise BufferError("this dtype has no DLPack code")

        def __dlpack_device__(self):
            return (1, 0)

    with pytest.raises(TypeError, match=r"weight must be an array of .* not Tensor that NumPy cannot read: this dtype"):
        cp.prune(Tensor(), threshold=0)


def test_other_small_floats_are_refused():
    for dtype in (ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2):
        with pytest.raises(TypeError, match="weight must be float16, bfloat16, float32 or float64, not float8"):
            cp.quantize(np.ones((2, 2), dtype))


def test_the_package_of_the_dtype_is_not_imported():
    code = """if True:
        import sys, corepress as cp, numpy as np
        cp.quantize(np.ones((2, 2), np.float16))
        assert "ml_dtypes" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", code], check=True, timeout=TIMEOUT)
