"""Files and folders that are neither packages nor neural networks, and what messages say about them."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from pathlib import Path

MANIFEST = {"fileFormatVersion": "1.0.0", "rootModelIdentifier": "1"}
ITEM = {"name": "model.mlmodel", "path": "model.mlmodel", "author": "", "description": ""}
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"


def zip_of(*names: str) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return held.getvalue()


def field(number: int, data: bytes = b"") -> bytes:
    """A field of a message, which has bytes."""
    key = number << 3 | 2
    head = bytes([key & 0x7F | 0x80, key >> 7]) if key > 0x7F else bytes([key])
    return head + bytes([len(data)]) + data


def model_of_type(number: int, data: bytes = b"") -> bytes:
    return b"\x08\x01" + field(number, data)


def package_of(model: bytes = b"x", manifest: bytes | None = None) -> dict[str, bytes]:
    text = json.dumps(MANIFEST | {"itemInfoEntries": {"1": ITEM}}).encode()
    return {"Manifest.json": text if manifest is None else manifest, "Data/model.mlmodel": model}


SCALER, TREES = model_of_type(604), model_of_type(302)
# Name of what is given, its content (of a folder its files), and what the message says.
KINDS = {
    "linear regression": ("a.mlmodel", model_of_type(300), "is a linear regression (glmRegressor), which holds no"),
    "trees": ("a.mlmodel", TREES, "is a regression by trees (treeEnsembleRegressor), which holds no neural network"),
    "feature engineering": ("a.mlmodel", SCALER, "is feature engineering (scaler)"),
    "pipeline": (
        "a.mlmodel",
        model_of_type(202, field(1, SCALER) + field(1, TREES)),
        "is a pipeline of feature engineering (scaler) and a regression by trees (treeEnsembleRegressor), which holds",
    ),
    "wrapped pipeline": ("a.mlmodel", model_of_type(200, field(1, field(1, TREES))), "is a pipeline of a regression"),
    "ML program alone": ("a.mlmodel", model_of_type(502), "is a part of an ML program, without its weights; give the"),
    "cut short": ("a.mlmodel", b"\x08\x01" + field(500, b"x" * 9)[:-1], "or is cut short"),
    "noise": ("a.mlmodel", bytes(range(255, 0, -1)), "is not a serialized Core ML model"),
    "empty file": ("a.mlmodel", b"", "is empty; copy or download it again"),
    "Git LFS": ("a.mlmodel", LFS, "is a pointer of Git LFS, not the file itself; run 'git lfs pull'"),
    "git-annex": ("a.mlmodel", b"/annex/objects/SHA256E-s1--0\n", "run 'git annex get'"),
    "DVC": ("a.mlmodel.dvc", b"outs:\n- md5: 0\n", "run 'dvc pull'"),
    "HTML": ("a.mlmodel", b"<!DOCTYPE html><html>", "is an HTML page, as a failed download leaves"),
    "JSON": ("a.mlmodel", b'{"error": "x"}', "is JSON, not a model"),
    "text": ("a.mlmodel", "Größe".encode(), "is text, not a model"),
    "zip": ("a.mlpackage.zip", zip_of("a.mlpackage/Manifest.json"), "is a zip archive; unzip it first"),
    "PyTorch": ("a.pt", zip_of("archive/data.pkl"), "is a PyTorch file; convert the model with coremltools"),
    "pickle": ("a.pt", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "is a Python pickle, such as PyTorch writes"),
    "npz": ("a.npz", zip_of("a.npy"), "is an .npz file of NumPy arrays"),
    "Keras": ("a.keras", zip_of("metadata.json", "config.json"), "is a Keras model"),
    "HDF5": ("a.h5", b"\x89HDF\r\n\x1a\n" + bytes(90), "is an HDF5 file"),
    "safetensors": ("a.safetensors", struct.pack("<Q", 2) + b"{}    ", "is a safetensors file"),
    "GGUF": ("a.gguf", b"GGUF\x03" + bytes(30), "is a GGUF file"),
    "TensorFlow Lite": ("a.tflite", b"\x1c\0\0\0TFL3" + bytes(30), "is a model of TensorFlow Lite"),
    "ONNX": ("a.onnx", b"\x08\x07" + field(2, b"pytorch") + field(7, b"g") + field(8), "is an ONNX model"),
    "weight file": ("weight.bin", struct.pack("<II56xI", 1, 2, 0xDEADBEEF) + bytes(99), "is the weight file of"),
    "gzip": ("a.tar.gz", b"\x1f\x8b\x08" + bytes(30), "is compressed by gzip; unpack it first"),
    "compiled": ("a.mlmodelc", {"coremldata.bin": b"x"}, "is a compiled model; give the .mlpackage it was made from"),
    "aimodel": ("a.aimodel", {"x": b"x"}, "is a Core AI asset"),
    "empty folder": ("a", {}, "is an empty folder"),
    "folder": ("a", {"readme": b"x"}, "is a folder, but no .mlpackage: it has no file Manifest.json"),
    "folder of weights": ("a", {"weights/weight.bin": b"x"}, "holds only the weight file of a package"),
    "SavedModel": ("a", {"saved_model.pb": b"x"}, "is a SavedModel of TensorFlow"),
    "package without manifest": ("a.mlpackage", {"Data/x": b"x"}, "it has no file Manifest.json"),
    "package of a pointer": ("a.mlpackage", package_of(LFS), "model.mlmodel is a pointer of Git LFS"),
    "manifest of a pointer": ("a.mlpackage", package_of(manifest=LFS), "Manifest.json is a pointer of Git LFS"),
    "package of trees": ("a.mlpackage", package_of(TREES), "is a regression by trees (treeEnsembleRegressor)"),
}  # fmt: skip


def make_file(folder: Path, name: str, content: bytes | dict[str, bytes]) -> Path:
    path = folder / name
    if isinstance(content, bytes):
        path.write_bytes(content)
        return path
    path.mkdir()
    for each, data in content.items():
        (path / each).parent.mkdir(parents=True, exist_ok=True)
        (path / each).write_bytes(data)
    return path
