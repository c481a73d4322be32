"""Core ML itself, through coremltools: the only module of the runtime that imports it, and only on macOS."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UnsupportedOperationError
from ..extras import load
from .backend import State
from .features import Description
from .images import image_from_planes, planes_of_image

COMPUTE_UNITS = {"cpu": "CPU_ONLY", "gpu": "CPU_AND_GPU", "ane": "CPU_AND_NE", "all": "ALL"}


class CoreMLBackend:
    """Runs a model by Core ML.

    Parameters
    ----------
    model : pathlib.Path or object
        The path of a package or file, or a spec.
    description : Description
        What the model takes and returns.
    function_name : str or None
        The function to run; None for the only one.
    device : str
        One of `COMPUTE_UNITS`.
    """

    name = "coreml"
    module = None

    def __init__(self, model: Any, description: Description, function_name: str | None, device: str) -> None:
        if device not in COMPUTE_UNITS:
            raise ValueError(f"load: device is {device!r}, but must be one of {', '.join(COMPUTE_UNITS)} for Core ML")
        coremltools = load("load", "coremltools")
        units = getattr(coremltools.ComputeUnit, COMPUTE_UNITS[device])
        given = str(model) if isinstance(model, Path) else model
        options = {} if function_name is None else {"function_name": function_name}
        self._model = coremltools.models.MLModel(given, compute_units=units, **options)
        self._description = description

    def predict(self, inputs: Mapping[str, Any], state: State | None) -> dict[str, Any]:
        """Run once."""
        given = dict(inputs)
        for each in self._description.inputs:
            if each.kind == "image":
                assert each.color is not None
                given[each.name] = _opaque(image_from_planes(each.color, np.asarray(inputs[each.name])[0]))
        outputs = dict(self._model.predict(given) if state is None else self._model.predict(given, state=state))
        for each in self._description.outputs:
            if each.kind == "image" and each.name in outputs:
                assert each.color is not None
                outputs[each.name] = planes_of_image(f"output {each.name!r}", each.color, _opaque(outputs[each.name]))
        return outputs

    def values(self, inputs: Mapping[str, Any], state: State | None) -> Iterator[tuple[str, Any]]:
        """Raise UnsupportedOperationError: Core ML shows no intermediate results."""
        raise UnsupportedOperationError("Core ML shows no intermediate results; load the model with backend='torch'")

    def make_state(self) -> State | None:
        """A fresh state."""
        state: State | None = self._model.make_state() if self._description.states else None
        return state


def _opaque(image: Any) -> Any:
    """An image as coremltools takes it: it returns colours with opacity, and takes them without."""
    return image.convert("RGB") if image.mode == "RGBA" else image
