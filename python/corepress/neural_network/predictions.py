"""Outputs of two networks side by side; running them needs macOS and coremltools."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..compression.metrics import snr_db
from ..coreml.predictions import ComparedOutput, compared_output
from ..extras import load, require
from .model_io import is_path

_IMAGES = (".jpg", ".jpeg", ".png", ".bmp")
_TOP = 5

Predictions = list[tuple[Mapping[str, Any], Mapping[str, Any]]]


@dataclass(frozen=True)
class NetworkOutput(ComparedOutput):
    """How far apart an output of two networks is, over all samples; in addition to the attributes of `ComparedOutput`:

    Attributes
    ----------
    psnr_db : float
        Peak signal-to-noise ratio: the square of the largest magnitude divided by the mean of squared differences.
    top_1, top_5 : float or None
        For a class label or class probabilities: the fraction of the samples for which the first network's best class
        is also the second's, or among its best five; None for other outputs.
    """

    psnr_db: float
    top_1: float | None = None
    top_5: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        values = super().to_dict()
        return values | {"psnr_db": self.psnr_db if math.isfinite(self.psnr_db) else None}

    def __str__(self) -> str:
        agreement = [
            f"top {k} agreement {100 * part:.1f} %"
            for k, part in ((1, self.top_1), (_TOP, self.top_5))
            if part is not None
        ]
        if math.isnan(self.snr_db):
            return f"output {self.name}: {', '.join(agreement)}"
        ratio = "exact" if self.psnr_db == math.inf else f"{self.psnr_db:.1f} dB"
        return ", ".join([super().__str__(), f"peak {ratio}", *agreement])


def compare_outputs(predictions: Predictions) -> tuple[NetworkOutput, ...]:
    """Compare the outputs of two networks.

    Parameters
    ----------
    predictions : list of pairs of dict
        The networks' outputs for each sample, by name: arrays, images, labels, or probabilities by class.
    """
    names = {name for first, second in predictions for name in first.keys() & second.keys()}
    return tuple(
        _compared(
            name, [(first[name], second[name]) for first, second in predictions if name in first and name in second]
        )
        for name in sorted(names)
    )


def _compared(name: str, pairs: list[tuple[Any, Any]]) -> NetworkOutput:
    first = pairs[0][0]
    if isinstance(first, Mapping):
        best = [(_best(ours), _best(theirs)) for ours, theirs in pairs]
        arrays = [_probabilities(ours, theirs) for ours, theirs in pairs]
        return _measured(
            name,
            arrays,
            _part(ours[0] == theirs[0] for ours, theirs in best),
            _part(ours[0] in theirs for ours, theirs in best),
        )
    if isinstance(first, str | int | np.integer):
        return NetworkOutput(name, len(pairs), math.nan, math.nan, math.nan, math.nan, _part(a == b for a, b in pairs))
    return _measured(name, [(_array(ours), _array(theirs)) for ours, theirs in pairs])


def _best(probabilities: Mapping[Any, float]) -> list[Any]:
    return sorted(probabilities, key=lambda label: -probabilities[label])[:_TOP]


def _part(agreements: Iterator[bool]) -> float:
    found = list(agreements)
    return sum(found) / len(found)


def _probabilities(first: Mapping[Any, float], second: Mapping[Any, float]) -> tuple[NDArray[Any], NDArray[Any]]:
    labels = list(first)
    return np.array([first[each] for each in labels]), np.array([second.get(each, 0.0) for each in labels])


def _array(value: Any) -> NDArray[Any]:
    if getattr(value, "mode", None) == "RGBA":
        value = value.convert("RGB")
    return np.asarray(value)


def _measured(
    name: str, arrays: list[tuple[NDArray[Any], NDArray[Any]]], top_1: float | None = None, top_5: float | None = None
) -> NetworkOutput:
    output = compared_output(name, arrays)
    peak = max(float(abs(first.astype(np.float64)).max(initial=0.0)) for first, _ in arrays)
    noise = sum(float(np.square(first.astype(np.float64) - second).sum()) for first, second in arrays)
    count = sum(first.size for first, _ in arrays)
    return NetworkOutput(
        **vars(output),
        psnr_db=snr_db(peak * peak * count, noise),
        top_1=top_1,
        top_5=top_5,
    )


def predict_both(first: Any, second: Any, samples: Any) -> Predictions:
    """The outputs of two networks for samples; macOS only.

    Parameters
    ----------
    first, second : path-like, spec or MLModel
        The models.
    samples : list of dict, or path-like
        Inputs by name; or a folder of images, for models whose only input is one.
    """
    coremltools = load("compare_models", "coremltools")
    models = []
    for model in (first, second):
        given = str(model) if is_path(model) else model.get_spec() if hasattr(model, "get_spec") else model
        models.append(coremltools.models.MLModel(given, compute_units=coremltools.ComputeUnit.CPU_ONLY))
    inputs = list(_images(Path(samples), models[0].get_spec())) if is_path(samples) else list(samples)
    return [(models[0].predict(dict(each)), models[1].predict(dict(each))) for each in inputs]


def check_samples(samples: Any) -> None:
    """Raise if the samples are invalid."""
    if is_path(samples):
        if not Path(samples).is_dir():
            raise FileNotFoundError(f"compare_models: {samples}: no such folder")
        if not any(each.suffix.lower() in _IMAGES for each in Path(samples).iterdir()):
            raise ValueError(f"compare_models: {samples} has no images ({', '.join(_IMAGES)})")
        return
    if not isinstance(samples, Sequence) or not samples or not all(isinstance(each, Mapping) for each in samples):
        raise TypeError("compare_models: sample_data must be a list of dicts, or the path of a folder of images")


def _images(folder: Path, spec: Any) -> Iterator[dict[str, Any]]:
    require("compare_models", "PIL")
    from PIL import Image

    given = spec.description.input
    if len(given) != 1 or given[0].type.WhichOneof("Type") != "imageType":
        raise ValueError("compare_models: a folder of images is for models whose only input is an image")
    size = given[0].type.imageType.width, given[0].type.imageType.height
    for path in sorted(each for each in folder.iterdir() if each.suffix.lower() in _IMAGES):
        with Image.open(path) as image:
            yield {given[0].name: image.resize(size, Image.Resampling.LANCZOS)}
