"""The compressed tensors: what kernels produce and what the Core ML side stores. The only types both halves know."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _core
from .arrays import as_threads, block_layout, group_layout, has_group_layout

# Bits per code, and the dtype that holds one.
QUANTIZED_DTYPES = {"int8": (8, np.int8), "uint8": (8, np.uint8), "int4": (4, np.int8), "uint4": (4, np.uint8)}


def packed_size(count: int, nbits: int) -> int:
    """Bytes that `count` elements of `nbits` bits occupy when packed."""
    return (count * nbits + 7) // 8


def pack_codes(codes: NDArray[Any], quantized_dtype: str) -> NDArray[np.uint8]:
    """Pack integers, int8 for signed and uint8 for unsigned types, as `QuantizedTensor.data` has them."""
    nbits, _ = QUANTIZED_DTYPES[quantized_dtype]
    packed = np.empty(packed_size(codes.size, nbits), np.uint8)
    _core.pack_bits(np.ascontiguousarray(codes).view(np.uint8).reshape(-1), nbits, False, False, packed)
    return packed


def unpack_codes(data: NDArray[np.uint8], shape: tuple[int, ...], quantized_dtype: str) -> NDArray[Any]:
    """Unpack integers; the inverse of `pack_codes`. Those of 8 bits are a view."""
    nbits, storage = QUANTIZED_DTYPES[quantized_dtype]
    codes = data
    if nbits < 8:
        codes = np.empty(prod(shape), np.uint8)
        _core.unpack_bits(data, nbits, storage is np.int8, False, codes.size, codes)
    return codes.view(storage).reshape(shape)


@dataclass(frozen=True, eq=False, repr=False)
class CompressedTensor(ABC):
    """What every compressed tensor has.

    Attributes
    ----------
    shape : tuple of int
        Shape of the decompressed array.
    """

    shape: tuple[int, ...]

    @property
    @abstractmethod
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the decompressed array."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of all stored parts together, without file headers and padding."""

    @abstractmethod
    def dense(self, out: NDArray[Any] | None = None, *, num_threads: int | None = None) -> NDArray[Any]:
        """Decompress.

        Parameters
        ----------
        out : numpy.ndarray, optional
            C-contiguous, writable array of this tensor's shape and dtype to decompress into.
        num_threads : int, optional
            Threads to use; None for all CPUs this process may use, or `COREPRESS_NUM_THREADS`.

        Returns
        -------
        numpy.ndarray
            `out`, or a new array.
        """

    def error_sums(self, weight: NDArray[Any], num_threads: int | None = None) -> _core.ErrorSums:
        """Sums over `weight`, contiguous and of this shape and dtype, and the decompressed array; see `_core`."""
        return _core.sum_errors(weight, self.dense(num_threads=num_threads), num_threads)

    @property
    def size(self) -> int:
        """Number of weights."""
        return prod(self.shape)

    @property
    def bits_per_weight(self) -> float:
        """Stored bits, tables and scales included, per weight (0 for an empty tensor)."""
        return 8.0 * self.nbytes / self.size if self.size else 0.0

    def _require(self, condition: bool, rule: str) -> None:
        if not condition:
            raise ValueError(f"{type(self).__name__}: {rule} (shape {self.shape})")

    def _require_divisors(self, name: str, counts: tuple[int, ...], shape: tuple[int, ...] | None = None) -> None:
        shape = self.shape if shape is None else shape
        divides = len(counts) == len(shape) and all(
            count > 0 and size % count == 0 for size, count in zip(shape, counts, strict=True)
        )
        self._require(divides, f"{name} {counts} must divide the weight's axes")

    def _require_bytes(self, name: str, data: NDArray[np.uint8], nbits: int, count: int | None = None) -> None:
        size = packed_size(self.size if count is None else count, nbits)
        self._require(
            data.shape == (size,) and data.dtype == np.uint8,
            f"{name} must be {size} bytes, not {data.dtype} {data.shape}",
        )

    def _output(self, out: NDArray[Any] | None) -> NDArray[Any]:
        if out is None:
            return np.empty(self.shape, self.dtype)
        self._require(
            out.shape == self.shape and out.dtype == self.dtype and out.flags.c_contiguous and out.flags.writeable,
            f"dense: out must be a writable C-contiguous {self.dtype} array of this shape, not {out.dtype} {out.shape}",
        )
        return out

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._summary()}, shape {self.shape}, {self.bits_per_weight:.3f} bits/weight>"

    @abstractmethod
    def _summary(self) -> str: ...


