"""Values at even distances: the native loops and their NumPy twin give the same bits, at every level."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from corepress import _core, reference
from helpers.arrays import DRAWS, draw

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
# Around the short runs of the loops, the 1,024 runs taken together, and the pieces of 65,536 that threads take.
LAYOUTS = [
    (1, 1, 1),
    (1, 1, 1025),
    (3, 5, 1),
    (1, 1100, 1),
    (2, 3, 15),
    (4, 7, 16),
    (1, 3, 33),
    (2, 1030, 2),
    (5, 1, 4),
]
LAYOUTS += [(1, 2, 70_001), (33, 70, 31), (1001, 70, 1), (3, 5, 4500)]


def expected(weight, layout, nbits, symmetric):
    """Scales, biases, codes and what these stand for, group by group; None if a group has no finite steps."""
    view = weight.reshape(layout)
    scale, bias = np.zeros(layout[1], np.float32), np.zeros(layout[1], np.float32)
    codes, decoded = np.zeros(layout, np.uint8), np.zeros(layout, np.float32)
    for group in range(layout[1]):
        found = reference.choose_even_steps(view[:, group], nbits, symmetric=symmetric)
        if found is None:
            return None
        scale[group], bias[group] = found
        codes[:, group] = reference.encode_even_steps(view[:, group], *found, nbits, symmetric=symmetric)
        decoded[:, group] = reference.decode_even_steps(codes[:, group], *found)
    return scale, bias, codes.reshape(-1), decoded.reshape(-1)


@pytest.fixture(autouse=True)
def restored_level():
    before = _core.simd_level()
    yield
    _core.set_simd_level(before)


def runs(threads=(None,)):
    """Each level, with each number of threads."""
    for level in _core.simd_levels():
        _core.set_simd_level(level)
        yield from threads


def check(weight, layout, nbits, symmetric, threads=(None,)):
    wanted = expected(weight, layout, nbits, symmetric)
    for num_threads in runs(threads):
        found = _core.encode_even_steps(weight, layout, nbits, symmetric, num_threads)
        if wanted is None:
            assert found is None
            continue
        assert [each.tobytes() for each in found] == [each.tobytes() for each in wanted[:3]]
        scale, bias, codes = found
        out = np.empty(weight.size, np.float32)
        _core.decode_even_steps(codes, layout, False, scale, bias, out, num_threads)
        assert out.tobytes() == wanted[3].tobytes()
        sums = _core.sum_even_step_errors(weight, codes, layout, False, scale, bias, num_threads)
        assert sums == _core.sum_errors(weight.reshape(-1), wanted[3], num_threads)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("symmetric", [False, True])
def test_layouts(layout, symmetric):
    weight = draw("t3", math.prod(layout), np.float32)
    for nbits in (2, 8):
        check(weight, layout, nbits, symmetric, (1, 3))


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("layout", [(1, 1, 300), (2, 10, 15), (1, 10, 30)])
def test_values_of_every_kind(name, layout):
    weight = draw(name, 300, np.float32)
    check(weight, layout, 1, False)
    for nbits in range(2, 9):
        check(weight, layout, nbits, False)
        check(weight, layout, nbits, True)


@settings(max_examples=300)
@given(
    weight=arrays(np.float32, st.integers(1, 40), elements=FINITE),
    nbits=st.integers(2, 8),
    symmetric=st.booleans(),
)
def test_any_finite_values(weight, nbits, symmetric):
    for layout in ((1, 1, weight.size), (1, weight.size, 1)):
        check(weight, layout, nbits, symmetric)


@given(
    codes=arrays(np.uint8, 35), parameters=st.lists(st.floats(width=32), min_size=2, max_size=2), signed=st.booleans()
)
def test_any_scale_and_bias_decode_alike_at_every_level(codes, parameters, signed):
    scale, bias = (np.float32([number]) for number in parameters)
    given_codes = codes.view(np.int8) if signed else codes
    wanted = reference.decode_even_steps(given_codes, scale[0], bias[0])
    for _ in runs():
        for layout in ((1, 1, 35), (5, 1, 7)):
            out = np.empty(35, np.float32)
            _core.decode_even_steps(codes, layout, signed, scale, bias, out)
            assert out.tobytes() == wanted.tobytes()


def test_the_nearest_code_is_taken(simd_level):
    weight = draw("normal", 5000, np.float32)
    scale, bias, codes = _core.encode_even_steps(weight, (1, 1, 5000), 3, False)
    entries = np.arange(8) * float(scale[0]) + float(bias[0])
    distances = abs(weight.astype(np.float64)[:, None] - entries)
    assert (distances[np.arange(5000), codes] == distances.min(1)).all()
    assert set(codes) == set(range(8))


@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("layout", [(1, 1, 100), (1, 100, 1), (4, 5, 5)])
def test_values_that_are_not_finite_have_no_steps(simd_level, value, layout):
    weight = draw("normal", 100, np.float32)
    weight[77] = value
    assert _core.encode_even_steps(weight, layout, 4, False) is None


def test_steps_that_reach_infinity_are_none(simd_level):
    largest = np.finfo(np.float32).max
    weight = np.float32([-largest, largest])
    assert _core.encode_even_steps(weight, (1, 1, 2), 8, False) is None
    assert _core.encode_even_steps(weight, (1, 2, 1), 8, False) is not None


def test_negative_zero_is_no_bias(simd_level):
    scale, bias, codes = _core.encode_even_steps(np.float32([-0.0, -0.0]), (1, 1, 2), 4, False)
    assert (scale.tolist(), bias.tobytes(), codes.tolist()) == ([1.0], bytes(4), [0, 0])


def test_nothing_is_no_error():
    empty = np.zeros(0, np.float32)
    scale, bias, codes = _core.encode_even_steps(empty, (1, 3, 0), 8, False)
    assert (scale.tolist(), bias.tolist(), codes.size) == ([1, 1, 1], [0, 0, 0], 0)
    _core.decode_even_steps(codes, (1, 3, 0), False, scale, bias, empty)


def test_what_does_not_fit_is_refused():
    weight, one = np.ones(6, np.float32), np.ones(1, np.float32)
    with pytest.raises(ValueError, match="nbits must be 2 to 8, not 1"):
        _core.encode_even_steps(weight, (1, 1, 6), 1, True)
    with pytest.raises(ValueError, match="layout"):
        _core.encode_even_steps(weight, (1, 1, 5), 4, False)
    with pytest.raises(ValueError, match="scale must have 2 elements, not 1"):
        _core.decode_even_steps(np.ones(6, np.uint8), (1, 2, 3), False, one, one, weight)
    with pytest.raises(ValueError, match="out must have 6 elements, not 1"):
        _core.decode_even_steps(np.ones(6, np.uint8), (1, 1, 6), False, one, one, one)
