"""Files of arrays in safetensors' format, written as they come and mapped when they are read."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import FormatError
from ..mapped_files import GuardedMap, release_array
from ..outputs import write_output

_DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
_NAMES = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}
_LENGTH = 8  # bytes that hold that of the header
_PIECE = 1 << 24


def write_tensors(
    path: str | os.PathLike[str], arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]
) -> None:
    """Write a file that appears only when it is complete; nothing of it is held in memory.

    Parameters
    ----------
    path : path-like
        The file.
    arrays : dict of str to numpy.ndarray
        Arrays by name.
    metadata : dict of str to str
        What else it says.

    Raises
    ------
    TypeError
        If the format has no type for an array.
    """
    write_output(path, _pieces(arrays, metadata))


def _pieces(arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> Iterator[bytes]:
    # Wider elements first, so that all are aligned.
    order = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    offset = 0
    for name in order:
        array = arrays[name]
        if array.dtype not in _NAMES:
            raise TypeError(f"{name}: {array.dtype} cannot be stored")
        header[name] = {
            "dtype": _NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(_LENGTH, "little") + text
    for name in order:
        flat = np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8)
        for start in range(0, flat.size, _PIECE):
            yield flat[start : start + _PIECE].tobytes()
        release_array(arrays[name])


class TensorFile:
    """A file of arrays, mapped.

    Parameters
    ----------
    path : pathlib.Path
        The file.

    Attributes
    ----------
    metadata : dict of str to str
        What it says besides its arrays.
    names : tuple of str
        The names of its arrays.

    Raises
    ------
    FormatError
        If it is not such a file, or damaged.
    """

    def __init__(self, path: Path) -> None:
        from safetensors import SafetensorError, safe_open

        self.path = path
        if path.is_dir():
            raise FormatError(f"{path}: is a folder, not a safetensors file")
        try:
            with safe_open(os.fspath(path), framework="numpy") as opened:
                self.metadata = dict(opened.metadata() or {})
                self._where: dict[str, tuple[str, tuple[int, ...], int]] = {}
                # Arrays follow each other without gaps, which the library has checked.
                offset = _header_end(path)
                for name in opened.offset_keys():
                    part = opened.get_slice(name)
                    kind, shape = str(part.get_dtype()), tuple(part.get_shape())
                    if kind not in _DTYPES:
                        raise FormatError(f"{path}: {name}: type {kind} is not known")
                    self._where[name] = kind, shape, offset
                    offset += math.prod(shape) * np.dtype(_DTYPES[kind]).itemsize
        except SafetensorError as error:
            raise FormatError(f"{path}: not a safetensors file, or a damaged one ({error})") from error
        self.names = tuple(self._where)
        with path.open("rb") as file:
            self._map = GuardedMap(file.fileno())
        if len(self._map) != offset:
            raise FormatError(f"{path}: has {len(self._map)} bytes, but its header describes {offset}")

    def __contains__(self, name: str) -> bool:
        return name in self._where

    def read(self, name: str) -> NDArray[Any]:
        """An array, a read-only view of the file whose pages are read when they are used.

        Raises
        ------
        FormatError
            If there is none of this name.
        """
        if name not in self._where:
            raise FormatError(f"{self.path}: has no array {name!r}")
        kind, shape, offset = self._where[name]
        dtype = np.dtype(_DTYPES[kind])
        if 0 in shape:
            return np.zeros(shape, dtype)
        return np.frombuffer(self._map, dtype, math.prod(shape), offset).reshape(shape)

    def starting_with(self, prefix: str) -> Iterable[str]:
        """The rest of each name that begins so."""
        return (name[len(prefix) :] for name in self._where if name.startswith(prefix))


def _header_end(path: Path) -> int:
    with path.open("rb") as file:
        return _LENGTH + int.from_bytes(file.read(_LENGTH), "little")
