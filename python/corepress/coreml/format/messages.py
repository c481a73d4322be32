"""Protobuf messages made from short tables of the fields that matter; all other fields are preserved unparsed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from ...errors import FormatError

MESSAGE_LIMIT = 2**31  # protobuf neither reads nor writes a message of this many bytes
DEPTH_LIMIT = 100
TOO_DEEP = f"its blocks or models are nested too deep: protobuf reads {DEPTH_LIMIT} messages within each other"

_LOOKED_AT = 1_000_000  # fields, which takes about a second
_VARINT, _LENGTH_DELIMITED, _FIXED = 0, 2, {1: 8, 5: 4}  # kinds of fields

_TOO_DEEP = re.compile("MaxDepth|nesting")  # as the implementations call it
_FIELD = re.compile(r"(?:(\w+)/ )?(?:(repeated|map) )?(\w+) (\w+) = (\d+)")


def message_classes(schema: dict[str, str], package: str) -> dict[str, Any]:
    """The classes of a table.

    Parameters
    ----------
    schema : dict of str to str
        Message to its fields, one a line, as ``[oneof/] [repeated | map] type name = number``. A message without fields
        keeps all its content.
    package : str
        Name of the protobuf package, another one for each table.
    """
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}/model.proto", package=package, syntax="proto3")
    for name, lines in schema.items():
        message = file.message_type.add(name=name)
        for line in filter(None, map(str.strip, lines.splitlines())):
            _add_field(message, line, schema, package)
    # A pool of our own, so that coremltools' registration of the same schema in the default pool is not disturbed.
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}")) for name in schema}


def _add_field(message: Any, line: str, schema: dict[str, str], package: str) -> None:
    match = _FIELD.fullmatch(line)
    assert match, line
    oneof, label, type_name, name, number = match.groups()
    field = message.field.add(name=name, number=int(number))
    field.label = field.LABEL_REPEATED if label else field.LABEL_OPTIONAL
    if label == "map":
        entry_name = "".join(word[:1].upper() + word[1:] for word in name.split("_")) + "Entry"
        entry = message.nested_type.add(name=entry_name)
        entry.options.map_entry = True
        _add_field(entry, "string key = 1", schema, package)
        _add_field(entry, f"{type_name} value = 2", schema, package)
        type_name = f"{message.name}.{entry_name}"
    if type_name in schema or label == "map":
        field.type, field.type_name = field.TYPE_MESSAGE, f".{package}.{type_name}"
    else:
        field.type = getattr(field, f"TYPE_{type_name.upper()}")
    if oneof:
        names = [declared.name for declared in message.oneof_decl]
        if oneof not in names:
            names.append(oneof)
            message.oneof_decl.add(name=oneof)
        field.oneof_index = names.index(oneof)


def read_message(path: Path, message_class: Any) -> Any:
    """Parse a file of one message.

    Raises
    ------
    FormatError
        If the file is not such a message.
    """
    size = path.stat().st_size
    if size >= MESSAGE_LIMIT:
        raise FormatError(f"{path}: {size} bytes, but a protobuf message is smaller than {MESSAGE_LIMIT}")
    try:
        return parse_message(path.read_bytes(), message_class)
    except FormatError as error:
        raise FormatError(f"{path}: not a serialized Core ML model ({error})") from error


def parse_message(data: bytes, message_class: Any) -> Any:
    """Parse a message, with whichever implementation of protobuf is in use.

    Raises
    ------
    FormatError
        If it is not such a message.
    """
    try:
        return message_class.FromString(data)
    except RecursionError as error:  # older versions of the implementation in Python do not count
        raise FormatError(TOO_DEEP) from error
    except DecodeError as error:
        too_deep = _TOO_DEEP.search(str(error)) or _is_too_deep(data, message_class.DESCRIPTOR)
        raise FormatError(TOO_DEEP if too_deep else str(error)) from error


def _is_too_deep(data: bytes, descriptor: Any) -> bool:
    """Whether messages lie deeper within each other than is read: before version 7, protobuf does not say."""
    try:
        return any(depth > DEPTH_LIMIT for depth in islice(_depths(data, descriptor), _LOOKED_AT))
    except IndexError:
        return False


def _depths(data: bytes, descriptor: Any) -> Iterator[int]:
    """The depth of every message in a serialized one, and of every field, as long as it is sound."""
    pending = [(0, len(data), descriptor, 0)]
    while pending:
        place, end, known, depth = pending.pop()
        yield depth
        while place < end:
            yield depth
            key, place = _varint(data, place)
            kind = key & 7
            if kind == _LENGTH_DELIMITED:
                size, place = _varint(data, place)
                field = known.fields_by_number.get(key >> 3)
                if field is not None and field.message_type is not None:
                    pending.append((place, place + size, field.message_type, depth + 1))
                place += size
            elif kind == _VARINT:
                _, place = _varint(data, place)
            elif kind in _FIXED:
                place += _FIXED[kind]
            else:
                return


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """A number of at most 10 bytes, and the position after it."""
    value = 0
    for index, byte in enumerate(data[place : place + 10]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, place + index + 1
    raise IndexError
