"""Protobuf messages for the part of Core ML's schema that is read or edited; all other fields pass through unseen."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, EncodeError

from ..errors import FormatError

MESSAGE_LIMIT = 2**31  # protobuf neither reads nor writes a message of this many bytes

# message: fields as "[oneof/] [repeated | map] type name = number". Opaque messages keep all their content.
_SCHEMA = {
    "Opaque": "",
    "Model": """
        int32 specificationVersion = 1
        Type/ WrappedPipeline pipelineClassifier = 200
        Type/ WrappedPipeline pipelineRegressor = 201
        Type/ Pipeline pipeline = 202
        Type/ Opaque neuralNetworkRegressor = 303
        Type/ Opaque neuralNetworkClassifier = 403
        Type/ Opaque neuralNetwork = 500
        Type/ Program mlProgram = 502""",
    "Pipeline": """
        repeated Model models = 1
        repeated string names = 2""",
    "WrappedPipeline": "Pipeline pipeline = 1",
    "Program": """
        int64 version = 1
        map Function functions = 2
        map Value attributes = 4""",
    "Function": """
        repeated NamedValueType inputs = 1
        string opset = 2
        map Block block_specializations = 3
        map Value attributes = 4""",
    "Block": """
        repeated NamedValueType inputs = 1
        repeated string outputs = 2
        repeated Operation operations = 3
        map Value attributes = 4""",
    "Operation": """
        string type = 1
        map Argument inputs = 2
        repeated NamedValueType outputs = 3
        repeated Block blocks = 4
        map Value attributes = 5""",
    "Argument": "repeated Binding arguments = 1",
    "Binding": """
        binding/ string name = 1
        binding/ Value value = 2""",
    "NamedValueType": """
        string name = 1
        ValueType type = 2""",
    "ValueType": """
        type/ TensorType tensorType = 1
        type/ Opaque listType = 2
        type/ Opaque tupleType = 3
        type/ Opaque dictionaryType = 4
        type/ Opaque stateType = 5""",
    "TensorType": """
        int32 dataType = 1
        int64 rank = 2
        repeated Dimension dimensions = 3""",
    "Dimension": """
        dimension/ ConstantDimension constant = 1
        dimension/ Opaque unknown = 2""",
    "ConstantDimension": "uint64 size = 1",
    "Value": """
        ValueType type = 2
        value/ ImmediateValue immediateValue = 3
        value/ BlobFileValue blobFileValue = 5""",
    "BlobFileValue": """
        string fileName = 1
        uint64 offset = 2""",
    "ImmediateValue": """
        value/ TensorValue tensor = 1
        value/ ValueList tuple = 2
        value/ ValueList list = 3
        value/ Dictionary dictionary = 4""",
    "ValueList": "repeated Value values = 1",
    "Dictionary": "repeated KeyValuePair values = 1",
    "KeyValuePair": """
        Value key = 1
        Value value = 2""",
    "TensorValue": """
        value/ Floats floats = 1
        value/ Ints ints = 2
        value/ Bools bools = 3
        value/ Strings strings = 4
        value/ LongInts longInts = 5
        value/ Doubles doubles = 6
        value/ Bytes bytes = 7""",
    "Floats": "repeated float values = 1",
    "Ints": "repeated int32 values = 1",
    "Bools": "repeated bool values = 1",
    "Strings": "repeated string values = 1",
    "LongInts": "repeated int64 values = 1",
    "Doubles": "repeated double values = 1",
    "Bytes": "bytes values = 1",
    # A model with its maps outside of programs, whose order in a file means nothing.
    "DescribedModel": """
        Description description = 2
        WrappedDescribedPipeline pipelineClassifier = 200
        WrappedDescribedPipeline pipelineRegressor = 201
        DescribedPipeline pipeline = 202""",
    "DescribedPipeline": "repeated DescribedModel models = 1",
    "WrappedDescribedPipeline": "DescribedPipeline pipeline = 1",
    "Description": "Metadata metadata = 100",
    "Metadata": "map string userDefined = 100",
}
_PACKAGE = "corepress"
_FIELD = re.compile(r"(?:(\w+)/ )?(?:(repeated|map) )?(\w+) (\w+) = (\d+)")


def _add_field(message: Any, line: str) -> None:
    match = _FIELD.fullmatch(line)
    assert match, line
    oneof, label, type_name, name, number = match.groups()
    field = message.field.add(name=name, number=int(number))
    field.label = field.LABEL_REPEATED if label else field.LABEL_OPTIONAL
    if label == "map":
        entry_name = "".join(word[:1].upper() + word[1:] for word in name.split("_")) + "Entry"
        entry = message.nested_type.add(name=entry_name)
        entry.options.map_entry = True
        _add_field(entry, "string key = 1")
        _add_field(entry, f"{type_name} value = 2")
        type_name = f"{message.name}.{entry_name}"
    if type_name in _SCHEMA or label == "map":
        field.type, field.type_name = field.TYPE_MESSAGE, f".{_PACKAGE}.{type_name}"
    else:
        field.type = getattr(field, f"TYPE_{type_name.upper()}")
    if oneof:
        names = [declared.name for declared in message.oneof_decl]
        if oneof not in names:
            names.append(oneof)
            message.oneof_decl.add(name=oneof)
        field.oneof_index = names.index(oneof)


def _message_classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="corepress/model.proto", package=_PACKAGE, syntax="proto3")
    for name, lines in _SCHEMA.items():
        message = file.message_type.add(name=name)
        for line in filter(None, map(str.strip, lines.splitlines())):
            _add_field(message, line)
    # A pool of our own, so that coremltools' registration of the same schema in the default pool is not disturbed.
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in _SCHEMA}


_CLASSES = _message_classes()
Model = _CLASSES["Model"]
DescribedModel = _CLASSES["DescribedModel"]
Value = _CLASSES["Value"]
ValueType = _CLASSES["ValueType"]
Operation = _CLASSES["Operation"]


def read_model(path: Path) -> Any:
    """Parse a serialized model.

    Raises
    ------
    FormatError
        If the file is not a Core ML model.
    """
    size = path.stat().st_size
    if size >= MESSAGE_LIMIT:
        raise FormatError(f"{path}: {size} bytes, but a protobuf message is smaller than {MESSAGE_LIMIT}")
    try:
        return Model.FromString(path.read_bytes())
    except DecodeError as error:
        raise FormatError(f"{path}: not a serialized Core ML model ({error})") from error


def serialize_model(model: Any) -> bytes:
    """Serialize with a stable byte order."""
    try:
        return bytes(model.SerializeToString(deterministic=True))
    except (EncodeError, ValueError) as error:
        raise ValueError(f"the edited program cannot be serialized: {error}; protobuf's limit is 2 GiB") from error
