"""A weight read as matrices gives what its layer computes."""

from __future__ import annotations

import numpy as np
import pytest

from corepress.compression.matrix_view import MatrixView

VIEWS = {
    "linear": MatrixView((6, 4), (0,), (1,)),
    "matmul": MatrixView((4, 6), (1,), (0,)),
    "batches of matmul": MatrixView((3, 4, 6), (0, 2), (1,), groups=3, group_axis=0),
    "conv": MatrixView((6, 4, 3, 2), (0,), (1, 2, 3)),
    "conv of groups": MatrixView((6, 4, 3, 2), (0,), (1, 2, 3), groups=3, group_axis=0),
    "depthwise": MatrixView((6, 1, 3, 2), (0,), (1, 2, 3), groups=6, group_axis=0),
    "conv_transpose": MatrixView((4, 6, 3, 2), (1, 2, 3), (0,)),
    "conv_transpose of groups": MatrixView((4, 6, 3, 2), (1, 2, 3), (0,), groups=2, group_axis=0),
}


@pytest.mark.parametrize("name", VIEWS)
def test_matrices_hold_every_element_once_and_restore_puts_it_back(name):
    view = VIEWS[name]
    array = np.arange(np.prod(view.shape)).reshape(view.shape)
    matrices = view.matrices(array)
    assert matrices.shape == (view.groups, view.rows, view.columns)
    assert sorted(matrices.ravel()) == list(range(array.size))
    restored = view.restore(matrices)
    assert restored.flags.c_contiguous
    assert (restored == array).all()


@pytest.mark.parametrize("name", VIEWS)
def test_positions_tell_the_entry_of_each_axis(name):
    view = VIEWS[name]
    for axis, length in enumerate(view.shape):
        shape = [length if other == axis else 1 for other in range(len(view.shape))]
        expected = view.matrices(np.broadcast_to(np.arange(length).reshape(shape), view.shape).copy())
        along_rows, entries = view.positions(axis)
        assert along_rows == (axis in view.row_axes)
        assert entries.shape == (view.groups, view.rows if along_rows else view.columns)
        spread = entries[:, :, None] if along_rows else entries[:, None, :]
        assert (np.broadcast_to(spread, expected.shape) == expected).all()


def test_a_convolution_with_groups_is_one_product_per_group():
    rng = np.random.default_rng(0)
    weight, patches = rng.standard_normal((6, 4, 3, 2)), rng.standard_normal((12, 3, 2))
    view = VIEWS["conv of groups"]
    inputs = patches.reshape(3, 4 * 3 * 2)  # each group sees its four channels
    outputs = np.einsum("grc,gc->gr", view.matrices(weight), inputs).ravel()
    expected = [(weight[o] * patches[o // 2 * 4 : o // 2 * 4 + 4]).sum() for o in range(6)]
    assert np.allclose(outputs, expected)


def test_a_transposed_convolution_with_groups_is_one_product_per_group():
    rng = np.random.default_rng(0)
    weight, inputs = rng.standard_normal((4, 6, 3, 2)), rng.standard_normal(4)
    outputs = np.einsum("grc,gc->gr", VIEWS["conv_transpose of groups"].matrices(weight), inputs.reshape(2, 2))
    expected = [np.tensordot(inputs[2 * g : 2 * g + 2], weight[2 * g : 2 * g + 2], 1).ravel() for g in range(2)]
    assert np.allclose(outputs, expected)


def test_the_view_of_an_output_axis():
    array = np.arange(24).reshape(2, 3, 4)
    view = MatrixView.of_output_axis(array.shape, -2)
    assert (view.row_axes, view.column_axes) == ((1,), (0, 2))
    assert (view.matrices(array)[0] == array.transpose(1, 0, 2).reshape(3, 8)).all()
    assert MatrixView.of_output_axis((5,), 0).matrices(np.arange(5)).shape == (1, 5, 1)
    with pytest.raises(ValueError, match="axis 2 is not an axis of shape"):
        MatrixView.of_output_axis((5, 4), 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((4, 6), (0,), (0,)), "must name each axis"),
        (((4, 6), (0,), ()), "must name each axis"),
        (((4, 6), (0,), (1,), 0), "at least 1, not 0"),
        (((4, 6), (0,), (1,), 3, 0), "3 groups do not divide axis 0"),
        (((4, 6), (0,), (1,), 2, 2), "group_axis 2 is not an axis"),
    ],
)
def test_views_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        MatrixView(*arguments)


def test_arrays_of_another_shape_are_refused():
    view = MatrixView((4, 6), (0,), (1,))
    with pytest.raises(ValueError, match=r"array has shape \(6, 4\), the view \(4, 6\)"):
        view.matrices(np.zeros((6, 4)))
    with pytest.raises(ValueError, match=r"matrices have shape \(4, 6\), the view \(1, 4, 6\)"):
        view.restore(np.zeros((4, 6)))
