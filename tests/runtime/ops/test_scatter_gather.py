"""Gathering and scattering, against loops over the definition."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from corepress.coreml.format.versions import IOS15, IOS16, IOS17
from corepress.runtime.torch import ops  # noqa: F401
from corepress.runtime.torch.registry import implementation_of

COMBINE = {
    "add": lambda old, new: old + new,
    "sub": lambda old, new: old - new,
    "mul": lambda old, new: old * new,
    "div": lambda old, new: old / new,
    "max": max,
    "min": min,
    "update": lambda old, new: new,
}
DATA = np.random.default_rng(0).uniform(1, 2, (3, 4, 5)).astype(np.float32)


def run(operation, *values, version=IOS17, **options):
    values = [each if isinstance(each, torch.Tensor) else torch.tensor(each) for each in values]
    return implementation_of(operation, version).function(*values, **options)


@pytest.mark.parametrize("version", [IOS15, IOS16, IOS17])
@pytest.mark.parametrize("indices", [2, [2], [0, 1, 1], [[0, 2], [1, 0]], [[[2]]], np.zeros((0,), np.int32)])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_gather(version, indices, axis):
    indices = np.array(indices, np.int32)
    np.testing.assert_array_equal(
        run("gather", DATA, indices, version=version, axis=axis), np.take(DATA, indices, axis)
    )


@pytest.mark.parametrize("version", [IOS15, IOS17])
@pytest.mark.parametrize("indices", [2, [0, 3], [[0, 2], [1, 0]], [[-1, 9]], np.zeros((0, 2), np.int32)])
def test_gather_of_rows(version, indices):
    indices = np.array(indices, np.int32)
    for x in (DATA[0], DATA[0].astype(np.int32), DATA[0] > 1.5):
        inside = indices % len(x) if version == IOS15 else indices.clip(0, len(x) - 1)
        np.testing.assert_array_equal(run("gather", x, indices, version=version), x[inside])


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64])
@pytest.mark.parametrize("version", [IOS16, IOS17])
def test_indices_of_small_types_reach_beyond_their_range(version, dtype):
    x = torch.arange(300)
    indices = torch.tensor([0, 100, 127], dtype=dtype)
    assert run("gather", x, indices, version=version).tolist() == [0, 100, 127]
    assert run("gather_along_axis", x, indices, version=version).tolist() == [0, 100, 127]
    assert run("gather_nd", x, indices.unsqueeze(1), version=version).tolist() == [0, 100, 127]


@pytest.mark.parametrize("version", [IOS16, IOS17])
@pytest.mark.parametrize(("batch_dims", "axis"), [(1, 1), (1, 2), (1, -1), (2, 2)])
@pytest.mark.parametrize("more", [(), (2,), (2, 3)])
def test_gather_with_common_dimensions(version, batch_dims, axis, more):
    indices = np.random.default_rng(1).integers(0, 4, DATA.shape[:batch_dims] + more).astype(np.int32)
    found = run("gather", DATA, indices, version=version, batch_dims=batch_dims, axis=axis)
    axis %= 3
    expected = np.empty(DATA.shape[:axis] + more + DATA.shape[axis + 1 :], np.float32)
    for batch in np.ndindex(*DATA.shape[:batch_dims]):
        expected[batch] = np.take(DATA[batch], indices[batch], axis - batch_dims)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("version", [IOS15, IOS16])
def test_negative_indices_counted_from_the_end(version):
    assert run("gather", [10, 11, 12], [-1, -3, 1], version=version).tolist() == [12, 10, 11]
    assert run("gather_along_axis", [10, 11, 12], [-1, -3, 1], version=version).tolist() == [12, 10, 11]
    assert run("gather_nd", [10, 11, 12], [[-1], [-3]], version=version).tolist() == [12, 10]
    for operation, indices in (("scatter", [-1]), ("scatter_along_axis", [-1]), ("scatter_nd", [[-1]])):
        assert run(operation, [10, 11, 12], indices, [5], version=version).tolist() == [10, 11, 17]


def test_indices_out_of_range():
    """Gathered at the nearest index, scattered nowhere; an error only when asked for."""
    assert run("gather", [10, 11, 12], [-1, 3, 2**31 - 1]).tolist() == [10, 12, 12]
    assert run("gather_along_axis", [10, 11, 12], [-1, 3, 9]).tolist() == [10, 12, 12]
    assert run("gather_nd", [10, 11, 12], [[-1], [3]]).tolist() == [10, 12]
    for operation, indices in (
        ("scatter", [-1, 3, 9]),
        ("scatter_along_axis", [-1, 3, -9]),
        ("scatter_nd", [[-1], [3], [2**31 - 1]]),
    ):
        assert run(operation, [10, 11, 12], indices, [5, 6, 7]).tolist() == [10, 11, 12]
    assert run("scatter_nd", [[1, 1], [1, 1]], [[0, 2], [-1, 0], [2, 1], [1, 1]], [5] * 4).tolist() == [
        [1, 1],
        [1, 6],
    ]


@pytest.mark.parametrize("wrong", [-1, 3])
def test_validated_indices(wrong):
    x = torch.tensor([10, 11, 12])
    for operation in ("gather", "gather_along_axis", "gather_nd"):
        indices = torch.tensor([[0], [wrong]] if operation == "gather_nd" else [0, wrong])
        with pytest.raises(ValueError, match=rf"range\(3\), {wrong}"):
            run(operation, x, indices, validate_indices=True)
        run(operation, x, indices.clamp(0, 2), validate_indices=True)
    for operation in ("scatter", "scatter_along_axis", "scatter_nd"):
        indices = torch.tensor([[0], [wrong]] if operation == "scatter_nd" else [0, wrong])
        with pytest.raises(ValueError, match=rf"range\(3\), {wrong}"):
            run(operation, x, indices, torch.tensor([1, 2]), validate_indices=True)
        run(operation, x, indices.clamp(0, 2), torch.tensor([1, 2]), validate_indices=True)


@pytest.mark.parametrize("operation", ["gather", "gather_along_axis"])
@pytest.mark.parametrize("version", [IOS15, IOS17])
def test_nothing_to_gather_from(operation, version):
    empty, none = torch.zeros(0), torch.zeros(0, dtype=torch.int32)
    assert run(operation, empty, none, version=version).tolist() == []
    with pytest.raises(ValueError, match="no indices"):
        run(operation, empty, torch.tensor([0]), version=version)


@pytest.mark.parametrize("version", [IOS15, IOS17])
@pytest.mark.parametrize("axis", [0, 1, 2, -2])
def test_gather_along_axis(version, axis):
    indices = np.random.default_rng(2).integers(0, DATA.shape[axis], DATA.shape).astype(np.int32)
    found = run("gather_along_axis", DATA, indices, version=version, axis=axis)
    np.testing.assert_array_equal(found, np.take_along_axis(DATA, indices, axis))


@pytest.mark.parametrize("version", [IOS16, IOS17])
@pytest.mark.parametrize("places", [(), (6,), (2, 3)])
@pytest.mark.parametrize(("batch_dims", "depth"), [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (2, 1)])
def test_gather_nd(version, places, batch_dims, depth):
    numbers = np.random.default_rng(3)
    batch = DATA.shape[:batch_dims]
    sizes = DATA.shape[batch_dims : batch_dims + depth]
    indices = np.stack([numbers.integers(0, size, batch + places) for size in sizes], -1).astype(np.int32)
    found = run("gather_nd", DATA, indices, version=version, batch_dims=batch_dims)
    expected = np.empty(batch + places + DATA.shape[batch_dims + depth :], np.float32)
    for place in np.ndindex(*batch, *places):
        expected[place] = DATA[place[:batch_dims] + tuple(indices[place])]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("version", [IOS15, IOS17])
@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("mode", COMBINE)
def test_scatter(mode, axis, version):
    indices = np.array([2, 0, 1] if mode == "update" else [2, 0, 2], np.int32)
    shape = list(DATA.shape)
    shape[axis] = 3
    updates = np.random.default_rng(4).uniform(0.5, 3, shape).astype(np.float32)
    expected = np.moveaxis(DATA.copy(), axis, 0)
    for index, update in zip(indices, np.moveaxis(updates, axis, 0), strict=True):
        for place in np.ndindex(update.shape):
            expected[(index, *place)] = COMBINE[mode](expected[(index, *place)], update[place])
    found = run("scatter", DATA, indices, updates, version=version, axis=axis, mode=mode)
    np.testing.assert_allclose(found, np.moveaxis(expected, 0, axis), rtol=1e-6)


@pytest.mark.parametrize("version", [IOS15, IOS17])
@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("mode", COMBINE)
def test_scatter_along_axis(mode, axis, version):
    numbers = np.random.default_rng(5)
    shape = list(DATA.shape)
    shape[axis] = 2
    indices = numbers.integers(0, DATA.shape[axis], shape).astype(np.int32)
    updates = numbers.uniform(0.5, 3, shape).astype(np.float32)
    expected = DATA.copy()
    for place in itertools.product(*map(range, shape)):
        target = list(place)
        target[axis] = indices[place]
        expected[tuple(target)] = COMBINE[mode](expected[tuple(target)], updates[place])
    found = run("scatter_along_axis", DATA, indices, updates, version=version, axis=axis, mode=mode)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("version", [IOS15, IOS17])
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("mode", COMBINE)
def test_scatter_nd(mode, depth, version):
    numbers = np.random.default_rng(6)
    indices = np.stack([numbers.integers(0, size, (2, 2)) for size in DATA.shape[:depth]], -1).astype(np.int32)
    updates = numbers.uniform(0.5, 3, (2, 2, *DATA.shape[depth:])).astype(np.float32)
    expected = DATA.copy()
    for place in np.ndindex(2, 2):
        for rest in np.ndindex(DATA.shape[depth:]):
            target = tuple(indices[place]) + rest
            expected[target] = COMBINE[mode](expected[target], updates[place + rest])
    found = run("scatter_nd", DATA, indices, updates, version=version, mode=mode)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_scatter_of_integers():
    data = torch.tensor([7, -7, 9], dtype=torch.int32)
    indices, updates = torch.tensor([0, 1]), torch.tensor([2, 2], dtype=torch.int32)
    assert run("scatter", data, indices, updates, mode="div").tolist() == [3, -3, 9]
    assert run("scatter", data, indices, updates, mode="sub").tolist() == [5, -9, 9]
    assert data.tolist() == [7, -7, 9]


def test_the_mode_is_add_unless_given():
    assert run("scatter", [1.0, 2.0], [1], [5.0]).tolist() == [1, 7]
    with pytest.raises(ValueError, match="mode"):
        run("scatter", [1.0, 2.0], [1], [5.0], mode="mean")


@pytest.mark.parametrize("mode", COMBINE)
def test_gradients(mode):
    data = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64, requires_grad=True)
    updates = torch.tensor([3.0, 0.5], dtype=torch.float64, requires_grad=True)
    indices = torch.tensor([2, 0])
    for version in (IOS15, IOS17):
        function = implementation_of("scatter", version).function
        assert torch.autograd.gradcheck(lambda x, y, f=function: f(x, indices, y, mode=mode), (data, updates))


def test_gradients_of_gather():
    x = torch.arange(6.0, dtype=torch.float64).reshape(2, 3).requires_grad_()
    for axis in (0, 1):
        assert torch.autograd.gradcheck(lambda x, axis=axis: run("gather", x, [[0, 1], [1, 1]], axis=axis), x)
    assert torch.autograd.gradcheck(lambda x: run("gather_nd", x, [[0, 2], [1, 1]]), x)
