"""Operations on whole tensors, against NumPy's and against examples by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from corepress.coreml.format.versions import IOS15, IOS16, IOS17
from corepress.runtime.torch.limits import ELEMENT_LIMIT
from corepress.runtime.torch.ops import tensor_operation as operations
from corepress.runtime.torch.registry import implementation_of

X = np.random.default_rng(0).permutation(24).reshape(2, 3, 4).astype(np.float32)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("ascending", [False, True])
def test_argsort(axis, ascending):
    found = operations.argsort(torch.tensor(X), axis=axis, ascending=ascending)
    np.testing.assert_array_equal(found, np.argsort(X if ascending else -X, axis))


@pytest.mark.parametrize("ascending", [False, True])
def test_equal_elements_keep_their_order(ascending):
    x = torch.tensor([1, 0, 1, 0] * 20, dtype=torch.int32)
    expected = np.argsort(x.numpy() if ascending else -x.numpy(), kind="stable")
    np.testing.assert_array_equal(operations.argsort(x, ascending=ascending), expected)
    np.testing.assert_array_equal(operations.topk(x, k=50, ascending=ascending)[1], expected[:50])


@pytest.mark.parametrize("version", [IOS15, IOS16, IOS17])
@pytest.mark.parametrize("ascending", [False, True])
@pytest.mark.parametrize(("k", "axis"), [(1, -1), (2, 1), (3, 1), (2, 0), (-1, -1), (0, 0)])
def test_topk(k, axis, ascending, version):
    function = implementation_of("topk", version).function
    values, indices = function(torch.tensor(X), k=k, axis=axis, ascending=ascending)
    order = np.argsort(X if ascending else -X, axis)
    order = np.take(order, range(X.shape[axis] if k == -1 else k), axis)
    np.testing.assert_array_equal(indices, order)
    np.testing.assert_array_equal(values, np.take_along_axis(X, order, axis))


def test_topk_without_indices():
    found = implementation_of("topk", IOS17).function(torch.tensor([3, 9, 5]), k=2, sort=False, return_indices=False)
    assert sorted(found.tolist()) == [5, 9]
    with pytest.raises(ValueError, match="from 0 to 3"):
        operations.topk(torch.tensor([3, 9, 5]), k=4)


@pytest.mark.parametrize("lower", [-1, 0, 1, 5])
@pytest.mark.parametrize("upper", [-1, 0, 2, 5])
@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.bool_])
def test_band_part(lower, upper, dtype):
    x = (X + 1).astype(dtype)
    m, n = np.indices(x.shape[-2:])
    band = ((lower < 0) | (m - n <= lower)) & ((upper < 0) | (n - m <= upper))
    np.testing.assert_array_equal(operations.band_part(torch.tensor(x), lower=lower, upper=upper), x * band)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_concat(axis):
    values = [X, X[::-1] + 100, X + 50]
    found = operations.concat([torch.tensor(each.copy()) for each in values], axis=axis)
    np.testing.assert_array_equal(found, np.concatenate(values, axis))
    found = operations.concat([torch.tensor(each.copy()) for each in values], axis=axis, interleave=True)
    for place, each in enumerate(values):
        np.testing.assert_array_equal(np.take(found, range(place, found.shape[axis], 3), axis), each)


def test_concat_of_numbers_and_of_sizes_that_differ():
    assert operations.concat([torch.tensor(1), torch.tensor(2)], axis=0).tolist() == [1, 2]
    assert operations.concat([torch.zeros(2, 1), torch.zeros(2, 0), torch.zeros(2, 3)], axis=-1).shape == (2, 4)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_cumsum(axis, exclusive, reverse):
    x = np.moveaxis(X, axis, 0)
    expected = np.zeros_like(x)
    size = len(x)
    for place in range(size):
        parts = range(place, size) if reverse else range(place + 1)
        expected[place] = sum(x[part] for part in parts if not exclusive or part != place)
    found = operations.cumsum(torch.tensor(X), axis=axis, exclusive=exclusive, reverse=reverse)
    np.testing.assert_allclose(found, np.moveaxis(expected, 0, axis))


def test_cumsum_of_nothing_and_of_infinity():
    assert operations.cumsum(torch.zeros(0, 2), exclusive=True).shape == (0, 2)
    assert operations.cumsum(torch.tensor([1.0, math.inf]), exclusive=True).tolist() == [0, 1]


def test_fill():
    for value in (torch.tensor(True), torch.tensor(3, dtype=torch.int32), torch.tensor(0.5)):
        found = operations.fill(value, shape=[2, 3])
        assert found.dtype == value.dtype
        assert found.tolist() == [[value.item()] * 3] * 2
        assert torch.equal(operations.fill_like(torch.zeros(2, 3, dtype=torch.int32), value), found)
    assert operations.fill(shape=[2]).tolist() == operations.fill_like(torch.ones(2)).tolist() == [0, 0]
    assert operations.fill(torch.tensor(1), shape=[]).shape == ()
    assert operations.fill(torch.tensor(1), shape=[0, 2]).shape == (0, 2)


@pytest.mark.parametrize(
    ("shape", "axis", "expected"),
    [((3,), -1, (1, 3)), ((3,), 1, (3, 1)), ((4, 3), -1, (4, 3)), ((2, 3, 2), -1, (6, 2)), ((5, 0, 2), 1, (5, 0))],
)
def test_flatten2d(shape, axis, expected):
    assert operations.flatten2d(torch.zeros(shape), axis=axis).shape == expected


def test_identity_of_anything():
    for value in (torch.zeros(2), [torch.zeros(1)]):
        assert operations.identity(value) is value


def test_non_zero():
    x = np.array([[3, 0, 0], [0, 4, 0], [5, 6, 0]], np.float32)
    for each in (x, x.astype(np.int32), x.astype(np.bool_), x[:0], x * 0):
        np.testing.assert_array_equal(operations.non_zero(torch.tensor(each)), np.transpose(np.nonzero(each)))


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
def test_one_hot(axis):
    indices = np.array([[0, 2, 1], [3, -1, 7]], np.int32)  # the last two are out of range
    expected = np.full((2, 3, 4), -5, np.int32)
    for place in [(0, 0), (0, 1), (0, 2), (1, 0)]:
        expected[(*place, indices[place])] = 9
    found = operations.one_hot(torch.tensor(indices), one_hot_vector_size=4, axis=axis, on_value=9, off_value=-5)
    np.testing.assert_array_equal(found, np.moveaxis(expected, -1, axis))


def test_one_hot_has_the_type_of_its_values():
    index = torch.tensor(1, dtype=torch.uint8)
    assert operations.one_hot(index, one_hot_vector_size=300)[1] == 1
    assert operations.one_hot(index, one_hot_vector_size=2, on_value=0.5, off_value=-1.0).tolist() == [-1, 0.5]
    assert operations.one_hot(index, one_hot_vector_size=2, on_value=True, off_value=False).tolist() == [False, True]


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate"])
@pytest.mark.parametrize(
    "pad", [[1, 2], [0, 0, 3, 1], [1, 0, 0, 2, 2, 1], [0, 0, 0, 0, 1, 1], [1, 1, 2, 2, 7, 5], [0, 0, 0, 0, 0, 0]]
)
def test_pad(mode, pad):
    pairs = [(0, 0)] * (3 - len(pad) // 2) + list(zip(pad[::2], pad[1::2], strict=True))
    more = {"constant_values": -4} if mode == "constant" else {}
    expected = np.pad(X, pairs, "edge" if mode == "replicate" else mode, **more)
    found = operations.pad(torch.tensor(X), pad=pad, mode=mode, constant_val=-4.0)
    np.testing.assert_array_equal(found, expected)


def test_pad_of_one_element_and_of_many_axes():
    one = torch.tensor([5.0])
    assert operations.pad(one, pad=[2, 1], mode="reflect").tolist() == [5] * 4
    x = torch.zeros(1, 1, 1, 1, 2)
    assert operations.pad(x, pad=[1, 1] * 5).shape == (3, 3, 3, 3, 4)
    assert operations.pad(x, pad=[1, 1] * 5, mode="replicate").shape == (3, 3, 3, 3, 4)
    with pytest.raises(ValueError, match="1 axes, 4"):
        operations.pad(one, pad=[1, 1, 1, 1])
    with pytest.raises(ValueError, match="mode"):
        operations.pad(one, pad=[1, 1], mode="circular")
    with pytest.raises(ValueError, match="constant only"):
        operations.pad(torch.zeros(0), pad=[1, 1], mode="replicate")


@pytest.mark.parametrize(
    ("start", "end", "step"),
    [(0, 5, 1), (5, -3, -2), (2, 2, 1), (3, 0, 1), (0.0, 1.0, 0.25), (1.5, -1.0, -0.7), (0, 1, 5), (0.0, 3.1, 1.0)],
)
def test_range_1d(start, end, step):
    found = operations.range_1d(torch.tensor(start), end=end, step=step)
    assert found.dtype == torch.tensor(start).dtype
    np.testing.assert_allclose(found, np.arange(start, end, step), rtol=1e-6)


def test_a_range_without_steps():
    with pytest.raises(ValueError, match="step is not 0"):
        operations.range_1d(torch.tensor(1), end=5, step=0)


def test_shape():
    assert operations.shape(torch.zeros(2, 0, 3)).tolist() == [2, 0, 3]
    assert operations.shape(torch.zeros(())).tolist() == []


@pytest.mark.parametrize("axis", [1, -2])
def test_split(axis):
    x = torch.tensor(X)
    for parts in (
        operations.split(x, axis=axis, num_splits=3),
        operations.split(x, axis=axis, split_sizes=[1, 1, 1], num_splits=3),
    ):
        assert isinstance(parts, tuple)
        for place, part in enumerate(parts):
            np.testing.assert_array_equal(part, X[:, place : place + 1])
    first, second, nothing = operations.split(x, axis=axis, split_sizes=[1, 2, 0])
    np.testing.assert_array_equal(first, X[:, :1])
    np.testing.assert_array_equal(second, X[:, 1:])
    assert nothing.shape == (2, 0, 4)
    assert len(operations.split(x, axis=axis, num_splits=1)) == 1


@pytest.mark.parametrize("num_splits", [2, 0, None])
def test_splits_that_do_not_divide(num_splits):
    with pytest.raises(ValueError, match="divides the size 3 of axis 1"):
        operations.split(torch.tensor(X), axis=1, num_splits=num_splits)


@pytest.mark.parametrize("axis", [0, 2, 3, -1, -4])
def test_stack(axis):
    found = operations.stack([torch.tensor(X), torch.tensor(X + 1)], axis=axis)
    np.testing.assert_array_equal(found, np.stack([X, X + 1], axis))


@pytest.mark.parametrize("reps", [[1, 1, 1], [2, 1, 3], [1, 4, 1]])
def test_tile(reps):
    np.testing.assert_array_equal(operations.tile(torch.tensor(X), reps=reps), np.tile(X, reps))


# Boxes as center, size: the second overlaps the first by 0.6 of their union, the third stands alone.
BOXES = torch.tensor([[[5.0, 5, 8, 8], [7, 5, 8, 8], [50, 50, 4, 4], [5, 5, 8, 8]]])


def suppress(scores, threshold=0.5, lowest=-math.inf, count=4, boxes=BOXES, **options):
    found = operations.non_maximum_suppression(
        boxes,
        torch.tensor(scores),
        iou_threshold=threshold,
        score_threshold=lowest,
        max_boxes=count,
        **options,
    )
    assert [tuple(each.shape) for each in found[:3]] == [(1, count, 4), (1, count, len(scores[0][0])), (1, count)]
    return found


def test_boxes_that_overlap_are_suppressed():
    boxes, scores, indices, counts = suppress([[[0.8], [0.9], [0.3], [0.1]]])
    assert indices.tolist() == [[1, 2, -1, -1]]
    assert counts.tolist() == [2]
    assert boxes.tolist() == [[BOXES[0, 1].tolist(), BOXES[0, 2].tolist(), [0] * 4, [0] * 4]]
    np.testing.assert_allclose(scores, [[[0.9], [0.3], [0], [0]]])


def test_a_box_that_is_suppressed_suppresses_none():
    chain = torch.tensor([[[0.0, 0, 10, 10], [4, 0, 10, 10], [8, 0, 10, 10]]])
    assert suppress([[[3.0], [2.0], [1.0]]], 0.4, boxes=chain, count=3)[2].tolist() == [[0, 2, -1]]


def test_thresholds_of_overlap():
    scores = [[[0.8], [0.9], [0.3], [0.1]]]
    assert suppress(scores, 0.61)[2].tolist() == [[1, 0, 2, -1]]
    assert suppress(scores, 1.0)[2].tolist() == [[1, 0, 2, 3]]
    assert suppress(scores, 1.0, count=2)[2].tolist() == [[1, 0]]


def test_thresholds_of_scores():
    scores = [[[0.8], [0.9], [0.3], [0.1]]]
    assert suppress(scores, lowest=0.5)[2].tolist() == [[1, -1, -1, -1]]
    boxes, _, indices, counts = suppress(scores, lowest=5.0)
    assert indices.tolist() == [[1, -1, -1, -1]]
    assert counts.tolist() == [1]
    assert boxes[0, 0].tolist() == BOXES[0, 1].tolist()


def test_classes():
    scores = [[[0.8, 0.1], [0.2, 0.9], [0.1, 0.3], [0.7, 0.0]]]
    assert suppress(scores)[2].tolist() == [[1, 2, -1, -1]]
    assert suppress(scores, per_class_suppression=True)[2].tolist() == [[1, 0, 2, -1]]


def test_boxes_without_area_and_no_boxes():
    points = torch.zeros(1, 2, 4)
    assert suppress([[[0.1], [0.2]]], 0.0, boxes=points, count=2)[2].tolist() == [[1, 0]]
    found = operations.non_maximum_suppression(
        torch.zeros(1, 0, 4), torch.zeros(1, 0, 2), iou_threshold=0.5, score_threshold=0.0, max_boxes=2
    )
    assert [tuple(each.shape) for each in found] == [(1, 2, 4), (1, 2, 2), (1, 2), (1,)]
    assert found[2].tolist() == [[-1, -1]]


def test_boxes_of_ios17_are_columns():
    scores = torch.tensor([[[0.8], [0.9], [0.3], [0.1]]] * 2)
    columns = torch.cat([BOXES, BOXES.flip(1)]).transpose(1, 2)
    function = implementation_of("non_maximum_suppression", IOS17).function
    boxes, selected, indices = function(columns, scores.transpose(1, 2), iou_threshold=0.5, max_boxes=3)
    assert (tuple(boxes.shape), tuple(selected.shape)) == ((2, 4, 3), (2, 1, 3))
    assert indices.tolist() == [[1, 2, -1], [1, 0, -1]]
    assert boxes[0, :, 0].tolist() == BOXES[0, 1].tolist()


def test_boxes_have_gradients():
    boxes = BOXES.clone().requires_grad_()
    suppress([[[0.8], [0.9], [0.3], [0.1]]], boxes=boxes)[0].sum().backward()
    assert boxes.grad[0].sum(1).tolist() == [0, 4, 4, 0]


@pytest.mark.parametrize(
    "grow",
    [
        lambda: operations.fill(torch.tensor(1.0), shape=[2**16, 2**16]),
        lambda: operations.tile(torch.zeros(2**10), reps=[2**30]),
        lambda: operations.pad(torch.zeros(2), pad=[2**31 - 1, 2**31 - 1]),
        lambda: operations.one_hot(torch.zeros(2**10, dtype=torch.int32), one_hot_vector_size=2**30),
        lambda: operations.range_1d(torch.tensor(0.0), end=1.0, step=1e-30),
    ],
)
def test_shapes_that_explode_are_refused(grow):
    with pytest.raises(ValueError, match=f"the limit is {ELEMENT_LIMIT}"):
        grow()
    with pytest.raises(ValueError, match="must not be negative"):
        operations.fill(torch.tensor(1.0), shape=[2, -3])
