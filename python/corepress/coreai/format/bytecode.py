"""The bytecode of programs (MLIR's, version 6): its sections, and where weights are in it.

The parser of Core AI's library ends the process at files that are cut off, and takes data of any length for a
constant; so what is read here is checked before that parser sees the file.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import FormatError
from ...mapped_files import GuardedMap, release_array

_MAGIC = b"ML\xefR"
_POINTER = b"version https://git-lfs"
_VERSIONS = range(0, 7)
_STRING, _DIALECT, _TYPES, _TYPE_OFFSETS, _IR, _RESOURCES, _RESOURCE_OFFSETS, _VERSION_TABLE, _PROPERTIES = range(9)
_REQUIRED = (_STRING, _DIALECT, _TYPES, _TYPE_OFFSETS, _IR)
_SECTION_NAMES = (
    "String", "Dialect", "AttrType", "AttrTypeOffset", "IR", "Resource", "ResourceOffset", "DialectVersions",
    "Properties",
)  # fmt: skip
_BLOB = 0  # kind of a resource; others are a truth value and a string
_PADDING = 0xCB
_PIECE = 1 << 26
_LARGEST_ALIGNMENT = 1 << 20


@dataclass(frozen=True)
class Blob:
    """Where a resource's bytes are: offset in the file, size, and the alignment that the file gives it."""

    offset: int
    size: int
    alignment: int


@dataclass(frozen=True)
class Resource:
    """An entry of the section of resources: its key, its bytes, and its data, None for other kinds than data."""

    key: str
    entry_size: int
    blob: Blob | None


@dataclass(frozen=True)
class Section:
    """Where a section's bytes are."""

    offset: int
    size: int


