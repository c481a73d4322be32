"""Pruning n of every m weights, and blocks by their norm."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import corepress as cp
from corepress import kernels, reference
from helpers.arrays import DRAWS, DTYPES, assert_same_bits, draw, normal

# Rows of one value, of few and of many; axes that groups divide, and axes that they do not.
SHAPES = [(8, 16), (9, 30), (3, 300), (130, 70), (1, 5), (13, 17, 3, 3), (64, 32, 3, 3), (5, 7, 2), (24, 9, 10, 10)]
RATIOS = [(0, 1), (1, 1), (1, 2), (2, 4), (3, 4), (4, 8), (7, 16), (5, 5), (3, 7), (20, 64), (90, 100), (500, 1024)]


def check(weight: np.ndarray, tensor: cp.SparseTensor, keep: np.ndarray) -> None:
    mask = keep & (weight != 0)
    assert tensor.mask.tobytes() == reference.pack_bits(mask, 1).tobytes()
    assert_same_bits(tensor.values, reference.encode_sparse(weight, mask))


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_n_m_ratio_with_many_ties(simd_level, shape, dtype, dim):
    weight = (np.random.default_rng(0).integers(-5, 6, shape) / 8).astype(dtype)
    for ratio in RATIOS:
        keep = reference.n_m_mask(weight, ratio, dim)
        mask = kernels.n_m_mask(weight, *ratio, dim)
        assert mask.dtype == np.bool_
        np.testing.assert_array_equal(mask, keep)
        check(weight, cp.prune(weight, n_m_ratio=ratio, dim=dim), keep)


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_blocks_with_many_ties(simd_level, shape, dtype, dim):
    weight = (np.random.default_rng(0).integers(-3, 4, shape) / 8).astype(dtype)
    for block_size in (2, 3, 4, 16, 64, 5000):
        for target_sparsity in (1e-9, 0.1, 0.5, 0.9, 0.999):
            keep = reference.block_mask(weight, target_sparsity, block_size, dim)
            tensor = cp.prune(weight, target_sparsity=target_sparsity, block_size=block_size, dim=dim)
            check(weight, tensor, keep)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", DRAWS)
def test_any_distribution(name, dtype):
    weight = draw(name, 90 * 70, dtype).reshape(90, 70)
    for dim in (0, 1):
        check(weight, cp.prune(weight, n_m_ratio=(2, 4), dim=dim), reference.n_m_mask(weight, (2, 4), dim))
        tensor = cp.prune(weight, target_sparsity=0.6, block_size=4, dim=dim)
        check(weight, tensor, reference.block_mask(weight, 0.6, 4, dim))


@settings(deadline=None, derandomize=True, max_examples=150)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 4), st.integers(0, 9), st.integers(1, 9), st.data())
def test_any_shape_and_ratio(rows, columns, run, n, m, data):
    weight = draw("few distinct", rows * columns * run, np.float16).reshape(rows, columns, run)
    dim = data.draw(st.integers(0, 1))
    ratio = (min(n, m), m)
    np.testing.assert_array_equal(kernels.n_m_mask(weight, *ratio, dim), reference.n_m_mask(weight, ratio, dim))
    tensor = cp.prune(weight, target_sparsity=0.4, block_size=m + 1, dim=dim)
    check(weight, tensor, reference.block_mask(weight, 0.4, m + 1, dim))


@pytest.mark.parametrize("target_sparsity", [1e-7, 0.3, 1 - 1e-7])
@pytest.mark.parametrize(("shape", "dim"), [((1050, 1001), 0), ((1050, 1001), 1), ((975, 121, 3, 3), 1)])
def test_blocks_of_so_many_weights_that_a_sample_tells_where_the_limit_is(shape, dim, target_sparsity):
    weight = normal(*shape, dtype=np.float16)
    tensor = cp.prune(weight, target_sparsity=target_sparsity, block_size=2, dim=dim)
    check(weight, tensor, reference.block_mask(weight, target_sparsity, 2, dim))


@pytest.mark.parametrize("values", [[1], [0, 0, 1, 3]])
def test_blocks_of_more_equal_norms_than_are_held_at_a_time(values):
    weight = np.random.default_rng(0).choice(np.array(values, np.float16), (1500, 1601))
    tensor = cp.prune(weight, target_sparsity=0.5, block_size=2, dim=1)
    check(weight, tensor, reference.block_mask(weight, 0.5, 2, 1))


def test_of_equal_magnitudes_the_first_goes_first():
    weight = np.array([[2, -2, 1, 1, 1, 1, 1, 1]], np.float32)
    assert cp.prune(weight, n_m_ratio=(1, 4)).dense().tolist() == [[2, -2, 0, 1, 0, 1, 1, 1]]
    assert cp.prune(weight, n_m_ratio=(3, 4)).dense().tolist() == [[0, -2, 0, 0, 0, 0, 0, 1]]


def test_zeros_after_the_end_of_the_axis_are_the_first_to_go():
    weight = np.array([[4, 3, 2, 1, 6, 5]], np.float16)
    assert cp.prune(weight, n_m_ratio=(2, 4)).dense().tolist() == [[4, 3, 0, 0, 6, 5]]
    assert cp.prune(weight, n_m_ratio=(3, 4)).dense().tolist() == [[4, 0, 0, 0, 6, 0]]
    assert cp.prune(weight, n_m_ratio=(4, 4)).nnz == 0
    assert cp.prune(weight, n_m_ratio=(3, 9)).nnz == 6


def test_zeros_are_not_stored_but_count_among_the_m():
    weight = np.array([[0, -0.0, 0, 5]], np.float32)
    assert kernels.n_m_mask(weight, 1, 4).tolist() == [[False, True, True, True]]
    tensor = cp.prune(weight, n_m_ratio=(1, 4))
    assert_same_bits(tensor.dense(), np.array([[0, 0, 0, 5]], np.float32))
    assert tensor.nnz == 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_defaults_of_dim_are_those_of_coremltools(dtype):
    weight = normal(12, 20, dtype=dtype)
    assert_same_bits(cp.prune(weight, n_m_ratio=(1, 4)).dense(), cp.prune(weight, n_m_ratio=(1, 4), dim=1).dense())
    blocks = {"target_sparsity": 0.5, "block_size": 4}
    assert_same_bits(cp.prune(weight, **blocks).dense(), cp.prune(weight, **blocks, dim=0).dense())


@pytest.mark.parametrize("dim", [0, 1])
def test_norms_of_halves_neither_overflow_nor_vanish(dim):
    """coremltools squares in half precision: 256 and more become infinite, 1.7e-4 and less become 0."""
    for factor in (2.0**-14, 1.0, 2.0**10):
        weight = (normal(64, 64) * factor * 60).astype(np.float16)
        tensor = cp.prune(weight, target_sparsity=0.5, block_size=4, dim=dim)
        assert tensor.sparsity == pytest.approx(0.5, abs=0.02)


def test_blocks_at_the_ends_of_the_sparsity_range():
    weight = normal(10, 10)
    assert cp.prune(weight, target_sparsity=0, block_size=4).nnz == 100
    assert cp.prune(weight, target_sparsity=1, block_size=4).nnz == 0


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (4, 4, 0)])
def test_empty(shape):
    weight = np.zeros(shape, np.float16)
    assert cp.prune(weight, n_m_ratio=(2, 4)).nnz == 0
    assert cp.prune(weight, target_sparsity=0.5, block_size=2).nnz == 0
    assert kernels.n_m_mask(weight, 2, 4).shape == shape


def _coremltools_pruning():
    pytest.importorskip("coremltools")
    from coremltools.optimize import coreml as cto

    passes = pytest.importorskip("coremltools.optimize.coreml._quantization_passes")
    assert cto is not None
    return passes.prune_weights


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("shape", [(64, 48), (50, 66), (40, 24, 3, 3), (33, 17, 5)])
def test_coremltools_prunes_the_same_weights(shape, dim):
    theirs = _coremltools_pruning()
    weight = normal(*shape)  # without ties, whose order coremltools leaves open
    for ratio in ((1, 2), (2, 4), (3, 4), (3, 7), (5, 8)):
        expected = theirs.decompress(theirs.compress_by_nm_sparsity(weight, ratio, dim))
        np.testing.assert_array_equal(cp.prune(weight, n_m_ratio=ratio, dim=dim).dense(), expected)
    for block_size in (2, 3, 8):
        for target_sparsity in (0.25, 0.5, 0.9):
            expected = theirs.decompress(theirs.compress_by_magnitude(weight, target_sparsity, block_size, dim))
            tensor = cp.prune(weight, target_sparsity=target_sparsity, block_size=block_size, dim=dim)
            np.testing.assert_array_equal(tensor.dense(), expected)
