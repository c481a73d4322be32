"""Small neural networks to damage, made without coremltools: every layer with weights, in every stored form."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from corepress.neural_network import convert_to_fp16, quantize_weights
from corepress.neural_network.layers import layer_weights
from corepress.neural_network.schema import Model, WeightParams

INPUTS, OUTPUTS = 12, 24
# Layer to the fields that tell its shapes.
_SIZES: dict[str, dict[str, Any]] = {
    "convolution": {"outputChannels": OUTPUTS, "kernelChannels": INPUTS, "kernelSize": [3, 1], "hasBias": True},
    "deconvolution": {
        **{"outputChannels": OUTPUTS, "kernelChannels": INPUTS, "kernelSize": [1, 2], "hasBias": True},
        **{"nGroups": 2, "isDeconvolution": True},
    },
    "convolution3d": {
        **{"outputChannels": OUTPUTS, "inputChannels": INPUTS, "hasBias": True},
        **{"kernelDepth": 1, "kernelHeight": 1, "kernelWidth": 2},
    },
    "innerProduct": {"inputChannels": INPUTS, "outputChannels": OUTPUTS, "hasBias": True},
    "embedding": {"inputDim": INPUTS, "outputChannels": OUTPUTS, "hasBias": True},
    "embeddingND": {"vocabSize": INPUTS, "embeddingSize": OUTPUTS, "hasBias": True},
    "batchedMatmul": {"weightMatrixFirstDimension": INPUTS, "weightMatrixSecondDimension": OUTPUTS, "hasBias": True},
    "batchnorm": {"channels": OUTPUTS},
    "scale": {"shapeScale": [OUTPUTS, 1, 1], "shapeBias": [OUTPUTS, 1, 1], "hasBias": True},
    "bias": {"shape": [OUTPUTS, 1, 1]},
    "loadConstant": {"shape": [3, 5, 7]},
    "loadConstantND": {"shape": [2, 3, 5, 7]},
    "simpleRecurrent": {"inputVectorSize": INPUTS, "outputVectorSize": OUTPUTS, "hasBiasVector": True},
    "gru": {"inputVectorSize": INPUTS, "outputVectorSize": OUTPUTS, "hasBiasVectors": True},
    "uniDirectionalLSTM": {"inputVectorSize": 6, "outputVectorSize": 8},
    "biDirectionalLSTM": {"inputVectorSize": 6, "outputVectorSize": 8},
    "layerNormalization": {"normalizedShape": [4]},
}
_STORED = {"float32": None, "half": (16, "linear"), "steps": (5, "linear"), "table": (3, "kmeans_lut")}


def _add_layer(network: Any, kind: str, rng: np.random.Generator) -> Any:
    layer = network.layers.add(name=kind, input=["x"], output=["y"])
    params = getattr(layer, kind.replace("deconv", "conv"))
    for name, value in _SIZES[kind].items():
        if isinstance(value, list):
            getattr(params, name).extend(value)
        else:
            setattr(params, name, value)
    if "LSTM" in kind:
        params.params.hasBiasVectors = params.params.hasPeepholeVectors = True
        holders = [params.weightParams.add(), params.weightParams.add()] if kind[0] == "b" else [params.weightParams]
    else:
        holders = [params]
    for each in _all_params(holders):
        each.isUpdatable = True  # is there
    for weight in layer_weights(layer):
        values = rng.standard_normal(weight.size if weight.untouched is None else 4).astype("<f4")
        weight.params.floatValue.append(values.tobytes())
    for each in _all_params(holders):
        each.ClearField("isUpdatable")
    return layer


def _all_params(holders: list[Any]) -> Iterator[Any]:
    for holder in holders:
        for field in holder.DESCRIPTOR.fields:
            if field.message_type is not None and field.message_type.name == WeightParams.DESCRIPTOR.name:
                yield getattr(holder, field.name)


def _network(*kinds: str, field: str = "neuralNetwork") -> Any:
    model, rng = Model(specificationVersion=1), np.random.default_rng(0)
    for kind in kinds:
        _add_layer(getattr(model, field), kind, rng)
    return model


def _nested() -> Any:
    model, rng = Model(specificationVersion=4), np.random.default_rng(1)
    loop = model.neuralNetwork.layers.add(name="loop").loop
    _add_layer(loop.conditionNetwork, "loadConstantND", rng)
    branch = loop.bodyNetwork.layers.add(name="branch").branch
    _add_layer(branch.ifBranch, "innerProduct", rng)
    _add_layer(branch.elseBranch, "batchnorm", rng)
    relu = model.neuralNetwork.layers.add(name="relu").activation
    relu.PReLU.alpha.floatValue.append(np.float32([0.1, 0.2]).tobytes())
    custom = model.neuralNetwork.layers.add(name="custom").custom
    custom.weights.add().floatValue.append(bytes(40))
    return model


def _int8() -> Any:
    """A layer that quantizes its inputs too."""
    model = Model(specificationVersion=5)
    params = model.neuralNetwork.layers.add(name="int8").innerProduct
    params.inputChannels, params.outputChannels, params.int8DynamicQuantize = INPUTS, OUTPUTS, True
    params.weights.int8RawValue = bytes(range(256)) + bytes(INPUTS * OUTPUTS - 256)
    params.weights.quantization.numberOfBits = 8
    params.weights.quantization.linearQuantization.scale.append(0.5)
    return model


def _pipeline(kind: str, parts: list[Any]) -> Any:
    model = Model(specificationVersion=3)
    pipeline = model.pipeline if kind == "pipeline" else getattr(model, kind).pipeline
    pipeline.models.extend(parts)
    pipeline.names.extend([f"part{index}" for index in range(len(parts))])
    return model


def make_network_seeds(folder: Path) -> dict[str, bytes]:
    """Serialized models by name; writes some of them into an empty folder, to compare others with."""
    models = {
        "matrices": _network("convolution", "innerProduct", "embedding", "batchnorm"),
        "more": _network("deconvolution", "convolution3d", "embeddingND", "batchedMatmul", "scale", "bias"),
        "constants": _network("loadConstant", "loadConstantND", "layerNormalization", field="neuralNetworkRegressor"),
        "recurrent": _network("simpleRecurrent", "gru", field="neuralNetworkClassifier"),
        "lstm": _network("uniDirectionalLSTM", "biDirectionalLSTM"),
        "nested": _nested(),
    }
    stored = {}
    for name, model in models.items():
        for form, how in _STORED.items():
            changed = model if how is None else quantize_weights(model, *how)
            stored[f"{name} {form}"] = changed
    stored["half then steps"] = quantize_weights(convert_to_fp16(models["matrices"]), 8, "linear_symmetric")
    stored["int8"] = _int8()
    stored["pipeline"] = _pipeline("pipeline", [models["nested"], _pipeline("pipeline", [models["constants"]])])
    stored["classifier"] = _pipeline("pipelineClassifier", [stored["matrices steps"], stored["recurrent half"]])
    seeds = {name: model.SerializeToString(deterministic=True) for name, model in stored.items()}
    for name in ("matrices float32", "matrices steps", "nested table", "lstm half", "pipeline", "int8"):
        (folder / f"{name}.mlmodel").write_bytes(seeds[name])
    return seeds
