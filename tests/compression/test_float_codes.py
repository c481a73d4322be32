"""Quantization to floats of 8 and 4 bits, and binary scales: ml_dtypes' rounding, the reference's bits."""

from __future__ import annotations

import re

import ml_dtypes
import numpy as np
import pytest

import corepress as cp
from corepress import reference
from corepress.tensors import QUANTIZED_DTYPES, values_of_codes
from helpers.arrays import BFLOAT16, DRAWS, DTYPES, assert_same_bits, draw, normal

FLOATS = {
    "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
    "float8_e5m2": ml_dtypes.float8_e5m2,
    "float4_e2m1fn": ml_dtypes.float4_e2m1fn,
}
INTEGERS = {
    "int8": (-127, 127), "uint8": (0, 254), "int4": (-7, 7), "uint4": (0, 14), "int2": (-1, 1), "uint2": (0, 2)
}  # fmt: skip
BINARY = "float8_e8m0fnu"
BLOCKS = [
    ((6, 64), (1, 32)),
    ((64, 6), (32, 1)),
    ((5, 48), (1, 16)),
    ((3, 96), (1, 3)),
    ((4, 8, 3, 3), (1, 4, 0, 0)),
    ((8, 4, 2, 2), (4, 1, 0, 0)),
    ((2, 32, 5), (0, 8, 1)),
    ((4, 6, 8), (2, 3, 4)),
    ((35,), (7,)),
    ((33,), (1,)),
    ((9, 7), (0, 0)),
    ((9, 70), (1, 0)),
    ((9, 7), (0, 1)),
]
HAZARDS = {
    "largest half": [65_504.0, -65_504.0, 3.0],
    "range beyond 32768": [-40_000.0, 40_000.0, 1.0, 0.0],
    "smallest subnormal": [2.0**-24, 0.0],
    "subnormal scale": [7e-3, -1e-3, 3e-4],
    "scale would be zero": [3e-6, -1e-6],
    "constant": [0.7, 0.7, 0.7],
    "all zero": [0.0, -0.0, 0.0],
    "one value": [5.0],
    "outlier": [1000.0, 1e-3, -1e-3, 2e-3],
}


def largest_of(name: str) -> float:
    return float(ml_dtypes.finfo(FLOATS[name]).max)


def all_values(name: str) -> np.ndarray:
    """The finite values of a float type, ascending and without -0."""
    nbits = QUANTIZED_DTYPES[name][0]
    values = np.arange(2**nbits, dtype=np.uint8).view(FLOATS[name]).astype(np.float32)
    return np.unique(values[np.isfinite(values)])


def hard_values(name: str) -> np.ndarray:
    """Every value of the type, the middles between neighbours, and what is next to them in float32."""
    values = all_values(name)
    middles = (values[1:].astype(np.float64) + values[:-1]).astype(np.float32) / 2
    marks = np.concatenate([values, middles])
    near = [marks, np.nextafter(marks, np.float32(np.inf)), np.nextafter(marks, np.float32(-np.inf))]
    return np.clip(np.concatenate([*near, [-0.0, 0.0]]), values[0], values[-1]).astype(np.float32)


def blocks_of(tensor: cp.QuantizedTensor):
    for place in np.ndindex(tensor.scale.shape):
        yield (
            place,
            tuple(
                slice(index * size, (index + 1) * size) for index, size in zip(place, tensor.block_shape, strict=True)
            ),
        )


def check_floats(weight: np.ndarray, tensor: cp.QuantizedTensor, search: bool = False) -> None:
    """The bits of the reference, block by block, and of ml_dtypes' cast of the quotients."""
    name, binary = tensor.quantized_dtype, tensor.scale_dtype is not None
    codes, dense = tensor.codes(), tensor.dense()
    assert codes.dtype == np.uint8
    assert dense.dtype == weight.dtype
    for place, block in blocks_of(tensor):
        quantize = reference.quantize_binary if binary else reference.quantize_floats
        expected, scale = quantize(weight[block], name, search)
        assert tensor.scale[place] == scale
        np.testing.assert_array_equal(codes[block], expected)
        assert_same_bits(dense[block], reference.decode_floats(expected, scale, name, weight.dtype))
        with np.errstate(all="ignore"):
            quotients = weight[block].astype(np.float32) / np.float32(scale)
        inside = np.clip(quotients, -largest_of(name), largest_of(name))
        theirs = inside.astype(FLOATS[name])
        np.testing.assert_array_equal(codes[block], theirs.view(np.uint8))
        assert_same_bits(dense[block], (theirs.astype(np.float32) * np.float32(scale)).astype(weight.dtype))


