"""Every argument takes its values in every form, and names itself in the refusal of all else."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import pytest

import corepress as cp
from corepress import kernels
from corepress.compression import apply
from corepress.specs import Palettize, Prune, Quantize, spec_from_dict
from helpers.arrays import BFLOAT16, assert_same_bits, normal

WEIGHT = normal(6, 8)
NUMBERS = np.abs(WEIGHT[0]).astype(np.float64)
CODES = np.arange(48, dtype=np.uint8) % 4
PACKED = kernels.pack_bits(CODES, 2)
ONES = WEIGHT > 0
SPARSE = cp.prune(WEIGHT, threshold=0.1)


class Argument(NamedTuple):
    """An array argument: a right value, and a call with it."""

    right: np.ndarray
    call: Callable[[Any], Any]
    optional: bool = False


ARRAYS = {
    "palettize: weight": Argument(WEIGHT, lambda given: cp.palettize(given, nbits=2)),
    "palettize: lut": Argument(NUMBERS, lambda given: cp.palettize(WEIGHT, lut=given), optional=True),
    "palettize: importance": Argument(
        abs(WEIGHT), lambda given: cp.palettize(WEIGHT, nbits=2, importance=given), optional=True
    ),
    "quantize: weight": Argument(WEIGHT, cp.quantize),
    "quantize: importance": Argument(
        abs(WEIGHT), lambda given: cp.quantize(WEIGHT, scale_search="mse", importance=given), optional=True
    ),
    "prune: weight": Argument(WEIGHT, lambda given: cp.prune(given, threshold=0.1)),
    "error: weight": Argument(WEIGHT, lambda given: cp.error(given, -WEIGHT)),
    "error: tensor": Argument(WEIGHT, lambda given: cp.error(-WEIGHT, given)),
    "kmeans: vectors": Argument(WEIGHT, lambda given: kernels.kmeans(given, 3)),
    "kmeans: weights": Argument(NUMBERS[:6], lambda given: kernels.kmeans(WEIGHT, 3, given), optional=True),
    "kmeans1d: values": Argument(NUMBERS, lambda given: kernels.kmeans1d(given, 3)),
    "kmeans1d: weights": Argument(NUMBERS, lambda given: kernels.kmeans1d(NUMBERS, 3, given), optional=True),
    "kmeans1d_sweep: values": Argument(NUMBERS, lambda given: kernels.kmeans1d_sweep(given, (2, 3))),
    "kmeans1d_sweep: weights": Argument(
        NUMBERS, lambda given: kernels.kmeans1d_sweep(NUMBERS, (2, 3), given), optional=True
    ),
    "assign: values": Argument(WEIGHT, lambda given: kernels.assign(given, [-1, 0, 1])),
    "assign: centroids": Argument(np.sort(NUMBERS), lambda given: kernels.assign(WEIGHT, given)),
    "to_float16: values": Argument(NUMBERS, kernels.to_float16),
    "pack_bits: codes": Argument(CODES, lambda given: kernels.pack_bits(given, 2)),
    "unpack_bits: data": Argument(PACKED, lambda given: kernels.unpack_bits(given, 2, 48)),
    "pack_mask: mask": Argument(ONES, kernels.pack_mask),
    "unpack_mask: data": Argument(PACKED, lambda given: kernels.unpack_mask(given, 96)),
    "encode_sparse: weight": Argument(WEIGHT, lambda given: kernels.encode_sparse(given, ONES)),
    "encode_sparse: mask": Argument(ONES, lambda given: kernels.encode_sparse(WEIGHT, given)),
    "decode_sparse: values": Argument(WEIGHT[ONES], lambda given: kernels.decode_sparse(given, ONES, (6, 8))),
    "decode_sparse: mask": Argument(ONES, lambda given: kernels.decode_sparse(WEIGHT[ONES], given, (6, 8))),
    "magnitude_mask: weight": Argument(WEIGHT, lambda given: kernels.magnitude_mask(given, 0.1)),
    "n_m_mask: weight": Argument(WEIGHT, lambda given: kernels.n_m_mask(given, 2, 4)),
    "SparseTensor: mask": Argument(SPARSE.mask, lambda given: cp.SparseTensor((6, 8), given, SPARSE.values)),
    "SparseTensor: values": Argument(SPARSE.values, lambda given: cp.SparseTensor((6, 8), SPARSE.mask, given)),
    "Support: mask": Argument(SPARSE.mask, lambda given: cp.Support((6, 8), given)),
    "palettize: the table of lut_function": Argument(
        NUMBERS, lambda given: _by_function(lambda weight: (given, np.zeros(weight.shape, int)))
    ),
    "palettize: the indices of lut_function": Argument(
        CODES.reshape(6, 8), lambda given: _by_function(lambda _: (range(4), given))
    ),
}
FLOATS = [name for name in ARRAYS if re.search("weight$|vectors$|tensor$|assign: values|decode_sparse: values", name)]


def _by_function(function: Callable[[Any], Any]) -> cp.CompressedTensor:
    return apply(WEIGHT, Palettize(mode="custom", lut_function=function))


class WithArray:
    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.values


class WithDlpack:
    """The exporter alone, as of hosts that do not know NumPy."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __dlpack__(self, **options: Any) -> Any:
        return self.values.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.values.__dlpack_device__()


