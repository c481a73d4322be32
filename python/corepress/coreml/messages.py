"""Protobuf messages made from short tables of the fields that matter; all other fields pass through unseen."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from ..errors import FormatError

MESSAGE_LIMIT = 2**31  # protobuf neither reads nor writes a message of this many bytes
TOO_DEEP = "its blocks or models are nested too deep: protobuf reads 100 messages within each other"

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
        raise FormatError(TOO_DEEP if _TOO_DEEP.search(str(error)) else str(error)) from error
