"""What coremltools' own tests predict with, in place of Core ML: `load` is called as ``_MLModelProxy`` would be."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np

from corepress import runtime
from corepress.coreml.format.package import Package
from corepress.coreml.format.schema import read_model

MANIFEST = {
    "fileFormatVersion": "1.0.0",
    "itemInfoEntries": {"1": {"path": "com.apple.CoreML/model.mlmodel", "name": "", "author": "", "description": ""}},
    "rootModelIdentifier": "1",
}


def load(path_or_spec, weights_dir=None, function_name=None):
    """A model to predict with."""
    with tempfile.TemporaryDirectory() as place:
        path = as_file(path_or_spec, weights_dir, Path(place))
        return Predictor(path, function_name) if holds_program(path) else runtime.load(path, function_name)


def holds_program(path):
    """Whether the model is an ML program; all others are run as users run them."""
    return read_model(Package.open(path).model_path if path.is_dir() else path).WhichOneof("Type") == "mlProgram"


def as_file(path_or_spec, weights_dir, place):
    """The path of a model that may be given as a message."""
    if isinstance(path_or_spec, str):
        return Path(path_or_spec)
    if path_or_spec.WhichOneof("Type") != "mlProgram":
        path = place / "model.mlmodel"
        path.write_bytes(path_or_spec.SerializeToString())
        return path
    data = place / "model.mlpackage" / "Data" / "com.apple.CoreML"
    data.mkdir(parents=True)
    (data.parents[1] / "Manifest.json").write_text(json.dumps(MANIFEST))
    (data / "model.mlmodel").write_bytes(path_or_spec.SerializeToString())
    if weights_dir:
        shutil.copytree(weights_dir, data / "weights")
    return data.parents[1]


class Predictor:
    """A program by PyTorch, with the outputs that `MLModel.predict` gives."""

    def __init__(self, path, function_name):
        import coremltools

        from corepress.runtime.torch.backend import load_program

        package = Package.open(path)
        model = read_model(package.model_path)
        if model.WhichOneof("Type") != "mlProgram":
            raise NotImplementedError(model.WhichOneof("Type"))
        description = coremltools.utils.load_spec(str(path)).description
        self.inputs = {feature.name: feature for feature in description.input}
        self.outputs = [feature.name for feature in description.output]
        self.model = load_program(package, model, function_name or "main")

    def predict(self, inputs, state=None):
        try:
            results = self.model.predict({name: as_array(value) for name, value in inputs.items()}, state)
        except (ValueError, RuntimeError) as error:  # tests of indices out of range expect the words of Core ML
            raise RuntimeError(f"Unable to compute the prediction using ML Program: {error}") from error
        return {name: as_result(value) for name, value in results.items()}

    def make_state(self):
        return self.model.make_state()


def as_array(value):
    if hasattr(value, "mode"):
        array = np.asarray(value, dtype=np.float32)
        array = array[None, None] if array.ndim == 2 else array.transpose(2, 0, 1)[None, :3]
        return array
    return np.asarray(value)


def as_result(value):
    if isinstance(value, np.ndarray):
        value = value.reshape(1) if value.ndim == 0 else value
        return value.astype(np.float32) if value.dtype in (np.float16, np.bool_) else value
    return value