@dataclass(frozen=True, eq=False, repr=False)
class PalettizedTensor(CompressedTensor):
    """Indices into one table of values, or of vectors of values, per group.

    Element `i` of a group decodes to that group's `lut[..., code[i], 0]`. A code of a table of vectors stands for
    `cluster_dim` consecutive elements along `vector_axis`, component c for the c-th of them.

    Attributes
    ----------
    shape : tuple of int
        Shape of the decompressed array.
    indices : numpy.ndarray of uint8
        Codes of `nbits` bits each, packed in row-major order, least significant bit first, no padding between rows.
    lut : numpy.ndarray
        Table, of the weight's dtype. Shape: the number of groups along each weight axis, then ``2**nbits``, then
        `cluster_dim`. Ascending along the entries, vectors component by component; entries that no weight uses repeat
        the largest.
    nbits : int
        Bits per code: 1, 2, 3, 4, 6 or 8.
    vector_axis : int or None
        Axis along which the elements of a vector stand; None for a table of values.
    """

    indices: NDArray[np.uint8]
    lut: NDArray[Any]
    nbits: int
    vector_axis: int | None = None

    def __post_init__(self) -> None:
        self._require(self.nbits in (1, 2, 3, 4, 6, 8), f"nbits must be 1, 2, 3, 4, 6 or 8, not {self.nbits}")
        rank = len(self.shape)
        self._require(
            self.lut.ndim == rank + 2 and self.lut.shape[-2] == 2**self.nbits and self.cluster_dim >= 1,
            f"lut of {self.nbits} bits must have shape (groups per axis..., {2**self.nbits}, cluster_dim), "
            f"not {self.lut.shape}",
        )
        self._require_vectors()
        self._require_divisors("lut groups", self.group_counts, self.index_shape)
        self._require_bytes("indices", self.indices, self.nbits, prod(self.index_shape))

    def _require_vectors(self) -> None:
        if self.cluster_dim == 1:
            self._require(self.vector_axis is None, f"vector_axis {self.vector_axis} needs a lut of vectors")
            return
        axis = self.vector_axis
        self._require(
            axis is not None and 0 <= axis < len(self.shape) and self.shape[axis] % self.cluster_dim == 0,
            f"a lut of vectors of {self.cluster_dim} needs a vector_axis that they divide, not {axis}",
        )

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.lut.dtype

    @property
    def nbytes(self) -> int:
        return self.indices.nbytes + self.lut.nbytes

    @property
    def group_counts(self) -> tuple[int, ...]:
        """Number of groups along each weight axis."""
        return self.lut.shape[: len(self.shape)]

    @property
    def cluster_dim(self) -> int:
        """Elements of the weight that one code stands for."""
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
        _core.unpack_bits(self.indices, self.nbits, False, False, codes.size, codes)
        return codes.reshape(self.index_shape)

    def dense(self, out: NDArray[Any] | None = None, *, num_threads: int | None = None) -> NDArray[Any]:
        out = self._output(out)
        threads = as_threads("dense", num_threads)
        layout = self._run_layout()
        if layout is not None:
            _core.depalettize(self.indices, layout, self.nbits, self.lut, out, threads)
        elif self.size:
            _core.depalettize_vectors(self.indices, *self._vector_layout(), self.nbits, self.lut, out, threads)
        return out

    def error_sums(self, weight: NDArray[Any], num_threads: int | None = None) -> _core.ErrorSums:
        layout = self._run_layout()
        if layout is not None:
            return _core.sum_palette_errors(weight, self.indices, layout, self.nbits, self.lut, num_threads)
        return _core.sum_vector_errors(weight, self.indices, *self._vector_layout(), self.nbits, self.lut, num_threads)

    def _run_layout(self) -> _core.Layout | None:
        """The layout for the kernels of scalar palettes; None where vectors or other groups need the general ones."""
        if self.vector_axis is not None or not has_group_layout(self.shape, self.group_counts):
            return None
        return group_layout(self.shape, self.group_counts)

    def _vector_layout(self) -> tuple[_core.BlockLayout, int, int]:
        """The codes' blocks, the distance between the elements of a vector, and their number."""
        inner = 1 if self.vector_axis is None else prod(self.shape[self.vector_axis + 1 :])
        return block_layout(self.index_shape, self.group_counts), inner, self.cluster_dim

    def _summary(self) -> str:
        groups = prod(self.group_counts)
        vectors = f", vectors of {self.cluster_dim} along axis {self.vector_axis}" if self.cluster_dim > 1 else ""
        return f"{self.nbits} bits {self.dtype}{vectors}" + (f", {groups} groups" if groups > 1 else "")


