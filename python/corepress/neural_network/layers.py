"""The one place that knows which fields of which layers hold weights, and what shapes they have."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..compression.metrics import Error
from ..engine.distances import distance
from .schema import WeightParams
from .weight_params import EncodedWeight, decoded_pieces, read_encoded, read_weight, stored_bytes

# Layer to its fields: "name: axes of the shape, the channels first [if flag]". An axis is a field of the layer; with a
# star it is the product of a repeated one. Linear quantization has a scale for each channel of two axes, one for a
# vector.
_FIELDS = {
    "innerProduct": """
        weights: outputChannels inputChannels
        bias: outputChannels if hasBias""",
    "embedding": """
        weights: outputChannels inputDim
        bias: outputChannels if hasBias""",
    "embeddingND": """
        weights: embeddingSize vocabSize
        bias: embeddingSize if hasBias""",
    # The matrix is stored by columns.
    "batchedMatmul": """
        weights: weightMatrixSecondDimension weightMatrixFirstDimension
        bias: weightMatrixSecondDimension if hasBias""",
    "batchnorm": """
        gamma: channels
        beta: channels
        mean: channels
        variance: channels""",
    "scale": """
        scale: *shapeScale
        bias: *shapeBias if hasBias""",
    "bias": "bias: *shape",
    "loadConstant": "data: *shape",
    "loadConstantND": "data: *shape",
    "simpleRecurrent": """
        weightMatrix: outputVectorSize inputVectorSize
        recursionMatrix: outputVectorSize outputVectorSize
        biasVector: outputVectorSize if hasBiasVector""",
    "gru": """
        updateGateWeightMatrix: outputVectorSize inputVectorSize
        resetGateWeightMatrix: outputVectorSize inputVectorSize
        outputGateWeightMatrix: outputVectorSize inputVectorSize
        updateGateRecursionMatrix: outputVectorSize outputVectorSize
        resetGateRecursionMatrix: outputVectorSize outputVectorSize
        outputGateRecursionMatrix: outputVectorSize outputVectorSize
        updateGateBiasVector: outputVectorSize if hasBiasVectors
        resetGateBiasVector: outputVectorSize if hasBiasVectors
        outputGateBiasVector: outputVectorSize if hasBiasVectors""",
}
# Of an LSTM's weightParams; sizes and flags are the layer's.
_LSTM_FIELDS = """
    inputGateWeightMatrix: outputVectorSize inputVectorSize
    forgetGateWeightMatrix: outputVectorSize inputVectorSize
    blockInputWeightMatrix: outputVectorSize inputVectorSize
    outputGateWeightMatrix: outputVectorSize inputVectorSize
    inputGateRecursionMatrix: outputVectorSize outputVectorSize
    forgetGateRecursionMatrix: outputVectorSize outputVectorSize
    blockInputRecursionMatrix: outputVectorSize outputVectorSize
    outputGateRecursionMatrix: outputVectorSize outputVectorSize
    inputGateBiasVector: outputVectorSize if hasBiasVectors
    forgetGateBiasVector: outputVectorSize if hasBiasVectors
    blockInputBiasVector: outputVectorSize if hasBiasVectors
    outputGateBiasVector: outputVectorSize if hasBiasVectors
    inputGatePeepholeVector: outputVectorSize if hasPeepholeVectors
    forgetGatePeepholeVector: outputVectorSize if hasPeepholeVectors
    outputGatePeepholeVector: outputVectorSize if hasPeepholeVectors"""
_CONVOLUTIONS = ("convolution", "convolution3d")
_LSTMS = ("uniDirectionalLSTM", "biDirectionalLSTM")
# Layers whose weights stay as they are.
_UNTOUCHED = {
    "layerNormalization": "Core ML accepts only float32 for this layer",
    "activation": "activations have few parameters",
    "custom": "only the custom layer's own code knows its weights",
}
QUANTIZABLE_LAYER_TYPES = (*_CONVOLUTIONS, *_FIELDS, *_LSTMS)
"""Types of layers, named as in Core ML's format, whose weights can be quantized."""
NESTED_NETWORKS = {"branch": ("ifBranch", "elseBranch"), "loop": ("conditionNetwork", "bodyNetwork")}
_DEFAULT_KERNEL = 3
_QUANTIZES_INPUTS = "int8DynamicQuantize"


@dataclass(frozen=True)
class LayerWeight:
    """One field of weights of a layer.

    Attributes
    ----------
    layer : protobuf message
        The ``NeuralNetworkLayer``.
    layer_type : str
        The field of its oneof.
    field : str
        The field below that, for example ``weights`` or ``weightParams[1].inputGateWeightMatrix``.
    params : protobuf message
        The ``WeightParams``.
    shape : tuple of int
        Shape of the weight in row-major order.
    channel_axis : int or None
        Axis with a scale for each entry in linear modes; None for one scale.
    untouched : str or None
        Why it is always left unchanged.
    """

    layer: Any
    layer_type: str
    field: str
    params: Any
    shape: tuple[int, ...]
    channel_axis: int | None
    untouched: str | None = None

    @property
    def size(self) -> int:
        """Number of weights."""
        return prod(self.shape)

    @property
    def channels(self) -> int:
        """Number of scales in linear modes."""
        return 1 if self.channel_axis is None else self.shape[self.channel_axis]

    def read(self) -> NDArray[np.float32]:
        """The weight as float32; FormatError if the message does not hold as many values."""
        return read_weight(self.params, self.shape, self.channel_axis)

    def read_encoded(self) -> EncodedWeight:
        """A quantized weight as it is stored; FormatError if the message does not hold one."""
        return read_encoded(self.params, self.shape, self.channel_axis)

    def stop_quantizing_inputs(self) -> None:
        """Stop the layer from quantizing its inputs, which needs int8 weights."""
        params = getattr(self.layer, self.layer_type)
        if _QUANTIZES_INPUTS in params.DESCRIPTOR.fields_by_name:
            setattr(params, _QUANTIZES_INPUTS, False)