class Bytecode:
    """The sections of a bytecode file, mapped into memory.

    Parameters
    ----------
    path : pathlib.Path
        The file.

    Attributes
    ----------
    path : pathlib.Path
        The file.
    size : int
        Its bytes.
    producer : str
        What wrote it, for example ``MLIR22.0.0git``.
    sections : dict of str to Section
        Its sections, by the names of MLIR's specification.
    header_size : int
        Bytes before the first section.
    strings : list of str
        The strings that it refers to by number.
    resources : list of Resource
        Its resources, in order.
    blobs : dict of str to Blob
        The data of its resources, by their keys.

    Raises
    ------
    FormatError
        If the file is damaged, cut off, or of another format.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = os.stat(path).st_size
        if self.size < len(_MAGIC):
            raise FormatError(f"{path}: {self.size} bytes, which is no program")
        with open(path, "rb") as file:
            self._data: NDArray[np.uint8] = np.frombuffer(GuardedMap(file.fileno()), np.uint8)
        if self._data.size != self.size:
            raise FormatError(f"{path}: changed while it was opened")
        reader = _Reader(self._data, 0, self.size, path)
        if reader.bytes(len(_MAGIC)) != _MAGIC:
            if self._data[: len(_POINTER)].tobytes() == _POINTER:
                raise FormatError(f"{path}: a pointer of Git LFS; run 'git lfs pull' to fetch the file")
            raise FormatError(f"{path}: is not MLIR bytecode, it begins with {self._data[:4].tobytes()!r}")
        self.version = reader.varint()
        if self.version not in _VERSIONS:
            raise FormatError(f"{path}: bytecode version {self.version}, newer than {_VERSIONS[-1]}")
        self.producer = reader.text_to_zero(64)
        self.header_size = reader.position
        self.sections = dict(self._read_sections(reader))
        for number in _REQUIRED:
            if _SECTION_NAMES[number] not in self.sections:
                raise FormatError(f"{path}: has no section {_SECTION_NAMES[number]}")
        self.strings = self._read_strings()
        self.resources = list(self._read_resources())
        self.blobs = {each.key: each.blob for each in self.resources if each.blob is not None}

    def view(self, key: str) -> NDArray[np.uint8]:
        """The bytes of a resource, mapped and read-only."""
        blob = self.blobs[key]
        return self._data[blob.offset : blob.offset + blob.size]

    def digest(self) -> bytes:
        """The SHA-256 of the file."""
        digest = hashlib.sha256()
        for start in range(0, self.size, _PIECE):
            piece = self._data[start : start + _PIECE]
            digest.update(piece.data)
            release_array(piece)
        return digest.digest()

    def _read_sections(self, reader: _Reader) -> Iterator[tuple[str, Section]]:
        seen: set[int] = set()
        while not reader.at_end:
            number = reader.byte()
            size = reader.varint()
            kind = number & 0x7F
            if kind >= len(_SECTION_NAMES):
                raise FormatError(f"{self.path}: unknown section {kind} at byte {reader.position}")
            if number & 0x80:
                reader.align(reader.varint())
            name = _SECTION_NAMES[kind]
            if kind in seen:
                raise FormatError(f"{self.path}: has the section {name} twice")
            seen.add(kind)
            if size > reader.left:
                raise FormatError(
                    f"{self.path}: cut off: its section {name} has {size} bytes, of which {reader.left} are there"
                )
            yield name, Section(reader.position, size)
            reader.skip(size)

    def _reader(self, name: str) -> _Reader:
        section = self.sections[name]
        return _Reader(self._data, section.offset, section.offset + section.size, self.path)

    def _read_strings(self) -> list[str]:
        reader = self._reader("String")
        count = reader.varint()
        if count > reader.left:
            raise FormatError(f"{self.path}: {count} strings in {reader.left} bytes")
        lengths = [reader.varint() for _ in range(count)]
        # Their lengths, each with a zero at the end, are given from the last to the first.
        return [reader.bytes(length).rstrip(b"\0").decode("utf-8", "replace") for length in reversed(lengths)]

    def _read_resources(self) -> Iterator[Resource]:
        names = "Resource" in self.sections, "ResourceOffset" in self.sections
        if not any(names):
            return
        if not all(names):
            raise FormatError(f"{self.path}: must have both sections Resource and ResourceOffset, or none")
        strings, reader = self.strings, self._reader("ResourceOffset")
        data = self._reader("Resource")
        external, groups = reader.varint(), 0
        while not reader.at_end:
            reader.varint()  # its dialect, or key
            for _ in range(reader.varint()):
                key, size, kind = reader.varint(), reader.varint(), reader.byte()
                if key >= len(strings):
                    raise FormatError(f"{self.path}: a resource's key is string {key} of {len(strings)}")
                if size > data.left:
                    raise FormatError(
                        f"{self.path}: cut off: resource {strings[key]} has {size} bytes, {data.left} left"
                    )
                entry = _Reader(self._data, data.position, data.position + size, self.path)
                data.skip(size)
                is_blob = kind == _BLOB and groups >= external
                yield Resource(strings[key], size, _read_blob(entry, strings[key]) if is_blob else None)
            groups += 1


def _read_blob(entry: _Reader, key: str) -> Blob:
    alignment, size = entry.varint(), entry.varint()
    entry.align(alignment)
    if size != entry.left:
        raise FormatError(f"{entry.path}: resource {key} must have {size} bytes, not {entry.left}")
    return Blob(entry.position, size, alignment)


class _Reader:
    """A position in a part of a file."""

    def __init__(self, data: NDArray[np.uint8], start: int, stop: int, path: Path) -> None:
        self._data, self.position, self._stop, self.path = data, start, stop, path

    @property
    def left(self) -> int:
        return self._stop - self.position

    @property
    def at_end(self) -> bool:
        return self.position >= self._stop

    def bytes(self, count: int) -> bytes:
        if count > self.left:
            raise FormatError(f"{self.path}: cut off at byte {self._stop}")
        self.position += count
        return self._data[self.position - count : self.position].tobytes()

    def skip(self, count: int) -> None:
        self.position += count

    def byte(self) -> int:
        return self.bytes(1)[0]

    def varint(self) -> int:
        """An integer whose first byte's trailing zeros say how many bytes follow."""
        first = self.byte()
        if first & 1:
            return first >> 1
        if first == 0:
            return int.from_bytes(self.bytes(8), "little")
        more = (first & -first).bit_length() - 1
        return int.from_bytes(bytes((first,)) + self.bytes(more), "little") >> (more + 1)

    def align(self, alignment: int) -> None:
        """Skip the padding before data of this alignment."""
        if not 1 <= alignment <= _LARGEST_ALIGNMENT or alignment & (alignment - 1):
            raise FormatError(f"{self.path}: alignment {alignment} at byte {self.position} is no power of two")
        padding = self.bytes(-self.position % alignment)
        if padding.count(_PADDING) != len(padding):
            raise FormatError(f"{self.path}: wrong padding at byte {self.position}")

    def text_to_zero(self, most: int) -> str:
        text = bytearray()
        while (byte := self.byte()) != 0:
            text.append(byte)
            if len(text) > most:
                raise FormatError(f"{self.path}: the name of its producer has no end")
        return text.decode("utf-8", "replace")
