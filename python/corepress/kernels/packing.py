"""Codes of a few bits and masks, as streams of bits."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _core
from ..arrays import as_threads, can_hold
from ..tensors import packed_size

__all__ = ["pack_bits", "pack_mask", "unpack_bits", "unpack_mask"]


def _checked_stream(name: str, nbits: Any, bitorder: str) -> tuple[int, bool]:
    """Return the width, and whether the most significant bit comes first."""
    if not isinstance(nbits, Integral) or isinstance(nbits, bool) or not 1 <= int(nbits) <= 8:
        raise ValueError(f"{name}: nbits must be 1 to 8, not {nbits!r}")
    if bitorder not in ("little", "big"):
        raise ValueError(f"{name}: bitorder must be 'little', 'big', not {bitorder!r}")
    return int(nbits), bitorder == "big"


def _output(name: str, out: NDArray[Any] | None, size: int, dtype: Any = np.uint8) -> NDArray[Any]:
    if out is None:
        return np.empty(size, dtype)
    if not can_hold(out, (size,), dtype):
        rule = f"{size} contiguous bytes of {np.dtype(dtype)}"
        raise ValueError(f"{name}: out must be {rule}, not {out.dtype} {out.shape}")
    return out


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
        If a code does not fit, or `out` has another size.
    TypeError
        If the codes are not uint8, int8 or bool.
    """
    nbits, big = _checked_stream("pack_bits", nbits, bitorder)
    codes = np.ascontiguousarray(codes)
    if codes.dtype not in (np.uint8, np.int8, np.bool_):
        raise TypeError(f"pack_bits: codes must be uint8, int8 or bool, not {codes.dtype}")
    signed = bool(codes.dtype == np.int8)
    out = _output("pack_bits", out, packed_size(codes.size, nbits))
    flat = codes.reshape(-1)
    if not _core.pack_bits(flat.view(np.uint8), nbits, signed, big, out, as_threads("pack_bits", num_threads)):
        lowest = -(2 ** (nbits - 1)) if signed else 0
        wrong = flat[(flat < lowest) | (flat.astype(np.int16) >= lowest + 2**nbits)]
        raise ValueError(f"pack_bits: code {wrong[0]} does not fit {nbits} bits")
    return out


def unpack_bits(
    data: NDArray[np.uint8],
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
    data : numpy.ndarray of uint8
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
        If `data` or `out` has another size.
    """
    nbits, big = _checked_stream("unpack_bits", nbits, bitorder)
    if count < 0:
        raise ValueError(f"unpack_bits: count must not be negative, not {count}")
    data = np.ascontiguousarray(data, np.uint8).reshape(-1)
    if data.size != packed_size(count, nbits):
        raise ValueError(
            f"unpack_bits: {count} codes of {nbits} bits are {packed_size(count, nbits)} bytes, not {data.size}"
        )
    out = _output("unpack_bits", out, count, np.int8 if signed else np.uint8)
    threads = as_threads("unpack_bits", num_threads)
    _core.unpack_bits(data, nbits, bool(signed), big, count, out.view(np.uint8), threads)
    return out


def pack_mask(mask: Any, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """Pack a mask into bits, least significant bit first; the last byte is filled with zeros.

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
    return pack_bits(mask, 1, out)


def unpack_mask(data: NDArray[np.uint8], count: int, out: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """Unpack a mask; the inverse of `pack_mask`.

    Parameters
    ----------
    data : numpy.ndarray of uint8
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
        If `data` or `out` has another size.
    """
    mask = _output("unpack_mask", out, count, np.bool_)
    unpack_bits(data, 1, count, mask.view(np.uint8))
    return mask