def apart(weight: LayerWeight, other: LayerWeight, num_threads: int | None = None) -> Error:
    """How far apart two weights of one shape are, computed a piece at a time; FormatError if one is damaged."""
    both = [(each.params, each.shape, each.channel_axis) for each in (weight, other)]
    return distance(((before, after) for before, after in decoded_pieces(both, num_threads)), num_threads)


def layer_weights(layer: Any) -> Iterator[LayerWeight]:
    """The weights of a layer, but not those of networks nested in it; fields without values are left out."""
    layer_type = layer.WhichOneof("layer")
    if layer_type is None:
        return
    params = getattr(layer, layer_type)
    found: Iterator[LayerWeight]
    if layer_type in _CONVOLUTIONS:
        found = _of_convolution(layer, layer_type, params)
    elif layer_type in _LSTMS:
        found = _of_lstm(layer, layer_type, params)
    elif layer_type in _UNTOUCHED:
        found = _of_untouched(layer, layer_type, params)
    else:
        found = _of_table(layer, layer_type, _FIELDS.get(layer_type, ""), (params,), params)
    yield from (weight for weight in found if stored_bytes(weight.params) or weight.params.ByteSize())


def nested_networks(layer: Any) -> Iterator[tuple[str, Any]]:
    """The networks in a loop or a branch, and their names."""
    layer_type = layer.WhichOneof("layer")
    for name in NESTED_NETWORKS.get(layer_type, ()):
        network = getattr(layer, layer_type)
        if network.HasField(name):
            yield name, getattr(network, name)


def _of_table(
    layer: Any, layer_type: str, table: str, sources: tuple[Any, ...], holder: Any, prefix: str = ""
) -> Iterator[LayerWeight]:
    """Fields of `holder`, whose sizes and flags are in one of `sources`."""
    for line in filter(None, map(str.strip, table.splitlines())):
        field, _, rule = line.partition(": ")
        axes, _, flag = rule.partition(" if ")
        if (flag and not _value(sources, flag)) or not holder.HasField(field):
            continue
        shape = tuple(_axis(sources, axis) for axis in axes.split())
        axis = 0 if len(shape) > 1 else None
        yield LayerWeight(layer, layer_type, prefix + field, getattr(holder, field), shape, axis)


def _value(sources: tuple[Any, ...], name: str) -> Any:
    return next(getattr(source, name) for source in sources if name in source.DESCRIPTOR.fields_by_name)


def _axis(sources: tuple[Any, ...], name: str) -> int:
    return prod(_value(sources, name[1:])) if name.startswith("*") else int(_value(sources, name))


def _of_lstm(layer: Any, layer_type: str, params: Any) -> Iterator[LayerWeight]:
    holders = params.weightParams if layer_type == "biDirectionalLSTM" else [params.weightParams]
    for index, holder in enumerate(holders):
        prefix = f"weightParams[{index}]." if layer_type == "biDirectionalLSTM" else "weightParams."
        yield from _of_table(layer, layer_type, _LSTM_FIELDS, (params, params.params), holder, prefix)


def _of_convolution(layer: Any, layer_type: str, params: Any) -> Iterator[LayerWeight]:
    groups = params.nGroups or 1
    if layer_type == "convolution":
        given = tuple(params.kernelSize)
        kernel = tuple(given[axis] if axis < len(given) else _DEFAULT_KERNEL for axis in (0, 1))
        inputs = params.kernelChannels
    else:
        given = (params.kernelDepth, params.kernelHeight, params.kernelWidth)
        kernel = tuple(size or _DEFAULT_KERNEL for size in given)
        inputs = params.inputChannels if params.isDeconvolution else params.inputChannels // groups
    outputs = params.outputChannels
    axis: int | None = 0
    shape = (outputs, inputs, *kernel)
    if params.isDeconvolution:
        shape = (inputs, outputs // groups, *kernel)
        # With groups an entry of axis 1 covers several output channels, and Core ML accepts a scale for each or one.
        axis = 1 if groups == 1 else None
    if params.HasField("weights"):
        yield LayerWeight(layer, layer_type, "weights", params.weights, tuple(map(int, shape)), axis)
    if params.hasBias and params.HasField("bias"):
        yield LayerWeight(layer, layer_type, "bias", params.bias, (int(outputs),), None)


def _of_untouched(layer: Any, layer_type: str, params: Any) -> Iterator[LayerWeight]:
    for field, weight in _all_params(params):
        yield LayerWeight(layer, layer_type, field, weight, (_stored_count(weight),), None, _UNTOUCHED[layer_type])


def _all_params(message: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All WeightParams below a message."""
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.name == "Opaque":
            continue
        values = [(prefix + field.name, value)]
        if hasattr(value, "__len__"):
            values = [(f"{prefix}{field.name}[{index}]", each) for index, each in enumerate(value)]
        for name, each in values:
            if each.DESCRIPTOR.name == WeightParams.DESCRIPTOR.name:  # of this table, or of that with all fields
                yield name, each
            else:
                yield from _all_params(each, f"{name}.")


def _stored_count(params: Any) -> int:
    """How many weights a message without a shape holds, up to the unused bits of the last byte."""
    if params.floatValue:
        return sum(map(len, params.floatValue)) // 4
    if params.float16Value:
        return len(params.float16Value) // 2
    return len(params.int8RawValue) or len(params.rawValue) * 8 // (int(params.quantization.numberOfBits) or 8)
