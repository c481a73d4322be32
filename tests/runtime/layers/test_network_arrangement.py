"""Shapes, parts and order of elements, from their definitions."""

from __future__ import annotations

import numpy as np
import pytest

X5 = np.arange(2 * 1 * 3 * 4 * 2, dtype=np.float32).reshape(2, 1, 3, 4, 2)
X3 = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


def test_reshape_keeps_the_sequence_or_gives_it_a_new_length(check):
    check("reshape", {"targetShape": [6, 2, 2]}, [X5], X5.reshape(2, 1, 6, 2, 2))
    check("reshape", {"targetShape": [1, 12, 2, 2]}, [X5], X5.reshape(1, 1, 12, 2, 2))


def test_reshape_with_channels_last(check):
    expected = X5.transpose(0, 1, 3, 4, 2).reshape(2, 1, 2, 2, 6).transpose(0, 1, 4, 2, 3)
    check("reshape", {"targetShape": [6, 2, 2], "mode": 1}, [X5], expected)


def test_flatten(check):
    check("flatten", {}, [X5], X5.reshape(2, 1, 24, 1, 1))
    check("flatten", {"mode": 1}, [X5], X5.transpose(0, 1, 3, 4, 2).reshape(2, 1, 24, 1, 1))
    check("flatten", {"mode": 1}, [X3], X3.transpose(1, 2, 0).reshape(24, 1, 1))


@pytest.mark.parametrize(
    ("axis", "places"),
    [
        ([0, 3, 1, 2], (0, 1, 4, 2, 3)),
        ([3, 1, 2, 0], (4, 1, 2, 3, 0)),
        ([0, 3, 2, 1], (0, 1, 4, 3, 2)),
        ([], (0, 1, 2, 3, 4)),
    ],
)
def test_permute(check, axis, places):
    check("permute", {"axis": axis}, [X5], X5.transpose(places))


def test_transpose(check):
    check("transpose", {"axes": [2, 0, 1]}, [X3], X3.transpose(2, 0, 1))


def test_reorganize_data(check):
    """The example of the format's definition."""
    x = np.arange(1, 17).reshape(8, 1, 2)
    to_space = [[[1, 5, 2, 6], [9, 13, 10, 14]], [[3, 7, 4, 8], [11, 15, 12, 16]]]
    check("reorganizeData", {"mode": 1, "blockSize": 2}, [x], to_space)
    check("reorganizeData", {"mode": 0, "blockSize": 2}, [to_space], x)
    shuffled = [[[1, 3, 2, 4], [5, 7, 6, 8]], [[9, 11, 10, 12], [13, 15, 14, 16]]]
    check("reorganizeData", {"mode": 2, "blockSize": 2}, [x], shuffled)


def test_concat(check):
    check("concat", {}, [X5, X5], np.concatenate([X5, X5], 2))
    check("concat", {"sequenceConcat": True}, [X5, X5], np.concatenate([X5, X5], 0))


def test_concat_nd(check):
    one, other = np.array([[1, 2], [3, 4], [5, 6]]), np.array([[7, 8], [9, 10], [11, 12]])
    check("concatND", {"axis": 0}, [one, other], np.concatenate([one, other]))
    check("concatND", {"axis": -1}, [one, other], np.concatenate([one, other], 1))
    interleaved = [[1, 2], [7, 8], [3, 4], [9, 10], [5, 6], [11, 12]]
    check("concatND", {"axis": 0, "interleave": True}, [one, other], interleaved)


def test_stack(check):
    check("stack", {"axis": -2}, [X3, X3], np.stack([X3, X3], 2))


def test_sequence_repeat(check):
    check("sequenceRepeat", {"nRepetitions": 3}, [X5], np.concatenate([X5] * 3))
    check("sequenceRepeat", {}, [X5], X5)


def test_tile(check):
    check("tile", {"reps": [1, 2, 3]}, [X3], np.tile(X3, (1, 2, 3)))
    check("tile", {"reps": [3]}, [X3], np.tile(X3, (1, 1, 3)))
    check("tile", {"reps": [9]}, [X3, [2, 1, 1]], np.tile(X3, (2, 1, 1)))


def test_squeeze(check):
    x = X3[None, :, :, :, None]
    check("squeeze", {"axes": [0, -1]}, [x], X3)
    check("squeeze", {"squeezeAll": True}, [x], X3)
    check("squeeze", {"axes": [0]}, [[5.0]], [5])


