"""Every form that is written, run by Core AI's run-time: it yields what the compressed tensor says, exactly."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("coreai")

from coreai_helpers import constant_asset, replace_all, run

import corepress as cp
from corepress.coreai.format.asset import Asset
from corepress.coreai.format.asset_writer import AssetWriter
from corepress.coreai.format.data_types import BY_NAME, dtype_of
from corepress.coreai.operations import evaluate
from corepress.coreai.operations.form import (
    BUILD_SPARSE,
    CAST,
    LUT_TO_DENSE,
    SHIFT_SCALE,
    SPARSE_TO_DENSE,
    Form,
    axis_of,
    packed,
    zeros,
)
from corepress.coreai.operations.shift_scale import shift_scale
from corepress.coreai.program.program import Program

SHAPE = (32, 48)
DTYPES = ("float32", "float16", "bfloat16")
GROUPED = {"granularity": "per_grouped_channel", "group_size": 8}


def pruned(weight):
    return cp.prune(weight, target_sparsity=0.5)


PALETTES = {
    **{f"{nbits} bits": lambda w, nbits=nbits: cp.palettize(w, nbits=nbits) for nbits in (1, 2, 3, 4, 6, 8)},
    "groups": lambda w: cp.palettize(w, nbits=4, **GROUPED),
    "groups of axis 1": lambda w: cp.palettize(w, nbits=3, channel_axis=1, **GROUPED),
    "vectors": lambda w: cp.palettize(w, nbits=4, cluster_dim=2),
    "vectors of axis 1": lambda w: cp.palettize(w, nbits=4, cluster_dim=4, channel_axis=1),
    "vectors in groups": lambda w: cp.palettize(w, nbits=2, cluster_dim=4, **GROUPED),
    "scales": lambda w: cp.palettize(w, nbits=4, enable_per_channel_scale=True),
    "vectors with scales": lambda w: cp.palettize(w, nbits=4, cluster_dim=2, enable_per_channel_scale=True),
    "int8 table": lambda w: cp.quantize(cp.palettize(w, nbits=4), granularity="per_tensor"),
    "uint8 table with zero point": lambda w: cp.quantize(
        cp.palettize(w, nbits=6), dtype="uint8", granularity="per_tensor", mode="linear"
    ),
    "int8 tables": lambda w: cp.quantize(cp.palettize(w, nbits=4, **GROUPED)),
    "palettized codes": lambda w: cp.palettize(cp.quantize(w), nbits=4),
    "palettized codes in groups": lambda w: cp.palettize(cp.quantize(w), nbits=4, **GROUPED),
}
QUANTIZED = {
    f"{dtype} {granularity}": lambda w, dtype=dtype, granularity=granularity: cp.quantize(
        w, dtype=dtype, granularity=granularity, block_size=16
    )
    for dtype in ("int8", "int4", "uint4")
    for granularity in ("per_tensor", "per_channel", "per_block")
}
SPARSE = {
    "sparse": pruned,
    "nothing pruned": lambda w: cp.prune(w, target_sparsity=0.0),
    "all pruned": lambda w: cp.prune(w, target_sparsity=1.0),
    "sparse palette": lambda w: cp.palettize(pruned(w), nbits=4),
    "sparse palettes": lambda w: cp.palettize(pruned(w), nbits=3, **GROUPED),
    "sparse palettes of axis 1": lambda w: cp.palettize(pruned(w), nbits=6, channel_axis=1, **GROUPED),
    "sparse palette with scales": lambda w: cp.palettize(pruned(w), nbits=4, enable_per_channel_scale=True),
    "sparse int8": lambda w: cp.quantize(pruned(w)),
    "sparse int4 in blocks": lambda w: cp.quantize(pruned(w), dtype="int4", granularity="per_block", block_size=16),
    "sparse int8 table": lambda w: cp.quantize(cp.palettize(pruned(w), nbits=4), granularity="per_tensor"),
    "sparse palettized codes": lambda w: cp.palettize(cp.quantize(pruned(w)), nbits=4),
}
FORMS = PALETTES | QUANTIZED | SPARSE


def weight_of(shape, dtype, seed=0):
    return (np.random.default_rng(seed).standard_normal(shape) * 0.1).astype(dtype_of(dtype))


def stored(tmp_path, tensor, shape, dtype):
    source = constant_asset(tmp_path / "source.aimodel", shape, dtype)
    return replace_all(source, tmp_path / "result.aimodel", tensor)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FORMS)
def test_run_time_yields_what_is_stored(name, dtype, tmp_path):
    tensor = FORMS[name](weight_of(SHAPE, dtype))
    result = stored(tmp_path, tensor, SHAPE, dtype)
    expected = tensor.dense()
    assert np.array_equal(run(result)["w"], expected.astype(np.float32 if dtype == "bfloat16" else dtype))
    weight = Program(result).weights[0]
    assert weight.read() == tensor
    assert weight.dtype == dtype
    assert weight.stored_bytes < 1.3 * tensor.nbytes + 16
    assert np.array_equal(np.asarray(evaluate(weight.node)), expected)


@pytest.mark.parametrize("shape", [(321,), (8, 16, 3, 3), (4, 8, 3, 3, 3)])
@pytest.mark.parametrize("name", ["4 bits", "scales", "int8 per_channel", "sparse", "sparse int8"])
def test_other_ranks(name, shape, tmp_path):
    tensor = FORMS[name](weight_of(shape, "float16"))
    result = stored(tmp_path, tensor, shape, "float16")
    assert np.array_equal(run(result)["w"], tensor.dense())
    assert Program(result).weights[0].read() == tensor


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel", "per_block"])
@pytest.mark.parametrize("codes", ["int8", "uint8", "int4", "uint4"])
def test_zero_points(codes, granularity, dtype, tmp_path):
    weight = weight_of(SHAPE, dtype) + dtype_of(dtype).type(0.05)
    tensor = cp.quantize(weight, dtype=codes, mode="linear", granularity=granularity, block_size=16)
    result = stored(tmp_path, tensor, SHAPE, dtype)
    given = Program(result).weights[0]
    assert given.read() == tensor
    # The run-time rounds after each step where codes of 8 bits have several scales.
    assert np.array_equal(run(result)["w"].astype(np.float32), np.asarray(evaluate(given.node)).astype(np.float32))
    steps = np.abs(run(result)["w"].astype(np.float64) - tensor.dense().astype(np.float64))
    assert steps.max() <= 4 * float(np.abs(tensor.dense()).max()) * np.finfo(np.float16).eps


@pytest.mark.parametrize("codes", ["uint8", "uint4"])
@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel", "per_block"])
def test_symmetric_unsigned_codes_of_sparse_values_become_signed(codes, granularity, tmp_path):
    tensor = cp.quantize(pruned(weight_of(SHAPE, "float16")), dtype=codes, granularity=granularity, block_size=16)
    result = stored(tmp_path, tensor, SHAPE, "float16")
    assert np.array_equal(run(result)["w"], tensor.dense())
    assert Program(result).weights[0].read().values.quantized_dtype == codes[1:]


def test_zero_points_of_sparse_values_need_one_scale(tmp_path):
    weight = weight_of(SHAPE, "float32") + np.float32(0.05)
    tensor = cp.quantize(pruned(weight), mode="linear", granularity="per_tensor")
    result = stored(tmp_path, tensor, SHAPE, "float32")
    assert not run(result)["w"][tensor.dense() == 0].any()
    assert Program(result).weights[0].read() == tensor
    several = cp.quantize(pruned(weight), mode="linear")
    with pytest.raises(ValueError, match="sparse values with zero points"):
        Program(result).weights[0].replace(several)


def substituted(tmp_path, form, shape=SHAPE):
    """Store a chain, and return what the run-time yields and the weight as it is read."""
    asset = Asset.open(constant_asset(tmp_path / "source.aimodel", shape, form.type.name))
    program = Program(asset)
    program.substitute(program.weights[0], form)
    with AssetWriter(asset, tmp_path / "result.aimodel") as writer:
        program.save(writer)
        writer.finish()
    return run(tmp_path / "result.aimodel")["w"], Program(tmp_path / "result.aimodel").weights[0]


def codes_of_type(name, shape):
    size = BY_NAME[name].byte_count(int(np.prod(shape)))
    data = np.random.default_rng(1).integers(0, 256, size, dtype=np.uint8)
    if name == "float8_e4m3fn":
        data[(data & 0x7F) == 0x7F] = 0  # NaN
    if name == "float8_e5m2":
        data[(data & 0x7C) == 0x7C] = 0x30  # infinite and NaN
    return packed(name, shape, data)


def scales(shape, dtype):
    return (np.random.default_rng(2).random(shape) * 0.01 + 0.001).astype(dtype_of(dtype))


def powers(shape):
    return np.exp2(np.random.default_rng(2).integers(-9, 3, shape)).astype(np.float32)


NEW_CODES = ("int2", "uint2", "float8_e4m3fn", "float8_e5m2", "float4_e2m1fn")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("counts", [(1, 1), (32, 1), (32, 3), (2, 3)], ids=str)
@pytest.mark.parametrize("codes", NEW_CODES)
def test_codes_that_core_ml_has_not(codes, counts, dtype, tmp_path):
    for form in (
        shift_scale(codes_of_type(codes, SHAPE), scales(counts, dtype)),
        shift_scale(codes_of_type(codes, SHAPE), powers(counts), None, "float8_e8m0fnu", dtype_of(dtype)),
    ):
        folder = tmp_path / form.operands[1].type.name
        folder.mkdir()
        yielded, weight = substituted(folder, form)
        expected = evaluate(form)
        assert np.array_equal(yielded.astype(np.float32), expected.astype(np.float32))
        read = weight.read()
        dense = read if isinstance(read, np.ndarray) else read.dense()
        assert np.array_equal(dense, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("codes", ["float8_e4m3fn", "float8_e5m2", "int8", "uint8"])
@pytest.mark.parametrize("lut", [(1, 1, 16, 1), (4, 1, 16, 1), (1, 1, 16, 2)], ids=str)
def test_tables_of_codes(lut, codes, dtype, tmp_path):
    indices = codes_of_type("uint4", (SHAPE[0] // lut[-1], SHAPE[1]))
    table = codes_of_type(codes, lut)
    before = shift_scale(table, scales((lut[0], 1, 1, 1), dtype))
    looked_up = Form(LUT_TO_DENSE, (indices, table, axis_of(0)), table.type, SHAPE)
    forms = {
        "scaled before": Form(LUT_TO_DENSE, (indices, before, axis_of(0)), before.type, SHAPE),
        "cast": Form(CAST, (looked_up,), BY_NAME[dtype], SHAPE),
        "scaled after": shift_scale(looked_up, scales((32, 1), dtype)),
    }
    for name, form in forms.items():
        (tmp_path / name).mkdir()
        yielded, weight = substituted(tmp_path / name, form)
        expected = evaluate(form).astype(np.float32)
        assert np.array_equal(yielded.astype(np.float32), expected), name
        read = weight.read()
        dense = read if isinstance(read, np.ndarray) else read.dense()
        assert np.array_equal(np.asarray(dense).astype(np.float32), expected), name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("codes", NEW_CODES)
def test_sparse_codes_that_core_ml_has_not(codes, dtype, tmp_path):
    mask = packed("uint1", SHAPE, np.random.default_rng(5).integers(0, 256, 192, dtype=np.uint8))
    values = codes_of_type(codes, (int(np.unpackbits(mask.data).sum()),))
    given = Form(CAST, (values,), BY_NAME[dtype], values.shape) if codes in ("int2", "float4_e2m1fn") else values
    sparse = Form(BUILD_SPARSE, (given, mask), given.type, SHAPE, True)
    form = shift_scale(
        Form(SPARSE_TO_DENSE, (sparse,), given.type, SHAPE), powers((32, 1)), None, "float8_e8m0fnu", dtype_of(dtype)
    )
    yielded, weight = substituted(tmp_path, form)
    assert np.array_equal(yielded.astype(np.float32), evaluate(form).astype(np.float32))
    assert weight.storage.startswith(f"sparse quantized {codes}")


def test_an_offset_after_the_scale_is_read_as_values(tmp_path):
    data, factors = codes_of_type("int8", SHAPE), scales((1, 1), "float32")
    plain = shift_scale(data, factors)
    after = packed("float32", (1, 1), np.array([0.25], np.float32).view(np.uint8))
    form = Form(SHIFT_SCALE, (data, plain.operands[1], zeros("int8", (1, 1)), after), plain.type, SHAPE)
    yielded, weight = substituted(tmp_path, form)
    assert np.array_equal(weight.read(), yielded)


def test_values_of_another_type_are_rounded(tmp_path):
    weight = weight_of(SHAPE, "float32")
    tensor = cp.palettize(weight, nbits=4)
    result = stored(tmp_path, tensor, SHAPE, "float16")
    assert np.array_equal(run(result)["w"], tensor.dense().astype(np.float16))