@dataclass(frozen=True, eq=False, repr=False)
class QuantizedTensor(CompressedTensor):
    """Integers with one scale, and optionally one zero point, per block: ``weight = scale * (data - zero_point)``.

    Attributes
    ----------
    shape : tuple of int
        Shape of the decompressed array.
    data : numpy.ndarray of uint8
        Codes in row-major order, packed, least significant bit first; for 8-bit types one byte each. int4 is two's
        complement.
    scale : numpy.ndarray
        Scales in the weight's dtype and rank; along each axis one entry per block.
    zero_point : numpy.ndarray or None
        Zero points in scale's shape, of int8 for signed and uint8 for unsigned types; None when they are all zero by
        construction.
    quantized_dtype : str
        ``"int8"``, ``"uint8"``, ``"int4"`` or ``"uint4"``.
    """

    data: NDArray[np.uint8]
    scale: NDArray[Any]
    zero_point: NDArray[Any] | None
    quantized_dtype: str

    def __post_init__(self) -> None:
        known = ", ".join(QUANTIZED_DTYPES)
        self._require(
            self.quantized_dtype in QUANTIZED_DTYPES, f"quantized_dtype must be {known}, not {self.quantized_dtype}"
        )
        nbits, storage = QUANTIZED_DTYPES[self.quantized_dtype]
        self._require_divisors("scale shape", self.scale.shape)
        self._require(
            self.zero_point is None or (self.zero_point.shape == self.scale.shape and self.zero_point.dtype == storage),
            f"zero_point must have scale's shape {self.scale.shape} and dtype {np.dtype(storage)}",
        )
        self._require_bytes("data", self.data, nbits)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.scale.dtype

    @property
    def nbits(self) -> int:
        """Bits per code."""
        return QUANTIZED_DTYPES[self.quantized_dtype][0]

    @property
    def nbytes(self) -> int:
        zero_points = 0 if self.zero_point is None else packed_size(self.zero_point.size, self.nbits)
        return self.data.nbytes + self.scale.nbytes + zero_points

    @property
    def block_shape(self) -> tuple[int, ...]:
        """Elements along each axis that share one scale."""
        return tuple(size // blocks for size, blocks in zip(self.shape, self.scale.shape, strict=True))

    def codes(self) -> NDArray[Any]:
        """Unpacked codes in the weight's shape, int8 for signed and uint8 for unsigned types."""
        return unpack_codes(self.data, self.shape, self.quantized_dtype)

    def dense(self, out: NDArray[Any] | None = None, *, num_threads: int | None = None) -> NDArray[Any]:
        out = self._output(out)
        nbits, storage = QUANTIZED_DTYPES[self.quantized_dtype]
        layout = block_layout(self.shape, self.scale.shape)
        offsets = None if self.zero_point is None else self.zero_point.view(np.uint8)
        _core.dequantize(
            self.data, layout, nbits, storage is np.int8, self.scale, offsets, out, as_threads("dense", num_threads)
        )
        return out

    def error_sums(self, weight: NDArray[Any], num_threads: int | None = None) -> _core.ErrorSums:
        nbits, storage = QUANTIZED_DTYPES[self.quantized_dtype]
        layout = block_layout(self.shape, self.scale.shape)
        offsets = None if self.zero_point is None else self.zero_point.view(np.uint8)
        return _core.sum_quantized_errors(
            weight, self.data, layout, nbits, storage is np.int8, self.scale, offsets, num_threads
        )

    def _summary(self) -> str:
        blocks = "per tensor" if self.scale.size == 1 else f"blocks of {self.block_shape}"
        offsets = "" if self.zero_point is None else ", zero points"
        return f"{self.quantized_dtype} of {self.dtype}, {blocks}{offsets}"


@dataclass(frozen=True, eq=False, repr=False)
class SparseTensor(CompressedTensor):
    """The values that survive, and a bit mask of where they stand; everything else is zero.

    Attributes
    ----------
    shape : tuple of int
        Shape of the decompressed array.
    mask : numpy.ndarray of uint8
        One bit per element in row-major order, least significant bit first; 1 where a value is stored.
    values : numpy.ndarray
        The stored values in row-major order, 1-D.
    """

    mask: NDArray[np.uint8]
    values: NDArray[Any]

    def __post_init__(self) -> None:
        self._require_bytes("mask", self.mask, 1)
        self._require(self.values.ndim == 1, f"values must be 1-D, not {self.values.shape}")
        count = _core.count_bits(self.mask, self.size)
        self._require(count == self.values.size, f"mask has {count} bits set but there are {self.values.size} values")

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

    def dense(self, out: NDArray[Any] | None = None, *, num_threads: int | None = None) -> NDArray[Any]:
        out = self._output(out)
        _core.decode_sparse(self.mask, self.values, out, as_threads("dense", num_threads))
        return out

    def error_sums(self, weight: NDArray[Any], num_threads: int | None = None) -> _core.ErrorSums:
        return _core.sum_sparse_errors(weight, self.mask, self.values, num_threads)

    def _summary(self) -> str:
        return f"{self.nnz} of {self.size} {self.dtype} values ({self.sparsity:.1%} zero)"
