"""Messages between a process and one that it started: any values, arrays without a copy."""

from __future__ import annotations

import pickle
import struct
from typing import Any, BinaryIO

_COUNT, _SIZE = struct.Struct("<I"), struct.Struct("<Q")


def send(stream: BinaryIO, value: Any) -> None:
    """Write a value; contiguous arrays go as they are.

    Parameters
    ----------
    stream : binary file
        A pipe to the other process.
    value : object
        Anything that can be pickled.

    Raises
    ------
    OSError
        If the other process has ended.
    """
    buffers: list[pickle.PickleBuffer] = []
    parts: list[Any] = [pickle.dumps(value, protocol=5, buffer_callback=buffers.append)]
    parts += [each.raw() for each in buffers]
    stream.write(_COUNT.pack(len(parts)) + b"".join(_SIZE.pack(memoryview(part).nbytes) for part in parts))
    for part in parts:
        stream.write(part)
    stream.flush()


def receive(stream: BinaryIO) -> Any:
    """Read what `send` wrote; arrays can be written to.

    Raises
    ------
    EOFError
        If the other process has ended.
    """
    (count,) = _COUNT.unpack(_exactly(stream, _COUNT.size))
    sizes = [_SIZE.unpack(_exactly(stream, _SIZE.size))[0] for _ in range(count)]
    parts = [_exactly(stream, size) for size in sizes]
    return pickle.loads(parts[0], buffers=parts[1:])


def _exactly(stream: BinaryIO, size: int) -> bytearray:
    found = bytearray(size)
    view, done = memoryview(found), 0
    while done < size:
        count = stream.readinto(view[done:])  # type: ignore[attr-defined]
        if not count:
            raise EOFError("the other process has ended")
        done += count
    return found
