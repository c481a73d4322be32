"""Protobuf messages for the part of Core ML's schema that is read or edited; all other fields are preserved
unparsed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf.message import EncodeError

from .messages import TOO_DEEP, message_classes, read_message

# Opaque messages keep all their content.
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
        type/ ListType listType = 2
        type/ Opaque tupleType = 3
        type/ Opaque dictionaryType = 4
        type/ StateType stateType = 5""",
    "ListType": """
        ValueType type = 1
        Dimension length = 2""",
    "StateType": "ValueType wrappedType = 1",
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
    # A model with its maps outside of programs, whose order in a file has no meaning.
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
_CLASSES = message_classes(_SCHEMA, "corepress")
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
    return read_message(path, Model)


def serialize_model(model: Any) -> bytes:
    """Serialize with a stable byte order."""
    try:
        return bytes(model.SerializeToString(deterministic=True))
    except RecursionError as error:  # the implementation in Python
        raise ValueError(f"the edited program cannot be serialized: {TOO_DEEP}") from error
    except (EncodeError, ValueError) as error:
        raise ValueError(f"the edited program cannot be serialized: {error}; protobuf's limit is 2 GiB") from error
