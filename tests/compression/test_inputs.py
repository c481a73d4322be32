"""What may be given as a weight, and what is refused."""

from __future__ import annotations

import array
import dataclasses
import itertools

import ml_dtypes
import numpy as np
import pytest

import corepress as cp
from helpers.arrays import BFLOAT16, DTYPES, arrays_of, assert_same_bits, normal

VERBS = {
    "palettize": lambda weight, **options: cp.palettize(weight, nbits=3, **options),
    "quantize": lambda weight, **options: cp.quantize(weight, granularity="per_tensor", mode="linear", **options),
    "prune": lambda weight, **options: cp.prune(weight, target_sparsity=0.5, **options),
}


class WithArray:
    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return self.values


class WithDlpack:
    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __dlpack__(self, **options):
        return self.values.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.values.__dlpack_device__()


def spread(weight: np.ndarray) -> np.ndarray:
    wide = np.zeros((*weight.shape[:-1], 3 * weight.shape[-1]), weight.dtype)
    wide[..., ::3] = weight
    return wide[..., ::3]


def unaligned(weight: np.ndarray) -> np.ndarray:
    buffer = np.zeros(weight.nbytes + 1, np.uint8)
    buffer[1:] = weight.reshape(-1).view(np.uint8)
    return buffer[1:].view(weight.dtype).reshape(weight.shape)


def read_only(weight: np.ndarray) -> np.ndarray:
    copy = weight.copy()
    copy.flags.writeable = False
    return copy


FORMS = {
    "strided": spread,
    "reversed": lambda weight: weight[::-1, ::-1].copy()[::-1, ::-1],
    "Fortran order": np.asfortranarray,
    "transposed twice": lambda weight: weight.transpose(1, 0, 2).copy().transpose(1, 0, 2),
    "read-only": read_only,
    "big-endian": lambda weight: weight.astype(weight.dtype.newbyteorder(">")),
    "unaligned": unaligned,
    "broadcast": lambda weight: np.broadcast_to(weight, (1, *weight.shape))[0],
    "memoryview": memoryview,
    "__array__": WithArray,
    "DLPack": WithDlpack,
    "subclass": lambda weight: weight.view(np.memmap),
}


@pytest.fixture(params=VERBS)
def verb(request):
    return VERBS[request.param]


def assert_same_tensor(first: object, second: object) -> None:
    for one, other in zip(arrays_of(first), arrays_of(second), strict=True):
        assert_same_bits(one, other)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_bytes(verb, form, dtype):
    if dtype == BFLOAT16 and form in ("memoryview", "DLPack"):
        pytest.skip("NumPy cannot hand this dtype over so")
    weight = normal(9, 5, 21, dtype=dtype)
    given = FORMS[form](weight)
    kept = np.array(given.values if hasattr(given, "values") else given)
    assert_same_tensor(verb(given), verb(weight))
    np.testing.assert_array_equal(np.asarray(given.values if hasattr(given, "values") else given), kept)


def test_buffers_of_the_standard_library(verb):
    numbers = array.array("f", normal(40).tolist())
    assert_same_tensor(verb(numbers), verb(normal(40)))


def test_float64_is_narrowed_to_nearest_even(verb):
    weight = np.random.default_rng(0).normal(size=(8, 9))
    assert_same_tensor(verb(weight), verb(weight.astype(np.float32)))
    assert verb(weight).dtype == np.float32
    middle = 1 + 2.0**-24
    assert cp.prune(np.array([middle, 3.0]), threshold=0).values.tolist() == [1.0, 3.0]


def test_float64_that_does_not_fit_is_refused(verb):
    with pytest.raises(ValueError, match=r"float64 values beyond 3.403e\+38 do not fit float32"):
        verb(np.array([1.0, 1e39]))


def test_tiny_float64_is_narrowed_quietly(verb):
    with np.errstate(all="raise", under="ignore"):
        assert_same_tensor(verb(np.array([1e-300, 1.0])), verb(np.array([0.0, 1.0], np.float32)))


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.uint8, bool, complex, "S4", object])
def test_other_dtypes_are_refused(verb, dtype):
    with pytest.raises(TypeError, match="weight must be float16, bfloat16, float32 or float64"):
        verb(np.ones(4).astype(dtype))


@pytest.mark.parametrize("rank", range(7))
def test_every_rank(verb, rank):
    weight = normal(*[2, 3, 1, 4, 2, 3][:rank])
    tensor = verb(weight)
    assert tensor.shape == weight.shape
    assert tensor.dense().shape == weight.shape
    flat = verb(weight.reshape(-1))
    np.testing.assert_array_equal(tensor.dense().reshape(-1), flat.dense())


