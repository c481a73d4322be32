"""Packages without coremltools: linear layers whose weights are given."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..coreml.format import schema
from ..coreml.format.values import Tensor, blob_value
from ..coreml.format.weight_file import WeightFileWriter

MODEL, WEIGHTS = "Data/com.apple.CoreML/model.mlmodel", "Data/com.apple.CoreML/weights/weight.bin"
VERSION = 9  # iOS 18, the first that has all forms


def build_package(package: Path, weights: Iterable[NDArray[Any]]) -> Path:
    """Write a package with a linear layer for each weight; the weights are in memory one at a time."""
    entry = '{"author": "", "description": "", "name": "model", "path": "com.apple.CoreML/model.mlmodel"}'
    (package / WEIGHTS).parent.mkdir(parents=True)
    (package / "Manifest.json").write_text(
        f'{{"fileFormatVersion": "1.0.0", "itemInfoEntries": {{"1": {entry}}}, "rootModelIdentifier": "1"}}',
        encoding="utf-8",
    )
    model = schema.Model(specificationVersion=VERSION)
    model.mlProgram.version = 1
    function = model.mlProgram.functions["main"]
    function.opset = f"CoreML{VERSION - 1}"
    block = function.block_specializations[function.opset]
    with WeightFileWriter(package / WEIGHTS) as writer:
        for index, weight in enumerate(weights):
            tensor = Tensor.of(weight)
            offset = writer.append(tensor.data_type, tensor.count, tensor.data)
            value = blob_value(tensor, "@model_path/weights/weight.bin", offset)
            const = block.operations.add(type="const")
            const.attributes["val"].CopyFrom(value)
            const.outputs.add(name=f"weight{index}").type.CopyFrom(value.type)
            block.operations.add(type="linear").inputs["weight"].arguments.add().name = f"weight{index}"
    (package / MODEL).write_bytes(schema.serialize_model(model))
    return package
