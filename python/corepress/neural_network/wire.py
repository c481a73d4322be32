"""Protobuf's wire format, read where it stands: in a file or in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..coreml.messages import MESSAGE_LIMIT
from ..coreml.weight_file import GuardedMap
from ..errors import FormatError
from ..sources import Snapshot, changed_error

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_LONGEST_HEAD = 20  # bytes of a tag and a number


class Source(Protocol):
    """Bytes that can be read anywhere."""

    size: int

    def read(self, begin: int, end: int) -> bytes: ...
    def view(self, begin: int, end: int) -> memoryview: ...
    def require_unchanged(self) -> None: ...
    def close(self) -> None: ...


class FileSource:
    """A file, which must not change."""

    def __init__(self, path: Path) -> None:
        self._snapshot = Snapshot(path)
        self.size = path.stat().st_size
        if self.size >= MESSAGE_LIMIT:
            raise FormatError(f"{path}: {self.size} bytes, but a protobuf message is smaller than {MESSAGE_LIMIT}")
        self._map: memoryview | None = None
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 (closed by close)

    def read(self, begin: int, end: int) -> bytes:
        """Some of its bytes."""
        self._file.seek(begin)
        data = self._file.read(end - begin)
        while len(data) < end - begin:
            more = self._file.read(end - begin - len(data))
            if not more:
                raise changed_error(self._file.name, "became shorter while it was read")
            data += more
        return data

    def view(self, begin: int, end: int) -> memoryview:
        """The same without a copy; its pages become zeros where the file has become shorter."""
        if self._map is None:
            self._map = memoryview(GuardedMap(self._file.fileno()))
        return self._map[begin:end]

    def require_unchanged(self) -> None:
        """Raise SourceChangedError if the file was changed."""
        self._snapshot.require_unchanged()

    def close(self) -> None:
        """Close the file; views of it stay."""
        self._file.close()


class BytesSource:
    """What would be in a file."""

    def __init__(self, data: bytes) -> None:
        self.size, self._data = len(data), data

    def read(self, begin: int, end: int) -> bytes:
        """Some of its bytes."""
        return self._data[begin:end]

    def view(self, begin: int, end: int) -> memoryview:
        """The same without a copy."""
        return memoryview(self._data)[begin:end]

    def require_unchanged(self) -> None:
        """Memory of its own does not change."""

    def close(self) -> None:
        """Let go of the bytes."""
        self._data = b""


@dataclass
class Field:
    """Where a field of a message stands."""

    number: int
    wire_type: int
    begin: int  # of the tag
    value: int  # the number itself, or where the bytes begin
    end: int


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for index in range(10):
        if position + index >= len(data):
            break
        byte = data[position + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, position + index + 1
    raise FormatError("a number is cut short")


def varint(value: int) -> bytes:
    """A number as protobuf writes it."""
    data = bytearray()
    while value >= 0x80:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)


def fields(source: Source, begin: int, end: int) -> Iterator[Field]:
    """The fields of a message; FormatError if it is damaged."""
    position = begin
    while position < end:
        head = source.read(position, min(position + _LONGEST_HEAD, end))
        key, used = _read_varint(head, 0)
        number, wire_type = key >> 3, key & 7
        if wire_type == VARINT:
            value, used = _read_varint(head, used)
            stop = position + used
        elif wire_type == BYTES:
            length, used = _read_varint(head, used)
            value, stop = position + used, position + used + length
        elif wire_type in (FIXED64, FIXED32):
            value = position + used
            stop = value + (8 if wire_type == FIXED64 else 4)
        else:
            raise FormatError(f"field {number} has wire type {wire_type}")
        if number == 0 or stop > end:
            raise FormatError(f"field {number} at byte {position} reaches beyond its message")
        yield Field(number, wire_type, position, value, stop)
        position = stop
