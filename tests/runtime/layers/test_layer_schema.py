"""The table of all fields agrees with coremltools' compiled messages."""

from __future__ import annotations

from pathlib import Path

import pytest
from coreml_helpers import quiet

from corepress.neural_network.layer_schema import message_class
from corepress.runtime.torch.layers.registry import layer_types

SHARED = {"outputShape", "stringClassLabels", "int64ClassLabels", "labelProbabilityLayerName"}  # by similar messages
LEFT_OUT = {"updateParams", "isUpdatable"}  # for training on a device


def all_types():
    return [field.name for field in message_class("NeuralNetworkLayer").DESCRIPTOR.oneofs_by_name["layer"].fields]


def differences(ours, theirs, place, seen):
    """Fields that are missing, or are of another number, type or oneof."""
    if (ours.name, theirs.name) in seen:
        return
    seen.add((ours.name, theirs.name))
    for field in theirs.fields:
        where = f"{place}.{field.name}"
        own = ours.fields_by_name.get(field.name)
        if field.name in LEFT_OUT and own is None:
            continue
        if own is None:
            yield f"{where} is missing"
            continue
        oneofs = [each.containing_oneof and each.containing_oneof.name for each in (own, field)]
        if own.number != field.number or oneofs[0] != oneofs[1]:
            yield f"{where} has another number or oneof"
        if field.name == "floatValue" and field.containing_type.name == "WeightParams":
            continue  # bytes here, which look the same in a file
        if own.is_repeated != field.is_repeated:
            yield f"{where} is repeated in one of them"
        kinds = [each.TYPE_INT32 if each.type == each.TYPE_ENUM else each.type for each in (own, field)]
        if kinds[0] != kinds[1]:
            yield f"{where} is of another type"
        if field.message_type is not None:
            yield from differences(own.message_type, field.message_type, where, seen)
    for name in {field.name for field in ours.fields} - {field.name for field in theirs.fields} - SHARED:
        yield f"{place}.{name} does not exist"


@pytest.fixture(scope="module")
def compiled():
    pytest.importorskip("coremltools")
    with quiet():
        from coremltools.proto import NeuralNetwork_pb2
    return NeuralNetwork_pb2


def test_fields_are_those_of_coremltools(compiled):
    ours, theirs = message_class("NeuralNetworkLayer").DESCRIPTOR, compiled.NeuralNetworkLayer.DESCRIPTOR
    assert not list(differences(ours, theirs, "layer", set()))


def test_networks_have_the_fields_of_classifiers(compiled):
    ours = message_class("NeuralNetwork").DESCRIPTOR
    theirs = compiled.NeuralNetworkClassifier.DESCRIPTOR
    assert not list(differences(ours, theirs, "network", set()))


def test_every_type_can_be_run():
    assert len(all_types()) == 158
    assert {*layer_types(), "custom"} == set(all_types())


def test_every_type_is_tested():
    tests = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_network_*.py"))
    assert not [name for name in all_types() if f'"{name}"' not in tests]
