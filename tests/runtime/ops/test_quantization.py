import numpy as np
import pytest
import torch
from operations import call, check_gradients, random_array


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@pytest.mark.parametrize("axis", [None, 0, 1, -1])
@pytest.mark.parametrize("shifted", [False, True])
def test_quantize_and_back(dtype, axis, shifted):
    x = 4 * random_array(3, 4, 2)
    broadcast = [1, 1, 1]
    scale, zero_point = np.float32(0.05), np.array(3, dtype)
    if axis is not None:
        broadcast[axis] = x.shape[axis]
        scale = np.linspace(0.01, 0.1, x.shape[axis], dtype=np.float32)
        zero_point = np.arange(x.shape[axis]).astype(dtype) * 5
    given = (scale, *([zero_point] if shifted else []))
    shift = np.reshape(zero_point, broadcast).astype(int) * shifted
    levels = np.rint(x / np.reshape(scale, broadcast)) + shift
    limits = np.iinfo(dtype)
    expected = np.clip(levels, limits.min, limits.max).astype(dtype)
    options = {} if axis is None else {"axis": axis}
    result = call("quantize", x, *given, output_dtype=np.dtype(dtype).name, **options)
    assert np.array_equal(result.numpy(), expected)
    assert result.numpy().dtype == dtype
    back = call("dequantize", expected, *given, **options)
    assert np.array_equal(
        back.numpy(), (expected.astype(np.float32) - shift.astype(np.float32)) * np.reshape(scale, broadcast)
    )


def test_halves_are_rounded_to_even():
    x = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 300, -300], np.float32)
    result = call("quantize", x, np.float32(1), output_dtype="int8")
    assert result.tolist() == [-2, -2, 0, 0, 2, 2, 127, -128]


def test_vectors_of_one_value_need_no_axis():
    x = np.array([[2.0, 4.0]], np.float32)
    given = np.array([2], np.float32)
    assert call("quantize", x, given, output_dtype="uint8").tolist() == [[1, 2]]
    with pytest.raises(ValueError, match="axis must be given with a vector of 2 values"):
        call("quantize", x, np.array([2, 2], np.float32), output_dtype="uint8")
    with pytest.raises(ValueError, match="output_dtype must be int8 or uint8, got 'int4'"):
        call("quantize", x, given, output_dtype="int4")


def test_scales_have_gradients():
    levels = torch.tensor([[1, -2, 3]], dtype=torch.int8)
    check_gradients("dequantize", levels, np.array([0.5, 1, 2]), axis=1)