class OfGradients(WithArray):
    """A tensor that requires a gradient, which torch does not export."""

    requires_grad = True

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        raise RuntimeError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")

    def detach(self) -> WithArray:
        return WithArray(self.values)


class Elsewhere(WithArray):
    """A tensor that is not in the CPU's memory."""

    def __init__(self, device: str) -> None:
        self.device, self.dtype = device, "torch.float32"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        raise TypeError(f"can't convert {self.device} device type tensor to numpy. Use Tensor.cpu() first.")


def assert_same(first: Any, second: Any) -> None:
    if isinstance(first, np.ndarray):
        assert_same_bits(first, second)
    elif isinstance(first, tuple):
        for one, other in zip(first, second, strict=True):
            assert_same(one, other)
    elif isinstance(first, dict):
        assert_same(tuple(first.values()), tuple(second.values()))
    else:
        assert first == second


FORMS = {
    "__array__": WithArray,
    "DLPack alone": WithDlpack,
    "memoryview": memoryview,
    "gradient": OfGradients,
    "strided": lambda values: np.repeat(values, 2, axis=-1)[..., ::2],
    "big-endian": lambda values: values.astype(values.dtype.newbyteorder(">")),
    "memmap": lambda values: values.view(np.memmap),
    "matrix": lambda values: np.asmatrix(values) if values.ndim == 2 else values,
}


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # of NumPy's matrix
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ARRAYS)
def test_every_argument_takes_every_form(name, form):
    argument = ARRAYS[name]
    assert_same(argument.call(FORMS[form](argument.right)), argument.call(argument.right))


@pytest.mark.parametrize("name", [name for name, each in ARRAYS.items() if each.right.dtype == np.uint8])
@pytest.mark.parametrize("form", [bytes, bytearray])
def test_bytes_are_arrays_of_uint8(name, form):
    argument = ARRAYS[name]
    if argument.right.ndim > 1:
        pytest.skip("bytes have one axis")
    assert_same(argument.call(form(argument.right.tobytes())), argument.call(argument.right))


@pytest.mark.parametrize("name", FLOATS)
def test_weights_are_also_half_and_bfloat16(name):
    for dtype in (np.float16, BFLOAT16):
        if name.startswith("error"):
            continue  # which compares arrays of one dtype
        ARRAYS[name].call(ARRAYS[name].right.astype(dtype))


def wrong_kinds(right: np.ndarray) -> dict[str, Any]:
    return {
        "None": None,
        "text": "text",
        "dict": {},
        "object": object(),
        "generator": (each for each in (1, 2)),
        "function": len,
        "texts": np.full(right.shape, "1"),
        "objects": right.astype(object),
        "complex": right.astype(complex),
        "datetime": np.zeros(right.shape, "M8[D]"),
        "timedelta": np.zeros(right.shape, "m8[D]"),
        "structured": np.zeros(right.shape, [("a", "f4")]),
        "void": np.zeros(right.shape, "V4"),
        "float8": right.astype(ml_dtypes.float8_e4m3fn),
        "longdouble": right.astype(np.longdouble),
        "masked": np.ma.array(right, mask=False),
        "masked rows": [np.ma.array(right.reshape(-1)[:2])] * 2,
        "ragged": ([1.0, 2.0], [3.0]),
        "cuda": Elsewhere("cuda:0"),
        "meta": Elsewhere("meta"),
    }


