import numpy as np
import pytest
import torch
from operations import call, check_gradients, close, random_array


@pytest.mark.parametrize("shape", [(4,), (2, 4), (3, 2, 4), (0, 4), (2, 3, 2, 4)])
def test_linear(shape):
    x, weight, bias = random_array(*shape), random_array(5, 4), random_array(5, seed=1)
    close(call("linear", x, weight), x @ weight.T)
    close(call("linear", x, weight, bias), x @ weight.T + bias)


def test_integers_are_multiplied_exactly():
    x, weight = np.array([[1 << 15, 3]], np.int32), np.array([[1 << 15, 1], [-7, 2]], np.int32)
    bias = np.array([1, -1], np.int32)
    assert call("linear", x, weight, bias).to(torch.int32).tolist() == (x @ weight.T + bias).tolist()
    assert call("matmul", x, weight, transpose_y=True).to(torch.int32).tolist() == (x @ weight.T).tolist()


def test_integers_and_numbers_are_multiplied_as_numbers():
    x, y = np.array([[1, 2]], np.int32), np.array([[0.5], [0.25]], np.float32)
    assert call("matmul", x, y).tolist() == [[1.0]]
    assert call("linear", x, y.T.copy()).tolist() == [[1.0]]


@pytest.mark.parametrize(
    ("x", "y"),
    [((3,), (3,)), ((3,), (3, 2)), ((4, 3), (3,)), ((4, 3), (3, 2)), ((10, 4, 3), (5, 1, 3, 2)), ((3,), (10, 3, 4))],
)
def test_matmul(x, y):
    x, y = random_array(*x), random_array(*y, seed=1)
    close(call("matmul", x, y), np.matmul(x, y))
    flipped_x, flipped_y = (each.swapaxes(-1, -2).copy() if each.ndim > 1 else each for each in (x, y))
    close(call("matmul", flipped_x, y, transpose_x=True), np.matmul(x, y))
    close(call("matmul", x, flipped_y, transpose_y=True), np.matmul(x, y))
    close(call("matmul", flipped_x, flipped_y, transpose_x=True, transpose_y=True), np.matmul(x, y))


@pytest.mark.parametrize(
    ("equation", "x", "y"),
    [
        ("nchw,nwhu->nchu", (2, 3, 4, 5), (2, 5, 4, 6)),
        ("abcd , adce -> abce", (2, 3, 1, 5), (1, 5, 4, 6)),
        ("chw,whr->chr", (3, 4, 5), (5, 4, 6)),
        ("chw,whr->chr", (3, 1, 5), (5, 4, 6)),
    ],
)
def test_einsum(equation, x, y):
    x, y = random_array(*x), random_array(*y, seed=1)
    columns = np.einsum("...chw,...whr->...chr", *(np.broadcast_to(each, shape) for each, shape in full_shapes(x, y)))
    close(call("einsum", [torch.from_numpy(x), torch.from_numpy(y)], equation=equation), columns)


def full_shapes(x, y):
    h = max(x.shape[-2], y.shape[-2])
    lead = (max(x.shape[0], y.shape[0]),) if x.ndim == 4 else ()
    return (x, (*lead, x.shape[-3], h, x.shape[-1])), (y, (*lead, y.shape[-3], h, y.shape[-1]))


def test_gradients():
    check_gradients("linear", random_array(2, 3), random_array(2, 3), random_array(2))
    check_gradients("matmul", random_array(2, 3), random_array(2, 2, 3), transpose_y=True)
