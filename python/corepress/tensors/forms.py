"""The compressed tensors: what kernels produce and what the Core ML side stores. Only these types are shared by both.

Joint forms nest: the table of a palettized tensor may be a quantized tensor, the data of a quantized tensor a
palettized one, and the values of a sparse tensor may be either.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .._core import (
    count_bits,
    decode_sparse,
    depalettize_vectors,
    dequantize,
    dequantize_kept,
    sum_palette_errors,
    sum_quantized_errors,
    sum_sparse_errors,
    sum_vector_errors,
    unpack_bits,
)
from .._core import look_up as look_up_native
from ..arrays import as_threads, block_layout, find_group_layout
from ..intake import BYTES, NUMBERS
from ..specs import PALETTE_BITS, in_bits
from .base import (
    PIECE,
    CompressedTensor,
    Support,
    entries_part,
    ones_of,
    packed_part,
    packed_size,
    unpack_codes,
)
from .blocks import blocks, fold_scale, folds, shift_scale, spread
from .dtypes import (
    BINARY_SCALES,
    FLOAT_CODES,
    QUANTIZED_DTYPES,
    are_powers_of_two,
    exponents_of,
)

if TYPE_CHECKING:  # only the stub has these
    from .._core import BlockLayout, ErrorSums


@dataclass(frozen=True, eq=False, repr=False)
class PalettizedTensor(CompressedTensor):
    """Indices into a palette (lookup table, LUT) of values, or of vectors of values, per group.

    Element `i` of a group decodes to that group's `lut[..., code[i], 0]`, times its `scale` if there are scales. With a
    palette of vectors, a code encodes `cluster_dim` consecutive elements along `vector_axis`, component c the c-th of
    them.

    Attributes
    ----------
    shape : tuple of int
        Shape of the decompressed array.
    indices : numpy.ndarray of uint8
        Codes of `nbits` bits each, packed in row-major order, least significant bit first, no padding between rows.
    lut : numpy.ndarray or QuantizedTensor
        The palettes, in the weight's dtype; int8 or uint8 if codes of a quantized tensor are palettized. Shape: the
        number of groups along each weight axis, then ``2**nbits``, then `cluster_dim`. Entries are sorted, vectors
        component by component; unused entries repeat the largest. A quantized palette decodes to such an array.
    nbits : int
        Bits per code: 1, 2, 3, 4, 6 or 8.
    vector_axis : int or None
        Axis that vectors run along; None for a palette of values.
    scale : numpy.ndarray or None
        Factors of the decoded entries, in their dtype, with one axis per weight axis and one entry per block along
        each. Per-channel scaling gives one per output channel, and 1 along the other axes.
    support : Support or None
        For the values of a sparse tensor, their positions: groups and blocks then divide ``support.shape``.
    """

    indices: NDArray[np.uint8]
    lut: NDArray[Any] | QuantizedTensor
    nbits: int
    vector_axis: int | None = None
    scale: NDArray[Any] | None = None
    support: Support | None = None

    def __post_init__(self) -> None:
        self._settle(
            "nbits", "vector_axis", optional=("vector_axis", "scale"), indices=BYTES, lut=NUMBERS, scale=NUMBERS
        )
        self._require(self.nbits in PALETTE_BITS, f"nbits must be 1, 2, 3, 4, 6 or 8, not {self.nbits}")
        self._require_support(self.support)
        rank = len(self.full_shape)
        self._require(
            len(self.lut.shape) == rank + 2 and self.lut.shape[-2] == 2**self.nbits and self.cluster_dim >= 1,
            f"lut of {in_bits(self.nbits)} must have shape (groups per axis..., {2**self.nbits}, cluster_dim), "
            f"not {self.lut.shape}",
        )
        self._require_vectors()
        self._require_divisors("lut groups", self.group_counts, self.full_shape if self.support else self.index_shape)
        self._require_bytes("indices", self.indices, self.nbits, prod(self.index_shape))
        if isinstance(self.lut, QuantizedTensor):
            plain = isinstance(self.lut.data, np.ndarray) and self.lut.support is None
            self._require(plain, "a quantized lut must hold plain codes")
        if self.scale is not None:
            self._require_divisors("scale shape", self.scale.shape, self.full_shape)
            self._require(
                self.scale.dtype == self.lut.dtype and self.lut.dtype.kind != "i" and self.lut.dtype.kind != "u",
                f"scale must be of the lut's float dtype, not {self.scale.dtype} for {self.lut.dtype}",
            )

    def _require_vectors(self) -> None:
        if self.cluster_dim == 1:
            self._require(self.vector_axis is None, f"vector_axis {self.vector_axis} needs a lut of vectors")
            return
        axis = self.vector_axis
        self._require(
            axis is not None and 0 <= axis < len(self.shape) and self.shape[axis] % self.cluster_dim == 0,
            f"a lut of vectors of {self.cluster_dim} needs a vector_axis that they divide, not {axis}",
        )
        self._require(self.support is None, "the values of a sparse tensor cannot be vectors")

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.lut.dtype

    @property
    def nbytes(self) -> int:
        return self.indices.nbytes + self.lut.nbytes + (0 if self.scale is None else self.scale.nbytes)

    @property
    def full_shape(self) -> tuple[int, ...]:
        """The shape that groups and blocks divide: its own, or that of the sparse tensor whose values it stores."""
        return self.shape if self.support is None else self.support.shape

    @property
    def group_counts(self) -> tuple[int, ...]:
        """Number of groups along each weight axis."""
        return self.lut.shape[: len(self.full_shape)]

    @property
    def table(self) -> NDArray[Any]:
        """`lut` as an array."""
        return self.lut.dense() if isinstance(self.lut, QuantizedTensor) else self.lut

    @property
    def cluster_dim(self) -> int:
        """Elements of the weight that one code encodes."""
        return int(self.lut.shape[-1])

    @property
    def index_shape(self) -> tuple[int, ...]:
        """Shape of the codes: the weight's, with `vector_axis` divided by `cluster_dim`."""
        return tuple(
            size // self.cluster_dim if axis == self.vector_axis else size for axis, size in enumerate(self.shape)
        )

    def codes(self) -> NDArray[np.uint8]:
        """Unpacked codes, uint8, in `index_shape`."""
        codes = np.empty(prod(self.index_shape), np.uint8)
        unpack_bits(self.indices, self.nbits, False, False, codes.size, codes)
        return codes.reshape(self.index_shape)

    def dense(self, out: NDArray[Any] | None = None, *, num_threads: int | None = None) -> NDArray[Any]:
        out = self._output(out)
        threads = as_threads("dense", num_threads)
        table = self._scaled_table()
        if table is not None:
            self.look_up(table, out, threads)
            return out
        assert self.scale is not None
        self.look_up(self.table, out, threads)
        _scale_in_place(out, self.scale, self.support)
        return out

    def look_up(self, table: NDArray[Any], out: NDArray[Any], num_threads: int | None = None) -> None:
        """Write, for each code, its entry of `table`, which may have another dtype and finer groups than `lut`."""
        counts = table.shape[:-2]
        if self.vector_axis is not None:
            if self.size and table.dtype.kind in "iu":  # float16 holds all integers of 8 bits
                values = np.empty(self.shape, np.float16)
                self.look_up(table.astype(np.float16), values, num_threads)
                out[...] = values
            elif self.size:
                depalettize_vectors(self.indices, *self._vector_layout(counts), self.nbits, table, out, num_threads)
            return
        simple = self.support is None or prod(counts) == 1
        mask = None if simple or self.support is None else self.support.mask
        shape = self.shape if simple else self.full_shape
        layout = block_layout(shape, counts if self.support is None or not simple else (1,))
        look_up_native(self.indices, layout, self.nbits, table, mask, out, num_threads)

    def error_sums(self, weight: NDArray[Any], num_threads: int | None = None) -> ErrorSums:
        table = self._scaled_table()
        if table is None or self.support or self.size == 0:
            return super().error_sums(weight, num_threads)
        layout = None if self.vector_axis is not None else find_group_layout(self.shape, table.shape[:-2])
        if layout is None:
            blocks, inner, length = self._vector_layout(table.shape[:-2])
            return sum_vector_errors(weight, self.indices, blocks, inner, length, self.nbits, table, num_threads)
        return sum_palette_errors(weight, self.indices, layout, self.nbits, table, num_threads)

    def entries_together(self, axis: int) -> tuple[int, int]:
        vector = self.cluster_dim if axis == self.vector_axis else 1
        return vector, self.full_shape[axis] // self.group_counts[axis]

    def _part(
        self, axis: int, start: int, stop: int, support: Support | None = None, before: int = 0
    ) -> PalettizedTensor:
        if support is None:
            shape = _with_length(self.shape, axis, stop - start)
            codes = prod(self.index_shape[axis + 1 :])
            vector, _ = self.entries_together(axis)
            first, last = start // vector * codes, stop // vector * codes
        else:
            shape, first, last = (support.count,), before, before + support.count
        length = self.full_shape[axis]
        return replace(
            self,
            shape=shape,
            indices=packed_part(self.indices, self.nbits, first, last),
            lut=entries_part(self.table, axis, length, start, stop),
            scale=None if self.scale is None else entries_part(self.scale, axis, length, start, stop),
            support=support,
        )

    def _vector_layout(self, counts: tuple[int, ...]) -> tuple[BlockLayout, int, int]:
        """The codes' blocks, the distance between the elements of a vector, and their number."""
        inner = 1 if self.vector_axis is None else prod(self.shape[self.vector_axis + 1 :])
        return block_layout(self.index_shape, counts), inner, self.cluster_dim

    def _scaled_table(self) -> NDArray[Any] | None:
        """Return tables of decoded values, or None if they would be larger than the weight."""
        if self.scale is None:
            return self.table
        if not folds(self.full_shape, self.lut.shape, self.scale.shape, self.size):
            return None
        return fold_scale(self.table, self.scale, self.full_shape)

    def _summary(self) -> str:
        groups = prod(self.group_counts)
        table = f", {self.lut.quantized_dtype} table" if isinstance(self.lut, QuantizedTensor) else ""
        scales = "" if self.scale is None else f", {self.scale.size} scales"
        vectors = f", vectors of {self.cluster_dim} along axis {self.vector_axis}" if self.cluster_dim > 1 else ""
        grouped = f", {groups} groups" if groups > 1 else ""
        return f"{in_bits(self.nbits)} {self.dtype}{vectors}{grouped}{table}{scales}"


