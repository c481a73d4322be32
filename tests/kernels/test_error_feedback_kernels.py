"""Error feedback of the kernels is that of NumPy, bit for bit, at every level and thread count."""

from __future__ import annotations

import numpy as np
import pytest

from corepress import _core
from corepress.reference import error_feedback as oracle


def moments_of(rng, groups, blocks, size, dtype=np.float32, *, dead=0, rank=None):
    """Second moments of inputs that depend on each other, some of which are always zero."""
    rank = rank or 2 * size
    factors = rng.standard_normal((groups, blocks, size, rank)) * rng.uniform(0.1, 3, (groups, blocks, size, 1))
    factors[:, :, rng.permutation(size)[:dead]] = 0
    return np.ascontiguousarray((factors @ factors.swapaxes(2, 3) / rank).astype(dtype))


def native_codes(weight, hessian, grid, row_tables, column_tables=None, mask=None, *, dampening=0.01, sweeps=0):
    length = 1 if isinstance(grid, tuple) else grid.shape[2]
    groups, rows, columns = weight.shape
    codes = np.zeros((groups, rows // length, columns), np.uint8)
    bits = None if mask is None else mask.astype(np.uint8)
    error = _core.feed_back_codes(
        weight, hessian, dampening, grid, row_tables, column_tables, bits, codes, sweeps, False, None
    )
    return codes, error


SHAPES = [  # groups, rows, columns, groups of moments, blocks, size of a block, dead columns
    (1, 1, 1, 1, 1, 1, 0),
    (1, 1, 7, 1, 1, 7, 1),
    (1, 5, 1, 1, 1, 1, 1),
    (1, 33, 37, 1, 1, 37, 3),
    (1, 31, 100, 1, 2, 50, 0),
    (1, 70, 67, 1, 3, 23, 2),
    (3, 6, 9, 3, 1, 9, 0),
    (3, 6, 10, 1, 2, 7, 1),
    (2, 40, 96, 2, 1, 128, 5),
    (1, 8, 300, 1, 1, 300, 10),
]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("entries", [2, 16, 64, 256])
def test_palettes(simd_level, shape, entries, dtype):
    groups, rows, columns, moment_groups, blocks, size, dead = shape
    rng = np.random.default_rng(entries + rows)
    weight = rng.standard_normal((groups, rows, columns)).astype(dtype)
    hessian = moments_of(rng, moment_groups, blocks, size, dead=min(dead, size))
    tables = np.sort(rng.standard_normal((4, entries, 1)).astype(dtype).astype(np.float64), axis=1)
    row_tables = rng.integers(0, 3, (groups, rows)).astype(np.int32)
    column_tables = rng.integers(0, 2, (groups, columns)).astype(np.int32)
    sweeps = 1 if columns <= 100 else 0
    for of_columns in (None, column_tables):
        codes, error = native_codes(weight, hessian, tables, row_tables, of_columns, sweeps=sweeps)
        expected, _, expected_error = oracle.feed_back(
            weight,
            hessian,
            oracle.NearestEntry(tables),
            row_tables=row_tables,
            column_tables=of_columns,
            sweeps=sweeps,
        )
        assert (codes == expected).all()
        assert error == expected_error


@pytest.mark.parametrize("length", [2, 4, 8])
@pytest.mark.parametrize("entries", [4, 64])
def test_palettes_of_vectors(simd_level, length, entries):
    rng = np.random.default_rng(length)
    groups, vectors, columns = 2, 11, 29
    weight = rng.standard_normal((groups, vectors * length, columns)).astype(np.float16)
    hessian = moments_of(rng, 2, 3, 10)
    tables = rng.standard_normal((3, entries, length)).astype(np.float16).astype(np.float64)
    tables[:, 1] = tables[:, 0]  # equally near
    row_tables = np.repeat(np.sort(rng.integers(0, 3, (groups, vectors))), length, axis=1).astype(np.int32)
    codes, error = native_codes(weight, hessian, tables, row_tables, sweeps=2)
    expected, _, expected_error = oracle.feed_back(
        weight, hessian, oracle.NearestEntry(tables), row_tables=row_tables, sweeps=2
    )
    assert (codes == expected).all()
    assert error == expected_error


GRIDS = {"int8": (-127, 127), "int4": (-8, 7), "uint8": (0, 255), "uint4": (0, 15)}


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("kind", GRIDS)
@pytest.mark.parametrize("with_mask", [False, True])
def test_affine_grids(simd_level, kind, dtype, with_mask):
    rng = np.random.default_rng(len(kind))
    lowest, highest = GRIDS[kind]
    weight = rng.standard_normal((2, 35, 41)).astype(dtype)
    hessian = moments_of(rng, 1, 1, 48, np.float64, dead=2)
    scales = (rng.uniform(1, 3, 40) / (highest - lowest)).astype(dtype).astype(np.float64)
    zero_points = np.zeros(40) if lowest < 0 else rng.integers(0, highest, 40).astype(np.float64)
    row_tables = rng.integers(0, 30, (2, 35)).astype(np.int32)
    column_tables = rng.integers(0, 11, (2, 41)).astype(np.int32)
    mask = rng.random(weight.shape) < 0.6 if with_mask else None
    grid = (scales, zero_points, lowest, highest)
    codes, error = native_codes(weight, hessian, grid, row_tables, column_tables, mask, sweeps=1)
    expected, _, expected_error = oracle.feed_back(
        weight,
        hessian,
        oracle.NearestInteger(scales, zero_points, lowest, highest, np.dtype(dtype)),
        row_tables=row_tables,
        column_tables=column_tables,
        mask=mask,
        sweeps=1,
    )
    assert (codes.view(np.int8 if lowest < 0 else np.uint8) == expected).all()
    assert error == expected_error


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("moves_mask", [False, True])
@pytest.mark.parametrize("rows", [1, 32, 70])
def test_kept_values(simd_level, dtype, moves_mask, rows):
    rng = np.random.default_rng(rows)
    weight = rng.standard_normal((1, rows, 75)).astype(dtype)
    weight[:, :, 7] = 0  # equal costs
    hessian = moments_of(rng, 1, 2, 40, dead=3)
    mask = rng.random(weight.shape) < 0.5
    kept, values = mask.astype(np.uint8), np.zeros_like(weight)
    error = _core.feed_back_values(weight, hessian, 0.01, kept, moves_mask, values, 1, None)
    expected, expected_mask, expected_error = oracle.feed_back(
        weight, hessian, oracle.Unchanged(np.dtype(dtype)), mask=mask, moves_mask=moves_mask, sweeps=1
    )
    assert (kept.astype(bool) == expected_mask).all()
    assert (values == expected).all()
    assert error == expected_error
    assert kept.sum() == mask.sum()


@pytest.mark.parametrize("dampening", [0.0, 1e-4, 0.01, 1.0])
@pytest.mark.parametrize("size", [1, 5, 64, 65, 200])
def test_factors(simd_level, dampening, size):
    rng = np.random.default_rng(size)
    hessian = moments_of(rng, 1, 2, size, rank=max(size // 2, 1))  # of less than full rank
    columns = 2 * size - size // 3
    pivots = _core.column_pivots((1, 1, columns), hessian, dampening, None)[0]
    for block, begin in enumerate(range(0, columns, size)):
        count = min(size, columns - begin)
        order, multipliers, expected = oracle.factors(hessian[0, block, :count, :count], dampening)
        assert (pivots[begin + order] == expected).all()
        if dampening > 1e-4:
            dampened = hessian[0, block, :count, :count].astype(np.float64)
            dampened[np.diag_indices(count)] += dampening * dampened.diagonal().mean()
            product = multipliers + np.eye(count)
            product = product @ np.diag(expected) @ product.T
            assert np.allclose(product, dampened[np.ix_(order, order)], rtol=1e-9, atol=1e-9 * dampened.max())


def test_inputs_that_are_always_zero_feed_nothing_back():
    weight = np.random.default_rng(0).standard_normal((1, 40, 20)).astype(np.float32)
    tables = np.linspace(-2, 2, 16).reshape(1, 16, 1)
    rows = np.zeros((1, 40), np.int32)
    for dampening in (0.0, 0.01):
        codes, error = native_codes(weight, np.zeros((1, 1, 20, 20)), tables, rows, dampening=dampening, sweeps=1)
        assert error == 0
        assert (codes == abs(weight[..., None] - tables[0, :, 0]).argmin(-1)).all()


@pytest.mark.parametrize("entries", [2, 8])
def test_normal_equations(simd_level, entries):
    rng = np.random.default_rng(entries)
    weight = rng.standard_normal((2, 35, 83)).astype(np.float16)
    hessian = moments_of(rng, 2, 2, 70)
    codes = rng.integers(0, entries, weight.shape).astype(np.uint8)
    row_tables = rng.integers(0, 3, (2, 35)).astype(np.int32)
    row_tables[0, 0] = 2
    products, targets = _core.normal_equations(weight, hessian, 0.01, 3, entries, row_tables, codes, None)
    expected = oracle.normal_equations(weight, hessian, codes.astype(int), entries, row_tables)
    assert (products == expected[0]).all()
    assert (targets == expected[1]).all()


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_threads_change_nothing(threads):
    rng = np.random.default_rng(1)
    weight = rng.standard_normal((1, 200, 700)).astype(np.float16)
    hessian = moments_of(rng, 1, 2, 350)
    tables, rows = np.linspace(-2, 2, 16).reshape(1, 16, 1), np.zeros((1, 200), np.int32)
    results = []
    for count in (1, threads):
        codes = np.zeros(weight.shape, np.uint8)
        error = _core.feed_back_codes(weight, hessian, 0.01, tables, rows, None, None, codes, 1, False, count)
        sums = _core.normal_equations(weight, hessian, 0.01, 1, 16, rows, codes, count)
        results.append((codes.tobytes(), error, sums[0].tobytes(), sums[1].tobytes()))
    assert results[0] == results[1]


def test_sweeps_never_raise_the_error():
    rng = np.random.default_rng(2)
    weight = rng.standard_normal((1, 60, 80)).astype(np.float32)
    hessian = moments_of(rng, 1, 1, 80, np.float64)
    tables, rows = np.linspace(-2, 2, 8).reshape(1, 8, 1), np.zeros((1, 60), np.int32)
    dampened = hessian[0, 0] + 0.01 * np.eye(80) * np.trace(hessian[0, 0]) / 80
    errors = []
    for sweeps in range(4):
        codes, error = native_codes(weight, hessian, tables, rows, sweeps=sweeps)
        missed = weight[0] - tables[0, codes[0], 0]
        errors.append(((missed @ dampened) * missed).sum())
        assert np.isclose(error, errors[0])
    assert errors[0] > errors[1] >= errors[2] >= errors[3]


def test_wrong_arguments_are_refused():
    weight, rows = np.zeros((1, 4, 6), np.float16), np.zeros((1, 4), np.int32)
    tables, codes = np.zeros((1, 4, 1)), np.zeros((1, 4, 6), np.uint8)

    eye = np.eye(6)[None, None]

    def call(hessian=eye, tables=tables, rows=rows, codes=codes):
        return _core.feed_back_codes(weight, hessian, 0.01, tables, rows, None, None, codes, 0, False, None)

    assert call() == 0
    for arguments, message in [
        ({"hessian": np.eye(5)[None, None]}, "must have 6 columns"),
        ({"hessian": np.eye(6)[None]}, "groups, blocks, c, c"),
        ({"tables": np.zeros((1, 3, 1))}, "power of two"),
        ({"tables": np.zeros((1, 4, 3))}, "must divide 32"),
        ({"rows": np.ones((1, 4), np.int32)}, "there are 1 tables, and one is number 1"),
        ({"codes": np.zeros(3, np.uint8)}, "codes must have 24 elements"),
    ]:
        with pytest.raises(ValueError, match=message):
            call(**arguments)
