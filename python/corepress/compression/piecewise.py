"""Values and codes of tensors that are processed piece by piece: where they belong, and packed codes in parts.

Pieces are runs of elements in row-major order. In a sparse tensor only the elements at its mask's ones have a value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from math import gcd
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .._core import count_bits, encode_sparse, pack_bits, unpack_bits
from ..tensors.base import ones_of, packed_part, packed_size

if TYPE_CHECKING:  # only the stub has these
    from .._core import Layout

_PIECE = 1 << 19  # a multiple of 8: elements whose places in a tensor are known at a time
_LEAST_BATCH = 1 << 23  # values of some groups that are together in memory
_MOST_BATCHES = 16


def store_codes(packed: NDArray[np.uint8], nbits: int, begin: int, codes: NDArray[np.uint8], chosen: Any = ...) -> None:
    """Write codes into packed codes.

    Parameters
    ----------
    packed : numpy.ndarray of uint8
        The packed codes to change, with `nbits` bits each.
    nbits, begin : int
        Bits of a code, and the position of the first.
    codes : numpy.ndarray of uint8
        The new codes.
    chosen : numpy.ndarray of bool, optional
        Instead of consecutive codes, change those of ``begin + chosen.size`` that are chosen.
    """
    size = codes.size if chosen is ... else chosen.size
    first = begin // 8 * 8
    stop = min(-(-(begin + size) // 8) * 8, packed.size * 8 // nbits)
    bytes_between = slice(first * nbits // 8, packed_size(stop, nbits))
    found = np.empty(stop - first, np.uint8)
    unpack_bits(packed[bytes_between], nbits, False, False, found.size, found)
    found[begin - first : begin - first + size][chosen] = codes
    pack_bits(found, nbits, False, False, packed[bytes_between])


def store_packed(packed: NDArray[np.uint8], nbits: int, begin: int, part: NDArray[np.uint8], count: int) -> None:
    """Append `count` packed codes at `begin`, after which nothing is stored yet."""
    if begin * nbits % 8 == 0:
        packed[begin * nbits // 8 :][: part.size] = part
        return
    codes = np.empty(count, np.uint8)
    unpack_bits(part, nbits, False, False, count, codes)
    store_codes(packed, nbits, begin, codes)


class GroupPlaces:
    """Which group each element of a tensor belongs to, a piece at a time.

    Parameters
    ----------
    layout : tuple of int
        The tensor as (outer, groups, run).
    mask : numpy.ndarray of uint8, optional
        Of a sparse tensor.
    """

    def __init__(self, layout: Layout, mask: NDArray[np.uint8] | None = None) -> None:
        outer, self.count, self._run = layout
        self._mask, self._size = mask, outer * self.count * self._run
        period = self.count * self._run
        period *= 8 // gcd(8, period)
        self._step = max(1, _PIECE // period) * period if period <= _PIECE else _PIECE
        self._repeated: NDArray[Any] | None = self._numbers(0, self._step) if period <= _PIECE else None

    def pieces(self) -> Iterator[tuple[int, NDArray[Any]]]:
        """Where the values of a piece begin among all values, and the group of each."""
        before = 0
        for start in range(0, self._size, self._step):
            stop = min(start + self._step, self._size)
            numbers = self._numbers(start, stop) if self._repeated is None else self._repeated[: stop - start]
            if self._mask is not None:
                numbers = _survivors(numbers, packed_part(self._mask, 1, start, stop))
            yield before, numbers
            before += numbers.size

    def _numbers(self, start: int, stop: int) -> NDArray[Any]:
        run, first, last = self._run, start // self._run, (stop - 1) // self._run
        numbers = np.arange(first, last + 1) % self.count
        lengths = np.full(numbers.size, run)
        lengths[0] = min(stop, (first + 1) * run) - start
        lengths[-1] = stop - max(start, last * run)
        return numbers.astype(np.uint16 if self.count <= 1 << 16 else np.uint32).repeat(lengths)


def _survivors(numbers: NDArray[Any], mask: NDArray[np.uint8]) -> NDArray[Any]:
    """The elements at a mask's ones; kernels move bits, whatever these represent."""
    floats = np.dtype(f"f{numbers.itemsize}")
    kept = np.empty(count_bits(mask, numbers.size), floats)
    encode_sparse(numbers.view(floats), mask, kept, 1)
    return kept.view(numbers.dtype)


