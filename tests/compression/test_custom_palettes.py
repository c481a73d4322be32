"""Palettes that a function makes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corepress.compression import apply
from corepress.specs import Palettize
from helpers.arrays import BFLOAT16

RNG = np.random.default_rng(5)


def _custom(function, **options):
    return Palettize(mode="custom", lut_function=function, **options)


def _rounding(entries):
    """A function that takes `entries` even steps, largest first, and the nearest of them."""

    def function(weight):
        table = np.linspace(weight.max(), weight.min(), entries).astype(weight.dtype)
        return table, np.abs(weight[..., None].astype(np.float64) - table).argmin(axis=-1)

    return function


@pytest.mark.parametrize(("entries", "nbits"), [(1, 1), (2, 1), (3, 2), (5, 3), (16, 4), (17, 6), (65, 8), (256, 8)])
@pytest.mark.parametrize("dtype", [np.float16, BFLOAT16, np.float32])
def test_decodes_to_what_the_function_chose(entries, nbits, dtype):
    weight = RNG.standard_normal((12, 5, 3)).astype(dtype)
    tensor = apply(weight, _custom(_rounding(entries)))
    table, indices = _rounding(entries)(weight)
    np.testing.assert_array_equal(tensor.dense(), table[indices])
    assert (tensor.nbits, tensor.dtype) == (nbits, dtype)
    assert (np.diff(tensor.lut.reshape(-1).astype(np.float64)) >= 0).all()


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_groups_get_tables_of_their_own(axis):
    weight = RNG.standard_normal((8, 12, 16)).astype(np.float32)
    seen = []

    def function(group):
        seen.append(group.copy())
        assert not group.flags.writeable
        return _rounding(4)(group)

    tensor = apply(weight, _custom(function, granularity="per_grouped_channel", group_size=4, channel_axis=axis))
    parts = np.split(weight, weight.shape[axis] // 4, axis)
    assert len(seen) == len(parts)
    for part, group in zip(parts, seen, strict=True):
        np.testing.assert_array_equal(part, group)
    expected = [table[indices] for table, indices in map(_rounding(4), parts)]
    np.testing.assert_array_equal(tensor.dense(), np.concatenate(expected, axis))


@given(st.permutations(range(7)), st.lists(st.integers(0, 6), min_size=1, max_size=40))
def test_tables_in_any_order(order, indices):
    values = np.array([-3, -1, -0.5, 0, 0.25, 2, 8], np.float32)[list(order)]
    weight = np.zeros(len(indices), np.float32)
    tensor = apply(weight, _custom(lambda _: (values.tolist(), np.array(indices))))
    np.testing.assert_array_equal(tensor.dense(), values[indices])


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, "must return a table and indices"),
        ((np.zeros(257), np.zeros(6, int)), r"1 to 256 values .*not one of shape \(257,\)"),
        ((np.zeros(0), np.zeros(6, int)), r"shape \(0,\)"),
        ((np.zeros((2, 2)), np.zeros(6, int)), r"shape \(2, 2\)"),
        (([np.nan, 1], np.zeros(6, int)), "finite as float16"),
        (([1e6, 1], np.zeros(6, int)), "finite as float16"),
        (([1, 2], np.zeros(5, int)), r"6 whole numbers as indices \(shape \(2, 3\)\), not int64 of shape \(5,\)"),
        (([1, 2], np.full(6, 2)), "indices from 0 to 1"),
        (([1, 2], np.full(6, -1)), "indices from 0 to 1"),
    ],
)
def test_what_a_function_must_return(result, message):
    with pytest.raises(ValueError, match=message):
        apply(np.zeros((2, 3), np.float16), _custom(lambda _: result))


def test_a_function_must_return_numbers():
    for result, message in [
        (([1, 2], np.zeros(6)), "palettize: the indices of lut_function must be integers, not float64"),
        ((["a"], np.zeros(6, int)), "palettize: the table of lut_function must be numbers, not <U1"),
    ]:
        with pytest.raises(TypeError, match=message):
            apply(np.zeros((2, 3), np.float16), _custom(lambda _, result=result: result))


def test_the_spec_wants_function_and_mode_together():
    for options, message in [
        ({"mode": "custom"}, "mode 'custom' needs lut_function"),
        ({"nbits": 4, "lut_function": len}, "mode 'kmeans' does not take lut_function"),
        ({"mode": "custom", "lut_function": len, "nbits": 4}, "does not take nbits"),
        ({"mode": "custom", "lut_function": 4}, "lut_function must be a function or None, not 4"),
        ({"mode": "custom", "lut_function": len, "nonfinite": "table"}, "nonfinite 'table' is not for mode 'custom'"),
    ]:
        with pytest.raises(ValueError, match=message):
            Palettize(**options)
