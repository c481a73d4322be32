"""What all compressed tensors share: packed codes, masks, and the interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from math import lcm, prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .._core import count_bits, pack_bits, sum_errors, unpack_bits
from ..arrays import contiguous, same_bits
from ..intake import BYTES, Dtypes, as_array, as_output, as_shape, as_whole
from .dtypes import QUANTIZED_DTYPES

if TYPE_CHECKING:  # only the stub has these
    from .._core import ErrorSums

PIECE = 1 << 21  # weights that are decompressed at a time where a whole tensor need not be in memory


def packed_size(count: int, nbits: int) -> int:
    """Bytes that `count` elements of `nbits` bits occupy when packed."""
    return (count * nbits + 7) // 8


def pack_codes(codes: NDArray[Any], quantized_dtype: str) -> NDArray[np.uint8]:
    """Pack codes, int8 for signed integers and uint8 for other types, as `QuantizedTensor.data` has them."""
    nbits, _ = QUANTIZED_DTYPES[quantized_dtype]
    packed = np.empty(packed_size(codes.size, nbits), np.uint8)
    pack_bits(np.ascontiguousarray(codes).view(np.uint8).reshape(-1), nbits, False, False, packed)
    return packed


def unpack_codes(data: NDArray[np.uint8], shape: tuple[int, ...], quantized_dtype: str) -> NDArray[Any]:
    """Unpack codes; the inverse of `pack_codes`. Those of 8 bits are a view."""
    nbits, storage = QUANTIZED_DTYPES[quantized_dtype]
    codes = data
    if nbits < 8:
        codes = np.empty(prod(shape), np.uint8)
        unpack_bits(data, nbits, storage is np.int8, False, codes.size, codes)
    return codes.view(storage).reshape(shape)


def ones_of(mask: NDArray[np.uint8], count: int) -> NDArray[np.bool_]:
    """The first `count` bits of a mask as a 1-D bool array."""
    ones = np.empty(count, np.uint8)
    unpack_bits(mask, 1, False, False, count, ones)
    return ones.view(np.bool_)


def pack_ones(ones: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The inverse of `ones_of`."""
    mask = np.empty(packed_size(ones.size, 1), np.uint8)
    pack_bits(np.ascontiguousarray(ones).view(np.uint8).reshape(-1), 1, False, False, mask)
    return mask


def _is_same(first: Any, second: Any) -> bool:
    """Whether two fields have the same value, arrays compared bit by bit."""
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        return same_bits(first, second)
    return type(first) is type(second) and bool(first == second)


