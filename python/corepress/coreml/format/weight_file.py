"""Core ML's blob storage (``weight.bin``): the one reader and the one writer."""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ... import system
from ..._core import check_stop
from ...errors import FormatError
from ...mapped_files import GuardedMap
from ...overlap import WriteBehind
from ...sources import changed_error
from ...specs import in_bits
from .data_types import BY_BLOB_NUMBER, DataType

ALIGNMENT = 64
VERSION = 2
SENTINEL = 0xDEADBEEF
_HEADER = struct.Struct("<II56x")  # number of blobs, version
_RECORD = struct.Struct("<IIQQQ32x")  # sentinel, data type, bytes, offset of the data, unused bits
_COPY_CHUNK = 1 << 26
_FLUSH_CHUNK = 1 << 26  # written between two requests to bring it to the disk, so that little is left for the end


def _align(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT


def begins_weight_file(prefix: bytes) -> bool:
    """Whether a file that begins so is a weight file."""
    if len(prefix) < _HEADER.size + _RECORD.size:
        return False
    _, version = _HEADER.unpack_from(prefix)
    sentinel, *_ = _RECORD.unpack_from(prefix, _HEADER.size)
    return (version, sentinel) == (VERSION, SENTINEL)


@dataclass(frozen=True)
class BlobRecord:
    """The record of one blob in a weight file.

    Attributes
    ----------
    offset : int
        Where the record is; programs refer to this number.
    data_type : DataType
        Element type.
    data_offset, size : int
        Where the data starts, and its bytes.
    padding : int
        Unused bits in the last byte of packed data.
    """

    offset: int
    data_type: DataType
    data_offset: int
    size: int
    padding: int

    @property
    def count(self) -> int:
        """Number of elements."""
        return (8 * self.size - self.padding) // self.data_type.nbits


class WeightFileReader:
    """Read-only, memory-mapped view of a weight file. Every offset and size is checked before it is followed.

    Parameters
    ----------
    path : pathlib.Path
        The file.

    Raises
    ------
    FormatError
        If the file is not a weight file of version 2, here or when a damaged record is met.
    SourceChangedError
        If a part of the file can no longer be read, because it became shorter.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            self.size = os.fstat(file.fileno()).st_size
            if self.size < _HEADER.size:
                raise FormatError(f"{path}: {self.size} bytes, but a weight file has a header of {_HEADER.size}")
            self._map = GuardedMap(file.fileno())
            self._descriptor = os.dup(file.fileno())
        self._advise("MADV_SEQUENTIAL", 0, self.size)
        self.count, version = _HEADER.unpack_from(self._map, 0)
        if version != VERSION:
            self.close()
            raise FormatError(f"{path}: version at offset 4 is {version}, but only version {VERSION} is known")

    def _error(self, offset: int, rule: str) -> FormatError:
        return FormatError(f"{self.path}: blob record at offset {offset}: {rule}")

    def record(self, offset: int) -> BlobRecord:
        """The record at this offset."""
        if not _HEADER.size <= offset <= self.size - _RECORD.size:
            raise self._error(offset, f"is not inside the file of {self.size} bytes")
        sentinel, number, size, data_offset, padding = _RECORD.unpack(self._record_bytes(offset))
        if sentinel != SENTINEL:
            raise self._error(offset, f"starts with {sentinel:#010x}, not with {SENTINEL:#010x}")
        if number not in BY_BLOB_NUMBER:
            raise self._error(offset, f"has the unknown data type {number}")
        data_type = BY_BLOB_NUMBER[number]
        if data_offset > self.size or size > self.size - data_offset:
            raise self._error(
                offset, f"names {size} bytes of data at offset {data_offset}, but the file has {self.size} bytes"
            )
        if not data_type.packed:
            padding = 0  # meaningless for these types, and older files hold junk there
        elif padding >= 8 or padding > 8 * size:
            raise self._error(offset, f"says {in_bits(padding)} of its last byte are unused")
        if (8 * size - padding) % data_type.nbits:
            raise self._error(
                offset, f"{size} bytes less {in_bits(padding)} are not a whole number of {data_type.name} elements"
            )
        return BlobRecord(offset, data_type, data_offset, size, padding)

    def _record_bytes(self, offset: int) -> bytes:
        # Not through the map, where the system has a choice: touching one page there can map megabytes around it.
        if hasattr(os, "pread"):
            data = os.pread(self._descriptor, _RECORD.size, offset)
            if len(data) < _RECORD.size:
                raise changed_error(self.path, "became shorter while it was read")
            return data
        return self._map[offset : offset + _RECORD.size]

    def __iter__(self) -> Iterator[BlobRecord]:
        """All records in file order, as many as the header counts."""
        offset = _HEADER.size
        for index in range(self.count):
            if offset > self.size - _RECORD.size:
                raise FormatError(f"{self.path}: the header counts {self.count} blobs, but the file ends after {index}")
            record = self.record(offset)
            yield record
            offset = self._after(record)

    def _after(self, record: BlobRecord) -> int:
        """Where the next record is if there is no gap."""
        if record.data_offset < record.offset + _RECORD.size:
            raise self._error(record.offset, f"its data at offset {record.data_offset} does not follow it")
        return _align(record.data_offset + record.size)

    def _is_record(self, offset: int) -> bool:
        return int.from_bytes(self._record_bytes(offset)[:4], "little") == SENTINEL

    def records(self, offsets: Iterable[int] = ()) -> list[BlobRecord]:
        """The records at `offsets`, and those that follow one another from the beginning or from one of these.

        Programs refer to records by offset, so Core ML does not need the header's count, and accepts gaps between
        blobs. In file order; no two may overlap.
        """
        found = {offset: self.record(offset) for offset in sorted(set(offsets))}
        for start in (_HEADER.size, *found):
            self._follow(start, found)
        records = [found[offset] for offset in sorted(found)]
        for before, record in pairwise(records):
            # Data comes after its own record, so that it need not be compared.
            if record.offset < max(before.offset + _RECORD.size, before.data_offset + before.size):
                raise self._error(record.offset, f"overlaps the blob whose record is at offset {before.offset}")
        return records

    def _follow(self, offset: int, found: dict[int, BlobRecord]) -> None:
        """Add the records that follow without a gap from `offset` on, up to one that is known."""
        if offset in found:
            offset = self._after(found[offset])
        while offset <= self.size - _RECORD.size and offset not in found and self._is_record(offset):
            found[offset] = self.record(offset)
            offset = self._after(found[offset])

    def array(self, record: BlobRecord) -> NDArray[Any]:
        """A read-only, 1-D view of a blob: its elements, or the bytes of packed and unknown types."""
        dtype = record.data_type.dtype or np.dtype(np.uint8)
        view = np.frombuffer(self._map, dtype, record.size // dtype.itemsize, record.data_offset)
        return view if view.flags.aligned else view.copy()

    def read_into(self, record: BlobRecord, memory: NDArray[np.uint8]) -> NDArray[Any]:
        """What `array` gives, in `memory` of as many bytes; for a whole file, faster than copying what is mapped."""
        dtype = record.data_type.dtype or np.dtype(np.uint8)
        if not hasattr(os, "preadv"):
            memory[:] = self.array(record).view(np.uint8)
            return memory.view(dtype)
        view, place = memory.data, record.data_offset
        while view:
            check_stop()
            count = os.preadv(self._descriptor, [view[:_COPY_CHUNK]], place)
            if not count:
                raise changed_error(self.path, "became shorter while it was read")
            view, place = view[count:], place + count
        return memory.view(dtype)

    def prefetch(self, record: BlobRecord) -> None:
        """Let the system begin to read this blob."""
        start = record.data_offset // mmap.PAGESIZE * mmap.PAGESIZE
        self._advise("MADV_WILLNEED", start, record.data_offset + record.size - start)

    def release(self, record: BlobRecord) -> None:
        """Let the system drop this blob's pages from memory; they are read again when needed."""
        if self._map.lost:
            raise changed_error(self.path, "became shorter while it was read")
        start = record.data_offset // mmap.PAGESIZE * mmap.PAGESIZE
        self._advise("MADV_DONTNEED", start, record.data_offset + record.size - start)

    def _advise(self, advice: str, start: int, length: int) -> None:
        if length and hasattr(mmap, advice):
            with contextlib.suppress(OSError):
                self._map.madvise(getattr(mmap, advice), start, length)

    def send(self, record: BlobRecord, descriptor: int) -> None:
        """Append a blob's data to an open file, inside the kernel where the system can."""
        start, end = record.data_offset, record.data_offset + record.size
        start = system.current.copy_range(
            self._descriptor, descriptor, start, end, at_once=_COPY_CHUNK, before_each=check_stop
        )
        with memoryview(self._map) as view:
            for chunk in range(start, end, _COPY_CHUNK):
                with view[chunk : min(chunk + _COPY_CHUNK, end)] as part:
                    _write_all(descriptor, part)
        if start < end:
            self.release(record)

    def close(self) -> None:
        """Close the file; its memory stays mapped for as long as arrays refer to it."""
        os.close(self._descriptor)
        del self._map

    def __enter__(self) -> WeightFileReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _write_all(descriptor: int, *parts: bytes | memoryview) -> None:
    for part in parts:
        view = memoryview(part)
        while view:
            check_stop()
            view = view[os.write(descriptor, view[:_COPY_CHUNK]) :]


class WeightFileLayout:
    """The positions of the blobs of a weight file that are placed one after another."""

    def __init__(self) -> None:
        self.count = 0
        self.size = _HEADER.size

    @staticmethod
    def footprint(size: int) -> int:
        """Bytes that a blob of `size` bytes takes with its record, up to the next one."""
        return _RECORD.size + _align(size)

    def place(self, size: int) -> int:
        """Make room for a blob of `size` bytes; return the offset of its record."""
        offset = _align(self.size)
        self.size = offset + _RECORD.size + size
        self.count += 1
        return offset


class WeightFileWriter:
    """Writes a new weight file front to back; it becomes valid when it is closed without an error.

    Writing happens in the background, on the writer's own thread: an array that was appended must not be changed until
    the file is closed, and an error may be raised by a later call.

    Parameters
    ----------
    path : pathlib.Path
        The file, which must not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._layout = WeightFileLayout()
        self._flushed = 0
        self._behind, self._syncing = WriteBehind(), WriteBehind()  # syncing waits for the disk, writing need not
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        _write_all(self._descriptor, bytes(_HEADER.size))

    def append(self, data_type: DataType, count: int, data: NDArray[Any] | Iterable[NDArray[Any]]) -> int:
        """Write a blob.

        Parameters
        ----------
        data_type : DataType
            Element type.
        count : int
            Number of elements.
        data : numpy.ndarray, or iterable of numpy.ndarray
            The elements, or the bytes of packed elements; any shape, read in row-major order. Or pieces of them, each
            of which is asked for when most of those before it are written.

        Returns
        -------
        int
            Offset of the record.
        """
        size = data_type.byte_count(count)
        offset, head = self._begin(data_type, size, data_type.padding(count))
        written = 0
        for piece in (data,) if isinstance(data, np.ndarray) else data:
            body = np.ascontiguousarray(piece).reshape(-1).view(np.uint8).data
            self._behind.put(partial(_write_all, self._descriptor, head, body), body.nbytes)
            head, written = b"", written + body.nbytes
        if written != size:
            raise ValueError(f"append: {count} {data_type.name} elements are {size} bytes, not {written}")
        self._flush()
        return offset

    def copy(self, reader: WeightFileReader, record: BlobRecord) -> int:
        """Write a blob of another file, unchanged; the reader must stay open until this file is closed.

        Returns
        -------
        int
            Offset of the new record.
        """
        offset, head = self._begin(record.data_type, record.size, record.padding)
        self._behind.put(partial(_write_all, self._descriptor, head), 0)
        self._behind.put(partial(reader.send, record, self._descriptor), 0)
        self._flush()
        return offset

    def _begin(self, data_type: DataType, size: int, padding: int) -> tuple[int, bytes]:
        """Make place for a blob: the offset of its record, and the bytes from the end of the last blob to its data."""
        position = self._layout.size
        offset = self._layout.place(size)
        record = _RECORD.pack(SENTINEL, data_type.blob_number, size, offset + _RECORD.size, padding)
        return offset, bytes(offset - position) + record

    def _flush(self) -> None:
        if self._layout.size - self._flushed >= _FLUSH_CHUNK:
            self._flushed = self._layout.size
            sync = partial(system.current.begin_flush, self._descriptor)
            self._behind.put(partial(self._syncing.put, sync, 0), 0)

    def _finish(self) -> None:
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        _write_all(self._descriptor, _HEADER.pack(self._layout.count, VERSION))
        system.current.flush(self._descriptor)

    def __enter__(self) -> WeightFileWriter:
        self._syncing.__enter__()
        self._behind.__enter__()
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Without an error, write the header and wait until everything is on the disk."""
        try:
            try:
                self._behind.__exit__(error_type, error, traceback)
            except BaseException as failure:
                self._syncing.__exit__(type(failure), failure, failure.__traceback__)
                raise
            self._syncing.__exit__(error_type, error, traceback)
            if error_type is None:
                self._finish()
        finally:
            os.close(self._descriptor)
