"""Files and folders of other kinds: each command names the kind, and gives no advice that is refused next."""

from __future__ import annotations

import io
import json
import re
import shlex
import struct
import zipfile
from pathlib import Path

import pytest

from corepress.coreml import kinds
from corepress.neural_network.schema import Model

MANIFEST = {"fileFormatVersion": "1.0.0", "rootModelIdentifier": "1"}
ITEM = {"name": "model.mlmodel", "path": "model.mlmodel", "author": "", "description": ""}
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"


def _zip(*names: str) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return held.getvalue()


def _field(number: int, data: bytes = b"") -> bytes:
    """A field of a message, which has bytes."""
    key = number << 3 | 2
    head = bytes([key & 0x7F | 0x80, key >> 7]) if key > 0x7F else bytes([key])
    return head + bytes([len(data)]) + data


def _model(number: int, data: bytes = b"") -> bytes:
    return b"\x08\x01" + _field(number, data)


def _package(model: bytes = b"x", manifest: bytes | None = None) -> dict[str, bytes]:
    text = json.dumps(MANIFEST | {"itemInfoEntries": {"1": ITEM}}).encode()
    return {"Manifest.json": text if manifest is None else manifest, "Data/model.mlmodel": model}


SCALER, TREES = _model(604), _model(302)
# Name of what is given, its content (of a folder its files), and what the message says.
KINDS = {
    "linear regression": ("a.mlmodel", _model(300), "is a linear regression (glmRegressor), which holds no neural"),
    "trees": ("a.mlmodel", TREES, "is a regression by trees (treeEnsembleRegressor), which holds no neural network"),
    "feature engineering": ("a.mlmodel", SCALER, "is feature engineering (scaler)"),
    "pipeline": (
        "a.mlmodel",
        _model(202, _field(1, SCALER) + _field(1, TREES)),
        "is a pipeline of feature engineering (scaler) and a regression by trees (treeEnsembleRegressor), which holds",
    ),
    "wrapped pipeline": ("a.mlmodel", _model(200, _field(1, _field(1, TREES))), "is a pipeline of a regression by"),
    "ML program alone": ("a.mlmodel", _model(502), "is a part of an ML program, without its weights; give the"),
    "cut short": ("a.mlmodel", b"\x08\x01" + _field(500, b"x" * 9)[:-1], "or is cut short"),
    "noise": ("a.mlmodel", bytes(range(255, 0, -1)), "is not a serialized Core ML model"),
    "empty file": ("a.mlmodel", b"", "is empty; copy or download it again"),
    "Git LFS": ("a.mlmodel", LFS, "is a pointer of Git LFS, not the file itself; run 'git lfs pull'"),
    "git-annex": ("a.mlmodel", b"/annex/objects/SHA256E-s1--0\n", "run 'git annex get'"),
    "DVC": ("a.mlmodel.dvc", b"outs:\n- md5: 0\n", "run 'dvc pull'"),
    "HTML": ("a.mlmodel", b"<!DOCTYPE html><html>", "is an HTML page, as a failed download leaves"),
    "JSON": ("a.mlmodel", b'{"error": "x"}', "is a JSON text"),
    "text": ("a.mlmodel", "Größe".encode(), "is a text"),
    "zip": ("a.mlpackage.zip", _zip("a.mlpackage/Manifest.json"), "is a zip archive; unzip it first"),
    "PyTorch": ("a.pt", _zip("archive/data.pkl"), "is a PyTorch file; convert the model with coremltools"),
    "pickle": ("a.pt", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "is a Python pickle, such as PyTorch writes"),
    "npz": ("a.npz", _zip("a.npy"), "is an .npz file of NumPy arrays"),
    "Keras": ("a.keras", _zip("metadata.json", "config.json"), "is a Keras model"),
    "HDF5": ("a.h5", b"\x89HDF\r\n\x1a\n" + bytes(90), "is an HDF5 file"),
    "safetensors": ("a.safetensors", struct.pack("<Q", 2) + b"{}    ", "is a safetensors file"),
    "GGUF": ("a.gguf", b"GGUF\x03" + bytes(30), "is a GGUF file"),
    "TensorFlow Lite": ("a.tflite", b"\x1c\0\0\0TFL3" + bytes(30), "is a model of TensorFlow Lite"),
    "ONNX": ("a.onnx", b"\x08\x07" + _field(2, b"pytorch") + _field(7, b"g") + _field(8), "is an ONNX model"),
    "weight file": ("weight.bin", struct.pack("<II56xI", 1, 2, 0xDEADBEEF) + bytes(99), "is the weight file of"),
    "gzip": ("a.tar.gz", b"\x1f\x8b\x08" + bytes(30), "is compressed by gzip; unpack it first"),
    "compiled": ("a.mlmodelc", {"coremldata.bin": b"x"}, "is a compiled model; give the .mlpackage it was made from"),
    "aimodel": ("a.aimodel", {"x": b"x"}, "is an .aimodel"),
    "empty folder": ("a", {}, "is an empty folder"),
    "folder": ("a", {"readme": b"x"}, "is a folder, but no .mlpackage: it has no file Manifest.json"),
    "folder of weights": ("a", {"weights/weight.bin": b"x"}, "holds only the weight file of a package"),
    "SavedModel": ("a", {"saved_model.pb": b"x"}, "is a SavedModel of TensorFlow"),
    "package without manifest": ("a.mlpackage", {"Data/x": b"x"}, "it has no file Manifest.json"),
    "package of a pointer": ("a.mlpackage", _package(LFS), "model.mlmodel is a pointer of Git LFS"),
    "manifest of a pointer": ("a.mlpackage", _package(manifest=LFS), "Manifest.json is a pointer of Git LFS"),
    "package of trees": ("a.mlpackage", _package(TREES), "is a regression by trees (treeEnsembleRegressor)"),
}  # fmt: skip
COMMANDS = (
    "palettize {source} -o {out} --nbits 4",
    "quantize {source} -o {out}",
    "quantize {source} -o {out} --nbits 8",
    "prune {source} -o {out} --target-sparsity 0.5",
    "compress {source} -o {out} --config [{{\"quantize\":{{}}}}]",
    "palettize {source} --nbits 4 --dry-run",
    "decompress {source} -o {out}",
    "fp16 {source} -o {out}",
    "inspect {source}",
    "verify {source} {source}",
    "compare {source} {source}",
)  # fmt: skip