def check_binary_integers(weight: np.ndarray, tensor: cp.QuantizedTensor, search: bool = False) -> None:
    codes, dense = tensor.codes(), tensor.dense()
    for place, block in blocks_of(tensor):
        expected, scale = reference.quantize_binary(weight[block], INTEGERS[tensor.quantized_dtype], search)
        offset = 0 if tensor.zero_point is None else int(tensor.zero_point[place])
        assert tensor.scale[place] == scale
        np.testing.assert_array_equal(codes[block], expected)
        products = (expected - offset).astype(np.float32) * scale
        assert_same_bits(dense[block], products.astype(weight.dtype))


def squared_error(weight: np.ndarray, tensor: cp.QuantizedTensor) -> float:
    return float(((weight.astype(np.float64) - tensor.dense().astype(np.float64)) ** 2).sum())


@pytest.mark.parametrize("name", FLOATS)
def test_values_of_codes_are_those_of_ml_dtypes(name):
    nbits = QUANTIZED_DTYPES[name][0]
    theirs = np.arange(2**nbits, dtype=np.uint8).view(FLOATS[name]).astype(np.float32)
    np.testing.assert_array_equal(values_of_codes(name), theirs)
    finite = np.isfinite(theirs)
    assert_same_bits(values_of_codes(name)[finite], theirs[finite])


