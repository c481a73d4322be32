"""The compressed tensors: valid by construction, frozen, and honest about their size."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import corepress as cp
from helpers.arrays import DTYPES, normal


def byte_array(count: int) -> np.ndarray:
    return np.zeros(count, np.uint8)


def tensors() -> list[cp.CompressedTensor]:
    weight = normal(6, 8, dtype=np.float16)
    return [
        cp.palettize(weight, nbits=3),
        cp.palettize(weight, nbits=2, granularity="per_grouped_channel", group_size=2),
        cp.quantize(weight),
        cp.quantize(weight, dtype="uint8", mode="linear", channel_axis=1),
        cp.prune(weight, target_sparsity=0.5),
    ]


@pytest.mark.parametrize("tensor", tensors(), ids=repr)
def test_what_all_have_in_common(tensor):
    assert tensor.shape == (6, 8)
    assert tensor.size == 48
    assert tensor.dtype == np.float16
    assert tensor.bits_per_weight == 8 * tensor.nbytes / 48
    assert repr(tensor).startswith(f"<{type(tensor).__name__} ")
    assert "shape (6, 8)" in repr(tensor)
    for field in dataclasses.fields(tensor):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(tensor, field.name, None)
    assert tensor == tensor
    assert tensor == dataclasses.replace(tensor)


@pytest.mark.parametrize("dtype", DTYPES)
def test_palettized(dtype):
    weight = normal(6, 8, dtype=dtype)
    tensor = cp.palettize(weight, nbits=3, granularity="per_grouped_channel", group_size=4, channel_axis=1)
    assert tensor.lut.shape == (1, 2, 8, 1)
    assert tensor.group_counts == (1, 2)
    assert tensor.indices.nbytes == 18
    assert tensor.nbytes == 18 + 16 * np.dtype(dtype).itemsize
    assert tensor.codes().shape == (6, 8)
    assert tensor.codes().dtype == np.uint8
    assert repr(tensor) == (
        f"<PalettizedTensor 3 bits {np.dtype(dtype)}, 2 groups, shape (6, 8), {tensor.nbytes / 6:.3f} bits/weight>"
    )


def test_quantized():
    weight = normal(6, 8, dtype=np.float16)
    tensor = cp.quantize(weight, dtype="uint8", mode="linear")
    assert tensor.nbits == 8
    assert tensor.block_shape == (1, 8)
    assert tensor.nbytes == 48 + 6 * 2 + 6
    assert tensor.codes().dtype == np.uint8
    assert cp.quantize(weight).codes().dtype == np.int8
    assert cp.quantize(weight).zero_point is None
    assert cp.quantize(weight).nbytes == 48 + 12
    assert "blocks of (1, 8), zero points" in repr(tensor)
    assert "per tensor" in repr(cp.quantize(weight, granularity="per_tensor"))


def test_sparse():
    tensor = cp.prune(np.array([[0, 1, 0], [2, 0, 0]], np.float32), threshold=0)
    assert tensor.nnz == 2
    assert tensor.sparsity == pytest.approx(4 / 6)
    assert tensor.nbytes == 1 + 8
    assert tensor.mask.tolist() == [0b001010]
    assert "2 of 6 float32 values (66.7% zero)" in repr(tensor)


def test_nothing_has_no_bits():
    tensor = cp.prune(np.zeros((0, 3), np.float16), threshold=1)
    assert (tensor.size, tensor.nbytes, tensor.bits_per_weight, tensor.sparsity) == (0, 0, 0, 0)
    assert "shape (0, 3)" in repr(tensor)


@pytest.mark.parametrize(
    ("shape", "count", "lut_shape", "nbits", "message"),
    [
        ((4, 4), 8, (1, 1, 32, 1), 5, "nbits must be 1, 2, 3, 4, 6 or 8, not 5"),
        (
            (4, 4),
            8,
            (1, 1, 8, 1),
            4,
            r"lut of 4 bits must have shape \(groups per axis..., 16, cluster_dim\), not \(1, 1, 8, 1\)",
        ),
        ((4, 4), 8, (1, 16, 1), 4, "lut of 4 bits"),
        ((4, 4), 8, (3, 1, 16, 1), 4, r"lut groups \(3, 1\) must divide"),
        ((4, 4), 8, (0, 1, 16, 1), 4, r"lut groups \(0, 1\) must divide"),
        ((4, 4), 7, (1, 1, 16, 1), 4, r"indices must be 8 bytes, not uint8 \(7,\) \(shape \(4, 4\)\)"),
    ],
)
def test_invalid_palettes(shape, count, lut_shape, nbits, message):
    with pytest.raises(ValueError, match=f"PalettizedTensor: {message}"):
        cp.PalettizedTensor(shape, byte_array(count), np.zeros(lut_shape, np.float16), nbits)


@pytest.mark.parametrize(
    ("count", "scale_shape", "zero_point", "dtype", "message"),
    [
        (16, (4, 1), None, "int5", "quantized_dtype must be .*, not int5"),
        (16, (4,), None, "int8", r"scale shape \(4,\)"),
        (16, (3, 1), None, "int8", r"scale shape \(3, 1\) must divide"),
        (16, (4, 1), np.zeros((4, 1), np.uint8), "int8", r"zero_point must have scale's shape \(4, 1\) and dtype int8"),
        (16, (4, 1), np.zeros((1, 4), np.int8), "int8", "zero_point must have"),
        (15, (4, 1), None, "int8", r"data must be 16 bytes, not uint8 \(15,\)"),
    ],
)
def test_invalid_quantized_tensors(count, scale_shape, zero_point, dtype, message):
    with pytest.raises(ValueError, match=f"QuantizedTensor: {message}"):
        cp.QuantizedTensor((4, 4), byte_array(count), np.ones(scale_shape, np.float16), zero_point, dtype)


@pytest.mark.parametrize(
    ("mask", "values", "message"),
    [
        ([1, 0, 0], np.ones(1), r"mask must be 2 bytes, not uint8 \(3,\)"),
        ([1, 0], np.ones((1, 1)), "values must be 1-D"),
        ([1, 1], np.ones(1), "mask has 2 bits set but there are 1 values"),
    ],
)
def test_invalid_sparse_tensors(mask, values, message):
    with pytest.raises(ValueError, match=f"SparseTensor: {message}"):
        cp.SparseTensor((4, 4), np.array(mask, np.uint8), values.astype(np.float32))
