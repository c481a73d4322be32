"""Operations on one tensor, against NumPy's and Python's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from corepress.coreml.format.versions import IOS15
from corepress.runtime.torch import ops  # noqa: F401
from corepress.runtime.torch.ops import elementwise_unary as unary
from corepress.runtime.torch.registry import implementation_of

FUNCTIONS = {
    "abs": np.abs,
    "acos": np.arccos,
    "asin": np.arcsin,
    "atan": np.arctan,
    "atanh": np.arctanh,
    "ceil": np.ceil,
    "cos": np.cos,
    "cosh": np.cosh,
    "erf": np.vectorize(math.erf),
    "exp": np.exp,
    "exp2": np.exp2,
    "floor": np.floor,
    "round": np.round,
    "sign": np.sign,
    "sin": np.sin,
    "sinh": np.sinh,
    "sqrt": np.sqrt,
    "square": np.square,
    "tan": np.tan,
    "tanh": np.tanh,
}
INTEGERS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64"]


def run(operation, x, **options):
    return implementation_of(operation, IOS15).function(x, **options)


@pytest.mark.parametrize("operation", FUNCTIONS)
def test_floats(operation):
    x = np.linspace(0.05 if operation == "sqrt" else -0.95, 0.95, 24, dtype=np.float32).reshape(2, 3, 4)
    np.testing.assert_allclose(run(operation, torch.tensor(x)), FUNCTIONS[operation](x), rtol=3e-6, atol=1e-7)


@pytest.mark.parametrize("operation", FUNCTIONS)
def test_one_number_stays_one(operation):
    assert run(operation, torch.tensor(0.5)).shape == ()


@pytest.mark.parametrize("operation", ["abs", "exp2", "sign", "square"])
def test_integers(operation):
    x = np.array([[-3, 0, 5]], np.int32)
    np.testing.assert_allclose(run(operation, torch.tensor(x)), FUNCTIONS[operation](x), rtol=1e-6)


def test_halves_are_rounded_to_even():
    assert unary.rounded(torch.tensor([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5])).tolist() == [-2, -2, 0, 0, 2, 2]


def test_epsilon_is_added_inside():
    x = np.array([0.5, 1.0, 4.0], np.float32)
    for epsilon in (0.5, 1e-3):
        np.testing.assert_allclose(unary.inverse(torch.tensor(x), epsilon=epsilon), 1 / (x + epsilon), rtol=1e-6)
        np.testing.assert_allclose(unary.log(torch.tensor(x), epsilon=epsilon), np.log(x + epsilon), rtol=1e-6)
        np.testing.assert_allclose(unary.rsqrt(torch.tensor(x), epsilon=epsilon), (x + epsilon) ** -0.5, rtol=1e-6)


def test_defaults_of_epsilon():
    zero = torch.zeros(())
    np.testing.assert_allclose(unary.inverse(zero), 1e4)
    np.testing.assert_allclose(unary.rsqrt(zero), 1e6)
    np.testing.assert_allclose(unary.log(zero), math.log(1.4e-45), rtol=1e-3)


def test_float16_has_an_epsilon_of_zero():
    assert unary.log(torch.zeros(()), epsilon=0.0).item() == -math.inf
    assert unary.rsqrt(torch.zeros(()), epsilon=0.0).item() == math.inf


def test_limits():
    x = torch.tensor([-2.0, 0.0, 2.0, math.nan])
    np.testing.assert_array_equal(unary.clip(x, alpha=-1.0, beta=1.5), [-1, 0, 1.5, math.nan])
    np.testing.assert_array_equal(unary.clip(x, alpha=1.0, beta=-1.0), [-1, -1, -1, math.nan])
    np.testing.assert_array_equal(unary.threshold(x, alpha=0.5), [0.5, 0.5, 2, math.nan])
    assert unary.threshold(torch.tensor([-2, 3], dtype=torch.int32), alpha=1).tolist() == [1, 3]


def test_logical_not():
    assert unary.logical_not(torch.tensor([True, False])).tolist() == [False, True]


@pytest.mark.parametrize("dtype", INTEGERS)
def test_floats_to_integers(dtype):
    limits = np.iinfo(dtype)
    x = torch.tensor([1.9, -1.9, math.nan, math.inf, -math.inf, 1e30, -1e30, 100.5])
    low = limits.min
    high = limits.max if limits.bits < 32 else int(np.nextafter(np.float32(limits.max), np.float32(0)))
    expected = [1, max(-1, low), 0, high, low, high, low, 100]
    assert unary.cast(x, dtype=dtype).tolist() == expected


@pytest.mark.parametrize("source", [torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64])
@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_keep_their_low_bits(source, dtype):
    limits = torch.iinfo(source)
    x = [limits.min, limits.min + 1, 0, 1, 77, limits.max - 1, limits.max]
    size = np.iinfo(dtype).max - np.iinfo(dtype).min + 1
    expected = [(each - np.iinfo(dtype).min) % size + np.iinfo(dtype).min for each in x]
    assert unary.cast(torch.tensor(x, dtype=source), dtype=dtype).tolist() == expected


@pytest.mark.parametrize("dtype", ["fp16", "fp32"])
def test_casts_between_floats_leave_rounding_to_the_caller(dtype):
    x = torch.tensor([0.1, 1e9])
    assert unary.cast(x, dtype=dtype) is x
    assert unary.cast(torch.tensor([True, False]), dtype=dtype).tolist() == [1.0, 0.0]
    assert unary.cast(torch.tensor([3], dtype=torch.int8), dtype=dtype).dtype == torch.float32


def test_casts_to_and_from_truth_values():
    assert unary.cast(torch.tensor([0.0, -0.5, math.nan]), dtype="bool").tolist() == [False, True, True]
    assert unary.cast(torch.tensor([0, 256]), dtype="bool").tolist() == [False, True]
    assert unary.cast(torch.tensor([True, False]), dtype="int32").tolist() == [1, 0]


def test_unknown_types_are_refused():
    with pytest.raises(ValueError, match="complex64"):
        unary.cast(torch.zeros(2), dtype="complex64")


@pytest.mark.parametrize("operation", sorted(FUNCTIONS.keys() - {"ceil", "floor", "round", "sign"}))
def test_gradients(operation):
    x = torch.linspace(0.1, 0.8, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: run(operation, x), x)