@pytest.mark.parametrize("kind", wrong_kinds(WEIGHT))
@pytest.mark.parametrize("name", ARRAYS)
def test_every_argument_names_itself_in_every_refusal(name, kind, recwarn):
    argument = ARRAYS[name]
    if kind == "None" and argument.optional:
        pytest.skip("None is a value of it")
    if kind == "ragged" and re.match("(palettize|quantize|prune): weight", name):
        pytest.skip("a list of weights may have any shapes")
    if kind == "longdouble" and np.finfo(np.longdouble).bits == 64:
        pytest.skip("it is float64 on this system")
    verb, _, short = name.partition(": ")
    with pytest.raises((TypeError, ValueError)) as caught:
        argument.call(wrong_kinds(argument.right)[kind])
    message = str(caught.value)
    place = "(weight 0 of the list: )?" if kind == "masked rows" else ""
    assert re.match(rf"{verb}: {place}{short} (must|has)", message), message
    assert "incompatible function arguments" not in message
    assert len(message) < 250
    assert caught.type is (ValueError if kind == "ragged" else TypeError)
    assert not recwarn.list


def test_refusals_say_what_to_do():
    for given, message in [
        (Elsewhere("cuda:0"), "prune: weight must be in the CPU's memory, not on cuda:0; give weight.cpu()"),
        (
            Elsewhere("meta"),
            "prune: weight must hold values; a tensor on the meta device has only a shape, load it first",
        ),
        (np.ma.array([1.0]), "prune: weight must not be a masked array; fill it, with weight.filled(value)"),
        (np.array([1j]), "not complex128; give its real and imaginary parts separately"),
        (np.zeros(2, [("a", "f4")]), "; give one of its fields"),
        (None, "prune: weight must be an array of float16, bfloat16, float32 or float64, not None"),
    ]:
        with pytest.raises(TypeError, match=re.escape(message)):
            cp.prune(given, threshold=0)
    with pytest.raises(ValueError, match=r"n_m_mask: weight must be an array of .* a list whose parts differ in shape"):
        kernels.n_m_mask([[1.0, 2.0], [3.0]], 1, 2)
    with pytest.raises(TypeError, match=r"^palettize: weight 1 of the list: weight must be in the CPU's memory"):
        cp.palettize([WEIGHT, Elsewhere("cuda:0")], nbits=2)


class Bfloat16(WithDlpack):
    """A tensor of bfloat16, whose dtype NumPy does not read; its capsule is that of its bits with the dtype changed."""

    dtype = "torch.bfloat16"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        raise TypeError("Got unsupported ScalarType BFloat16")

    def __dlpack__(self, **options: Any) -> Any:
        import ctypes

        assert not options, "a consumer that asks for a version is one that NumPy has"
        capsule = self.values.view(np.uint16).__dlpack__()
        get_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
            ("PyCapsule_GetPointer", ctypes.pythonapi)
        )
        ctypes.c_uint8.from_address(get_pointer(capsule, b"dltensor") + 20).value = 4
        return capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


@pytest.mark.parametrize("name", FLOATS)
def test_bfloat16_comes_by_dlpack(name):
    argument = ARRAYS[name]
    if name.startswith("error"):
        pytest.skip("compares arrays of one dtype")
    values = argument.right.astype(BFLOAT16)
    assert_same(argument.call(Bfloat16(values)), argument.call(values))


