"""Samples: inputs to run a model on, from files, folders or Python, with the same meaning in every function."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..extras import require
from ..paths import user_path
from .features import Description, Feature, as_array, require_possible
from .images import SUFFIXES, channels_of, is_image

Sample = dict[str, Any]
_SEED = 0


class Samples:
    """Inputs to run a model on.

    An array of the shape that the model declares is one sample; with one more axis in front it is many; where the
    declared batch is 1, N rows are N samples. An input that is given once while others are given many times is the same
    in all of them. Arrays that are no input of the model, such as labels, are left to a metric; they are divided in the
    same way where their first axis has as many entries as there are samples.

    Parameters
    ----------
    function : str
        The caller's name, for messages.
    source : path-like, dict, or iterable of dict or of list of dict
        An ``.npz`` file; a folder of them, with one sample each; a folder of images, for models with one input, an
        image, to whose size they are brought; or dicts by the names of inputs. A list of dicts inside an iterable is
        one sequence whose runs share a state.
    description : Description
        What the model takes.

    Raises
    ------
    TypeError
        If it is none of these.
    ValueError
        If there are no samples, or their shapes contradict each other.
    """

    def __init__(self, function: str, source: Any, description: Description) -> None:
        self._function, self._description = function, description
        self.total: int | None = None
        self._make = self._open(source)

    @property
    def names(self) -> frozenset[str]:
        """The names of the inputs; other entries of a sample are for the metric."""
        return frozenset(each.name for each in self._description.inputs)

    def __iter__(self) -> Iterator[Sample | list[Sample]]:
        """One sample after another: a dict, or a list of dicts that share a state."""
        found = False
        for each in self._make():
            found = True
            yield each
        if not found:
            raise ValueError(f"{self._function}: there are no samples")

    def inputs_of(self, sample: Sample) -> Sample:
        """The part of a sample that the model takes."""
        return {name: value for name, value in sample.items() if name in self.names}

    def _open(self, source: Any) -> Callable[[], Iterable[Sample | list[Sample]]]:
        if isinstance(source, str | os.PathLike):
            return self._open_path(user_path(source))
        if isinstance(source, Mapping):
            return self._open_iterable([source])
        if isinstance(source, Samples):
            return self._open_iterable(source)
        if isinstance(source, bytes) or not isinstance(source, Iterable):
            raise TypeError(
                f"{self._function}: samples must be a path, a dict or an iterable of dicts, not {type(source).__name__}"
            )
        return self._open_iterable(source)

    def _open_iterable(self, source: Iterable[Any]) -> Callable[[], Iterable[Sample | list[Sample]]]:
        if isinstance(source, Sequence):
            if not source:
                raise ValueError(f"{self._function}: there are no samples")
            for each in source:
                self._require_sample(each)
            counts = [1 if isinstance(each, list) else self._count(each, "")[0] for each in source]
            self.total = sum(counts)

        def make() -> Iterator[Sample | list[Sample]]:
            for each in source:
                self._require_sample(each)
                if isinstance(each, Mapping):
                    yield from self._split(each, "")
                else:
                    yield [self._single(step, "a step of a sequence") for step in each]

        return make

    def _require_sample(self, each: Any) -> None:
        steps = each if isinstance(each, list) else [each]
        wrong = next((step for step in steps if not isinstance(step, Mapping)), None)
        if wrong is not None or not steps:
            what = "an empty list" if not steps else type(wrong).__name__
            raise TypeError(f"{self._function}: samples must be dicts, or lists of dicts for sequences, not {what}")

    def _open_path(self, path: Path) -> Callable[[], Iterable[Sample]]:
        if not path.exists():
            raise FileNotFoundError(f"{self._function}: {path}: no such file or folder")
        if not path.is_dir():
            if path.suffix.lower() != ".npz":
                raise ValueError(f"{self._function}: {path} must be an .npz file, or a folder of these or of images")
            arrays = self._arrays(path)
            self.total = self._count(arrays, f"{path}: ")[0]
            return lambda: self._split(arrays, f"{path}: ")
        files = sorted(each for each in path.iterdir() if each.is_file() and not each.name.startswith("."))
        packed = [each for each in files if each.suffix.lower() == ".npz"]
        images = [each for each in files if each.suffix.lower() in SUFFIXES]
        if packed and images:
            raise ValueError(f"{self._function}: {path} has both .npz files and images; keep them in two folders")
        if not packed and not images:
            raise ValueError(f"{self._function}: {path} has no .npz files and no images ({', '.join(SUFFIXES)})")
        self.total = len(packed) or len(images)
        if packed:
            return lambda: (self._single(self._arrays(each), f"{each}") for each in packed)
        feature = self._image_input(path)
        return lambda: ({feature.name: self._image(each, feature)} for each in images)

    def _arrays(self, path: Path) -> Sample:
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        except (ValueError, AttributeError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{self._function}: {path} is not an .npz file of arrays ({error})") from error

    def _image_input(self, path: Path) -> Feature:
        required = [each for each in self._description.inputs if not each.optional]
        if len(required) != 1 or required[0].kind != "image":
            inputs = ", ".join(map(str, self._description.inputs)) or "none"
            raise ValueError(
                f"{self._function}: {path} is a folder of images, which is for models whose only input is an image; "
                f"the inputs are: {inputs}"
            )
        return required[0]

    def _image(self, path: Path, feature: Feature) -> Any:
        require(self._function, "PIL")
        from PIL import Image

        assert feature.shape is not None
        with Image.open(path) as opened:
            image = opened.convert("RGB" if channels_of(feature.color or "") == 3 else "L")
        if not feature.accepts((image.height, image.width)):
            image = image.resize((feature.shape[1], feature.shape[0]), Image.Resampling.LANCZOS)
        return image.convert("F") if feature.color == "GRAYSCALE_FLOAT16" else image

    def _count(self, sample: Mapping[str, Any], where: str) -> tuple[int, dict[str, bool]]:
        """How many samples there are in a dict, and which of its inputs have an entry for each."""
        counts = {}
        for each in self._description.inputs:
            if each.name in sample:
                counts[each.name] = _entries(each, sample[each.name])
        several = {name: count for name, count in counts.items() if count is not None}
        if len(set(several.values())) > 1:
            found = ", ".join(f"{count} of {name!r}" for name, count in several.items())
            raise ValueError(f"{self._function}: {where}the inputs have different numbers of samples: {found}")
        if 0 in several.values():
            raise ValueError(f"{self._function}: {where}there are no samples")
        return next(iter(several.values()), 1), {name: count is not None for name, count in counts.items()}

    def _split(self, sample: Mapping[str, Any], where: str) -> Iterator[Sample]:
        count, divided = self._count(sample, where)
        if not any(divided.values()):
            yield dict(sample)
            return
        features = {each.name: each for each in self._description.inputs}
        for index in range(count):
            yield {
                name: _entry(features.get(name), value, index, count, divided.get(name))
                for name, value in sample.items()
            }

    def _single(self, sample: Mapping[str, Any], where: str) -> Sample:
        count, divided = self._count(sample, f"{where}: ")
        if count != 1:
            raise ValueError(f"{self._function}: {where} has {count} samples, but must have one")
        return next(self._split(sample, "")) if any(divided.values()) else dict(sample)


def _entries(feature: Feature, value: Any) -> int | None:
    """How many samples a value has; None for one that is a sample itself, or whose shape will be refused."""
    if isinstance(value, str | Mapping) or is_image(value):
        return None
    array = as_array(f"input {feature.name!r}", value)
    if feature.kind == "image":
        inner = 3 if channels_of(feature.color or "") == 3 else 2
        return len(array) if array.ndim == inner + 1 else None
    if feature.kind != "array":
        return len(array) if array.ndim == 1 and feature.kind in ("int64", "double", "string") else None
    shape = array.shape
    if feature.shape is None or feature.is_declared(shape) or not shape:
        return None
    if feature.is_declared(shape[1:]) and len(shape) == len(feature.shape) + 1:
        return int(shape[0])
    has_batch = len(shape) == len(feature.shape) and feature.shape[:1] == (1,)
    return int(shape[0]) if has_batch and feature.is_declared((1, *shape[1:])) else None


def _entry(feature: Feature | None, value: Any, index: int, count: int, divided: bool | None) -> Any:
    """The value of one of `count` samples."""
    if feature is None:
        array = value if hasattr(value, "__getitem__") and not isinstance(value, str | Mapping) else None
        return array[index] if array is not None and len(array) == count else value
    if not divided:
        return value
    array = as_array(f"input {feature.name!r}", value)
    if feature.kind == "array" and feature.shape is not None and array.ndim == len(feature.shape):
        return array[index : index + 1]
    entry = array[index]
    return entry.item() if feature.kind in ("int64", "double", "string") else entry


def draw(function: str, description: Description, count: int) -> Iterator[Sample]:
    """Inputs drawn from a normal distribution; whole numbers are 0 or 1, images random pixels.

    Parameters
    ----------
    function : str
        The caller's name, for messages.
    description : Description
        What the model takes.
    count : int
        How many.

    Raises
    ------
    ValueError
        If the model has an input that cannot be drawn.
    """
    rng = np.random.default_rng(_SEED)
    for _ in range(count):
        yield {each.name: _drawn(function, each, rng) for each in description.inputs}


def _drawn(function: str, feature: Feature, rng: np.random.Generator) -> Any:
    require_possible(function, feature)
    if feature.kind == "array":
        shape = (1,) if feature.shape is None else feature.shape
        dtype = np.dtype(feature.held_dtype)
        if dtype.kind in "iub":
            return rng.integers(0, 2, shape).astype(dtype)
        return rng.standard_normal(shape).astype(dtype)
    if feature.kind == "image":
        assert feature.shape is not None
        shape = (*feature.shape, 3) if channels_of(feature.color or "") == 3 else feature.shape
        pixels: NDArray[Any] = rng.integers(0, 256, shape).astype(np.uint8)
        return pixels.astype(np.float32) if feature.dtype == "float16" else pixels
    if feature.kind == "int64":
        return int(rng.integers(2))
    if feature.kind == "double":
        return float(rng.standard_normal())
    raise ValueError(f"{function}: cannot draw input {feature.name!r} of kind {feature.kind}; pass inputs")


def steps_of(sample: Sample | list[Sample]) -> Sequence[Sample]:
    """The runs of a sample: one, or those of a sequence."""
    return sample if isinstance(sample, list) else [sample]
