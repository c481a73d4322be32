"""Small packages to damage, made without coremltools: every stored form, joint ones and shared ones included."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from corepress import coreml
from corepress.coreml.format import schema
from corepress.coreml.format.values import Tensor, blob_value, inline_value
from corepress.coreml.format.weight_file import WeightFileWriter

MODEL = "com.apple.CoreML/model.mlmodel"
WEIGHTS = "com.apple.CoreML/weights/weight.bin"
_LENGTHS = struct.Struct("<II")
_CONFIGS: dict[str, tuple[int, dict | list]] = {
    "ios16-palette": (7, {"palettize": {"nbits": 4}}),
    "ios16-affine": (7, {"quantize": {"mode": "linear"}}),
    "ios16-sparse": (7, {"prune": {"target_sparsity": 0.5}}),
    "groups": (9, {"palettize": {"nbits": 2, "granularity": "per_grouped_channel", "group_size": 4}}),
    "vectors": (9, {"palettize": {"nbits": 2, "cluster_dim": 2}}),
    "blocks": (9, {"quantize": {"mode": "linear", "dtype": "int4", "granularity": "per_block", "block_size": 4}}),
    "sparse-palette": (9, [{"prune": {"target_sparsity": 0.5}}, {"palettize": {"nbits": 2}}]),
    "sparse-scales": (9, [{"prune": {"target_sparsity": 0.5}}, {"quantize": {}}]),
    "quantized-table": (9, [{"palettize": {"nbits": 2}}, {"quantize": {}}]),
    "palettized-codes": (10, [{"quantize": {}}, {"palettize": {"nbits": 2}}]),
    "scaled-palette": (10, {"palettize": {"nbits": 2, "enable_per_channel_scale": True}}),
}


@dataclass(frozen=True)
class Parts:
    """The files of a package."""

    manifest: bytes
    model: bytes
    weights: bytes

    def write(self, package: Path) -> None:
        """Write them out as a package."""
        (package / "Data" / WEIGHTS).parent.mkdir(parents=True)
        (package / "Manifest.json").write_bytes(self.manifest)
        (package / "Data" / MODEL).write_bytes(self.model)
        (package / "Data" / WEIGHTS).write_bytes(self.weights)

    @classmethod
    def read(cls, package: Path) -> Parts:
        """The files of a package."""
        files = (package / "Manifest.json", package / "Data" / MODEL, package / "Data" / WEIGHTS)
        return cls(*(file.read_bytes() for file in files))

    def join(self) -> bytes:
        """As one string, for corpora."""
        return _LENGTHS.pack(len(self.manifest), len(self.model)) + self.manifest + self.model + self.weights

    @classmethod
    def split(cls, data: bytes) -> Parts:
        """The inverse of `join`, of any bytes."""
        first, second = _LENGTHS.unpack(data[: _LENGTHS.size].ljust(_LENGTHS.size, b"\0"))
        rest = data[_LENGTHS.size :]
        first = min(first, len(rest))
        return cls(rest[:first], rest[first : first + second], rest[first + second :])


def _manifest() -> bytes:
    author = {"author": "com.apple.CoreML", "description": ""}
    model = {"name": "model.mlmodel", "path": MODEL} | author
    weights = {"name": "weights", "path": "com.apple.CoreML/weights"} | author
    entries = {"1": model, "2": weights}
    return json.dumps({"fileFormatVersion": "1.0.0", "itemInfoEntries": entries, "rootModelIdentifier": "1"}).encode()


def _write_plain(package: Path, version: int) -> None:
    """Two functions, one with nested blocks, over shared weights."""
    Parts(_manifest(), b"", b"").write(package)
    path = package / "Data" / WEIGHTS
    path.unlink()
    rng = np.random.default_rng(0)
    model = schema.Model(specificationVersion=version)
    model.mlProgram.version = 1
    with WeightFileWriter(path) as writer:

        def const(block, name, array):
            tensor = Tensor.of(array)
            operation = block.operations.add(type="const")
            if tensor.count < 10:
                value = inline_value(tensor)
            else:
                offset = writer.append(tensor.data_type, tensor.count, array)
                value = blob_value(tensor, "@model_path/weights/weight.bin", offset)
            operation.attributes["val"].CopyFrom(value)
            operation.outputs.add(name=name).type.CopyFrom(value.type)

        def use(block, kind, **operands):
            operation = block.operations.add(type=kind)
            for operand, name in operands.items():
                operation.inputs[operand].arguments.add().name = name
            operation.outputs.add(name=f"{kind}_{len(block.operations)}")
            return operation

        function = model.mlProgram.functions["main"]
        function.opset = f"CoreML{version - 1}"
        function.inputs.add(name="x")
        block = function.block_specializations[function.opset]
        const(block, "kernel", rng.standard_normal((8, 4, 1, 2)).astype(np.float32))
        const(block, "matrix", rng.standard_normal((12, 8)).astype(np.float16))
        const(block, "groups", np.array(1, np.int32))
        const(block, "ids", np.arange(12, dtype=np.int32))
        use(block, "conv", x="x", weight="kernel", groups="groups")
        use(block, "matmul", x="conv_5", y="matrix")
        inner = use(block, "cond", pred="x").blocks.add()
        const(inner, "inner", rng.standard_normal((8, 4)).astype(np.float16))
        use(inner, "linear", x="x", weight="inner")
        if version < 7:  # what is raised
            use(inner, "gather", x="x", indices="ids")
            cropped = use(block, "crop_resize", x="x")
            cropped.outputs[0].type.CopyFrom(block.operations[1].outputs[0].type)
        block.outputs.append("matmul_6")
    other = model.mlProgram.functions["other"]
    other.CopyFrom(function)
    (package / "Data" / MODEL).write_bytes(schema.serialize_model(model))


def _as_pipeline(parts: Parts, kind: str) -> Parts:
    """A pipeline that runs a program twice, over the same weights."""
    program = schema.Model.FromString(parts.model)
    model = schema.Model(specificationVersion=program.specificationVersion)
    pipeline = model.pipeline if kind == "pipeline" else getattr(model, kind).pipeline
    pipeline.models.extend([program, program])
    pipeline.names.extend(["first", "second"])
    return replace(parts, model=schema.serialize_model(model))


def make_seeds(folder: Path) -> dict[str, Parts]:
    """Write seeds into an empty folder and return them by name."""
    seeds = {}
    for version in (6, 7, 9, 10):
        _write_plain(folder / f"{version}.mlpackage", version)
        seeds[f"plain-{version}"] = Parts.read(folder / f"{version}.mlpackage")
    for name, (version, config) in _CONFIGS.items():
        path = folder / f"{name}.mlpackage"
        coreml.compress(folder / f"{version}.mlpackage", path, config, weight_threshold=0)
        seeds[name] = Parts.read(path)
    seeds["pipeline"] = _as_pipeline(seeds["plain-9"], "pipeline")
    seeds["classifier"] = _as_pipeline(seeds["ios16-palette"], "pipelineClassifier")
    return seeds