def _make(folder: Path, name: str, content: bytes | dict[str, bytes]) -> Path:
    path = folder / name
    if isinstance(content, bytes):
        path.write_bytes(content)
        return path
    path.mkdir()
    for each, data in content.items():
        (path / each).parent.mkdir(parents=True, exist_ok=True)
        (path / each).write_bytes(data)
    return path


@pytest.mark.parametrize(("name", "content", "message"), KINDS.values(), ids=KINDS)
def test_every_command_names_the_kind(shell, tmp_path, name, content, message):
    source = _make(tmp_path, name, content)
    for line in COMMANDS:
        words = line.format(source="SOURCE", out="OUT").split()
        given = {"SOURCE": source, "OUT": tmp_path / f"o{source.suffix}"}
        outcome = shell(*(given.get(word, word) for word in words))
        assert outcome.status == 1, line
        assert message in outcome.err
        assert outcome.err.count("\n") == 1
        assert "'corepress " not in outcome.err  # every command refuses this


def test_the_advice_about_networks_is_followed(shell, network):
    for line in COMMANDS:
        words = line.format(source="SOURCE", out="OUT").split()
        out = network.with_name("o.mlmodel")
        outcome = shell(*({"SOURCE": network, "OUT": out}.get(word, word) for word in words))
        for command in re.findall(r"use 'corepress ([^']*)'", outcome.err):
            followed = shell(*shlex.split(command), "-o", out, "--overwrite")
            assert followed.status == 0, followed.err


def test_parts_of_a_package_and_folders_of_packages(shell, tmp_path):
    package = _make(tmp_path, "a.mlpackage", _package(_model(502)))
    for part in ("Data", "Data/model.mlmodel"):
        assert str(package) in shell("inspect", package / part).err
    assert f"give {package}" in shell("inspect", tmp_path).err


def test_types_are_those_of_coremltools():
    proto = pytest.importorskip("coremltools.proto.Model_pb2")
    fields = proto.Model.DESCRIPTOR.oneofs_by_name["Type"].fields
    assert {each.number: each.name for each in fields} == {
        number: name for number, (name, _) in kinds.MODEL_TYPES.items()
    }
    known = {each.number: each.name for each in Model.DESCRIPTOR.oneofs_by_name["Type"].fields}
    assert known.items() <= {number: name for number, (name, _) in kinds.MODEL_TYPES.items()}.items()


@pytest.mark.parametrize("seed", range(40))
def test_hostile_content_gives_a_word_or_none(tmp_path, seed):
    import random

    chance = random.Random(seed)
    contents = [content for _, content, _ in KINDS.values() if isinstance(content, bytes) and content]
    path = tmp_path / "a"
    for _ in range(20):
        data = bytearray(chance.choice(contents) * chance.choice((1, 1, 50)))
        for _ in range(chance.randrange(1, 9)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        path.write_bytes(data[: chance.randrange(len(data) + 1)])
        assert isinstance(kinds.obstacle_at(path), str | None)
        assert kinds.model_in_words(path)
