"""Streamed ranges and histograms, and the scales that follow from them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corepress import FormatError
from corepress.calibration.activation_ranges import BINS, ActivationRange, levels_of, merged_ranges
from corepress.coreml.program.quantize_pairs import NoParameters, PairParameters


def range_of(*parts) -> ActivationRange:
    found = ActivationRange()
    for part in parts:
        found.add(np.asarray(part, np.float32))
    return found


def same(first: ActivationRange, second: ActivationRange) -> bool:
    ours, theirs = first.to_arrays(), second.to_arrays()
    return all(np.array_equal(ours[name], theirs[name]) and ours[name].dtype == theirs[name].dtype for name in ours)


finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
MANY = st.lists(st.lists(finite, min_size=1, max_size=8), min_size=1, max_size=5)


@given(MANY)
def test_order_and_division_do_not_matter(parts):
    whole = range_of(list(itertools.chain(*parts)))
    assert same(range_of(*parts), whole)
    assert same(range_of(*parts[::-1]), whole)
    merged = ActivationRange()
    for part in parts[::-1]:
        merged = range_of(part).merged(merged)
    assert same(merged, whole)


@given(MANY)
def test_every_element_is_in_its_bin(parts):
    values = np.array(list(itertools.chain(*parts)), np.float32)
    found = range_of(values)
    assert (found.minimum, found.maximum) == (values.min(), values.max())
    assert found.counts.sum() == values.size
    assert 1 <= found.counts.size <= BINS
    width = 2.0**found.exponent
    edges = (found.start + np.arange(found.counts.size + 1)) * width
    counts = [int(((values >= low) & (values < high)).sum()) for low, high in itertools.pairwise(edges)]
    assert counts == found.counts.tolist()


def test_values_use_more_than_half_of_the_bins():
    for scale in (1e-6, 1.0, 3e30):
        found = range_of(np.random.default_rng(0).uniform(-1, 2, 10_000).astype(np.float32) * scale)
        assert BINS // 2 < found.counts.size <= BINS


def test_values_that_are_not_finite_are_counted_apart():
    found = range_of([1.0, np.nan, -2.0], [np.inf, -np.inf], [np.nan])
    assert (found.minimum, found.maximum, found.nonfinite, found.counts.sum()) == (-2.0, 1.0, 4, 2)
    with pytest.raises(NoParameters, match="NaN or infinite"):
        found.parameters()
    with pytest.raises(NoParameters, match="no sample"):
        ActivationRange().parameters()


@pytest.mark.parametrize("mode", ["linear", "linear_symmetric"])
@pytest.mark.parametrize("target", ["int8", "uint8"])
@pytest.mark.parametrize(("low", "high"), [(-3.0, 5.0), (0.0, 6.0), (2.0, 9.0), (-7.0, -1.0), (-1e-3, 4e4)])
def test_scales_are_those_of_coremltools(mode, target, low, high):
    with pytest.MonkeyPatch.context():
        utils = pytest.importorskip("coremltools.optimize._utils")
        types = pytest.importorskip("coremltools.converters.mil.mil").types
    found = range_of([low, high]).parameters("float32", mode=mode, target=target)
    _, scale, zero_point = utils.quantize_weight_by_dtype(
        np.array([low, high], np.float32), 0, getattr(types, target), mode.upper()
    )
    assert found.scale == pytest.approx(float(scale), rel=1e-6)
    # coremltools' backend has the same without zero points of the lowest level and of 0.
    lowest, highest = levels_of(mode, found.dtype)
    shift = {"int8": 0, "uint8": 128}
    ours = (found.zero_point or 0) - shift[found.dtype]
    theirs = (0 if zero_point is None else int(zero_point)) - shift[target]
    assert ours == theirs
    levels = np.round(np.array([low, high]) / found.scale) + (found.zero_point or 0)
    assert (levels >= lowest - 1).all()
    assert (levels <= max(highest, 255 if found.dtype == "uint8" else 127)).all()


def test_values_that_are_never_negative_need_no_zero_point():
    assert range_of([0.0, 2.55]).parameters("float32") == PairParameters(pytest.approx(0.01), None, "uint8")
    assert range_of([-1.0, 1.0]).parameters("float32", mode="linear_symmetric").zero_point is None


def test_scales_are_numbers_of_the_type():
    found = range_of([-1.0, 3.7]).parameters("float16")
    assert found.scale == float(np.float16(found.scale))
    assert range_of([0.0, 0.0]).parameters("float16").scale == 1.0
    tiny = range_of([0.0, 1e-7]).parameters("float16")
    assert tiny.scale == float(np.finfo(np.float16).tiny)
    assert range_of([-3e38, 3e38]).parameters("float16").scale == float(np.finfo(np.float16).max)


@pytest.mark.parametrize("mode", ["linear", "linear_symmetric"])
def test_least_squared_error(mode):
    """Outliers are cut off where that pays, and only there."""
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.standard_normal(1_000_000), [60.0, -45.0]]).astype(np.float32)
    found = range_of(values)
    by_extremes, by_error = (found.parameters("float32", mode=mode, fit=fit) for fit in ("minmax", "mse"))

    def error(parameters):
        shift = parameters.zero_point or 0
        levels = np.clip(np.round(values.astype(np.float64) / parameters.scale) + shift, -128, 127)
        return float((((levels - shift) * parameters.scale - values) ** 2).sum())

    assert error(by_error) < error(by_extremes) / 2
    assert found.squared_error(by_error) == pytest.approx(error(by_error), rel=0.05)
    even = range_of(np.linspace(-1, 1, 100_001))
    assert even.parameters(mode=mode, fit="mse").scale >= 0.9 * even.parameters(mode=mode).scale


def test_arrays_and_back():
    for found in (range_of([1.0, -2.0, 7.5]), range_of([0.0]), range_of([np.nan]), ActivationRange()):
        assert same(ActivationRange.from_arrays(found.to_arrays()), found)


@pytest.mark.parametrize(
    "changed",
    [
        {"bounds": np.array([2.0, -1.0])},
        {"bounds": np.array([0.0, np.inf])},
        {"bounds": np.zeros(3)},
        {"counts": np.array([-1, 5], np.int64)},
        {"counts": np.zeros(3, np.float64)},
        {"counts": np.zeros(0, np.int64)},
        {"bins": np.array([400, 0, 0])},
        {"bins": np.zeros(2, np.int64)},
    ],
)
def test_damaged_arrays(changed):
    arrays = range_of(np.linspace(-1, 1, 100)).to_arrays() | changed
    with pytest.raises(FormatError, match="the range of x"):
        ActivationRange.from_arrays(arrays, "the range of x")


def test_values_that_a_mask_splits():
    rng = np.random.default_rng(0)
    scores = rng.standard_normal(1000).astype(np.float32)
    assert range_of(scores, scores - 10_000).is_split
    assert not range_of(scores).is_split
    assert not range_of(np.zeros(500), np.full(500, -10_000)).is_split  # two levels hold them all
    assert not range_of(scores, [60.0, 90.0]).is_split  # outliers
    assert not range_of(np.maximum(scores, 0)).is_split
    assert not ActivationRange().is_split


def test_groups_that_share_a_value_are_one():
    ranges = {name: range_of([low, high]) for name, low, high in (("a", 0, 1), ("b", -2, 0), ("c", 0, 9), ("d", 0, 3))}
    found = merged_ranges(ranges, [["a", "b"], ["c", "unknown"], ["b", "c"]])
    assert {name: (each.minimum, each.maximum) for name, each in found.items()} == {
        "a": (-2, 9),
        "b": (-2, 9),
        "c": (-2, 9),
        "d": (0, 3),
    }
    assert found["a"].counts.sum() == 6


def test_groups_without_ranges_change_nothing():
    ranges = {"a": range_of([1, 2]), "b": range_of([-4])}
    found = merged_ranges(ranges, [["x", "y"], ["b", "z"]])
    assert found.keys() == ranges.keys()
    assert [(each.minimum, each.maximum) for each in found.values()] == [(1, 2), (-4, -4)]


def test_bounds_are_searched_again_after_one_moved(monkeypatch):
    """The other side's best bound depends on it, so that the second round finds a smaller error."""
    rng = np.random.default_rng(3)
    found = range_of(rng.standard_t(2, 4000), 3 + rng.standard_t(3, 4000))
    three = found.squared_error(found.parameters("float32", mode="linear", fit="mse"))
    monkeypatch.setattr("corepress.calibration.activation_ranges._ROUNDS", 1)
    assert three < 0.99 * found.squared_error(found.parameters("float32", mode="linear", fit="mse"))
