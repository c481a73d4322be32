"""Operations on two tensors, against NumPy's and Python's."""

from __future__ import annotations

import operator

import numpy as np
import pytest
import torch

from corepress.coreml.format.versions import IOS15
from corepress.runtime.torch import ops  # noqa: F401
from corepress.runtime.torch.ops import elementwise_binary as binary
from corepress.runtime.torch.registry import implementation_of

FUNCTIONS = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "real_div": np.true_divide,
    "floor_div": np.floor_divide,
    "mod": np.mod,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "equal": np.equal,
    "not_equal": np.not_equal,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "less": np.less,
    "less_equal": np.less_equal,
}
LOGICAL = {"logical_and": np.logical_and, "logical_or": np.logical_or, "logical_xor": np.logical_xor}
SMALLEST = -(2**31)


def run(operation, *values):
    return implementation_of(operation, IOS15).function(*values)


@pytest.mark.parametrize("shapes", [((3, 4), (3, 4)), ((2, 3, 4), (3, 1)), ((), (2, 2)), ((), ()), ((0, 3), (3,))])
@pytest.mark.parametrize("operation", FUNCTIONS)
def test_floats(operation, shapes):
    numbers = np.random.default_rng(0)
    x, y = (np.round(numbers.normal(size=shape) * 3 + 0.25, 1).astype(np.float32) for shape in shapes)
    expected = FUNCTIONS[operation](x, y)
    found = run(operation, torch.tensor(x), torch.tensor(y))
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("operation", sorted(FUNCTIONS.keys() - {"real_div"}))
def test_integers(operation):
    x = np.arange(-7, 8, dtype=np.int32)[:, None]
    y = np.array([-3, -1, 1, 2, 5], np.int32)
    np.testing.assert_array_equal(run(operation, torch.tensor(x), torch.tensor(y)), FUNCTIONS[operation](x, y))


def test_quotients_of_integers_are_truncated():
    x, y = (
        torch.tensor([7, -7, 7, -7, 2**31 - 1], dtype=torch.int32),
        torch.tensor([2, 2, -2, -2, 1], dtype=torch.int32),
    )
    assert binary.real_div(x, y).tolist() == [3, -3, -3, 3, 2**31 - 1]


def test_division_by_an_integer_zero_has_an_answer():
    x, zero = torch.tensor([5, -5, 0], dtype=torch.int32), torch.tensor(0, dtype=torch.int32)
    assert binary.real_div(x, zero).tolist() == binary.floor_div(x, zero).tolist() == [0, 0, 0]
    assert binary.mod(x, zero).tolist() == [5, -5, 0]


@pytest.mark.parametrize("divide", [binary.real_div, binary.floor_div, binary.mod])
def test_the_smallest_integer_divided_by_minus_one_stays(divide):
    x, y = torch.full((9,), SMALLEST, dtype=torch.int32), torch.full((9,), -1, dtype=torch.int32)
    assert set(divide(x, y).to(torch.int32).tolist()) == ({0} if divide is binary.mod else {SMALLEST})


def test_division_of_floats_by_zero():
    x, zero = torch.tensor([1.0, -1.0, 0.0]), torch.tensor(0.0)
    np.testing.assert_array_equal(binary.real_div(x, zero), [np.inf, -np.inf, np.nan])
    assert binary.mod(x, zero).isnan().all()


@pytest.mark.parametrize("exponent", [2.0, 3.0, 0.5, -1.0, -0.5, 0.0, 1.7])
@pytest.mark.parametrize("shape", [(), (4,)])
def test_powers(exponent, shape):
    x = np.array([0.5, 1.0, 2.5, 7.0], np.float32)
    y = np.full(shape, exponent, np.float32)
    np.testing.assert_allclose(binary.power(torch.tensor(x), torch.tensor(y)), x**y, rtol=1e-6)


def test_powers_of_integers():
    x = torch.tensor([-2, 0, 3], dtype=torch.int32)
    assert binary.power(x, torch.tensor(3, dtype=torch.int32)).tolist() == [-8, 0, 27]
    assert binary.power(torch.tensor([1, -1, 2]), torch.tensor(-1)).tolist() == [1, -1, 0]


def test_gradients_of_powers_go_to_base_and_exponent():
    x, y = torch.tensor([2.0, 3.0], requires_grad=True), torch.tensor(2.0, requires_grad=True)
    binary.power(x, y).sum().backward()
    np.testing.assert_allclose(x.grad, [4.0, 6.0])
    np.testing.assert_allclose(y.grad, 4 * np.log(2) + 9 * np.log(3), rtol=1e-6)
    constant = torch.tensor(2.0)
    x.grad = None
    binary.power(x, constant).sum().backward()
    np.testing.assert_allclose(x.grad, [4.0, 6.0])


@pytest.mark.parametrize("operation", LOGICAL)
def test_truth_values(operation):
    x, y = np.array([[True], [False]]), np.array([True, False])
    found = run(operation, torch.tensor(x), torch.tensor(y))
    assert found.dtype == torch.bool
    np.testing.assert_array_equal(found, LOGICAL[operation](x, y))


@pytest.mark.parametrize("operation", ["maximum", "minimum"])
def test_nan_wins(operation):
    assert run(operation, torch.tensor([np.nan, 1.0]), torch.tensor([1.0, np.nan])).isnan().all()


def test_all_are_there_and_all_comparisons_give_truth_values():
    for operation in [*FUNCTIONS, *LOGICAL, "pow"]:
        assert implementation_of(operation, IOS15) is not None
    one = torch.tensor([1])
    compared = [operation for operation, function in FUNCTIONS.items() if function(1, 1).dtype == np.bool_]
    assert len(compared) == 6
    assert all(run(operation, one, one).dtype == torch.bool for operation in compared)


def test_inputs_stay_as_they_are():
    x, y = torch.tensor([4.0, -5.0]), torch.tensor([2.0, 0.0])
    before = operator.methodcaller("clone")(x)
    for operation in [*FUNCTIONS, "pow"]:
        run(operation, x, y)
    assert torch.equal(x, before)
