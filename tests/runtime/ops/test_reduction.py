"""Reductions, against NumPy's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from corepress.coreml.format.versions import IOS15, IOS17
from corepress.runtime.torch import ops  # noqa: F401
from corepress.runtime.torch.registry import implementation_of

FUNCTIONS = {
    "reduce_l1_norm": lambda x, **over: np.sum(np.abs(x), **over),
    "reduce_l2_norm": lambda x, **over: np.sqrt(np.sum(np.square(x), **over)),
    "reduce_log_sum": lambda x, **over: np.log(np.sum(x, **over)),
    "reduce_log_sum_exp": lambda x, **over: np.log(np.sum(np.exp(x), **over)),
    "reduce_max": np.max,
    "reduce_mean": np.mean,
    "reduce_min": np.min,
    "reduce_prod": np.prod,
    "reduce_sum": np.sum,
    "reduce_sum_square": lambda x, **over: np.sum(np.square(x), **over),
}
AXES = [None, [0], [-1], [1], [0, 2], [-1, 1], [2, 0, 1]]


def run(operation, x, **options):
    return implementation_of(operation, IOS15).function(torch.tensor(x), **options)


@pytest.mark.parametrize("keep_dims", [False, True])
@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("operation", FUNCTIONS)
def test_floats(operation, axes, keep_dims):
    x = np.random.default_rng(1).uniform(0.5, 1.5, (2, 3, 4)).astype(np.float32)
    expected = FUNCTIONS[operation](x, axis=tuple(axes) if axes else None, keepdims=keep_dims)
    found = run(operation, x, axes=axes, keep_dims=keep_dims)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=2e-6)


@pytest.mark.parametrize("operation", FUNCTIONS)
def test_one_number_and_no_axes(operation):
    x = np.float32(0.75)
    np.testing.assert_allclose(run(operation, x), FUNCTIONS[operation](x), rtol=1e-6)
    y = np.array([[0.5, 0.25]], np.float32)
    np.testing.assert_allclose(run(operation, y, axes=[]), run(operation, y), rtol=0)


@pytest.mark.parametrize("axes", [None, [1]])
@pytest.mark.parametrize("operation", FUNCTIONS)
def test_integers(operation, axes):
    x = np.array([[3, 1, 4], [1, 6, 9]], np.int32)
    expected = FUNCTIONS[operation](x, axis=tuple(axes) if axes else None).astype(np.int32)
    np.testing.assert_array_equal(run(operation, x, axes=axes).to(torch.int32), expected)


def test_means_of_integers_are_truncated():
    x = np.array([[-3, -4], [3, 4]], np.int32)
    assert run("reduce_mean", x, axes=[1]).tolist() == [-3, 3]
    assert run("reduce_mean", np.zeros((0, 2), np.int32), axes=[0]).tolist() == [0, 0]


def test_large_sums_of_exponentials():
    x = np.array([[1000.0, 1000.0], [-1000.0, -np.inf]], np.float32)
    np.testing.assert_allclose(run("reduce_log_sum_exp", x, axes=[1]), [1000 + np.log(2), -1000], rtol=1e-6)


def test_zeros_have_a_gradient():
    x = torch.zeros(2, 3, requires_grad=True)
    implementation_of("reduce_l2_norm", IOS15).function(x, axes=[1]).sum().backward()
    assert x.grad.tolist() == [[0.0] * 3] * 2


@pytest.mark.parametrize("version", [IOS15, IOS17])
@pytest.mark.parametrize("keep_dims", [False, True])
@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("operation", ["reduce_argmax", "reduce_argmin"])
def test_places(operation, axis, keep_dims, version):
    x = np.random.default_rng(2).permutation(24).reshape(2, 3, 4).astype(np.float32)
    more = {"output_dtype": "uint16"} if version == IOS17 else {}
    function = implementation_of(operation, version).function
    found = function(torch.tensor(x), axis=axis, keep_dims=keep_dims, **more)
    expected = getattr(np, operation.removeprefix("reduce_"))(x, axis=axis, keepdims=keep_dims)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("operation", ["reduce_argmax", "reduce_argmin"])
def test_the_first_of_equal_elements(operation):
    assert run(operation, np.full((3, 40), 7, np.int32)).tolist() == [0, 0, 0]