def test_expand_dims(check):
    check("expandDims", {"axes": [0, 2]}, [X3[0]], X3[0][None, :, None])
    check("expandDims", {"axes": [-2, -1]}, [X3[0]], X3[0][:, :, None, None])


@pytest.mark.parametrize(
    ("shape", "axis", "expected"),
    [
        ((3,), -1, (1, 3)),
        ((3,), 1, (3, 1)),
        ((4, 3), -1, (4, 3)),
        ((5, 2), 0, (1, 10)),
        ((5, 5, 3), -2, (5, 15)),
        ((2, 3, 2), -1, (6, 2)),
    ],
)
def test_flatten_to_2d(check, shape, axis, expected):
    x = np.arange(np.prod(shape)).reshape(shape)
    check("flattenTo2D", {"axis": axis}, [x], x.reshape(expected))


def test_reshapes(check):
    check("reshapeStatic", {"targetShape": [4, 6]}, [X3], X3.reshape(4, 6))
    check("reshapeStatic", {"targetShape": [-1]}, [X3], X3.reshape(-1))
    check("reshapeLike", {}, [X3, np.zeros((6, 4))], X3.reshape(6, 4))
    check("reshapeDynamic", {}, [X3, [12, -1]], X3.reshape(12, 2))
    x = np.arange(150).reshape(10, 3, 5)
    check("rankPreservingReshape", {"targetShape": [25, 0, -1]}, [x], x.reshape(25, 3, 2))


def test_broadcasts(check):
    x = X3[:, :1]
    expected = np.broadcast_to(x, (2, 3, 4))
    check("broadcastToStatic", {"targetShape": [2, 3, 4]}, [x], expected)
    check("broadcastToLike", {}, [x, X3], expected)
    check("broadcastToDynamic", {}, [x, [2, 3, 4]], expected)


def test_reverse(check):
    check("reverse", {"reverseDim": [True, False, True]}, [X3], X3[::-1, :, ::-1])


def test_reverse_sequences(check):
    """The examples of the format's definition."""
    params = {"batchAxis": 0, "sequenceAxis": 1}
    check("reverseSeq", params, [[[0, 1, 2, 3], [4, 5, 6, 7]], [3, 0]], [[2, 1, 0, 3], [4, 5, 6, 7]])
    x = np.arange(12).reshape(2, 3, 2)
    expected = [[[2, 3], [0, 1], [4, 5]], [[10, 11], [8, 9], [6, 7]]]
    check("reverseSeq", params, [x, [2, 3]], expected)


def test_get_shape(check):
    check("getShape", {}, [X3], [2, 3, 4])


@pytest.mark.parametrize("axis", range(3))
def test_slice(check, axis):
    x = np.arange(2 * 5 * 5 * 5).reshape(2, 5, 5, 5)
    part = [slice(None)] * 4
    part[axis + 1] = slice(1, -1, 2)
    check("slice", {"startIndex": 1, "endIndex": -1, "stride": 2, "axis": axis}, [x], x[tuple(part)])


STATIC = {
    "beginIds": [1, 2, 3],
    "beginMasks": [True, False, True],
    "endIds": [3, -3, 2],
    "endMasks": [False, True, True],
    "strides": [2, 2, 2],
}


def test_slice_static(check):
    """The examples of the format's definition."""
    x = np.arange(125).reshape(5, 5, 5)
    check("sliceStatic", STATIC, [x], x[:3:2, 2::2, ::2])
    check("sliceStatic", {**STATIC, "squeezeMasks": [False, True, False]}, [x], x[:3:2, 2, ::2])


def test_slice_static_backwards(check):
    params = {
        "beginIds": [0, 0],
        "endIds": [0, 0],
        "strides": [-1, 1],
        "beginMasks": [True] * 2,
        "endMasks": [True] * 2,
    }
    check("sliceStatic", params, [X3[0]], X3[0][::-1])


def test_slice_dynamic(check):
    x = np.arange(125).reshape(5, 5, 5)
    stored = {name: value for name, value in STATIC.items() if name != "beginIds"}
    check("sliceDynamic", stored, [x, [1, 2, 3]], x[:3:2, 2::2, ::2])
    everything = [[1, 2, 3], [3, -3, 2], [2, 2, 2], [1, 0, 1], [0, 1, 1], [0, 1, 0]]
    check("sliceDynamic", {}, [x, *everything], x[:3:2, 2, ::2])


def test_slice_by_size(check):
    check("sliceBySize", {"size": 2, "axis": 1}, [X3, [1]], X3[:, 1:3])