@pytest.mark.parametrize("shape", [(0,), (0, 8), (8, 0), (3, 0, 4)])
def test_nothing_to_compress(shape):
    empty = np.zeros(shape, np.float16)
    assert cp.prune(empty, target_sparsity=0.5).dense().shape == shape
    assert cp.prune(empty, threshold=1).nbytes == 0
    with pytest.raises(ValueError, match=r"quantize: weight has no elements \(shape \("):
        cp.quantize(empty)
    with pytest.raises(ValueError, match=r"palettize: weight has no elements \(shape \("):
        cp.palettize(empty, nbits=2)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("shape", [(0, 8), (8, 0)])
def test_nothing_to_compress_in_groups(shape, axis):
    empty = np.zeros(shape, np.float32)
    with pytest.raises(ValueError, match="no elements"):
        cp.palettize(empty, nbits=2, granularity="per_grouped_channel", group_size=4, channel_axis=axis)
    with pytest.raises(ValueError, match="no elements"):
        cp.quantize(empty, channel_axis=axis)


@pytest.mark.parametrize("count", [1, 63, 64, 1025, 70_000])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", DTYPES)
def test_values_that_are_not_finite_are_counted_and_refused(simd_level, dtype, value, count):
    weight = np.ones((1, count), dtype)
    weight[0, [0, count // 2, count - 1]] = value
    total = len({0, count // 2, count - 1})
    for name, verb in VERBS.items():
        message = rf"{name}: {total} of {count} values are NaN or infinite \(shape \(1, {count}\)\)"
        with pytest.raises(ValueError, match=message):
            verb(weight)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_finite_pattern_is_finite(simd_level, dtype):
    edge = ml_dtypes.finfo(dtype)
    weight = np.array([edge.max, edge.min, edge.smallest_subnormal, -0.0], dtype)
    assert cp.prune(np.tile(weight, 20), target_sparsity=0).size == 80


def test_the_input_is_never_written_to(verb):
    for order, dtype in itertools.product("CF", (np.float16, np.float32, np.float64)):
        weight = np.array(normal(6, 10), dtype, order=order)
        before = weight.tobytes()
        tensor = verb(weight)
        tensor.dense()[:] = 7
        assert weight.tobytes() == before
        assert not any(np.shares_memory(part, weight) for part in arrays_of(tensor))


def test_decompressing_into_an_array_of_the_caller(verb):
    weight = normal(6, 10)
    tensor = verb(weight)
    out = np.full((6, 10), 9, np.float32)
    assert tensor.dense(out) is out
    assert_same_bits(out, tensor.dense())


@pytest.mark.parametrize(
    "out",
    [
        np.empty((10, 6), np.float32),
        np.empty((6, 10), np.float16),
        np.empty((6, 10), np.float64),
        np.empty((6, 10), ">f4"),
        np.empty((10, 6), np.float32).T,
        np.empty((6, 20), np.float32)[:, ::2],
        read_only(np.empty((6, 10), np.float32)),
        unaligned(np.empty((6, 10), np.float32)),
    ],
)
def test_an_output_that_does_not_fit_is_refused(verb, out):
    with pytest.raises(ValueError, match="out must be a writable, C-contiguous and aligned float32 array"):
        verb(normal(6, 10)).dense(out)


def test_numbers_need_not_be_aligned():
    values = np.random.default_rng(0).standard_normal(100)
    given = cp.kernels.kmeans1d(unaligned(values), 4, weights=unaligned(values**2))
    for one, other in zip(given, cp.kernels.kmeans1d(values, 4, weights=values**2), strict=True):
        np.testing.assert_array_equal(one, other)
    weight = normal(6, 10)
    assert_same_bits(cp.kernels.to_float16(unaligned(weight)), weight.astype(np.float16))
    assert_same_tensor(
        cp.palettize(weight, nbits=2, importance=unaligned(np.abs(weight))),
        cp.palettize(weight, nbits=2, importance=np.abs(weight)),
    )


def _parts(tensor: cp.CompressedTensor) -> dict[str, np.ndarray]:
    return {name: part for name, part in vars(tensor).items() if isinstance(part, np.ndarray)}


@pytest.mark.parametrize("form", [unaligned, lambda part: np.repeat(part, 2, axis=0)[::2], WithDlpack, memoryview])
def test_parts_of_tensors_come_in_every_form(verb, form):
    tensor = verb(normal(6, 10))
    rebuilt = dataclasses.replace(tensor, **{name: form(part) for name, part in _parts(tensor).items()})
    assert_same_bits(rebuilt.dense(), tensor.dense())
    assert all(part.flags.c_contiguous and part.flags.aligned for part in _parts(rebuilt).values())


def test_parts_of_tensors_of_other_types_are_refused(verb):
    tensor = verb(normal(6, 10))
    for name, part in _parts(tensor).items():
        for wrong in (None, "text", part.astype(complex), {}):
            if wrong is None and name == "zero_point":
                continue
            with pytest.raises(TypeError, match=rf"^{type(tensor).__name__}: {name} must be "):
                dataclasses.replace(tensor, **{name: wrong})
