"""Layers whose large values stay in their file: messages of weights have a digest in place of each."""

from __future__ import annotations

import hashlib
from typing import Any

from ..coreml.format.wire_format import BYTES, fields, varint
from .byte_sources import Source

_LARGE = 1 << 20  # bytes
_READ_AT_ONCE = 1 << 22
_MARK = b"corepress: values held in a file "
# Their layers are recognized by the sizes of their values.
_WHOLE = ("activation", "layerNormalization", "custom")


class HeldValues:
    """The values that were taken out of a layer, by their digests.

    Parameters
    ----------
    comparable : bool
        Whether the digests of equal values are equal, which takes reading them; else each is unique.
    """

    def __init__(self, *, comparable: bool = True) -> None:
        self._views: dict[bytes, memoryview] = {}
        self._comparable = comparable

    def take_out(self, source: Source, begin: int, end: int, message: Any) -> bytes:
        """A serialized message with digests in place of large values.

        Parameters
        ----------
        source : Source
            Where it is stored.
        begin, end : int
            Its bytes.
        message : protobuf descriptor
            Of its type.
        """
        if end - begin < _LARGE:
            return source.read(begin, end)
        parts = []
        for each in fields(source.read, begin, end):
            known = message.fields_by_number.get(each.number)
            if known is None or each.wire_type != BYTES or each.end - each.value < _LARGE or known.name in _WHOLE:
                parts.append(source.read(each.begin, each.end))
                continue
            inner = known.message_type
            if inner is not None:
                data = self.take_out(source, each.value, each.end, inner)
            elif known.type == known.TYPE_BYTES:
                data = self._hold(source, each.value, each.end)
            else:
                data = source.read(each.value, each.end)
            parts.append(each.tag + varint(len(data)) + data)
        return b"".join(parts)

    def _hold(self, source: Source, begin: int, end: int) -> bytes:
        digest = hashlib.sha256()
        if self._comparable:
            for start in range(begin, end, _READ_AT_ONCE):
                digest.update(source.read(start, min(start + _READ_AT_ONCE, end)))
        else:
            digest.update(begin.to_bytes(8, "big"))
        held = _MARK + varint(end - begin) + digest.digest()
        self._views[held] = source.view(begin, end)
        return held

    def values(self, data: bytes) -> bytes | memoryview:
        """The values of a field of a message, even if they were replaced by a digest."""
        return self._views.get(data, data) if data.startswith(_MARK) else data


class HeldParams:
    """A ``WeightParams`` message whose values are views of a file; everything else is the message's.

    Parameters
    ----------
    message : protobuf message
        With digests in place of large values.
    held : HeldValues
        The values.
    """

    def __init__(self, message: Any, held: HeldValues) -> None:
        self._message, self._held = message, held

    def __getattr__(self, name: str) -> Any:
        return getattr(self._message, name)

    @property
    def floatValue(self) -> list[bytes | memoryview]:
        """Pieces of float32 values."""
        return [self._held.values(each) for each in self._message.floatValue]

    @property
    def float16Value(self) -> bytes | memoryview:
        """Half precision values."""
        return self._held.values(self._message.float16Value)

    @property
    def rawValue(self) -> bytes | memoryview:
        """Packed codes."""
        return self._held.values(self._message.rawValue)

    @property
    def int8RawValue(self) -> bytes | memoryview:
        """Codes of 8 bits of layers that quantize their inputs."""
        return self._held.values(self._message.int8RawValue)
