"""Selection and lists."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from corepress.runtime.torch.ops import control_flow as operations


def test_select():
    condition = torch.tensor([[True], [False]])
    a, b = torch.tensor([1.0, 2.0]), torch.tensor(-1.0)
    assert operations.select(condition, a, b).tolist() == [[1, 2], [-1, -1]]
    assert operations.select(torch.tensor(True), torch.tensor(1), torch.tensor(2)).item() == 1
    assert operations.select(condition).tolist() == [[0, 0]]


def test_select_passes_gradients_to_what_it_selects():
    a, b = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    operations.select(torch.tensor([True, False]), a, b).sum().backward()
    assert (a.grad.tolist(), b.grad.tolist()) == ([1, 0], [0, 1])


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("fp32", torch.float32), ("fp16", torch.float32), ("int32", torch.int32), ("bool", torch.bool)],
)
def test_new_lists_are_zeros(dtype, expected):
    made = operations.make_list(init_length=3, elem_shape=[2, 1], dtype=dtype)
    assert len(made) == 3
    assert made[0].dtype == expected
    assert operations.list_gather(made, indices=[0, 2]).tolist() == [[[0], [0]]] * 2
    assert operations.list_length(made).item() == 3


def test_writing_makes_another_list():
    made = operations.make_list(init_length=2, elem_shape=[2])
    written = operations.list_write(made, torch.tensor([1.0, 2.0]), index=1)
    assert operations.list_read(written, index=1).tolist() == [1, 2]
    assert operations.list_read(made, index=1).tolist() == [0, 0]


def test_lists_grow():
    made = operations.make_list(init_length=0, elem_shape=[2])
    written = operations.list_write(made, torch.ones(2), index=2)
    assert operations.list_gather(written, indices=[0, 1, 2]).tolist() == [[0, 0], [0, 0], [1, 1]]
    scattered = operations.list_scatter(written, torch.tensor([[5.0, 5], [6, 6]]), indices=[1, 3])
    assert operations.list_gather(scattered, indices=[0, 1, 2, 3]).tolist() == [[0, 0], [5, 5], [1, 1], [6, 6]]
    assert len(written) == 3


def test_elements_of_a_size_that_was_unknown():
    made = operations.make_list(init_length=2, elem_shape=["s1", 2])
    written = operations.list_write(made, torch.ones(3, 2), index=1)
    assert operations.list_gather(written, indices=[0, 1]).shape == (2, 3, 2)
    assert operations.list_read(written, index=0).tolist() == [[0, 0]] * 3


def test_indices_outside_of_a_list():
    made = operations.list_scatter([], torch.tensor([[1.0], [2.0]]), indices=[0, 1])
    assert operations.list_read(made, index=7).tolist() == [2]
    assert operations.list_read(made, index=-1).tolist() == [1]
    assert operations.list_gather(made, indices=[]).shape == (0, 1)
    assert operations.list_gather([], indices=[]).shape == (0,)
    with pytest.raises(ValueError, match="empty"):
        operations.list_read([], index=0)


def test_lists_do_not_grow_without_end():
    with pytest.raises(ValueError, match="up to 65536 elements, 1000000000"):
        operations.make_list(init_length=10**9, elem_shape=[1])
    with pytest.raises(ValueError, match="up to 65536 elements"):
        operations.list_write([], torch.ones(1), index=2**31 - 1)
    with pytest.raises(ValueError, match="dtype"):
        operations.make_list(elem_shape=[1], dtype="complex")


def test_elements_have_gradients():
    x = torch.arange(6.0).reshape(3, 2).requires_grad_()
    made = operations.list_scatter(operations.make_list(elem_shape=[2]), x, indices=[0, 1, 2])
    operations.list_gather(made, indices=[2, 0, 0]).sum().backward()
    np.testing.assert_array_equal(x.grad, [[2, 2], [0, 0], [1, 1]])
