"""Networks with every layer that holds weights, and a decoder that shares no code with the package."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from typing import Any

import numpy as np

from corepress.neural_network import convert_to_fp16, quantize_weights

INPUTS, CHANNELS = 5, 8  # of matrices; tests of large tables need more channels

# Layer: its fields with their axes and channel axis, i inputs and o output channels, after the format's notes.
MATRIX, VECTOR = ("oi", 0), ("o", None)
_GATES = ("inputGate", "forgetGate", "blockInput", "outputGate")
_LSTM = {
    **{f"{gate}WeightMatrix": MATRIX for gate in _GATES},
    **{f"{gate}RecursionMatrix": ("oo", 0) for gate in _GATES},
    **{f"{gate}BiasVector": VECTOR for gate in _GATES},
    **{f"{gate}PeepholeVector": VECTOR for gate in ("inputGate", "forgetGate", "outputGate")},
}
_GRU = [f"{gate}Gate" for gate in ("update", "reset", "output")]
FIELDS: dict[str, dict[str, tuple[str, int | None]]] = {
    "convolution": {"weights": ("oi32", 0), "bias": VECTOR},
    "deconvolution": {"weights": ("io32", 1), "bias": VECTOR},
    "convolution3d": {"weights": ("oi232", 0), "bias": VECTOR},
    "innerProduct": {"weights": MATRIX, "bias": VECTOR},
    "embedding": {"weights": MATRIX, "bias": VECTOR},
    "embeddingND": {"weights": MATRIX, "bias": VECTOR},
    "batchedMatmul": {"weights": MATRIX, "bias": VECTOR},
    "batchnorm": dict.fromkeys(("gamma", "beta", "mean", "variance"), VECTOR),
    "scale": {"scale": VECTOR, "bias": VECTOR},
    "bias": {"bias": VECTOR},
    "loadConstant": {"data": VECTOR},
    "loadConstantND": {"data": VECTOR},
    "simpleRecurrent": {"weightMatrix": MATRIX, "recursionMatrix": ("oo", 0), "biasVector": VECTOR},
    "gru": {
        **{f"{gate}WeightMatrix": MATRIX for gate in _GRU},
        **{f"{gate}RecursionMatrix": ("oo", 0) for gate in _GRU},
        **{f"{gate}BiasVector": VECTOR for gate in _GRU},
    },
    "uniDirectionalLSTM": {f"weightParams.{name}": form for name, form in _LSTM.items()},
    "biDirectionalLSTM": {f"weightParams[{i}].{name}": form for i in (0, 1) for name, form in _LSTM.items()},
}


def shape_of(axes: str, channels: int = CHANNELS) -> tuple[int, ...]:
    return tuple({"i": INPUTS, "o": channels}.get(axis) or int(axis) for axis in axes)


def _convolution(params: Any, channels: int) -> None:
    params.outputChannels, params.kernelChannels, params.nGroups, params.hasBias = channels, INPUTS, 1, True
    params.kernelSize.extend([3, 2])


def _deconvolution(params: Any, channels: int) -> None:
    _convolution(params, channels)
    params.isDeconvolution = True


def _convolution3d(params: Any, channels: int) -> None:
    params.outputChannels, params.inputChannels, params.nGroups, params.hasBias = channels, INPUTS, 1, True
    params.kernelDepth, params.kernelHeight, params.kernelWidth = 2, 3, 2


def _dense(inputs: str, outputs: str) -> Callable[[Any, int], None]:
    def fill(params: Any, channels: int) -> None:
        setattr(params, inputs, INPUTS)
        setattr(params, outputs, channels)
        params.hasBias = True

    return fill


def _scale(params: Any, channels: int) -> None:
    params.shapeScale.extend([channels, 1, 1])
    params.shapeBias.extend([channels, 1, 1])
    params.hasBias = True


def _recurrent(flag: str) -> Callable[[Any, int], None]:
    def fill(params: Any, channels: int) -> None:
        params.inputVectorSize, params.outputVectorSize = INPUTS, channels
        setattr(params, flag, True)

    return fill


def _lstm(params: Any, channels: int) -> None:
    params.inputVectorSize, params.outputVectorSize = INPUTS, channels
    params.params.hasBiasVectors = params.params.hasPeepholeVectors = True


_FILL: dict[str, Callable[[Any, int], None]] = {
    "convolution": _convolution,
    "deconvolution": _deconvolution,
    "convolution3d": _convolution3d,
    "innerProduct": _dense("inputChannels", "outputChannels"),
    "embedding": _dense("inputDim", "outputChannels"),
    "embeddingND": _dense("vocabSize", "embeddingSize"),
    "batchedMatmul": _dense("weightMatrixFirstDimension", "weightMatrixSecondDimension"),
    "batchnorm": lambda params, channels: setattr(params, "channels", channels),
    "scale": _scale,
    "bias": lambda params, channels: params.shape.extend([channels]),
    "loadConstant": lambda params, channels: params.shape.extend([channels, 1, 1]),
    "loadConstantND": lambda params, channels: params.shape.extend([2, channels // 2]),
    "simpleRecurrent": _recurrent("hasBiasVector"),
    "gru": _recurrent("hasBiasVectors"),
    "uniDirectionalLSTM": _lstm,
    "biDirectionalLSTM": _lstm,
}


def params_of(layer: Any, field: str) -> Any:
    """The WeightParams of a field."""
    params = getattr(layer, layer.WhichOneof("layer"))
    for part in field.split("."):
        name, _, index = part.rstrip("]").partition("[")
        params = getattr(params, name)
        if index:
            while len(params) <= int(index):
                params.add()
            params = params[int(index)]
    return params


def add_layer(network: Any, layer_type: str, rng: np.random.Generator, channels: int = CHANNELS, name: str = "") -> Any:
    """Append a layer with weights from a normal distribution, each channel of another size."""
    layer = network.layers.add(name=name or layer_type, input=[f"{layer_type}_in"], output=[f"{layer_type}_out"])
    _FILL[layer_type](getattr(layer, layer_type.replace("deconv", "conv")), channels)
    for field, (axes, axis) in FIELDS[layer_type].items():
        shape = shape_of(axes, channels)
        values = rng.standard_normal(shape).astype(np.float32)
        if axis is not None:
            spread = [1] * len(shape)
            spread[axis] = -1
            values *= np.geomspace(0.01, 10, shape[axis], dtype=np.float32).reshape(spread)
        params_of(layer, field).floatValue.extend(values.reshape(-1).tolist())
    return layer


def new_spec(kind: str = "neuralNetwork", version: int = 1) -> Any:
    from coremltools.proto import Model_pb2

    spec = Model_pb2.Model(specificationVersion=version)
    getattr(spec, kind).SetInParent()
    return spec


def network_with(*layer_types: str, channels: int = CHANNELS, seed: int = 0, kind: str = "neuralNetwork") -> Any:
    """A spec with a layer of each type."""
    spec, rng = new_spec(kind), np.random.default_rng(seed)
    for layer_type in layer_types:
        add_layer(getattr(spec, kind), layer_type, rng, channels)
    return spec


def hard_spec():
    """Every layer; and weights that cannot be stored, each for another reason, nested and in a pipeline."""
    largest = float(np.finfo(np.float32).max)
    spec, rng = new_spec("pipeline"), np.random.default_rng(0)
    part = spec.pipeline.models.add()
    part.CopyFrom(network_with(*FIELDS, channels=40))
    for index, value in enumerate([np.nan, -np.inf, 7e4, 65_519.0, -65_520.0, largest, 2.0**124, 1e-45]):
        layer = add_layer(part.neuralNetwork, "innerProduct", rng, 40, name=f"fc{index}")
        layer.innerProduct.weights.floatValue[7] = value
    layer.innerProduct.weights.floatValue[8] = -largest
    loop = part.neuralNetwork.layers.add(name="loop").loop
    add_layer(loop.bodyNetwork, "batchnorm", rng, 40)
    part.neuralNetwork.layers.add(name="relu").activation.PReLU.alpha.floatValue.extend([1, 2, 3])
    spec.pipeline.models.add().CopyFrom(convert_to_fp16(network_with("convolution", channels=40)))
    spec.pipeline.models.add().CopyFrom(quantize_weights(network_with("gru", channels=40), 3))
    spec.pipeline.names.extend(["first", "half", "small"])
    return spec


def weights_in(network: Any) -> dict[str, tuple[Any, tuple[str, int | None]]]:
    """The WeightParams of each field of a network of `add_layer`, with the form of the field."""
    found = {}
    for layer in network.layers:
        layer_type = layer.WhichOneof("layer")
        if layer_type == "convolution" and layer.convolution.isDeconvolution:
            layer_type = "deconvolution"
        for field, form in FIELDS.get(layer_type, {}).items():
            found[f"{layer.name}.{field}"] = params_of(layer, field), form
    return found


def decoded(params: Any, shape: tuple[int, ...], axis: int | None) -> np.ndarray:
    """The float64 values that a WeightParams stands for, bit by bit, most significant first."""
    payloads = [params.floatValue, params.float16Value, params.rawValue, params.int8RawValue]
    assert sum(len(payload) > 0 for payload in payloads) == 1
    count = int(np.prod(shape))
    if params.floatValue:
        assert len(params.floatValue) == count
        return np.array(params.floatValue, np.float32).astype(np.float64).reshape(shape)
    if params.float16Value:
        assert len(params.float16Value) == 2 * count
        return np.frombuffer(params.float16Value, "<f2").astype(np.float64).reshape(shape)
    if params.int8RawValue:
        codes = np.frombuffer(params.int8RawValue, np.int8).astype(np.int64)
    else:
        nbits = params.quantization.numberOfBits
        assert len(params.rawValue) == -(-count * nbits // 8)
        bits = np.unpackbits(np.frombuffer(params.rawValue, np.uint8))
        assert not bits[count * nbits :].any()
        codes = bits[: count * nbits].reshape(count, nbits) @ (1 << np.arange(nbits)[::-1])
    codes = codes.reshape(shape)
    if params.quantization.WhichOneof("QuantizationType") == "lookupTableQuantization":
        table = np.array(params.quantization.lookupTableQuantization.floatValue, np.float64)
        assert len(table) == 2**params.quantization.numberOfBits
        return table[codes]
    scale = np.array(params.quantization.linearQuantization.scale, np.float64)
    bias = np.array(params.quantization.linearQuantization.bias or [0] * len(scale), np.float64)
    assert len(bias) == len(scale)
    assert len(scale) in (1, 1 if axis is None else shape[axis])
    spread = [1] * len(shape)
    spread[0 if axis is None else axis] = len(scale)
    return codes * scale.reshape(spread) + bias.reshape(spread)


def decode_all(network: Any, channels: int = CHANNELS) -> dict[str, np.ndarray]:
    """All weights of a network."""
    return {
        name: decoded(params, shape_of(axes, channels), axis)
        for name, (params, (axes, axis)) in weights_in(network).items()
    }


def payload_bytes(params: Any) -> int:
    """Bytes of values, scales and tables."""
    linear, table = params.quantization.linearQuantization, params.quantization.lookupTableQuantization
    floats = len(params.floatValue) + len(linear.scale) + len(linear.bias) + len(table.floatValue)
    return 4 * floats + len(params.float16Value) + len(params.rawValue) + len(params.int8RawValue)


@contextlib.contextmanager
def quietly():
    """coremltools prints what it does."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def coremltools_quantized(spec: Any, nbits: int, mode: str, **options: Any) -> Any:
    """What coremltools makes of a copy."""
    from coremltools import models
    from coremltools.models.neural_network import quantization_utils

    names = {
        "linear": models._QUANTIZATION_MODE_LINEAR_QUANTIZATION,
        "linear_symmetric": models._QUANTIZATION_MODE_LINEAR_SYMMETRIC,
        "linear_lut": models._QUANTIZATION_MODE_LOOKUP_TABLE_LINEAR,
        "kmeans_lut": models._QUANTIZATION_MODE_LOOKUP_TABLE_KMEANS,
        "custom_lut": models._QUANTIZATION_MODE_CUSTOM_LOOKUP_TABLE,
        "dequantization": models._QUANTIZATION_MODE_DEQUANTIZE,
    }
    copy = type(spec)()
    copy.CopyFrom(spec)
    with quietly():
        return quantization_utils._quantize_spec_weights(copy, nbits, names[mode], **options)