def test_bfloat16_needs_the_package_of_the_dtype(monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    message = (
        "quantize: weight is bfloat16, for which NumPy needs the package ml_dtypes; install it, or give weight.float()"
    )
    with pytest.raises(TypeError, match=re.escape(message)):
        cp.quantize(Bfloat16(WEIGHT.astype(BFLOAT16)))


def test_tensors_of_torch():
    torch = pytest.importorskip("torch")
    weight = torch.from_numpy(WEIGHT)
    expected = cp.palettize(WEIGHT, nbits=2)
    for given in (weight, weight.clone().requires_grad_(), torch.nn.Parameter(weight), weight.T.contiguous().T):
        assert cp.palettize(given, nbits=2) == expected
        assert cp.palettize([WEIGHT, given], nbits=2)[1] == expected
    rounded = weight.to(torch.bfloat16)
    assert cp.quantize(rounded) == cp.quantize(rounded.float().numpy().astype(BFLOAT16))
    assert cp.quantize(rounded[:, ::2]) == cp.quantize(rounded.float().numpy().astype(BFLOAT16)[:, ::2])
    out = torch.empty(6, 8)
    expected.dense(out)
    np.testing.assert_array_equal(out.numpy(), expected.dense())
    for given in (weight.to("meta"), weight.to_sparse(), weight.to(torch.float8_e4m3fn), weight.to(torch.complex64)):
        for call in (cp.quantize, lambda given: cp.quantize([WEIGHT, given])):
            with pytest.raises(TypeError, match=r"^quantize: (weight 1 of the list: )?weight must "):
                call(given)


# --- outputs ---

PALETTE = cp.palettize(WEIGHT, nbits=2)
QUANTIZED = cp.quantize(WEIGHT)
OUTPUTS = {
    "pack_bits": ((12,), np.uint8, lambda out: kernels.pack_bits(CODES, 2, out)),
    "unpack_bits": ((48,), np.uint8, lambda out: kernels.unpack_bits(PACKED, 2, 48, out)),
    "pack_mask": ((6,), np.uint8, lambda out: kernels.pack_mask(ONES, out)),
    "unpack_mask": ((96,), np.bool_, lambda out: kernels.unpack_mask(PACKED, 96, out)),
    "encode_sparse": ((int(ONES.sum()),), np.float32, lambda out: kernels.encode_sparse(WEIGHT, ONES, out=out)),
    "decode_sparse": ((6, 8), np.float32, lambda out: kernels.decode_sparse(WEIGHT[ONES], ONES, (6, 8), out=out)),
    "dense": ((6, 8), np.float32, lambda out: PALETTE.dense(out)),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_outputs_are_written_to(name):
    shape, dtype, call = OUTPUTS[name]
    out = np.empty(shape, dtype)
    assert call(out) is out
    assert_same_bits(out, call(None))
    for given in (memoryview(np.empty(shape, dtype)), bytearray(out.nbytes)):
        if isinstance(given, bytearray) and (dtype != np.uint8 or len(shape) > 1):
            given = memoryview(given).cast("?" if dtype == np.bool_ else "f", shape)
        call(given)
        assert_same_bits(np.asarray(given), out)


@pytest.mark.parametrize("name", OUTPUTS)
def test_outputs_that_do_not_fit_are_refused(name):
    shape, dtype, call = OUTPUTS[name]
    read_only = np.empty(shape, dtype)
    read_only.flags.writeable = False
    for given, found in [
        (np.empty((*shape, 1), dtype), re.escape(f"{np.dtype(dtype)} {(*shape, 1)}")),
        (np.empty(shape, np.float64), "float64"),
        (np.empty((*shape[:-1], 2 * shape[-1]), dtype)[..., ::2], ".*, not C-contiguous"),
        (read_only, ".*, read-only"),
        (bytes(read_only.nbytes), ".*, read-only"),
    ]:
        with pytest.raises(ValueError, match=rf"^{name}: out must be a writable, .* of shape .*, not {found}"):
            call(given)
    for given in ([0], "text", 3, len, WithArray(np.empty(shape, dtype)), np.ma.array(np.empty(shape, dtype))):
        with pytest.raises(TypeError, match=rf"^{name}: out must be a writable, .* of shape .*, not "):
            call(given)


def test_outputs_that_overlap_what_is_read_are_refused():
    memory = np.zeros(4096, np.uint8)
    memory[:12] = PACKED
    floats = memory.view(np.float32)

    def part(values: np.ndarray) -> np.ndarray:
        """The values, where outputs lie too."""
        place = memory[: values.nbytes].view(values.dtype).reshape(values.shape)
        place[...] = values
        return place

    bits = kernels.pack_mask(ONES)
    sparse = cp.prune(WEIGHT, threshold=0.1)
    nested = cp.palettize(sparse, nbits=2)
    linear = cp.quantize(WEIGHT, mode="linear")
    for name, call in {
        "pack_bits": lambda: kernels.pack_bits(part(CODES), 2, memory[4:16]),
        "unpack_bits": lambda: kernels.unpack_bits(part(PACKED), 2, 48, memory[:48]),
        "pack_mask": lambda: kernels.pack_mask(part(ONES), memory[:6]),
        "unpack_mask": lambda: kernels.unpack_mask(part(PACKED), 96, memory[:96].view(np.bool_)),
        "encode_sparse": lambda: kernels.encode_sparse(part(WEIGHT), ONES, out=floats[: ONES.sum()]),
        "encode_sparse of a mask": lambda: kernels.encode_sparse(WEIGHT, part(bits), out=floats[: ONES.sum()]),
        "decode_sparse": lambda: kernels.decode_sparse(part(WEIGHT[ONES]), ONES, (6, 8), out=floats[:48].reshape(6, 8)),
        **{
            f"dense of {field} of {tensor!r}": lambda tensor=tensor, field=field: dataclasses.replace(
                tensor, **{field: part(getattr(tensor, field))}
            ).dense(floats[:48].reshape(6, 8))
            for tensor in (PALETTE, QUANTIZED, linear, sparse)
            for field in ("indices", "lut", "data", "scale", "zero_point", "mask", "values")
            if isinstance(getattr(tensor, field, None), np.ndarray)
        },
        "dense of nested": lambda: dataclasses.replace(
            nested, values=dataclasses.replace(nested.values, lut=part(nested.values.lut))
        ).dense(floats[:48].reshape(6, 8)),
    }.items():
        with pytest.raises(ValueError, match=rf"^{name.split()[0]}: out must not share memory with what is read"):
            call()
    codes = kernels.unpack_bits(part(PACKED), 2, 48, memory[12:60])  # beside it is fine
    np.testing.assert_array_equal(codes, CODES)


# --- whole numbers ---


class Index:
    """A whole number of some other package."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


INTEGERS = [*(np.dtype(f"{sign}int{bits}").type for sign in ("", "u") for bits in (8, 16, 32, 64)), np.array, Index]
LARGE = normal(64, 64)
GROUPED = {"nbits": 4, "granularity": "per_grouped_channel"}
WHOLES: dict[str, tuple[int, Callable[[Any], Any]]] = {
    "palettize: nbits": (8, lambda n: cp.palettize(LARGE, nbits=n)),
    "palettize: group_size": (16, lambda n: cp.palettize(LARGE, group_size=n, **GROUPED)),
    "palettize: cluster_dim": (2, lambda n: cp.palettize(LARGE, nbits=4, cluster_dim=n)),
    "palettize: channel_axis": (1, lambda n: cp.palettize(LARGE, channel_axis=n, **GROUPED)),
    "palettize: num_threads": (2, lambda n: cp.palettize(LARGE, nbits=4, num_threads=n)),
    "quantize: block_size": (16, lambda n: cp.quantize(LARGE, granularity="per_block", block_size=n)),
    "quantize: block_size (1, n)": (16, lambda n: cp.quantize(LARGE, granularity="per_block", block_size=(1, n))),
    "quantize: block_size [1, n]": (16, lambda n: cp.quantize(LARGE, granularity="per_block", block_size=[1, n])),
    "quantize: channel_axis": (1, lambda n: cp.quantize(LARGE, channel_axis=n)),
    "quantize: num_threads": (2, lambda n: cp.quantize(LARGE, num_threads=n)),
    "prune: n_m_ratio": (4, lambda n: cp.prune(LARGE, n_m_ratio=(2, n))),
    "prune: block_size": (4, lambda n: cp.prune(LARGE, target_sparsity=0.5, block_size=n)),
    "prune: dim": (1, lambda n: cp.prune(LARGE, n_m_ratio=(2, 4), dim=n)),
    "prune: num_threads": (2, lambda n: cp.prune(LARGE, threshold=0.1, num_threads=n)),
    "error: num_threads": (2, lambda n: cp.error(LARGE, -LARGE, num_threads=n)),
    "dense: num_threads": (2, lambda n: PALETTE.dense(num_threads=n)),
    "kmeans: k": (5, lambda n: kernels.kmeans(LARGE, n)),
    "kmeans: num_threads": (2, lambda n: kernels.kmeans(LARGE, 5, num_threads=n)),
    "kmeans1d: k": (100, lambda n: kernels.kmeans1d(LARGE, n)),
    "kmeans1d: num_threads": (2, lambda n: kernels.kmeans1d(LARGE, 3, num_threads=n)),
    "kmeans1d_sweep: k": (100, lambda n: kernels.kmeans1d_sweep(LARGE, [2, n])[100]),
    "assign: num_threads": (2, lambda n: kernels.assign(LARGE, [0, 1], num_threads=n)),
    "to_float16: num_threads": (2, lambda n: kernels.to_float16(LARGE, num_threads=n)),
    "pack_bits: nbits": (8, lambda n: kernels.pack_bits(CODES, n)),
    "pack_bits: num_threads": (2, lambda n: kernels.pack_bits(CODES, 2, num_threads=n)),
    "unpack_bits: nbits": (4, lambda n: kernels.unpack_bits(PACKED, n, 24)),
    "unpack_bits: count": (100, lambda n: kernels.unpack_bits(np.ones(50, np.uint8), 4, n)),
    "unpack_mask: count": (96, lambda n: kernels.unpack_mask(PACKED, n)),
    "decode_sparse: shape": (48, lambda n: kernels.decode_sparse(WEIGHT[ONES], ONES.reshape(-1), (n,))),
    "n_m_mask: n_m_ratio": (4, lambda n: kernels.n_m_mask(LARGE, 2, n)),
    "n_m_mask: dim": (1, lambda n: kernels.n_m_mask(LARGE, 2, 4, n)),
    "magnitude_mask: num_threads": (2, lambda n: kernels.magnitude_mask(LARGE, 0.1, num_threads=n)),
    "PalettizedTensor: nbits": (2, lambda n: dataclasses.replace(PALETTE, nbits=n)),
    "Support: shape": (48, lambda n: cp.Support((n,), SPARSE.mask)),
    "config: weight_threshold": (100, lambda n: cp.Config(weight_threshold=n)),
}


@pytest.mark.parametrize("name", WHOLES)
def test_whole_numbers_are_of_any_type(name):
    value, call = WHOLES[name]
    expected = call(value)
    for integer in INTEGERS:
        assert_same(call(integer(value)), expected)


@pytest.mark.parametrize("name", WHOLES)
def test_what_is_no_whole_number_is_refused(name):
    value, call = WHOLES[name]
    for wrong in (float(value), np.float32(value), str(value), True, [[value]], object(), np.ones(2, int), b"1", {}):
        with pytest.raises((TypeError, ValueError)) as caught:
            call(wrong)
        verb, _, short = name.partition(": ")
        assert re.match(rf"{verb}: {short.split()[0]} must ", str(caught.value)), caught.value


def test_shapes_come_in_every_form():
    expected = kernels.decode_sparse(WEIGHT[ONES], ONES, (6, 8))
    for shape in ([6, 8], np.array([6, 8]), (np.int8(6), Index(8)), range(6, 9, 2)):
        assert_same_bits(kernels.decode_sparse(WEIGHT[ONES], ONES, shape), expected)
    for wrong in (None, "68", (6.0, 8), (6, "8"), 6.0, (6, -8)):
        with pytest.raises((TypeError, ValueError), match=r"^decode_sparse: shape must (not )?be "):
            kernels.decode_sparse(WEIGHT[ONES], ONES, wrong)


def test_numbers_that_are_too_large():
    values = NUMBERS[[0, 1, 1, 2]]
    for k in (5, 2**31, 2**40, 2**100):
        codes, centroids, inertia = kernels.kmeans1d(values, k)
        np.testing.assert_array_equal(centroids, np.unique(values))
        np.testing.assert_array_equal(centroids[codes], values)
        assert codes.dtype == (np.uint8 if k <= 256 else np.int32)
        assert inertia == 0
    rows = kernels.kmeans1d([values, values[::-1]], 300)
    assert rows.centroids.shape == (2, 300)
    np.testing.assert_array_equal(rows.centroids[:, 2:], np.full((2, 298), values.max()))
    with pytest.raises(ValueError, match="kmeans: k must be from 1 to 65536, not 1267650600228229401496703205376"):
        kernels.kmeans(WEIGHT, 2**100)
    with pytest.raises(ValueError, match="unpack_bits: 1267650600228229401496703205376 codes of 2 bits are"):
        kernels.unpack_bits(PACKED, 2, 2**100)
    with pytest.raises(ValueError, match="palettize: axis 0 of length 6 is not a multiple of group_size 1267650600"):
        cp.palettize(WEIGHT, group_size=2**100, **GROUPED)
    assert cp.prune(WEIGHT, threshold=0, num_threads=2**100) == cp.prune(WEIGHT, threshold=0)
    with pytest.raises(ValueError, match="prune: target_sparsity must be a number from 0 to 1, not 1000000"):
        cp.prune(WEIGHT, target_sparsity=10**400)


def test_fields_of_specs_become_python_numbers():
    spec = Palettize(nbits=np.int8(4), group_size=np.uint8(16), cluster_dim=np.int16(2), channel_axis=np.array(1))
    assert spec == Palettize(nbits=4, group_size=16, cluster_dim=2, channel_axis=1)
    assert hash(spec) == hash(Palettize(nbits=4, group_size=16, cluster_dim=2, channel_axis=1))
    assert [type(each) for each in (spec.nbits, spec.group_size, spec.cluster_dim, spec.channel_axis)] == [int] * 4
    assert Palettize(nbits=2, enable_per_channel_scale=np.True_).enable_per_channel_scale is True
    assert Quantize(block_size=[np.int8(0), 16]).block_size == (0, 16)
    assert type(Quantize(block_size=np.int64(8)).block_size) is int
    assert type(Prune(target_sparsity=np.float32(0.5)).target_sparsity) is float
    assert type(Prune(threshold=1).threshold) is float


SPECS = {
    "palettize: group_size must be a whole number of at least 1, not '8'": {"nbits": 4, "group_size": "8"},
    "palettize: group_size must be a whole number of at least 1, not 2.5": {"nbits": 4, "group_size": 2.5},
    "palettize: group_size must be a whole number of at least 1, not True": {"nbits": 4, "group_size": True},
    "palettize: channel_axis must be a whole number or None, not 0.0": {"nbits": 4, "channel_axis": 0.0},
    "palettize: cluster_dim must be a whole number from 1 on, not '2'": {"nbits": 4, "cluster_dim": "2"},
    "palettize: nbits must be 1, 2, 3, 4, 6, 8, not [4]": {"nbits": [4]},
    "palettize: mode must be 'kmeans', 'uniform', 'unique', 'custom', not 3": {"nbits": 4, "mode": 3},
    "palettize: enable_per_channel_scale must be true or false, not 1": {"nbits": 4, "enable_per_channel_scale": 1},
    "prune: target_sparsity must be a number from 0 to 1, not '0.5'": {"target_sparsity": "0.5"},
    "prune: threshold must be a number or None, not '1'": {"threshold": "1"},
    "prune: block_size must be a whole number from 2 on, not 2.0": {"target_sparsity": 0.5, "block_size": 2.0},
    "prune: dim must be 0, 1, not '0'": {"n_m_ratio": (2, 4), "dim": "0"},
    "prune: minimum_sparsity_percentile must be a number from 0 to 1, not None": {
        "threshold": 1,
        "minimum_sparsity_percentile": None,
    },
    "quantize: channel_axis must be a whole number or None, not '0'": {"channel_axis": "0"},
    "quantize: block_size must be a whole number or one per axis, not True": {"block_size": True},
    "quantize: block_size must be a whole number or one per axis, not [1, 2.0]": {"block_size": [1, 2.0]},
    "quantize: scale_search must be None, 'mse', not True": {"scale_search": True},
    "quantize: dtype must be 'int8', 'uint8', 'int4', 'uint4', 'int2', 'uint2', 'float8_e4m3fn', 'float8_e5m2', "
    "'float4_e2m1fn', not dtype('int8')": {"dtype": np.dtype("int8")},
    "quantize: scale_dtype must be None, 'float8_e8m0fnu', not 8": {"scale_dtype": 8},
    "palettize: lut_dtype must be None, 'int8', 'uint8', 'float8_e4m3fn', 'float8_e5m2', not 8": {
        "nbits": 4,
        "lut_dtype": 8,
    },
}


@pytest.mark.parametrize("message", SPECS)
def test_specs_calls_and_dicts_have_one_type_check(message):
    verb, options = message.partition(":")[0], SPECS[message]
    function, spec = {
        "palettize": (cp.palettize, Palettize),
        "quantize": (cp.quantize, Quantize),
        "prune": (cp.prune, Prune),
    }[verb]
    for call in (
        lambda: function(WEIGHT, **options),
        lambda: spec(**options),
        lambda: spec_from_dict({verb: options}),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
            call()


def test_other_arguments_that_are_no_arrays():
    for message, call in {
        "kmeans1d_sweep: ks must be several whole numbers, not 4": lambda: kernels.kmeans1d_sweep(NUMBERS, 4),
        "kmeans1d: weights must be finite, not negative, not all 0, one per value": lambda: kernels.kmeans1d(
            NUMBERS, 2, 1.0
        ),
        "kmeans1d: values must be 1-D or 2-D and not empty, not shape ()": lambda: kernels.kmeans1d(1.0, 2),
        "magnitude_mask: threshold must be a number, not '1'": lambda: kernels.magnitude_mask(WEIGHT, "1"),
        "magnitude_mask: threshold must not be negative or NaN, not nan": lambda: kernels.magnitude_mask(
            WEIGHT, float("nan")
        ),
        "magnitude_mask: 1 of 2 values are NaN or infinite": lambda: kernels.magnitude_mask([np.inf, 1.0], 1),
        "config: weights: each entry must be a pair (pattern, steps), not 'a'": lambda: cp.Config(weights=["a"]),
        "quantize: channel_axis 0 is not an axis of shape (); a scalar has no channels, use granularity='per_tensor'": (
            lambda: cp.quantize(np.float16(1))
        ),
        "assign: centroids must be 1-D with 1 to 256 entries, not shape (257,)": lambda: kernels.assign(
            WEIGHT, np.arange(257.0)
        ),
        "assign: centroids must be finite": lambda: kernels.assign(WEIGHT, [0, np.nan]),
        "assign: centroids has entries beyond the range of float16": lambda: kernels.assign(
            np.ones(3, np.float16), [0, 1e6]
        ),
        "assign: 1 of 2 values are NaN or infinite": lambda: kernels.assign([np.nan, 1.0], [0, 1]),
        "palettize: mode 'custom' is for models": lambda: cp.palettize(WEIGHT, mode="custom"),
        "palettize: nbits must be 1, 2, 3, 4, 6, 8, not '4'": lambda: cp.palettize(WEIGHT, lut=[0, 1], nbits="4"),
    }.items():
        with pytest.raises((TypeError, ValueError), match=f"^{re.escape(message)}"):
            call()


# --- lists, shapes, equality ---


def test_a_tuple_of_weights_is_a_list_of_them():
    pair = (WEIGHT, normal(3, 5))
    for call in (
        lambda weight, **options: cp.palettize(weight, nbits=2, **options),
        lambda weight, **options: cp.quantize(weight, scale_search="mse", **options),
    ):
        assert call(pair) == call(list(pair))
        importance = tuple(map(np.abs, pair))
        assert call(pair, importance=importance) == call(list(pair), importance=list(importance))
    assert cp.prune(pair, threshold=0.1) == cp.prune(list(pair), threshold=0.1)


@pytest.mark.parametrize(
    "call",
    [
        lambda weights: cp.palettize(weights, nbits=2, cluster_dim=4),
        lambda weights: cp.palettize(weights, mode="unique", cluster_dim=4),
        lambda weights: cp.palettize(weights, nbits=2, enable_per_channel_scale=True, channel_axis=1),
        lambda weights: cp.palettize([cp.prune(weights[0], threshold=0), cp.quantize(weights[1])], nbits=5),
        lambda weights: cp.quantize([cp.prune(weights[0], threshold=0), cp.quantize(weights[1])]),
        lambda weights: cp.prune([SPARSE, "weight"], threshold=0),
        lambda weights: cp.palettize([weights[0], weights[1].astype(np.float16)], lut=[0, 1e6]),
    ],
)
def test_errors_of_lists_say_which_weight(call):
    fits, does_not = normal(4, 3), normal(5)
    with pytest.raises((TypeError, ValueError), match=r"^\w+: (weight 1 of the list: |nbits must be)"):
        call([fits, does_not])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, BFLOAT16, np.int32])
def test_scalars_keep_their_shape(dtype):
    scalar = np.array(2, dtype)
    assert kernels.to_float16(scalar).shape == ()
    assert kernels.to_float16(scalar) == 2
    if dtype != np.int32:
        assert kernels.assign(scalar, [1, 2]).shape == ()
        assert kernels.assign(scalar, [1, 2]) == 1
        assert kernels.magnitude_mask(scalar, 1).shape == ()
    assert kernels.assign(np.zeros((0, 3)), [0, 1]).shape == (0, 3)


def test_equality_is_of_what_is_stored():
    tensors = [
        *(cp.palettize(WEIGHT, nbits=nbits) for nbits in (2, 3)),
        cp.palettize(WEIGHT, nbits=2, granularity="per_grouped_channel", group_size=3),
        cp.palettize(WEIGHT, nbits=2, enable_per_channel_scale=True),
        *(cp.quantize(WEIGHT, mode=mode) for mode in ("linear", "linear_symmetric")),
        cp.quantize(WEIGHT.astype(np.float16)),
        cp.prune(WEIGHT, threshold=0.1),
        cp.palettize(SPARSE, nbits=2),
        cp.quantize(PALETTE),
        cp.palettize(WEIGHT.reshape(8, 6), nbits=2),
    ]
    for place, tensor in enumerate(tensors):
        copy = dataclasses.replace(tensor)
        assert copy == tensor
        assert hash(copy) == hash(tensor)
        assert tensors.index(copy) == place
        assert tensor != tensor.dense().tolist()
    zeros = [cp.palettize(np.float32([1, 2]), lut=[1, 2]) for _ in range(2)]
    zeros[1].lut[:] = [[0.0], [-0.0]]
    zeros[0].lut[:] = 0
    assert zeros[0] != zeros[1]
    assert len({SPARSE, dataclasses.replace(SPARSE), cp.Support((6, 8), SPARSE.mask)}) == 2
    assert cp.Support((6, 8), SPARSE.mask) == cp.Support((6, 8), SPARSE.mask.copy())
    assert cp.Support((6, 8), SPARSE.mask) != cp.Support((8, 6), SPARSE.mask)