@pytest.mark.parametrize("name", FLOATS)
def test_every_code_decodes_to_the_value_of_ml_dtypes(simd_level, name):
    nbits = QUANTIZED_DTYPES[name][0]
    codes = np.tile(np.arange(2**nbits, dtype=np.uint8), 32)
    data = codes if nbits == 8 else codes[::2] | codes[1::2] << 4
    values = codes.view(FLOATS[name]).astype(np.float32)
    for shape, counts in (((codes.size,), (1,)), ((codes.size // 8, 8), (1, 8)), ((codes.size // 8, 8), (1, 1))):
        tensor = cp.QuantizedTensor(shape, data, np.full(counts, 1.5, np.float32), None, name)
        np.testing.assert_array_equal(tensor.dense().reshape(-1), values * np.float32(1.5))


@pytest.mark.parametrize("name", FLOATS)
def test_ties_and_neighbours_of_ties_are_rounded_as_ml_dtypes_does(simd_level, name):
    marks = hard_values(name)
    marks = np.append(marks, np.float32(largest_of(name)))  # the scale is 1
    tensor = cp.quantize(marks, dtype=name, granularity="per_tensor")
    assert tensor.scale.item() == 1
    np.testing.assert_array_equal(tensor.codes(), marks.astype(FLOATS[name]).view(np.uint8))
    columns = np.stack([marks] * 3, 1)
    tensor = cp.quantize(columns, dtype=name, channel_axis=1)
    np.testing.assert_array_equal(tensor.codes(), columns.astype(FLOATS[name]).view(np.uint8))


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("scale_dtype", [None, BINARY])
def test_random_bits_give_finite_codes_within_half_a_step(name, scale_dtype):
    rng = np.random.default_rng(7)
    values = rng.integers(0, 2**32, 60_000, dtype=np.uint32).view(np.float32)
    values = values[np.isfinite(values) & (np.abs(values) < 1e37)]
    tensor = cp.quantize(values, dtype=name, granularity="per_tensor", scale_dtype=scale_dtype)
    check_floats(values, tensor)
    decoded = tensor.codes().view(FLOATS[name]).astype(np.float32)
    assert np.isfinite(decoded).all()
    quotients = values.astype(np.float64) / float(tensor.scale.item())
    table = all_values(name).astype(np.float64)
    places = np.clip(np.searchsorted(table, quotients), 1, table.size - 1)
    nearest = np.minimum(np.abs(quotients - table[places - 1]), np.abs(quotients - table[places]))
    assert (np.abs(decoded - quotients) <= nearest * (1 + 1e-6) + 1e-12).all()


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("scale_dtype", [None, BINARY])
@pytest.mark.parametrize(("shape", "block_size"), BLOCKS)
@pytest.mark.parametrize("weight_dtype", DTYPES)
def test_every_grid_of_float_blocks(simd_level, weight_dtype, shape, block_size, scale_dtype, name):
    weight = normal(*shape, dtype=weight_dtype)
    options = {"granularity": "per_block", "block_size": block_size, "scale_dtype": scale_dtype}
    tensor = cp.quantize(weight, dtype=name, **options)
    assert tensor.zero_point is None
    assert tensor.dtype == weight.dtype
    check_floats(weight, tensor)


@pytest.mark.parametrize("scale_dtype", [None, BINARY])
@pytest.mark.parametrize("draw_name", DRAWS)
@pytest.mark.parametrize("weight_dtype", DTYPES)
def test_searched_scales_of_floats(draw_name, weight_dtype, scale_dtype):
    weight = draw(draw_name, 6 * 64, weight_dtype).reshape(6, 64)
    for name in FLOATS:
        options = {"dtype": name, "granularity": "per_block", "block_size": 32, "scale_dtype": scale_dtype}
        plain, searched = cp.quantize(weight, **options), cp.quantize(weight, scale_search="mse", **options)
        check_floats(weight, plain)
        check_floats(weight, searched, search=True)
        assert squared_error(weight, searched) <= squared_error(weight, plain)


@pytest.mark.parametrize("hazard", HAZARDS)
@pytest.mark.parametrize("weight_dtype", DTYPES)
def test_hazards_of_floats(simd_level, hazard, weight_dtype):
    weight = np.array([HAZARDS[hazard]], weight_dtype)
    for name in FLOATS:
        for scale_dtype in (None, BINARY):
            plain = cp.quantize(weight, dtype=name, scale_dtype=scale_dtype)
            searched = cp.quantize(weight, dtype=name, scale_dtype=scale_dtype, scale_search="mse")
            check_floats(weight, plain)
            check_floats(weight, searched, search=True)
            assert np.isfinite(plain.dense().astype(np.float32)).all()
            assert (plain.scale > 0).all()
            assert squared_error(weight, searched) <= squared_error(weight, plain)


def test_ranges_of_singles_from_end_to_end():
    largest = np.finfo(np.float32).max
    for values in ([largest, -1.0], [1e-45, 0.0], [largest, 1e-45], [-3e38, 2e38]):
        weight = np.array([values], np.float32)
        for name in (*FLOATS, *INTEGERS):
            tensor = cp.quantize(weight, dtype=name, scale_dtype=BINARY)
            assert np.isfinite(tensor.dense()).all()
            check = check_floats if name in FLOATS else check_binary_integers
            check(weight, tensor)
            check(weight, cp.quantize(weight, dtype=name, scale_dtype=BINARY, scale_search="mse"), search=True)


@pytest.mark.parametrize("name", INTEGERS)
@pytest.mark.parametrize("draw_name", ["normal", "t3", "outliers", "subnormal", "all zero"])
@pytest.mark.parametrize("weight_dtype", DTYPES)
def test_integers_with_binary_scales(simd_level, weight_dtype, draw_name, name):
    weight = draw(draw_name, 6 * 96, weight_dtype).reshape(6, 96)
    options = {"dtype": name, "granularity": "per_block", "block_size": 32, "scale_dtype": BINARY}
    plain, searched = cp.quantize(weight, **options), cp.quantize(weight, scale_search="mse", **options)
    check_binary_integers(weight, plain)
    check_binary_integers(weight, searched, search=True)
    assert squared_error(weight, searched) <= squared_error(weight, plain)


@pytest.mark.parametrize("name", FLOATS)
def test_the_binary_scale_is_the_smallest_that_reaches_all_values(name):
    weight = normal(40, 64, dtype=np.float32)
    tensor = cp.quantize(weight, dtype=name, granularity="per_block", scale_dtype=BINARY)
    magnitudes = np.abs(weight.reshape(40, 2, 32)).max(2)
    assert (magnitudes <= tensor.scale * largest_of(name)).all()
    assert (magnitudes > tensor.scale / 2 * largest_of(name)).all()
    assert tensor.nbytes == tensor.data.nbytes + 80


def test_the_search_chooses_between_both_rules_of_microscaling():
    """A largest value just above a power of two times the largest code: saturating it is better than coarser steps."""
    block = np.full(32, 0.5, np.float32)
    block[0] = 6.1
    plain = cp.quantize(block[None], dtype="float4_e2m1fn", scale_dtype=BINARY)
    searched = cp.quantize(block[None], dtype="float4_e2m1fn", scale_dtype=BINARY, scale_search="mse")
    assert (plain.scale.item(), searched.scale.item()) == (2, 1)
    assert searched.dense().max() == 6


@pytest.mark.parametrize("name", FLOATS)
def test_the_search_helps_normal_weights(name):
    weight = normal(64, 256, dtype=np.float32)
    options = {"dtype": name, "granularity": "per_block", "block_size": 32}
    plain, searched = cp.quantize(weight, **options), cp.quantize(weight, scale_search="mse", **options)
    assert squared_error(weight, searched) < 0.97 * squared_error(weight, plain)


@pytest.mark.parametrize("name", [*FLOATS, "int2", "uint2"])
@pytest.mark.parametrize(
    ("shape", "block_size"),
    [
        ((512, 1056), (1, 32)),  # many runs in several pieces
        ((1055, 33), (1, 33)),  # slabs of odd size
        ((9, 64, 1025), (0, 32, 1)),  # blocks spread over the tensor
        ((3, 200_001), (3, 200_001)),
    ],
)
def test_threads_levels_and_errors_of_large_weights(simd_level, shape, block_size, name):
    weight = normal(*shape, dtype=np.float16)
    for scale_dtype in (None, BINARY):
        options = {"dtype": name, "granularity": "per_block", "block_size": block_size, "scale_dtype": scale_dtype}
        tensor = cp.quantize(weight, num_threads=1, **options)
        assert cp.quantize(weight, num_threads=3, **options) == tensor
        dense = tensor.dense(num_threads=1)
        assert_same_bits(tensor.dense(num_threads=3), dense)
        grid = [part for size, count in zip(tensor.block_shape, tensor.scale.shape, strict=True)
                for part in (count, size)]  # fmt: skip
        axes = tuple(range(1, len(grid), 2))
        codes = tensor.codes()
        if name in FLOATS:
            exact = codes.view(FLOATS[name]).astype(np.float32).reshape(grid)
        else:
            offsets = 0 if tensor.zero_point is None else np.expand_dims(tensor.zero_point, axes).astype(np.float32)
            exact = codes.reshape(grid).astype(np.float32) - offsets
        scales = np.expand_dims(tensor.scale, axes).astype(np.float32)
        assert_same_bits(dense, (exact * scales).astype(np.float16).reshape(shape))
        error = cp.error(weight, tensor)
        exact_error = ((weight.astype(np.float64) - dense.astype(np.float64)) ** 2).sum()
        assert error.sse == pytest.approx(exact_error, rel=1e-12)
        first = next(tensor.split(0, [(0, shape[0] // 2), (shape[0] // 2, shape[0])]))
        assert_same_bits(first.dense(), dense[: shape[0] // 2])


@pytest.mark.parametrize("name", [*FLOATS, "int2"])
def test_lists_and_importance(name):
    weights = [normal(8, 32, seed=seed, dtype=np.float32) for seed in range(3)]
    options = {"dtype": name, "granularity": "per_channel", "scale_search": "mse"}
    importances = [np.random.default_rng(1).random((8, 32)) ** 4, None, np.zeros((8, 32))]
    together = cp.quantize(weights, importance=importances, **options)
    for weight, importance, tensor in zip(weights, importances, together, strict=True):
        assert tensor == cp.quantize(weight, importance=importance, **options)
    assert together[1] == cp.quantize(weights[1], **options)
    assert together[2] == cp.quantize(weights[2], **options)

    def weighted(tensor: cp.QuantizedTensor) -> float:
        return float((importances[0] * (tensor.dense().astype(np.float64) - weights[0]) ** 2).sum())

    assert weighted(together[0]) < weighted(cp.quantize(weights[0], **options))


@pytest.mark.parametrize("name", [*FLOATS, "int2", "uint2"])
@pytest.mark.parametrize("scale_dtype", [None, BINARY])
@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel", "per_block"])
def test_sparse_values(name, scale_dtype, granularity):
    weight = normal(16, 96, dtype=np.float16)
    sparse = cp.prune(weight, target_sparsity=0.5)
    options = {"dtype": name, "granularity": granularity, "scale_dtype": scale_dtype}
    joint = cp.quantize(sparse, **options)
    assert joint.values.scale_dtype == scale_dtype
    assert_same_bits(joint.dense() + np.float16(0), cp.quantize(sparse.dense(), **options).dense() + np.float16(0))
    parts = [part.dense() for part in joint.split(0, [(0, 7), (7, 16)])]
    assert_same_bits(np.concatenate(parts), joint.dense())
    error = ((weight.astype(np.float64) - joint.dense().astype(np.float64)) ** 2).sum()
    assert cp.error(weight, joint).sse == pytest.approx(error, rel=1e-12)
    pruned = cp.prune(cp.quantize(weight, **options), target_sparsity=0.5)
    kept = pruned.dense()
    assert_same_bits(kept[kept != 0], cp.quantize(weight, **options).dense()[kept != 0])


def test_error_feedback_of_two_bits():
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((400, 48)) @ rng.standard_normal((48, 48))
    hessian, weight = inputs.T @ inputs / 400, normal(24, 48, dtype=np.float32)

    def loss(tensor: cp.QuantizedTensor) -> float:
        return float(((inputs @ (tensor.dense().astype(np.float64) - weight).T) ** 2).sum())

    for name in ("int2", "uint2"):
        for scale_dtype in (None, BINARY):
            options = {"dtype": name, "scale_search": "mse", "scale_dtype": scale_dtype}
            fed_back = cp.quantize(weight, hessian=hessian, **options)
            importance = np.broadcast_to(np.diag(hessian), weight.shape)
            assert loss(fed_back) < 0.8 * loss(cp.quantize(weight, importance=importance, **options))
            lowest, highest = (-2, 1) if name == "int2" else (0, 3)
            if scale_dtype is not None:
                lowest, highest = INTEGERS[name]
            assert fed_back.codes().min() >= lowest
            assert fed_back.codes().max() <= highest


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("scale_dtype", [None, BINARY])
@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel", "per_block"])
def test_error_feedback_of_floats(monkeypatch, name, scale_dtype, granularity):
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((400, 64)) @ rng.standard_normal((64, 64))
    hessian, weight = inputs.T @ inputs / 400, normal(24, 64, dtype=np.float16)

    def loss(tensor: cp.QuantizedTensor) -> float:
        return float(((inputs @ (tensor.dense().astype(np.float64) - weight).T) ** 2).sum())

    options = {"dtype": name, "granularity": granularity, "scale_dtype": scale_dtype}
    fed_back, plain = cp.quantize(weight, hessian=hessian, **options), cp.quantize(weight, **options)
    assert loss(fed_back) < 0.7 * loss(plain)
    np.testing.assert_array_equal(fed_back.scale, plain.scale)
    assert np.isfinite(fed_back.codes().view(FLOATS[name]).astype(np.float32)).all()
    alone = cp.quantize(weight, hessian=np.eye(64), dampening=0.0, **options)  # the nearest, however ties are broken
    assert squared_error(weight, alone) <= squared_error(weight, plain) * (1 + 1e-9)
    assert squared_error(weight, alone) > squared_error(weight, plain) * 0.999
    monkeypatch.setattr("corepress.compression.float_feedback._MOST_ENTRIES", 2000)  # a few rows at a time
    assert cp.quantize(weight, hessian=hessian, **options) == fed_back
    sparse = cp.prune(weight, target_sparsity=0.5)
    joint = cp.quantize(sparse, hessian=hessian, **options)
    assert not joint.dense()[sparse.dense() == 0].any()
    kept = sparse.dense().astype(np.float64)
    errors = [
        float(((inputs @ (each.dense() - kept).T) ** 2).sum()) for each in (joint, cp.quantize(sparse, **options))
    ]
    assert errors[0] < errors[1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda w: cp.quantize(w, dtype="float8_e4m3"), "dtype must be 'int8', 'uint8'"),
        (
            lambda w: cp.quantize(w, dtype="float8_e5m2", mode="linear"),
            "dtype 'float8_e5m2' has no zero points; use mode 'linear_symmetric'",
        ),
        (
            lambda w: cp.quantize(w, scale_dtype=BINARY, mode="linear"),
            "scale_dtype 'float8_e8m0fnu' has no zero points; use mode 'linear_symmetric'",
        ),
        (lambda w: cp.quantize(w, scale_dtype="float16"), "scale_dtype must be None, 'float8_e8m0fnu', not 'float16'"),
        (lambda w: cp.quantize(w, dtype="float8_e4m3fn", importance=w), "importance needs scale_search 'mse'"),
    ],
)
def test_what_does_not_go_together_is_refused(call, message):
    with pytest.raises(ValueError, match=re.escape(f"quantize: {message}")):
        call(normal(4, 8))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"zero_point": np.zeros((1, 1), np.uint8)}, "float8_e4m3fn has no zero_point"),
        ({"decoded_dtype": np.dtype(np.float16)}, "decoded_dtype needs a scale_dtype"),
        ({"scale_dtype": "float16"}, "scale_dtype must be None or 'float8_e8m0fnu'"),
        ({"scale_dtype": BINARY}, "decoded_dtype must be float16, bfloat16, float32"),
        (
            {"scale_dtype": BINARY, "decoded_dtype": np.float16, "scale": np.full((1, 1), 3, np.float32)},
            "scale must be float32 powers of two",
        ),
        (
            {"scale_dtype": BINARY, "decoded_dtype": np.float16, "scale": np.full((1, 1), 2, np.float16)},
            "scale must be float32 powers of two",
        ),
    ],
)
def test_fields_that_do_not_fit_each_other(changes, message):
    fields = {
        "shape": (1, 4), "data": np.zeros(4, np.uint8), "scale": np.ones((1, 1), np.float32), "zero_point": None,
        "quantized_dtype": "float8_e4m3fn",
    }  # fmt: skip
    with pytest.raises(ValueError, match=re.escape(message)):
        cp.QuantizedTensor(**(fields | changes))


def test_powers_of_two_at_both_ends_are_scales():
    for exponent in (-127, -126, 0, 127):
        scale = np.full((1, 1), 2.0**exponent, np.float32)
        tensor = cp.QuantizedTensor(
            (1, 3), np.array([0x38, 0x30, 0xB8], np.uint8), scale, None, "float8_e4m3fn", None, BINARY, np.float32
        )
        assert tensor.dense().tolist() == [[2.0**exponent, 2.0 ** (exponent - 1), -(2.0**exponent)]]
    half = cp.QuantizedTensor((1, 1), np.array([0x38], np.uint8), scale, None, "float8_e4m3fn", None, BINARY, BFLOAT16)
    assert half.dtype == BFLOAT16
    assert float(half.dense().item()) == 2.0**127
