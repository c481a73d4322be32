"""Pack codes of a few bits, and masks, into streams of bits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._core import pack_bits as pack_bits_native
from .._core import unpack_bits as unpack_bits_native
from ..arrays import as_threads, contiguous
from ..intake import BYTES, CODES, as_array, as_output, as_whole, whole
from ..specs import in_bits
from ..tensors import packed_size

__all__ = ["pack_bits", "pack_mask", "unpack_bits", "unpack_mask"]


def _checked_stream(name: str, nbits: Any, bitorder: str) -> tuple[int, bool]:
    """Return the width, and whether the most significant bit comes first."""
    width = whole(nbits)
    if width is None or not 1 <= width <= 8:
        raise ValueError(f"{name}: nbits must be 1 to 8, not {nbits!r}")
    if bitorder not in ("little", "big"):
        raise ValueError(f"{name}: bitorder must be 'little', 'big', not {bitorder!r}")
    return width, bitorder == "big"


def pack_bits(
    codes: Any,
    nbits: int,
    out: NDArray[np.uint8] | None = None,
    *,
    bitorder: str = "little",
    num_threads: int | None = None,
) -> NDArray[np.uint8]:
    """Pack codes into one stream of bits.

    Element i occupies bits ``[i * nbits, (i + 1) * nbits)``. With `bitorder` ``"little"``, that of ML programs, bit p
    is bit ``p % 8`` of byte ``p // 8``, and a code's least significant bit comes first. With ``"big"``, that of
    ``.mlmodel`` neural networks, bit p is bit ``7 - p % 8``, and the most significant bit comes first. There is no
    padding between rows; unused bits of the last byte are 0.

    Parameters
    ----------
    codes : array_like of uint8, int8 or bool
        Codes below ``2**nbits``, or of int8 from ``-2**(nbits - 1)`` to ``2**(nbits - 1) - 1``, which become two's
        complement; any shape, taken in row-major order.
    nbits : int
        Bits per code, 1 to 8.
    out : numpy.ndarray of uint8, optional
        Array of ``(count * nbits + 7) // 8`` bytes to write to.
    bitorder : {"little", "big"}
        Which bit comes first, as in `numpy.packbits`.
    num_threads : int, optional
        Threads to use; None for all CPUs this process may use, or `COREPRESS_NUM_THREADS`.

    Returns
    -------
    numpy.ndarray of uint8
        The stream, 1-D: `out`, or a new array.

    Raises
    ------
    ValueError
        If a code does not fit, or `out` has another size or shares memory with `codes`.
    TypeError
        If the codes are not uint8, int8 or bool.
    """
    return _pack("pack_bits", "codes", codes, nbits, out, bitorder, num_threads)


def _pack(
    name: str, what: str, codes: Any, nbits: int, out: Any, bitorder: str = "little", num_threads: int | None = None
) -> NDArray[np.uint8]:
    nbits, big = _checked_stream(name, nbits, bitorder)
    threads = as_threads(name, num_threads)
    flat = contiguous(as_array(name, what, codes, CODES)).reshape(-1)
    signed = bool(flat.dtype == np.int8)
    stream = as_output(name, out, (packed_size(flat.size, nbits),), np.uint8, flat)
    if not pack_bits_native(flat.view(np.uint8), nbits, signed, big, stream, threads):
        lowest = -(2 ** (nbits - 1)) if signed else 0
        wrong = flat[(flat < lowest) | (flat.astype(np.int16) >= lowest + 2**nbits)]
        raise ValueError(f"{name}: code {wrong[0]} does not fit {in_bits(nbits)}")
    return stream


def unpack_bits(
    data: Any,
    nbits: int,
    count: int,
    out: NDArray[Any] | None = None,
    *,
    signed: bool = False,
    bitorder: str = "little",
    num_threads: int | None = None,
) -> NDArray[Any]:
    """Unpack `count` codes; the inverse of `pack_bits`.

    Parameters
    ----------
    data : array_like of uint8
        ``(count * nbits + 7) // 8`` bytes.
    nbits : int
        Bits per code, 1 to 8.
    count : int
        Number of codes.
    out : numpy.ndarray, optional
        1-D array of `count` elements to write to, uint8, or int8 if `signed`.
    signed : bool
        Whether the codes are two's complement.
    bitorder : {"little", "big"}
        Which bit comes first, as in `numpy.unpackbits`.
    num_threads : int, optional
        Threads to use; None for all CPUs this process may use, or `COREPRESS_NUM_THREADS`.

    Returns
    -------
    numpy.ndarray
        The codes, 1-D, uint8, or int8 if `signed`: `out`, or a new array.

    Raises
    ------
    ValueError
        If `data` or `out` has another size, or `out` shares memory with `data`.
    TypeError
        If the data are not uint8.
    """
    dtype = np.int8 if signed else np.uint8
    return _unpack("unpack_bits", data, nbits, count, out, dtype, bitorder, num_threads)


def _unpack(
    name: str,
    data: Any,
    nbits: int,
    count: int,
    out: Any,
    dtype: Any,
    bitorder: str = "little",
    num_threads: int | None = None,
) -> NDArray[Any]:
    nbits, big = _checked_stream(name, nbits, bitorder)
    threads = as_threads(name, num_threads)
    count = as_whole(name, "count", count, 0)
    stream = contiguous(as_array(name, "data", data, BYTES)).reshape(-1)
    if stream.size != packed_size(count, nbits):
        raise ValueError(
            f"{name}: {count} codes of {in_bits(nbits)} are {packed_size(count, nbits)} bytes, not {stream.size}"
        )
    codes = as_output(name, out, (count,), dtype, stream)
    unpack_bits_native(stream, nbits, dtype == np.int8, big, count, codes.view(np.uint8), threads)
    return codes


def pack_mask(mask: Any, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """Pack a mask into bits, least significant bit first; the last byte is padded with zeros.

    Parameters
    ----------
    mask : array_like of bool, or of uint8 0 and 1
        Any shape, taken in row-major order.
    out : numpy.ndarray of uint8, optional
        Array of ``(count + 7) // 8`` bytes to write to.

    Returns
    -------
    numpy.ndarray of uint8
        The bits, 1-D: `out`, or a new array.

    Raises
    ------
    ValueError, TypeError
        As `pack_bits` does.
    """
    return _pack("pack_mask", "mask", mask, 1, out)


def unpack_mask(data: Any, count: int, out: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """Unpack a mask; the inverse of `pack_mask`.

    Parameters
    ----------
    data : array_like of uint8
        ``(count + 7) // 8`` bytes, least significant bit first.
    count : int
        Number of bits.
    out : numpy.ndarray of bool, optional
        1-D array of `count` elements to write to.

    Returns
    -------
    numpy.ndarray of bool
        The mask, 1-D: `out`, or a new array.

    Raises
    ------
    ValueError
        If `data` or `out` has another size, or `out` shares memory with `data`.
    TypeError
        If the data are not uint8.
    """
    return _unpack("unpack_mask", data, 1, count, out, np.bool_)
