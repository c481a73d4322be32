"""Chains of operations from compressed tensors and back, without Core AI's library."""

from __future__ import annotations

import numpy as np
import pytest

import corepress as cp
from corepress.coreai.format.data_types import BY_NAME, BY_PROGRAM_NAME
from corepress.coreai.operations import check, check_steps, describe, evaluate, lift, lower
from corepress.coreai.operations.form import CAST, LUT_TO_DENSE, SHIFT_SCALE, Constant, Form, axis_of, packed, zeros
from corepress.coreai.operations.shift_scale import exponents_of, powers_of, shift_scale
from corepress.errors import FormatError
from corepress.specs import Palettize, Prune, Quantize, spec_to_dict

WEIGHT = (np.random.default_rng(0).standard_normal((16, 24)) * 0.1).astype(np.float32)
PRUNED = cp.prune(WEIGHT, target_sparsity=0.5)
GROUPED = {"granularity": "per_grouped_channel", "group_size": 4}

CASES = {
    "palettized 4 bits": cp.palettize(WEIGHT, nbits=4),
    "palettized 3 bits, 4 groups": cp.palettize(WEIGHT, nbits=3, **GROUPED),
    "palettized 2 bits, vectors of 4": cp.palettize(WEIGHT, nbits=2, cluster_dim=4, channel_axis=1),
    "palettized 6 bits": cp.palettize(WEIGHT, nbits=6, enable_per_channel_scale=True),
    "quantized int8, 16 scales": cp.quantize(WEIGHT),
    "quantized uint4, 1 scale": cp.quantize(WEIGHT, dtype="uint4", granularity="per_tensor", mode="linear"),
    "quantized int4, 48 scales": cp.quantize(WEIGHT, dtype="int4", granularity="per_block", block_size=8),
    "sparse": PRUNED,
    "sparse palettized 4 bits": cp.palettize(PRUNED, nbits=4),
    "sparse palettized 2 bits, 4 groups": cp.palettize(PRUNED, nbits=2, **GROUPED),
    "sparse quantized int4, 16 scales": cp.quantize(PRUNED, dtype="int4"),
}


@pytest.mark.parametrize("description", CASES)
def test_there_and_back(description):
    tensor = CASES[description]
    form = lower(tensor, "float32")
    assert (form.type.name, form.shape) == ("float32", WEIGHT.shape)
    assert describe(form) == description
    assert lift(form) == tensor
    assert np.allclose(evaluate(form), tensor.dense(), atol=1e-7, rtol=0)
    assert tensor.nbytes <= form.nbytes <= tensor.nbytes + 16


def test_lowering_to_another_type_rounds_tables_and_scales():
    form = lower(CASES["palettized 4 bits"], "float16")
    assert form.type.name == "float16"
    assert np.array_equal(lift(form).lut, CASES["palettized 4 bits"].lut.astype(np.float16))
    assert lift(lower(CASES["sparse quantized int4, 16 scales"], "float16")).dtype == np.float16


@pytest.mark.parametrize("name", ["int2", "uint2", "float4_e2m1fn", "float8_e4m3fn", "float8_e5m2"])
def test_every_code_has_its_value(name):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    bits = BY_NAME[name].nbits
    codes = np.arange(1 << bits, dtype=np.uint8)
    if bits == 8:
        data = codes
    else:
        data = np.packbits(np.unpackbits(codes[:, None], axis=1, count=bits, bitorder="little"), bitorder="little")
    values = evaluate(packed(name, (1 << bits,), data))
    expected = codes.view(getattr(ml_dtypes, name)).astype(np.float32)
    assert np.array_equal(np.asarray(values, np.float32), expected, equal_nan=True)


def test_powers_of_two():
    scale = np.exp2(np.arange(-127, 128, dtype=np.float64)).astype(np.float32)
    constant = exponents_of(scale)
    assert constant.data.tolist() == list(range(255))
    assert np.array_equal(powers_of(constant), scale)
    assert np.isnan(powers_of(packed("float8_e8m0fnu", (1,), np.array([255], np.uint8)))).all()
    for wrong in (3.0, 0.0, -2.0, np.inf, np.nan):
        with pytest.raises(ValueError, match="must be powers of two"):
            exponents_of(np.array([wrong]))


