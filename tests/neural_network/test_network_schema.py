"""The message table and the table of layers against coremltools' generated messages."""

from __future__ import annotations

import pytest
from network_helpers import FIELDS, new_spec, params_of

from corepress.neural_network import schema
from corepress.neural_network.layers import QUANTIZABLE_LAYER_TYPES, layer_weights


@pytest.fixture(scope="module")
def reference(ct):
    from coremltools.proto import Model_pb2

    return Model_pb2.Model.DESCRIPTOR


def _pairs(ours, theirs, seen):
    if (ours.name, theirs.name) in seen:
        return
    seen.add((ours.name, theirs.name))
    yield ours, theirs
    for field in ours.fields:
        if field.message_type:
            yield from _pairs(field.message_type, theirs.fields_by_name[field.name].message_type, seen)


def _is_repeated(field):
    return isinstance(field.default_value, list)  # which every version of protobuf has


def _is_packed(field):
    return getattr(field, "is_packed", None)  # protobuf 4 does not say it


def test_every_field_is_coremls(reference):
    pairs = list(_pairs(schema.Model.DESCRIPTOR, reference, set()))
    assert len(pairs) > 30
    for ours, theirs in pairs:
        for field in ours.fields:
            same = theirs.fields_by_name[field.name]
            floats_as_bytes = field.full_name.endswith(".WeightParams.floatValue")
            assert field.number == same.number, field.full_name
            assert floats_as_bytes or (field.type, _is_packed(field)) == (same.type, _is_packed(same)), field.full_name
            assert _is_repeated(field) == _is_repeated(same), field.full_name
            oneofs = [each.containing_oneof and each.containing_oneof.name for each in (field, same)]
            assert oneofs[0] == oneofs[1], field.full_name


def _weight_fields(descriptor, prefix=""):
    for field in descriptor.fields:
        if field.message_type and field.message_type.name == "WeightParams":
            yield prefix + field.name
        elif field.message_type and field.message_type.name != "NeuralNetwork":
            yield from _weight_fields(field.message_type, f"{prefix}{field.name}.")


def _layer_types(reference):
    layer = reference.fields_by_name["neuralNetwork"].message_type.fields_by_name["layers"].message_type
    return {field.name: field.message_type for field in layer.oneofs_by_name["layer"].fields}


def test_every_layer_of_core_ml_that_holds_weights_is_known(reference):
    holding = {name for name, message in _layer_types(reference).items() if list(_weight_fields(message))}
    known = set(QUANTIZABLE_LAYER_TYPES)
    assert known <= holding
    others = {"activation", "layerNormalization", "custom", "simpleRecurrent", "gru"}  # of which the first three stay
    others |= {"uniDirectionalLSTM", "biDirectionalLSTM"}
    assert holding <= known | others
    ours = schema.NeuralNetworkLayer.DESCRIPTOR.oneofs_by_name["layer"].fields
    assert {field.name for field in ours} >= holding | {"loop", "branch"}


@pytest.mark.parametrize("layer_type", sorted(FIELDS))
def test_the_tests_know_every_weight_field_of_a_layer(reference, layer_type):
    message = _layer_types(reference)[layer_type.replace("deconv", "conv")]
    expected = {name for name in _weight_fields(message) if not name.startswith("activation")}
    assert {name.replace("[0]", "").replace("[1]", "") for name in FIELDS[layer_type]} == expected


def test_weights_of_activations_layer_normalization_and_custom_layers_are_named_and_left_alone():
    spec = new_spec()
    for layer_type, fields in {
        "activation": ["PReLU.alpha"],
        "layerNormalization": ["gamma", "beta"],
        "custom": ["weights[0]", "weights[1]"],
    }.items():
        layer = spec.neuralNetwork.layers.add(name=layer_type)
        getattr(layer, layer_type).SetInParent()
        for field in fields:
            params_of(layer, field).floatValue.extend([1.0, 2.0])
    for layer in spec.neuralNetwork.layers:
        parsed = schema.NeuralNetworkLayer.FromString(layer.SerializeToString())
        found = list(layer_weights(parsed))
        assert found
        assert all(weight.untouched and weight.shape == (2,) for weight in found)


@pytest.mark.parametrize(("groups", "axis"), [(1, 1), (4, None)])
def test_a_grouped_deconvolution_has_one_scale(groups, axis):
    layer = schema.NeuralNetworkLayer(name="up")
    params = layer.convolution
    params.isDeconvolution, params.nGroups, params.kernelChannels, params.outputChannels = True, groups, 8, 12
    params.weights.floatValue.append(bytes(4 * 8 * 12 // groups * 9))
    (weight,) = layer_weights(layer)
    assert (weight.shape, weight.channel_axis) == ((8, 12 // groups, 3, 3), axis)


def test_a_field_whose_flag_is_off_is_no_weight():
    layer = schema.NeuralNetworkLayer(name="fc")
    layer.innerProduct.outputChannels = layer.innerProduct.inputChannels = 1
    layer.innerProduct.weights.floatValue.append(bytes(4))
    layer.innerProduct.bias.floatValue.append(bytes(4))
    assert [weight.field for weight in layer_weights(layer)] == ["weights"]
    layer.innerProduct.hasBias = True
    assert [weight.field for weight in layer_weights(layer)] == ["weights", "bias"]
