"""The bytes of protobuf messages, field by field: for those that are too large, or too little known, to be parsed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ...errors import FormatError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_LONGEST_HEAD = 20  # bytes of a tag and a number


@dataclass
class Field:
    """The position of a field in its message.

    Attributes
    ----------
    number, wire_type : int
        What its tag says.
    begin : int
        Of the tag.
    value : int
        The number itself, or where the bytes begin.
    end : int
        Where the next field begins.
    """

    number: int
    wire_type: int
    begin: int
    value: int
    end: int

    @property
    def tag(self) -> bytes:
        """Its tag, as protobuf writes it."""
        return varint(self.number << 3 | self.wire_type)


def fields(read: Callable[[int, int], bytes], begin: int, end: int) -> Iterator[Field]:
    """The fields of a message; only their heads are read.

    Parameters
    ----------
    read : callable
        Given two places, returns the bytes between them.
    begin, end : int
        Where the message is.

    Raises
    ------
    FormatError
        At the first field that is none, or reaches beyond the message.
    """
    position = begin
    while position < end:
        head = read(position, min(position + _LONGEST_HEAD, end))
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


def varint(value: int) -> bytes:
    """A number as protobuf writes it."""
    data = bytearray()
    while value >= 0x80:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(data[position : position + 10]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, position + index + 1
    raise FormatError("a number is cut short")
