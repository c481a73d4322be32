"""Tables of palettes that are quantized at once: the bits of both steps one after the other."""

from __future__ import annotations

import re

import ml_dtypes
import numpy as np
import pytest

import corepress as cp
from corepress.compression import apply
from corepress.specs import Palettize
from helpers.arrays import BFLOAT16, DTYPES, assert_same_bits, normal

TABLES = ["int8", "uint8", "float8_e4m3fn", "float8_e5m2"]
FLOATS = {"float8_e4m3fn": ml_dtypes.float8_e4m3fn, "float8_e5m2": ml_dtypes.float8_e5m2}
PALETTES = [
    {"nbits": 4},
    {"nbits": 3, "granularity": "per_grouped_channel", "group_size": 4},
    {"nbits": 2, "mode": "uniform"},
    {"nbits": 4, "cluster_dim": 2},
    {"nbits": 4, "enable_per_channel_scale": True},
    {"lut": [-0.1, 0.0, 0.125, 0.3]},
]


@pytest.mark.parametrize("lut_dtype", TABLES)
@pytest.mark.parametrize("options", PALETTES, ids=repr)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_table_is_quantized_afterwards_with_one_scale(dtype, options, lut_dtype):
    weight = normal(16, 24, dtype=dtype)
    tensor = cp.palettize(weight, lut_dtype=lut_dtype, **options)
    plain = cp.palettize(weight, **options)
    assert tensor == cp.quantize(plain, dtype=lut_dtype, granularity="per_tensor")
    assert isinstance(tensor.lut, cp.QuantizedTensor)
    assert tensor.lut.scale.size == 1
    np.testing.assert_array_equal(tensor.indices, plain.indices)
    assert tensor.dtype == weight.dtype
    if lut_dtype in FLOATS:
        scale = np.float32(tensor.lut.scale.item())
        largest = float(ml_dtypes.finfo(FLOATS[lut_dtype]).max)
        codes = np.clip(plain.lut.astype(np.float32) / scale, -largest, largest).astype(FLOATS[lut_dtype])
        np.testing.assert_array_equal(tensor.lut.codes(), codes.view(np.uint8))
        assert_same_bits(tensor.table, (codes.astype(np.float32) * scale).astype(dtype))
    parts = [part.dense() for part in tensor.split(0, [(0, 8), (8, 16)])]
    assert_same_bits(np.concatenate(parts), tensor.dense())
    error = ((weight.astype(np.float64) - tensor.dense().astype(np.float64)) ** 2).sum()
    assert cp.error(weight, tensor).sse == pytest.approx(error, rel=1e-12)


@pytest.mark.parametrize("lut_dtype", TABLES)
def test_lists_sparse_values_and_specs(lut_dtype):
    weights = [normal(8, 16, seed=seed, dtype=np.float16) for seed in range(3)]
    together = cp.palettize(weights, nbits=3, lut_dtype=lut_dtype)
    assert together == [cp.palettize(weight, nbits=3, lut_dtype=lut_dtype) for weight in weights]
    assert apply(weights[0], Palettize(nbits=3, lut_dtype=lut_dtype)) == together[0]
    sparse = cp.prune(weights[0], target_sparsity=0.5)
    joint = cp.palettize(sparse, nbits=2, lut_dtype=lut_dtype)
    assert joint.values.lut.quantized_dtype == lut_dtype
    assert not joint.dense()[sparse.dense() == 0].any()
    assert joint == cp.quantize(cp.palettize(sparse, nbits=2), dtype=lut_dtype, granularity="per_tensor")


def test_a_table_of_floats_with_a_scale_that_is_a_power_of_two():
    weight = normal(16, 24, dtype=BFLOAT16)
    tensor = cp.quantize(
        cp.palettize(weight, nbits=4), dtype="float8_e4m3fn", granularity="per_tensor", scale_dtype="float8_e8m0fnu"
    )
    assert tensor.lut.scale_dtype == "float8_e8m0fnu"
    assert tensor.dtype == BFLOAT16
    assert_same_bits(tensor.dense(), tensor.table.reshape(-1)[tensor.codes()])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda w: cp.palettize(w, nbits=2, lut_dtype="int4"), "lut_dtype must be None, 'int8', 'uint8'"),
        (
            lambda w: cp.palettize(w, nbits=2, nonfinite="table", lut_dtype="int8"),
            "nonfinite 'table' and lut_dtype cannot go together",
        ),
        (
            lambda w: cp.palettize(cp.quantize(w), nbits=2, lut_dtype="int8"),
            "lut_dtype is for weights, not for codes of a QuantizedTensor; leave it out",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(call, message):
    with pytest.raises(ValueError, match=re.escape(f"palettize: {message}")):
        call(normal(4, 8))


def test_codes_of_floats_are_not_palettized():
    with pytest.raises(TypeError, match="int8 or uint8, not float8_e5m2"):
        cp.palettize(cp.quantize(normal(4, 8), dtype="float8_e5m2"), nbits=2)