def packed_part(data: NDArray[np.uint8], nbits: int, start: int, stop: int) -> NDArray[np.uint8]:
    """Packed elements `start` to `stop`: a view if they begin at a byte, otherwise packed again."""
    skipped = start % 8 if start * nbits % 8 else 0
    part = data[(start - skipped) * nbits // 8 : packed_size(stop, nbits)]
    if not skipped:
        return part
    codes = np.empty(skipped + stop - start, np.uint8)
    unpack_bits(part, nbits, False, False, codes.size, codes)
    packed = np.empty(packed_size(stop - start, nbits), np.uint8)
    pack_bits(codes[skipped:], nbits, False, False, packed)
    return packed


def entries_part(parameters: NDArray[Any], axis: int, length: int, start: int, stop: int) -> NDArray[Any]:
    """The parameters of entries `start` to `stop` of an axis of `length`, along which they apply to equal blocks."""
    block = length // parameters.shape[axis]
    before = (slice(None),) * axis
    if start % block == stop % block == 0 or start // block == (stop - 1) // block:
        return parameters[(*before, slice(start // block, -(-stop // block)))]
    taken: NDArray[Any] = np.take(parameters, np.arange(start, stop) // block, axis)
    return taken


@dataclass(frozen=True, eq=False)
class Support:
    """The positions of a sparse tensor's values: a compressed tensor of such values needs them to find their blocks.

    Attributes
    ----------
    shape : tuple of int
        Shape of the sparse tensor.
    mask : numpy.ndarray of uint8
        One bit per element in row-major order, least significant bit first; 1 where there is a value.
    count : int
        Number of values.
    """

    shape: tuple[int, ...]
    mask: NDArray[np.uint8]
    count: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", as_shape("Support", self.shape))
        object.__setattr__(self, "mask", contiguous(as_array("Support", "mask", self.mask, BYTES)))
        size = packed_size(prod(self.shape), 1)
        if self.mask.shape != (size,):
            raise ValueError(f"Support: mask must be {size} bytes, not uint8 {self.mask.shape} (shape {self.shape})")
        object.__setattr__(self, "count", count_bits(self.mask, prod(self.shape)))

    def same_as(self, other: Support | None) -> bool:
        """Whether values are at the same positions."""
        return other is self or (
            other is not None and self.shape == other.shape and np.array_equal(self.mask, other.mask)
        )

    def __eq__(self, other: object) -> bool:
        return self.same_as(other) if isinstance(other, Support) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.shape)


@dataclass(frozen=True, eq=False, repr=False)
class CompressedTensor(ABC):
    """The interface of every compressed tensor.

    Two are equal if they have the same class and store the same data, arrays compared bit by bit.

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
            C-contiguous, aligned, writable array of this tensor's shape and dtype to decompress into; or an object
            that exports such memory by the buffer protocol or DLPack. It must not share memory with this tensor.
        num_threads : int, optional
            Threads to use; None for all CPUs this process may use, or `COREPRESS_NUM_THREADS`.

        Returns
        -------
        numpy.ndarray
            `out` as an array, or a new one.
        """

    def error_sums(self, weight: NDArray[Any], num_threads: int | None = None) -> ErrorSums:
        """Sums over `weight`, contiguous and of this shape and dtype, and the decompressed array; see `_core`."""
        return added(
            sum_errors(values, decoded, num_threads) for values, decoded in decoded_pieces((weight, self), num_threads)
        )

    def entries_together(self, axis: int) -> tuple[int, int]:
        """How many entries of an axis a vector needs, and how many share their tables."""
        return 1, 1

    def split(self, axis: int, cuts: Iterable[tuple[int, int]]) -> Iterator[CompressedTensor]:
        """Yield what decompresses to entries `start` to `stop` of an axis for each cut, without a copy where it can.

        Parameters
        ----------
        axis : int
            The first axis that is longer than 1.
        cuts : iterable of (int, int)
            Each `start` and `stop`: they divide the axis, between vectors.
        """
        return (self._part(axis, start, stop) for start, stop in cuts)

    def _part(
        self, axis: int, start: int, stop: int, support: Support | None = None, before: int = 0
    ) -> CompressedTensor:
        """One of `split`; of the values of a sparse tensor, those at `support`, with `before` values before them."""
        raise NotImplementedError

    @property
    def size(self) -> int:
        """Number of weights."""
        return prod(self.shape)

    @property
    def bits_per_weight(self) -> float:
        """Stored bits, tables and scales included, per weight (0 for an empty tensor)."""
        return 8.0 * self.nbytes / self.size if self.size else 0.0

    def _settle(self, *wholes: str, optional: tuple[str, ...] = (), **arrays: Dtypes) -> None:
        """Check the types of fields: make the shape and `wholes` int, and `arrays` contiguous. `optional` may be None.

        Compressed tensors in place of arrays are left unchanged.
        """
        owner = type(self).__name__
        object.__setattr__(self, "shape", as_shape(owner, self.shape))
        for name in (*wholes, *arrays):
            value = getattr(self, name)
            if isinstance(value, CompressedTensor) or (value is None and name in optional):
                continue
            dtypes = arrays.get(name)
            settled = contiguous(as_array(owner, name, value, dtypes)) if dtypes else as_whole(owner, name, value)
            object.__setattr__(self, name, settled)

    def _require(self, condition: bool, rule: str) -> None:
        if not condition:
            raise ValueError(f"{type(self).__name__}: {rule} (shape {self.shape})")

    def _require_divisors(self, name: str, counts: tuple[int, ...], shape: tuple[int, ...]) -> None:
        divides = len(counts) == len(shape) and all(
            count > 0 and size % count == 0 for size, count in zip(shape, counts, strict=True)
        )
        self._require(divides, f"{name} {counts} must divide the weight's axes")

    def _require_support(self, support: Support | None) -> None:
        self._require(
            support is None or self.shape == (support.count,),
            f"the shape of values at a mask's ones must be (ones,), here ({support and support.count},)",
        )

    def _require_bytes(self, name: str, data: NDArray[np.uint8], nbits: int, count: int | None = None) -> None:
        size = packed_size(self.size if count is None else count, nbits)
        self._require(
            data.shape == (size,) and data.dtype == np.uint8,
            f"{name} must be {size} bytes, not {data.dtype} {data.shape}",
        )

    def _output(self, out: NDArray[Any] | None) -> NDArray[Any]:
        return as_output("dense", out, self.shape, self.dtype, *self._arrays())

    def _arrays(self) -> Iterator[NDArray[Any]]:
        """All arrays that it is stored in."""
        for part in vars(self).values():
            if isinstance(part, CompressedTensor):
                yield from part._arrays()
            elif isinstance(part, np.ndarray | Support):
                yield part if isinstance(part, np.ndarray) else part.mask

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CompressedTensor) or type(other) is not type(self):
            return NotImplemented
        return all(_is_same(getattr(self, each.name), getattr(other, each.name)) for each in fields(self))

    def __hash__(self) -> int:
        return hash((type(self), self.shape))  # arrays, which have none, may differ

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._summary()}, shape {self.shape}, {self.bits_per_weight:.3f} bits/weight>"

    @abstractmethod
    def _summary(self) -> str: ...


def pieces(
    tensors: Sequence[NDArray[Any] | CompressedTensor],
    most: int | None = None,
    together: Sequence[int] | None = None,
) -> Iterator[tuple[NDArray[Any] | CompressedTensor, ...]]:
    """Divide tensors of one shape into parts of at most `most` elements, alike for all, in row-major order.

    Parameters
    ----------
    tensors : sequence of numpy.ndarray or CompressedTensor
        Small enough ones are yielded whole; arrays must be contiguous.
    most : int, optional
        Elements of a part, `PIECE` by default; what must stay together may have more.
    together : sequence of int, optional
        How many entries of each axis, counted from its first, are not divided; vectors never are.
    """
    shape, most = tensors[0].shape, most or PIECE
    axis = next((axis for axis, length in enumerate(shape) if length > 1), None)
    if axis is None or prod(shape) <= most:
        yield tuple(tensors)
        return
    cuts = _cuts(tensors, axis, most, 1 if together is None else together[axis])
    split = [_split(each, axis, cuts) for each in tensors]
    for parts in zip(*split, strict=True):
        # Entries of one vector are not divided.
        yield from pieces(parts, most, together) if parts[0].shape != shape else (parts,)


def decoded_pieces(
    tensors: Sequence[NDArray[Any] | CompressedTensor],
    num_threads: int | None = None,
    together: Sequence[int] | None = None,
) -> Iterator[tuple[NDArray[Any], ...]]:
    """The same, decompressed; none of them has to be in memory completely."""
    for parts in pieces(tensors, together=together):
        yield tuple(
            part.dense(num_threads=num_threads) if isinstance(part, CompressedTensor) else part for part in parts
        )


def _split(
    tensor: NDArray[Any] | CompressedTensor, axis: int, cuts: list[tuple[int, int]]
) -> Iterator[NDArray[Any] | CompressedTensor]:
    if isinstance(tensor, CompressedTensor):
        return tensor.split(axis, cuts)
    before = (slice(None),) * axis
    return (tensor[(*before, slice(start, stop))] for start, stop in cuts)


def _cuts(tensors: Sequence[Any], axis: int, most: int, least: int) -> list[tuple[int, int]]:
    together = [each.entries_together(axis) for each in tensors if isinstance(each, CompressedTensor)]
    vector = lcm(least, *(entries for entries, _ in together))
    step = max(1, most // prod(tensors[0].shape[axis + 1 :]))
    unit = lcm(vector, *(entries for _, entries in together if entries <= step))
    if unit > step:
        unit = vector
    step = max(1, step // unit) * unit
    wide = [entries for _, entries in together if entries > step and entries % vector == 0]
    cuts, start, length = [], 0, tensors[0].shape[axis]
    while start < length:
        stop = min(start + step, length, *((start // entries + 1) * entries for entries in wide))
        cuts.append((start, stop))
        start = stop
    return cuts


def added(sums: Iterable[ErrorSums]) -> ErrorSums:
    """The sums over a whole from those over its pieces, added in order."""
    parts = list(sums)
    if len(parts) == 1:
        return parts[0]
    squares, signal, decoded, product = (sum(part[index] for part in parts) for index in range(4))
    return squares, signal, decoded, product, float(np.max([part[4] for part in parts]))
