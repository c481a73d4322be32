"""Our message table against coremltools' generated one."""

import pytest
from coreml_helpers import model_file, read_spec

from corepress.coreml.format import messages, schema
from corepress.coreml.format.data_types import BY_NAME, DATA_TYPES
from corepress.coreml.format.values import tensor_type, type_message
from corepress.coreml.format.wire_format import fields
from corepress.errors import FormatError


@pytest.fixture(scope="module")
def reference(ct):
    from coremltools.proto import Model_pb2

    return Model_pb2.Model


def _pairs(ours, theirs, seen):
    """Descriptors of ours and theirs that must agree, reached by the same fields."""
    if ours.name in seen:
        return
    seen.add(ours.name)
    yield ours, theirs
    for field in ours.fields:
        if field.message_type:
            yield from _pairs(field.message_type, theirs.fields_by_name[field.name].message_type, seen)


def _is_repeated(field):
    return isinstance(field.default_value, list)  # which every version of protobuf has


def _is_packed(field):
    return getattr(field, "is_packed", None)  # protobuf 4 does not say it


def test_every_field_is_coremls(reference):
    pairs = list(_pairs(schema.Model.DESCRIPTOR, reference.DESCRIPTOR, set()))
    assert len(pairs) > 30
    for ours, theirs in pairs:
        assert ours.GetOptions().map_entry == theirs.GetOptions().map_entry, ours.name
        for field in ours.fields:
            same = theirs.fields_by_name[field.name]
            enumeration_as_integer = same.type == same.TYPE_ENUM and field.type == field.TYPE_INT32
            assert field.number == same.number, field.full_name
            assert field.type == same.type or enumeration_as_integer, field.full_name
            assert _is_repeated(field) == _is_repeated(same), field.full_name
            assert _is_packed(field) == _is_packed(same), field.full_name
            ours_oneof, theirs_oneof = field.containing_oneof, same.containing_oneof
            assert (ours_oneof and ours_oneof.name) == (theirs_oneof and theirs_oneof.name), field.full_name


def test_data_types_are_coremls(ct):
    from coremltools.proto import MIL_pb2

    theirs = {name.lower(): number for name, number in MIL_pb2.DataType.items() if name != "UNUSED_TYPE"}
    assert {each.name: each.program_number for each in DATA_TYPES} == theirs
    fields = {field.name for field in MIL_pb2.TensorValue.DESCRIPTOR.fields}
    assert {each.inline_field for each in DATA_TYPES} <= fields | {None}


@pytest.mark.parametrize(
    ("name", "count", "size", "padding"),
    [("int4", 3, 2, 4), ("uint1", 9, 2, 7), ("uint3", 5, 2, 1), ("uint6", 5, 4, 2), ("float16", 3, 6, 0)],
)
def test_packed_sizes(name, count, size, padding):
    assert BY_NAME[name].byte_count(count) == size
    assert BY_NAME[name].padding(count) == padding


@pytest.mark.parametrize("fixture", ["trained_package", "ios18_package"])
def test_parsing_and_serializing_changes_nothing(request, reference, fixture):
    path = model_file(request.getfixturevalue(fixture))
    ours = schema.read_model(path)
    again = reference.FromString(schema.serialize_model(ours))
    assert again == reference.FromString(path.read_bytes())


def test_what_the_table_lacks_passes_through(reference, trained_package, tmp_path):
    spec = read_spec(trained_package)
    spec.description.metadata.userDefined["key"] = "value"
    spec.description.input[0].type.isOptional = True
    spec.isUpdatable = True
    spec.mlProgram.docString = "documentation"
    function = spec.mlProgram.functions["main"]
    block = function.block_specializations[function.opset]
    value = block.operations[0].attributes["val"]
    value.docString = "documentation"
    value.type.tensorType.attributes["key"].docString = "documentation"
    block.operations[3].outputs[0].type.tensorType.dimensions[0].unknown.variadic = True
    path = tmp_path / "model.mlmodel"
    # A field that no schema knows, in the model and in the program.
    path.write_bytes(spec.SerializeToString() + b"\xfa\xff\x03\x03abc")
    again = schema.serialize_model(schema.read_model(path))
    assert reference.FromString(again) == reference.FromString(path.read_bytes())
    assert b"\xfa\xff\x03\x03abc" in again


def test_serializing_is_stable(trained_package):
    path = model_file(trained_package)
    assert schema.serialize_model(schema.read_model(path)) == schema.serialize_model(schema.read_model(path))
    names = [f"function{index}" for index in range(50)]
    models = schema.Model(), schema.Model()
    for model, order in zip(models, (names, names[::-1]), strict=True):
        for name in order:
            model.mlProgram.functions[name].opset = name
    assert schema.serialize_model(models[0]) == schema.serialize_model(models[1])


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\xff\xff\xff\xff\x0f", b"not a model"])
def test_damaged_model_is_a_format_error(tmp_path, data):
    path = tmp_path / "model.mlmodel"
    path.write_bytes(data)
    with pytest.raises(FormatError, match=r"model\.mlmodel: not a serialized Core ML model"):
        schema.read_model(path)


def test_model_beyond_protobuf_is_a_format_error(tmp_path):
    path = tmp_path / "model.mlmodel"
    with path.open("wb") as file:
        file.truncate(messages.MESSAGE_LIMIT)
    with pytest.raises(FormatError, match="2147483648 bytes"):
        schema.read_model(path)


def test_the_default_pool_is_left_alone():
    from google.protobuf import descriptor_pool

    with pytest.raises(KeyError):
        descriptor_pool.Default().FindMessageTypeByName("corepress.Model")


@pytest.mark.parametrize("message", [b"\x00\x01", b"\x02\x00", b"\x08\x01\x00\x01"])
def test_no_field_has_the_number_0(message):
    with pytest.raises(FormatError, match="field 0 at byte"):
        list(fields(lambda begin, end: message[begin:end], 0, len(message)))


@pytest.mark.parametrize("sizes", [(0, 2**40, 2**40), (2**40, 2**40, 0), (2**62,)])
def test_huge_shapes_are_refused_even_if_they_hold_nothing(sizes):
    message = type_message(BY_NAME["float16"], (1,) * len(sizes))
    for dimension, size in zip(message.tensorType.dimensions, sizes, strict=True):
        dimension.constant.size = size
    with pytest.raises(FormatError, match="is too large"):
        tensor_type(message, "here")