def test_sliding_windows(check):
    expected = np.stack([X3[:, 0:2], X3[:, 1:3]], 1)
    check("slidingWindows", {"axis": 1, "windowSize": 2, "step": 1}, [X3], expected)
    check("slidingWindows", {"axis": -1, "windowSize": 2, "step": 2}, [X3], X3.reshape(2, 3, 2, 2))


def amounts(top, bottom, left, right):
    edges = [{"startEdgeSize": top, "endEdgeSize": bottom}, {"startEdgeSize": left, "endEdgeSize": right}]
    return {"borderAmounts": edges}


def test_crop(check):
    check("crop", {"cropAmounts": amounts(1, 0, 1, 2)}, [X3], X3[:, 1:, 1:2])
    check("crop", {"offset": [1, 2]}, [X3, np.zeros((2, 2, 2))], X3[:, 1:3, 2:4])
    check("crop", {}, [X3, np.zeros((2, 2, 2))], X3[:, :2, :2])


@pytest.mark.parametrize("kind", ["constant", "reflection", "replication"])
def test_padding(check, kind):
    """The example of the format's definition."""
    x = np.arange(1, 13).reshape(1, 3, 4)
    mode = {"constant": "constant", "reflection": "reflect", "replication": "edge"}[kind]
    check("padding", {kind: {}, "paddingAmounts": amounts(2, 0, 2, 0)}, [x], np.pad(x, ((0, 0), (2, 0), (2, 0)), mode))


def test_padding_with_a_number(check):
    params = {"constant": {"value": -1}, "paddingAmounts": amounts(0, 1, 2, 3)}
    check("padding", params, [X3], np.pad(X3, ((0, 0), (0, 1), (2, 3)), constant_values=-1))


def test_constant_pad(check):
    x = np.arange(6).reshape(2, 3)
    expected = np.pad(x, ((0, 1), (4, 0)), constant_values=7)
    check("constantPad", {"value": 7, "padAmounts": [0, 1, 4, 0]}, [x], expected)
    check("constantPad", {"value": 7}, [x, [0, 1, 4, 0]], expected)
    to_size = {"value": 7, "padAmounts": [0, 3, 7, 0], "padToGivenOutputSizeMode": True}
    check("constantPad", to_size, [x], expected)


def test_split(check):
    check("split", {"nOutputs": 3}, [X5], tuple(np.split(X5, 3, 2)))


def test_split_nd(check):
    check("splitND", {"axis": -3, "splitSizes": [1, 1]}, [X3], (X3[:1], X3[1:]))
    check("splitND", {"axis": 2, "numSplits": 2}, [X3], tuple(np.split(X3, 2, 2)))
    check("splitND", {"axis": 2, "numSplits": 3}, [X3], tuple(np.array_split(X3, 3, 2)))


def test_what_does_not_fit_names_the_layer(run_layer):
    with pytest.raises(RuntimeError, match=r"layer layer0 \(split\): 2 channels cannot be split into 3 equal parts"):
        run_layer("split", {"nOutputs": 3}, X3, outputs=3)
    with pytest.raises(RuntimeError, match=r"layer layer0 \(squeeze\): axes \[1\] of shape \(2, 3, 4\)"):
        run_layer("squeeze", {"axes": [1]}, X3)


@pytest.mark.parametrize(
    ("layer_type", "params", "inputs"),
    [
        ("tile", {"reps": [2**16, 2**16]}, [np.zeros((2, 2))]),
        ("constantPad", {"padAmounts": [2**31, 0]}, [np.zeros(2)]),
        ("sequenceRepeat", {"nRepetitions": 2**32}, [X5]),
        ("fillDynamic", {}, [[2.0**20, 2.0**20]]),
        ("fillDynamic", {}, [[-1.0]]),
        ("fillDynamic", {}, [[np.inf]]),
        ("rangeDynamic", {"stepSizeValue": 1e-9}, [[1e9]]),
        ("rangeDynamic", {}, [[3.0]]),
        ("oneHot", {"oneHotVectorSize": 2**40}, [[1.0]]),
        ("upsample", {"scalingFactor": [2**20, 2**20]}, [X3]),
    ],
)
def test_shapes_that_explode_are_refused(run_layer, layer_type, params, inputs):
    with pytest.raises(RuntimeError, match=rf"layer layer0 \({layer_type}\): "):
        run_layer(layer_type, params, *inputs)
