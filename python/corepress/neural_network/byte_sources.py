"""Bytes that are read in place: in a file or in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from ..coreml.format.messages import MESSAGE_LIMIT
from ..errors import FormatError
from ..mapped_files import GuardedMap
from ..sources import Snapshot, changed_error


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
    """The contents of a file, in memory."""

    def __init__(self, data: bytes) -> None:
        self.size, self._data = len(data), data

    def read(self, begin: int, end: int) -> bytes:
        """Some of its bytes."""
        return self._data[begin:end]

    def view(self, begin: int, end: int) -> memoryview:
        """The same without a copy."""
        return memoryview(self._data)[begin:end]

    def require_unchanged(self) -> None:
        """Do nothing: its own memory does not change."""

    def close(self) -> None:
        """Release the bytes."""
        self._data = b""
