"""Operations that move elements, against NumPy's and against loops over the definition."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from corepress.runtime.torch.ops import tensor_transformation as operations

X = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)
IMAGE = np.arange(2 * 8 * 4 * 6, dtype=np.float32).reshape(2, 8, 4, 6)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ([6, 4], (6, 4)),
        ([-1], (24,)),
        ([0, -1, 2], (2, 6, 2)),
        ([0, 0, 0], (2, 3, 4)),
        ([-1, 0], (6, 4)),
        ([0, 0, -1, 0, 0], (1, 1, 2, 3, 4)),
        ([2, 3, 1, 4], (2, 3, 1, 4)),
    ],
)
def test_reshape(shape, expected):
    found = operations.reshape(torch.tensor(X), shape=shape)
    assert found.shape == expected
    np.testing.assert_array_equal(found.flatten(), X.ravel())


def test_reshape_of_few_elements():
    assert operations.reshape(torch.tensor(5.0), shape=[1, 1]).shape == (1, 1)
    assert operations.reshape(torch.tensor([5.0]), shape=[]).shape == ()
    assert operations.reshape(torch.zeros(0, 3), shape=[0, 0]).shape == (0, 3)
    assert operations.reshape(torch.tensor([[1.0], [2.0]]), shape=[1, 0, -1, 0]).shape == (1, 1, 2, 1)


def test_reshape_like():
    first, second = torch.zeros(2, 6, 9), torch.zeros(7, 2, 1)
    x = torch.tensor(X)
    found = operations.reshape_like(x, [first, second], begins=[0, 1], ends=[2, 0], end_masks=[False, True])
    assert found.shape == (2, 6, 2, 1)
    found = operations.reshape_like(x, [torch.zeros(4, 6)], begins=[-2], ends=[-1], end_masks=[True])
    assert found.shape == (4, 6)


@pytest.mark.parametrize("axes", [[0], [-1], [3], [1], [0, 2], [-1, 0], [4, 1], [-1, -2], [-5]])
def test_expand_dims(axes):
    if axes == [-5]:
        with pytest.raises(IndexError):
            operations.expand_dims(torch.tensor(X), axes=axes)
        return
    assert operations.expand_dims(torch.tensor(X), axes=axes).shape == np.expand_dims(X, tuple(axes)).shape


@pytest.mark.parametrize(
    ("axes", "expected"), [(None, (2, 3)), ([0], (2, 1, 3, 1)), ([-1, 0], (2, 1, 3)), ([1, 2], (1, 2, 3, 1))]
)
def test_squeeze(axes, expected):
    assert operations.squeeze(torch.zeros(1, 2, 1, 3, 1), axes=axes).shape == expected


@pytest.mark.parametrize("perm", itertools.permutations((0, 1, -1)))
def test_transpose(perm):
    np.testing.assert_array_equal(operations.transpose(torch.tensor(X), perm=list(perm)), X.transpose(perm))


@pytest.mark.parametrize("axes", [None, [0], [1, -1], [2, 0, 1]])
def test_reverse(axes):
    np.testing.assert_array_equal(operations.reverse(torch.tensor(X), axes=axes), np.flip(X, axes))


@pytest.mark.parametrize(("seq_axis", "batch_axis"), [(1, 0), (0, 1), (2, 1), (-1, 0), (1, -1)])
def test_reverse_sequence(seq_axis, batch_axis):
    lengths = np.array([1, 3, 0, 9], np.int32)[: X.shape[batch_axis]]
    expected = np.moveaxis(X, (batch_axis, seq_axis), (0, 1)).copy()
    for sequence, length in zip(expected, lengths, strict=True):
        sequence[:length] = sequence[:length][::-1].copy()
    found = operations.reverse_sequence(
        torch.tensor(X), torch.tensor(lengths), seq_axis=seq_axis, batch_axis=batch_axis
    )
    np.testing.assert_array_equal(found, np.moveaxis(expected, (0, 1), (batch_axis, seq_axis)))


SLICES = [
    (0, 4, 1),
    (1, 3, 1),
    (-3, -1, 1),
    (0, -1, 1),
    (0, 100, 2),
    (-100, 100, 3),
    (2, 2, 1),
    (3, 1, 1),
    (3, 0, -1),
    (-1, -100, -1),
    (3, -100, -2),
    (100, 1, -2),
    (0, 3, -1),
    (0, -1, -1),
]


@pytest.mark.parametrize(("begin_mask", "end_mask"), itertools.product([False, True], repeat=2))
@pytest.mark.parametrize(("begin", "end", "stride"), SLICES)
def test_slice_by_index(begin, end, stride, begin_mask, end_mask):
    window = slice(None if begin_mask else begin, None if end_mask else end, stride)
    arguments = {
        "begin": [0, 1, begin],
        "end": [2, 3, end],
        "stride": [1, 1, stride],
        "begin_mask": [True, False, begin_mask],
        "end_mask": [True, False, end_mask],
    }
    expected = X[:, 1:3, window]
    np.testing.assert_array_equal(operations.slice_by_index(torch.tensor(X), **arguments), expected)

    update = np.full(expected.shape, -1, np.float32) - np.arange(expected.shape[2])
    updated = X.copy()
    updated[:, 1:3, window] = update
    x = torch.tensor(X)
    np.testing.assert_array_equal(operations.slice_update(x, torch.tensor(update), **arguments), updated)
    np.testing.assert_array_equal(x, X)


def test_slices_without_masks_and_strides():
    np.testing.assert_array_equal(
        operations.slice_by_index(torch.tensor(X), begin=[0, 1, -2], end=[1, 100, -1]), X[0:1, 1:, -2:-1]
    )


@pytest.mark.parametrize("squeezed", itertools.product([False, True], repeat=3))
def test_squeezed_slices(squeezed):
    x = torch.tensor(X)
    arguments = {"begin": [1, -1, 2], "end": [0, 0, 0], "stride": [-1, -1, -2], "squeeze_mask": list(squeezed)}
    windows = (slice(1, 0, -1), slice(-1, 0, -1), slice(2, 0, -2))
    index = tuple(
        begin if squeeze else window
        for begin, window, squeeze in zip(arguments["begin"], windows, squeezed, strict=True)
    )
    np.testing.assert_array_equal(operations.slice_by_index(x, **arguments), X[index])
    updated = X.copy()
    update = -1 - np.arange(X[index].size, dtype=np.float32).reshape(X[index].shape)
    updated[index] = update
    np.testing.assert_array_equal(operations.slice_update(x, torch.tensor(update), **arguments), updated)


def test_squeezed_slices_outside_of_an_axis():
    x = torch.arange(4)
    for begin, expected in ((9, 3), (-9, 0)):
        found = operations.slice_by_index(x, begin=[begin], end=[0], squeeze_mask=[True])
        assert found.item() == expected
    assert operations.slice_by_index(x, begin=[3], end=[0], begin_mask=[True], squeeze_mask=[True]).item() == 0


def test_a_stride_of_zero_is_refused():
    with pytest.raises(ValueError, match="stride is not 0"):
        operations.slice_by_index(torch.tensor(X), begin=[0, 0, 0], end=[1, 1, 1], stride=[1, 0, 1])


def test_gradients_of_slices():
    x = torch.tensor(X, dtype=torch.float64, requires_grad=True)
    update = torch.zeros(2, 1, 2, dtype=torch.float64, requires_grad=True)
    arguments = {"begin": [0, 1, 3], "end": [2, 2, 0], "stride": [1, 1, -2]}
    assert torch.autograd.gradcheck(lambda x: operations.slice_by_index(x, **arguments), x)
    assert torch.autograd.gradcheck(lambda x, y: operations.slice_update(x, y, **arguments), (x, update))


@pytest.mark.parametrize(
    ("begin", "size", "expected"),
    [
        ([0, 1, 2], [2, 2, 1], X[:, 1:3, 2:3]),
        ([1, 0, 1], [-1, -1, -1], X[1:, :, 1:]),
        ([-1, -2, -3], [1, -1, 2], X[-1:, -2:, 1:3]),
        ([0, 0, 3], [1, 1, 5], X[:1, :1, 3:]),
        ([0, 0, -9], [1, 1, 2], X[:1, :1, :2]),
        ([0, 0, 0], [1, 1, 0], X[:1, :1, :0]),
    ],
)
def test_slice_by_size(begin, size, expected):
    np.testing.assert_array_equal(operations.slice_by_size(torch.tensor(X), begin=begin, size=size), expected)


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2])
@pytest.mark.parametrize(("size", "stride"), [(1, 1), (2, 1), (2, 2), (2, 3)])
def test_sliding_windows(axis, size, stride):
    starts = range(0, X.shape[axis] - size + 1, stride)
    expected = np.stack([np.take(X, range(start, start + size), axis) for start in starts], axis % 3)
    found = operations.sliding_windows(torch.tensor(X), axis=axis, size=size, stride=stride)
    np.testing.assert_array_equal(found, expected)


def test_depth_to_space():
    expected = np.empty((2, 2, 8, 12), np.float32)
    for n, c, i, j, h, w in np.ndindex(2, 2, 2, 2, 4, 6):
        expected[n, c, h * 2 + i, w * 2 + j] = IMAGE[n, (i * 2 + j) * 2 + c, h, w]
    found = operations.depth_to_space(torch.tensor(IMAGE), block_size=2)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(operations.space_to_depth(found, block_size=2), IMAGE)


def test_pixel_shuffle():
    expected = np.empty((2, 2, 8, 12), np.float32)
    for n, c, i, j, h, w in np.ndindex(2, 2, 2, 2, 4, 6):
        expected[n, c, h * 2 + i, w * 2 + j] = IMAGE[n, (c * 2 + i) * 2 + j, h, w]
    found = operations.pixel_shuffle(torch.tensor(IMAGE), upscale_factor=2)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(operations.pixel_unshuffle(found, downscale_factor=2), IMAGE)


@pytest.mark.parametrize("paddings", [[[0, 0], [0, 0]], [[1, 1], [2, 1]]])
def test_space_to_batch(paddings):
    padded = np.pad(IMAGE, [(0, 0), (0, 0), *paddings])
    expected = np.concatenate([padded[:, :, i::2, j::3] for i in range(2) for j in range(3)])
    found = operations.space_to_batch(torch.tensor(IMAGE), block_shape=[2, 3], paddings=paddings)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(operations.batch_to_space(found, block_shape=[2, 3], crops=paddings), IMAGE)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int8, torch.uint8, torch.int32])
def test_other_types_are_moved_too(dtype):
    x = torch.ones(2, 3, 4, dtype=dtype)
    moved = [
        operations.reverse(x, axes=[0]),
        operations.reverse_sequence(x, torch.tensor([1, 2], dtype=torch.int8), seq_axis=1),
        operations.slice_by_index(x, begin=[0, 0, 3], end=[2, 3, 0], stride=[1, 2, -1]),
        operations.slice_update(x, x, begin=[0, 0, 0], end=[2, 3, 4]),
        operations.sliding_windows(x, axis=1, size=2),
    ]
    assert all(each.dtype == dtype and each.all() for each in moved)
