"""What coremltools' own tests predict with, in place of Core ML: `load` is called as ``_MLModelProxy`` would be."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np

from corepress import runtime

MANIFEST = {
    "fileFormatVersion": "1.0.0",
    "itemInfoEntries": {"1": {"path": "com.apple.CoreML/model.mlmodel", "name": "", "author": "", "description": ""}},
    "rootModelIdentifier": "1",
}


def load(path_or_spec, weights_dir=None, function_name=None):
    """A model to predict with."""
    with tempfile.TemporaryDirectory() as place:
        return Predictor(runtime.load(as_file(path_or_spec, weights_dir, Path(place)), function_name))


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
    """A model as users run it, with errors in Core ML's words, which some tests look for."""

    def __init__(self, model):
        self.model = model

    def predict(self, inputs, state=None):
        try:
            return self.model.predict(inputs, state)
        except ValueError as error:
            raise RuntimeError(next(in_their_words(self.model, inputs), str(error))) from error

    def make_state(self):
        return self.model.make_state()


def in_their_words(model, inputs):
    """What Core ML says of arrays whose shapes the model does not take."""
    for each in model.inputs:
        shape = np.shape(inputs.get(each.name))
        if each.kind != "array" or each.accepts(shape):
            continue
        if each.shapes:
            yield f"MultiArray Shape ({' x '.join(map(str, shape))}) was not in enumerated set of allowed shapes"
        for axis, (size, (low, high)) in enumerate(zip(shape, each.ranges, strict=False)):
            if size < low or (high is not None and size > high):
                yield f"Size ({size}) of dimension ({axis}) is not in allowed range ({low}..{high})"