def test_scales_that_fp4_cannot_have_are_applied_to_floats():
    codes = packed("float4_e2m1fn", (4, 8), np.arange(16, dtype=np.uint8))
    form = shift_scale(codes, np.full((4, 1), 0.3, np.float32))
    assert form.operations == (SHIFT_SCALE, CAST)
    assert shift_scale(codes, np.full((4, 1), 0.3, np.float16)).operations == (SHIFT_SCALE,)


def test_zero_points_that_have_no_form():
    tensor = cp.quantize(WEIGHT, mode="linear")
    halves = type(tensor)(tensor.shape, tensor.data, tensor.scale, tensor.zero_point + np.float32(0.5), "int8")
    with pytest.raises(ValueError, match="whole numbers that int8 holds"):
        lower(halves, "float32")
    sparse = cp.quantize(cp.prune(WEIGHT + np.float32(0.2), target_sparsity=0.5), mode="linear")
    with pytest.raises(ValueError, match="granularity 'per_tensor'"):
        lower(sparse, "float32")


@pytest.mark.parametrize(
    ("steps", "rule"),
    [
        ([Prune(target_sparsity=0.5), Palettize(nbits=4, cluster_dim=2)], "cluster_dim above 1"),
        ([Quantize(dtype="int4"), Palettize(nbits=4)], "int8 or uint8, not int4"),
        ([Palettize(nbits=4), Quantize(dtype="uint4")], "not uint4"),
        ([Palettize(nbits=4), Quantize(granularity="per_block")], "not per_block"),
        ([Prune(target_sparsity=0.5), Quantize(mode="linear")], "zero points of pruned weights"),
        ([Quantize(), Palettize(nbits=4, enable_per_channel_scale=True)], "not for their codes"),
        ([Prune(target_sparsity=0.5), Prune(target_sparsity=0.5)], "once"),
    ],
)
def test_steps_without_a_form(steps, rule):
    with pytest.raises(ValueError, match=rule):
        check_steps(steps)


@pytest.mark.parametrize(
    "steps",
    [
        [Palettize(nbits=3)],
        [Prune(target_sparsity=0.5), Palettize(nbits=4)],
        [Prune(target_sparsity=0.5), Quantize(dtype="int4")],
        [Prune(target_sparsity=0.5), Quantize(mode="linear", granularity="per_tensor")],
        [Palettize(nbits=4), Quantize()],
        [Quantize(), Palettize(nbits=4)],
        [Prune(target_sparsity=0.5), Quantize(), Palettize(nbits=4)],
    ],
)
def test_steps_with_a_form(steps):
    check_steps(steps)
    tensor = WEIGHT
    for step in steps:
        check(step)
        verb = {"palettize": cp.palettize, "quantize": cp.quantize, "prune": cp.prune}[step.verb]
        tensor = verb(tensor, **spec_to_dict(step)[step.verb])
    assert lift(lower(tensor, "float32")).dense().shape == WEIGHT.shape


def test_damaged_chains():
    indices = packed("uint2", (4, 8), np.zeros(8, np.uint8))
    wrong = Constant(BY_NAME["float32"], (1, 1, 8, 1), np.zeros(32, np.uint8))
    with pytest.raises(FormatError, match="is damaged"):
        lift(Form(LUT_TO_DENSE, (indices, wrong, axis_of(0)), BY_NAME["float32"], (4, 8)))
    with pytest.raises(ValueError, match="has 8 bytes"):
        packed("uint2", (4, 8), np.zeros(9, np.uint8))


def test_names_of_types_are_unique():
    assert len(BY_NAME) == len(BY_PROGRAM_NAME)
    assert zeros("float4_e2m1fn", (4, 4)).nbytes == 1


@pytest.mark.parametrize("name", ["int2", "uint3", "uint4", "uint6", "int8", "int16", "float32"])
def test_one_element_stands_for_all(name):
    bits = BY_NAME[name].nbits
    one = np.array([0x6D, 0x12, 0x34, 0x3F][: max(1, bits // 8)], np.uint8) & np.uint8((1 << min(bits, 8)) - 1)
    splat = Constant(BY_NAME[name], (3, 5), one, True)
    data = splat.expanded()
    assert data.size == BY_NAME[name].byte_count(15)
    assert np.array_equal(evaluate(splat), evaluate(Constant(BY_NAME[name], (3, 5), data)))
    assert not splat.is_zero