class GroupedValues:
    """The values of a sparse tensor by groups, of which only some are copied at a time.

    Parameters
    ----------
    values : numpy.ndarray
        In the order in which they are stored, 1-D.
    layout : tuple of int
        The tensor as (outer, groups, run).
    mask : numpy.ndarray of uint8
        The positions of the values.
    """

    def __init__(self, values: NDArray[Any], layout: Layout, mask: NDArray[np.uint8]) -> None:
        self._values = values
        outer, count, run = layout
        # Consecutive groups need no search.
        self._places = GroupPlaces(layout, mask) if outer > 1 else None
        self.sizes = np.zeros(count, np.int64)
        if self._places is None:
            ends = range(run, (count + 1) * run, run)
            self.sizes[:] = [count_bits(packed_part(mask, 1, end - run, end), run) for end in ends]
        else:
            for _, numbers in self._places.pieces():
                self.sizes += np.bincount(numbers, minlength=count)

    def batches(self) -> Iterator[tuple[int, int]]:
        """Ranges of groups that together have few values."""
        most = max(_LEAST_BATCH, self._values.size // _MOST_BATCHES)
        first, size = 0, 0
        for group, more in enumerate(self.sizes.tolist()):
            if size + more > most and size:
                yield first, group
                first, size = group, 0
            size += more
        if size:
            yield first, self.sizes.size

    def take(self, first: int, last: int) -> list[NDArray[Any]]:
        """The values of each group of a range that has some, in their order."""
        ends = np.cumsum(self.sizes[first:last])
        if self._places is None:
            begin = self.sizes[:first].sum()
            taken = self._values[begin : begin + ends[-1]]
        else:
            taken = np.empty(ends[-1], self._values.dtype)
            for begin, chosen, target in self._targets(first, last):
                taken[target] = self._values[begin : begin + chosen.size][chosen]
        return [part for part in np.split(taken, ends[:-1]) if part.size]

    def store(self, first: int, last: int, codes: NDArray[np.uint8], packed: NDArray[np.uint8], nbits: int) -> None:
        """Write codes that are ordered by group to the positions of their values, among packed codes."""
        if self._places is None:
            store_codes(packed, nbits, int(self.sizes[:first].sum()), codes)
            return
        for begin, chosen, target in self._targets(first, last):
            store_codes(packed, nbits, begin, codes[target], chosen)

    def _targets(self, first: int, last: int) -> Iterator[tuple[int, NDArray[np.bool_], NDArray[Any]]]:
        """For each piece: its begin, which values belong to these groups, and their positions in group order."""
        assert self._places is not None
        following = np.cumsum(self.sizes[first:last]) - self.sizes[first:last]
        for begin, numbers in self._places.pieces():
            chosen = (numbers >= first) & (numbers < last)
            groups = numbers[chosen] - numbers.dtype.type(first)
            if groups.size == 0:
                continue
            order = np.argsort(groups, kind="stable")
            counts = np.bincount(groups, minlength=following.size)
            target = np.empty(groups.size, np.int64)
            target[order] = np.arange(groups.size) + np.repeat(following - (np.cumsum(counts) - counts), counts)
            following += counts
            yield begin, chosen, target


def joined(size: int, nbits: int, parts: Iterable[tuple[NDArray[np.uint8], int]]) -> NDArray[np.uint8]:
    """Packed codes, `size` in all, from parts that are packed each: their bytes, and how many."""
    packed, begin = np.zeros(packed_size(size, nbits), np.uint8), 0
    for part, count in parts:
        store_packed(packed, nbits, begin, part, count)
        begin += count
    return packed


def magnitude_of_rank(pieces: Callable[[], Iterable[NDArray[Any]]], rank: int) -> NDArray[Any]:
    """The magnitude of rank `rank`, 0 the smallest, of the values of all pieces together; one, in their dtype.

    Parameters
    ----------
    pieces : callable
        Makes the pieces, contiguous arrays of 16 or 32 bit floats; called once for each 16 bits.
    rank : int
        Below the number of values.
    """
    found, known = 0, 0  # bits, and how many of the upper ones are known
    while True:
        counts, shift = np.zeros(1 << 16, np.int64), 0
        for piece in pieces():
            width, dtype = 8 * piece.itemsize, piece.dtype
            bits = piece.reshape(-1).view(f"u{piece.itemsize}")
            magnitudes = bits & bits.dtype.type((1 << (width - 1)) - 1)
            shift = width - known - 16
            if known:
                magnitudes = magnitudes[magnitudes >> (shift + 16) == found]
            counts += np.bincount((magnitudes >> shift).astype(np.uint16), minlength=counts.size)
        below = np.cumsum(counts)
        upper = int(np.searchsorted(below, rank, "right"))
        rank -= int(below[upper] - counts[upper])
        found, known = found << 16 | upper, known + 16
        if shift == 0:
            return np.array([found], f"u{dtype.itemsize}").view(dtype)


def chosen_bits(mask: NDArray[np.uint8], within: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The bits of a mask of `size` bits at the ones of another one, packed."""
    chosen = np.zeros(packed_size(count_bits(within, size), 1), np.uint8)
    begin = 0
    for start in range(0, size, _PIECE):
        stop = min(start + _PIECE, size)
        ones, places = (ones_of(packed_part(each, 1, start, stop), stop - start) for each in (mask, within))
        part = ones[places].view(np.uint8)
        store_codes(chosen, 1, begin, part)
        begin += part.size
    return chosen
