"""Codes of a few bits each, packed into bytes."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def pack_bits(codes: ArrayLike, nbits: int, bitorder: str = "little") -> NDArray[np.uint8]:
    """Pack codes bit by bit: bit b of code i is bit ``(i * nbits + b) % 8`` of byte ``(i * nbits + b) // 8``.

    With `bitorder` ``"big"`` both bits are counted from the most significant one.

    Parameters
    ----------
    codes : array_like of int
        Codes below ``2**nbits``, taken in row-major order.
    nbits : int
        Bits per code.

    Returns
    -------
    numpy.ndarray of uint8
        ``(count * nbits + 7) // 8`` bytes; unused bits of the last one are 0.
    """
    flat = np.asarray(codes).reshape(-1)
    packed = np.zeros((flat.size * nbits + 7) // 8, np.uint8)
    for index, code in enumerate(flat.tolist()):
        for bit in range(nbits):
            place = index * nbits + bit
            if bitorder == "little":
                packed[place // 8] |= (code >> bit & 1) << place % 8
            else:
                packed[place // 8] |= (code >> nbits - 1 - bit & 1) << 7 - place % 8
    return packed


def unpack_bits(data: NDArray[np.uint8], nbits: int, count: int) -> NDArray[np.uint8]:
    """Unpack `count` codes; the inverse of `pack_bits`.

    Parameters
    ----------
    data : numpy.ndarray of uint8
        Packed bytes.
    nbits : int
        Bits per code.
    count : int
        Number of codes.
    """
    bits = np.unpackbits(data, bitorder="little")[: count * nbits].reshape(count, nbits)
    codes: NDArray[np.uint8] = (bits << np.arange(nbits)).sum(axis=1).astype(np.uint8)
    return codes
