"""Running two packages and comparing their predictions, on macOS; the only module here that needs coremltools."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..compression.metrics import snr_db
from ..extras import load, require

_SEED = 0


@dataclass(frozen=True)
class ComparedOutput:
    """How far apart an output of two models is, over all inputs.

    Attributes
    ----------
    name : str
        Name of the output.
    samples : int
        Number of predictions.
    snr_db : float
        Signal-to-noise ratio of the second model's output relative to the first's; infinite if they are equal.
    cosine : float
        Cosine of the angle between them as vectors.
    max_abs : float
        Largest difference.
    """

    name: str
    samples: int
    snr_db: float
    cosine: float
    max_abs: float

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON; equal outputs have ``snr_db`` None and ``lossless`` True."""
        values = {name: _finite(value) for name, value in asdict(self).items()}
        return values | {"lossless": self.snr_db == math.inf}

    def __str__(self) -> str:
        ratio = "exact" if self.snr_db == math.inf else f"{self.snr_db:.1f} dB"
        return f"output {self.name}: {ratio}, cosine {self.cosine:.6f}, largest difference {self.max_abs:.3g}"


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def prediction_obstacle(function: str) -> str | None:
    """Why this machine cannot predict, or None.

    Raises
    ------
    MissingExtraError
        If it could if coremltools were installed.
    """
    if sys.platform != "darwin":
        return "predictions need macOS, which runs Core ML; the weights are compared"
    require(function, "coremltools")
    return None


def compare_predictions(
    first: Path, second: Path, inputs: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None, samples: int
) -> tuple[ComparedOutput, ...]:
    """Predict with both packages and compare their outputs.

    Parameters
    ----------
    first, second : pathlib.Path
        The packages.
    inputs : dict or list of dict, optional
        Inputs by name; None draws them.
    samples : int
        Number of samples.
    """
    coremltools = load("compare", "coremltools")
    models = [coremltools.models.MLModel(str(path)) for path in (first, second)]
    if inputs is None:
        given: list[Mapping[str, Any]] = list(_drawn(models[0].get_spec(), samples))
    else:
        given = [inputs] if isinstance(inputs, Mapping) else list(inputs)
    if not given:
        raise ValueError("compare: no inputs to predict with")
    pairs: dict[str, list[tuple[NDArray[Any], NDArray[Any]]]] = {}
    for sample in given:
        expected, actual = (model.predict(dict(sample)) for model in models)
        for name in expected.keys() & actual.keys():
            if _is_numeric(expected[name]):
                pairs.setdefault(name, []).append((np.asarray(expected[name]), np.asarray(actual[name])))
    return tuple(compared_output(name, pairs[name]) for name in sorted(pairs))


def _is_numeric(value: Any) -> bool:
    return bool(np.asarray(value).dtype.kind in "fiu")


def compared_output(name: str, pairs: list[tuple[NDArray[Any], NDArray[Any]]]) -> ComparedOutput:
    """Compare what two models predict, an array of each per sample."""
    expected, actual = (np.concatenate([pair[i].reshape(-1).astype(np.float64) for pair in pairs]) for i in (0, 1))
    signal, decoded, noise = (float(np.square(each).sum()) for each in (expected, actual, expected - actual))
    norms = math.sqrt(signal) * math.sqrt(decoded)
    return ComparedOutput(
        name=name,
        samples=len(pairs),
        snr_db=snr_db(signal, noise),
        cosine=float(expected @ actual) / norms if norms else float(signal == decoded),
        max_abs=float(np.abs(expected - actual).max(initial=0.0)),
    )


def _drawn(spec: Any, samples: int) -> Iterator[dict[str, Any]]:
    """Inputs of a model, drawn from a normal distribution; whole numbers are 0 or 1."""
    rng = np.random.default_rng(_SEED)
    for _ in range(samples):
        sample: dict[str, Any] = {}
        for feature in spec.description.input:
            kind = feature.type.WhichOneof("Type")
            if kind == "multiArrayType":
                sample[feature.name] = _array(rng, feature.type.multiArrayType)
            elif kind == "imageType":
                sample[feature.name] = _image(rng, feature.type.imageType)
            elif kind in ("int64Type", "doubleType"):
                sample[feature.name] = int(rng.integers(2)) if kind == "int64Type" else float(rng.standard_normal())
            else:
                raise ValueError(f"compare: cannot draw input {feature.name!r} of {kind}; pass inputs")
        yield sample


def _array(rng: np.random.Generator, kind: Any) -> NDArray[Any]:
    shape = tuple(kind.shape) or tuple(kind.enumeratedShapes.shapes[0].shape if kind.enumeratedShapes.shapes else ())
    if kind.DESCRIPTOR.enum_types_by_name["ArrayDataType"].values_by_name["INT32"].number == kind.dataType:
        return rng.integers(0, 2, shape).astype(np.int32)
    return rng.standard_normal(shape).astype(np.float32)


def _image(rng: np.random.Generator, kind: Any) -> Any:
    require("compare", "PIL")
    from PIL import Image

    space = kind.DESCRIPTOR.fields_by_name["colorSpace"].enum_type.values_by_number[kind.colorSpace].name
    shape = (kind.height, kind.width) if space == "GRAYSCALE" else (kind.height, kind.width, 3)
    return Image.fromarray(rng.integers(0, 256, shape).astype(np.uint8))