@dataclass(frozen=True, eq=False, repr=False)
class QuantizedTensor(CompressedTensor):
    """Codes with one scale, and optionally one zero point, per block: ``weight = scale * (data - zero_point)``.

    Codes are integers, or floats of 8 or 4 bits, which have no zero points.

    Attributes
    ----------
    shape : tuple of int
        Shape of the decompressed array.
    data : numpy.ndarray of uint8, or PalettizedTensor
        Codes in row-major order, packed, least significant bit first; for 8-bit types one byte each. Signed integers
        are two's complement; of floats these are the bits. A palettized tensor decodes to 8-bit integers: its palette
        is int8 or uint8.
    scale : numpy.ndarray
        Scales in the weight's dtype and rank; along each axis one entry per block. With a `scale_dtype`, float32.
    zero_point : numpy.ndarray or None
        Zero points in scale's shape, of int8 for signed and uint8 for unsigned types; None when they are all zero by
        construction. Other tools also write float zero points, which are subtracted in the wider of their dtype and
        scale's.
    quantized_dtype : str
        ``"int8"``, ``"uint8"``, ``"int4"``, ``"uint4"``, ``"int2"``, ``"uint2"``, ``"float8_e4m3fn"``,
        ``"float8_e5m2"`` or ``"float4_e2m1fn"``.
    support : Support or None
        For the values of a sparse tensor, their positions: blocks then divide ``support.shape``.
    scale_dtype : str or None
        ``"float8_e8m0fnu"`` for scales that are powers of two from ``2**-127`` to ``2**127`` and stored in a byte each;
        None for scales in the weight's dtype.
    decoded_dtype : numpy.dtype or None
        With a `scale_dtype`, the weight's dtype.
    """

    data: NDArray[np.uint8] | PalettizedTensor
    scale: NDArray[Any]
    zero_point: NDArray[Any] | None
    quantized_dtype: str
    support: Support | None = None
    scale_dtype: str | None = None
    decoded_dtype: np.dtype[Any] | None = None

    def __post_init__(self) -> None:
        self._settle(optional=("zero_point",), data=BYTES, scale=NUMBERS, zero_point=NUMBERS)
        known = ", ".join(QUANTIZED_DTYPES)
        self._require(
            self.quantized_dtype in QUANTIZED_DTYPES, f"quantized_dtype must be {known}, not {self.quantized_dtype}"
        )
        nbits, storage = QUANTIZED_DTYPES[self.quantized_dtype]
        self._require_support(self.support)
        self._require_divisors("scale shape", self.scale.shape, self.full_shape)
        self._require_dtypes()
        self._require(
            self.zero_point is None
            or (
                self.zero_point.shape == self.scale.shape
                and (self.zero_point.dtype == storage or self.zero_point.dtype.kind == "f")
            ),
            f"zero_point must have scale's shape {self.scale.shape} and dtype {np.dtype(storage)} or float",
        )
        if isinstance(self.data, np.ndarray):
            self._require_bytes("data", self.data, nbits)
            return
        places = self.data.support is self.support or (
            self.support is not None and self.support.same_as(self.data.support)
        )
        self._require(
            self.data.shape == self.shape
            and places
            and self.data.dtype == storage
            and self.quantized_dtype in ("int8", "uint8"),
            f"palettized data must have this shape and hold int8 or uint8, not {self.data.shape} {self.data.dtype}",
        )

    def _require_dtypes(self) -> None:
        floats = self.quantized_dtype in FLOAT_CODES
        self._require(
            not floats or self.zero_point is None, f"{self.quantized_dtype} has no zero_point; it must be None"
        )
        if self.scale_dtype is None:
            self._require(self.decoded_dtype is None, "decoded_dtype needs a scale_dtype; it must be None")
            return
        self._require(self.scale_dtype == BINARY_SCALES, f"scale_dtype must be None or {BINARY_SCALES!r}")
        decoded = None if self.decoded_dtype is None else np.dtype(self.decoded_dtype)
        known = ("float16", "bfloat16", "float32")
        self._require(
            decoded is not None and decoded.name in known,
            f"decoded_dtype must be {', '.join(known)} with scale_dtype {self.scale_dtype!r}, not {decoded}",
        )
        object.__setattr__(self, "decoded_dtype", decoded)
        self._require(are_powers_of_two(self.scale), "scale must be float32 powers of two from 2**-127 to 2**127")

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.scale.dtype if self.decoded_dtype is None else self.decoded_dtype

    @property
    def nbits(self) -> int:
        """Bits per code; of palettized data, per index."""
        return self.data.nbits if isinstance(self.data, PalettizedTensor) else QUANTIZED_DTYPES[self.quantized_dtype][0]

    @property
    def nbytes(self) -> int:
        zero_points = 0
        if self.zero_point is not None:
            integers = packed_size(self.zero_point.size, QUANTIZED_DTYPES[self.quantized_dtype][0])
            zero_points = self.zero_point.nbytes if self.zero_point.dtype.kind == "f" else integers
        scales = self.scale.nbytes if self.scale_dtype is None else self.scale.size
        return self.data.nbytes + scales + zero_points

    @property
    def full_shape(self) -> tuple[int, ...]:
        """The shape that blocks divide: its own, or that of the sparse tensor whose values it stores."""
        return self.shape if self.support is None else self.support.shape

    @property
    def block_shape(self) -> tuple[int, ...]:
        """Elements along each axis that share one scale."""
        return tuple(size // blocks for size, blocks in zip(self.full_shape, self.scale.shape, strict=True))

    def codes(self) -> NDArray[Any]:
        """Unpacked codes in the weight's shape: int8 for signed, uint8 for unsigned integers and for floats' bits."""
        if isinstance(self.data, PalettizedTensor):
            return self.data.dense()
        return unpack_codes(self.data, self.shape, self.quantized_dtype)

    def dense(self, out: NDArray[Any] | None = None, *, num_threads: int | None = None) -> NDArray[Any]:
        out = self._output(out)
        num_threads = as_threads("dense", num_threads)
        zero_point, data = self.zero_point, self.data
        if isinstance(data, PalettizedTensor):
            if folds(self.full_shape, data.lut.shape, self.scale.shape, self.size):
                table = fold_scale(data.table, self.scale, self.full_shape, zero_point)
                data.look_up(table.astype(self.dtype, copy=False), out, num_threads)
                return out
            data = data.dense(num_threads=num_threads).view(np.uint8).reshape(-1)
        if zero_point is not None and zero_point.dtype.kind == "f":
            offsets = _per_element(zero_point, self.full_shape, self.support)
            scales = _per_element(self.scale, self.full_shape, self.support)
            out[...] = shift_scale(self.codes(), scales, offsets)
            return out
        bits = None if zero_point is None else zero_point.view(np.uint8)
        kind, scale = self.quantized_dtype, self._stored_scale()
        if self.support is None or self.scale.size == 1:
            layout = block_layout(self.shape, self.scale.shape if self.support is None else (1,))
            dequantize(data, layout, kind, scale, bits, out, num_threads)
        else:
            layout = block_layout(self.support.shape, self.scale.shape)
            dequantize_kept(data, layout, kind, scale, bits, self.support.mask, out, num_threads)
        return out

    def _stored_scale(self) -> NDArray[Any]:
        """The scales as kernels take them: exponents of powers of two in bytes."""
        return self.scale if self.scale_dtype is None else exponents_of(self.scale)

    def error_sums(self, weight: NDArray[Any], num_threads: int | None = None) -> ErrorSums:
        _, storage = QUANTIZED_DTYPES[self.quantized_dtype]
        integer_offsets = self.zero_point is None or self.zero_point.dtype == storage
        if not isinstance(self.data, np.ndarray) or self.support or not integer_offsets:
            return super().error_sums(weight, num_threads)
        layout = block_layout(self.shape, self.scale.shape)
        offsets = None if self.zero_point is None else self.zero_point.view(np.uint8)
        return sum_quantized_errors(
            weight, self.data, layout, self.quantized_dtype, self._stored_scale(), offsets, num_threads
        )

    def entries_together(self, axis: int) -> tuple[int, int]:
        return self.data.entries_together(axis) if isinstance(self.data, PalettizedTensor) else (1, 1)

    def _part(
        self, axis: int, start: int, stop: int, support: Support | None = None, before: int = 0
    ) -> QuantizedTensor:
        if support is None:
            shape = _with_length(self.shape, axis, stop - start)
            codes = prod(self.shape[axis + 1 :])
            first, last = start * codes, stop * codes
        else:
            shape, first, last = (support.count,), before, before + support.count
        length, data = self.full_shape[axis], self.data
        return replace(
            self,
            shape=shape,
            data=packed_part(data, self.nbits, first, last)
            if isinstance(data, np.ndarray)
            else data._part(axis, start, stop, support, before),
            scale=entries_part(self.scale, axis, length, start, stop),
            zero_point=None if self.zero_point is None else entries_part(self.zero_point, axis, length, start, stop),
            support=support,
        )

    def _summary(self) -> str:
        block_text = "per tensor" if self.scale.size == 1 else f"blocks of {self.block_shape}"
        offsets = "" if self.zero_point is None else ", zero points"
        indices = f"{in_bits(self.nbits)} " if isinstance(self.data, PalettizedTensor) else ""
        scales = "" if self.scale_dtype is None else f", {self.scale_dtype} scales"
        return f"{indices}{self.quantized_dtype} of {self.dtype}, {block_text}{offsets}{scales}"


@dataclass(frozen=True, eq=False, repr=False)
class SparseTensor(CompressedTensor):
    """The values that survive, and a bit mask of their positions; everything else is zero.

    Attributes
    ----------
    shape : tuple of int
        Shape of the decompressed array.
    mask : numpy.ndarray of uint8
        One bit per element in row-major order, least significant bit first; 1 where a value is stored.
    values : numpy.ndarray, PalettizedTensor or QuantizedTensor
        The stored values in row-major order, 1-D; or these compressed again, with this mask as their `support`.
    """

    mask: NDArray[np.uint8]
    values: NDArray[Any] | PalettizedTensor | QuantizedTensor

    def __post_init__(self) -> None:
        self._settle(mask=BYTES, values=NUMBERS)
        self._require_bytes("mask", self.mask, 1)
        self._require(len(self.values.shape) == 1, f"values must be 1-D, not {self.values.shape}")
        if isinstance(self.values, np.ndarray):
            count = count_bits(self.mask, self.size)
        else:
            support = self.values.support
            self._require(
                support is not None and support.same_as(Support(self.shape, self.mask)),
                "compressed values must have this tensor's shape and mask as their support",
            )
            assert support is not None
            count = support.count
        self._require(count == self.nnz, f"mask has {count} bits set but there are {self.nnz} values")

    @classmethod
    def _of_pruned(cls, shape: tuple[int, ...], mask: NDArray[np.uint8], values: NDArray[Any]) -> SparseTensor:
        """Make one of what the kernel returned; counting its mask again took 6 % of the time of pruning."""
        tensor = object.__new__(cls)
        for name, value in (("shape", shape), ("mask", mask), ("values", values)):
            object.__setattr__(tensor, name, value)
        return tensor

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.values.dtype

    @property
    def nbytes(self) -> int:
        return self.mask.nbytes + self.values.nbytes

    @property
    def nnz(self) -> int:
        """Number of stored values."""
        return self.values.size

    @property
    def sparsity(self) -> float:
        """Fraction of elements that are zero."""
        return 1.0 - self.nnz / self.size if self.size else 0.0

    def dense_values(self, num_threads: int | None = None) -> NDArray[Any]:
        """`values` as an array."""
        return self.values if isinstance(self.values, np.ndarray) else self.values.dense(num_threads=num_threads)

    def dense(self, out: NDArray[Any] | None = None, *, num_threads: int | None = None) -> NDArray[Any]:
        out = self._output(out)
        num_threads = as_threads("dense", num_threads)
        values = self.dense_values(num_threads)
        if values.dtype.itemsize > 1:
            decode_sparse(self.mask, values, out, num_threads)
        else:
            out[...] = 0
            out.reshape(-1)[ones_of(self.mask, self.size)] = values
        return out

    def entries_together(self, axis: int) -> tuple[int, int]:
        return (1, 1) if isinstance(self.values, np.ndarray) else self.values.entries_together(axis)

    def split(self, axis: int, cuts: Iterable[tuple[int, int]]) -> Iterator[SparseTensor]:
        before, elements = 0, prod(self.shape[axis + 1 :])
        for start, stop in cuts:
            shape = _with_length(self.shape, axis, stop - start)
            support = Support(shape, packed_part(self.mask, 1, start * elements, stop * elements))
            values: Any = self.values
            if isinstance(values, np.ndarray):
                values = values[before : before + support.count]
            else:
                values = values._part(axis, start, stop, support, before)
            before += support.count
            yield SparseTensor(shape, support.mask, values)

    def error_sums(self, weight: NDArray[Any], num_threads: int | None = None) -> ErrorSums:
        if not isinstance(self.values, np.ndarray) and self.size > PIECE:
            return super().error_sums(weight, num_threads)
        values = self.dense_values(num_threads)
        if values.dtype != weight.dtype:
            return super().error_sums(weight, num_threads)
        return sum_sparse_errors(weight, self.mask, values, num_threads)

    def _summary(self) -> str:
        nested = "" if isinstance(self.values, np.ndarray) else f": {self.values._summary()}"
        return f"{self.nnz} of {self.size} {self.dtype} values ({self.sparsity:.1%} zero){nested}"


def _with_length(shape: tuple[int, ...], axis: int, length: int) -> tuple[int, ...]:
    return (*shape[:axis], length, *shape[axis + 1 :])


def _scale_in_place(values: NDArray[Any], scale: NDArray[Any], support: Support | None) -> None:
    with np.errstate(over="ignore"):
        if support is None:
            view = blocks(values, scale.shape)
            np.multiply(view, spread(scale), out=view)
        else:
            values *= _per_element(scale, support.shape, support)


def _per_element(parameters: NDArray[Any], shape: tuple[int, ...], support: Support | None) -> NDArray[Any]:
    """One parameter for each element of a tensor, or for each value of a sparse one."""
    pairs = zip(shape, parameters.shape, strict=True)
    view = np.broadcast_to(spread(parameters), [length for size, count in pairs for length in (count, size // count)])
    each = view.reshape(shape)
    return each if support is None else each.reshape(-1)[ones_of(support.mask, prod(shape))]
