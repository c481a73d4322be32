"""Samples for calibration: read several times, identified by a digest, and divided into two parts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from ..runtime.features import Description
from ..runtime.images import is_image
from ..runtime.samples import Sample, Samples, steps_of
from .statistics import bounded

EVERY = 4  # of this many samples, the last is kept for choices


class DividedSamples:
    """Samples of which every fourth is kept for choices, and the others are what second moments are taken from.

    Parameters
    ----------
    source : path-like, dict, or iterable
        As for `corepress.runtime.Samples`. What can be iterated over only once is held in memory.
    description : Description
        What the model takes.

    Attributes
    ----------
    count : int
        Number of samples; a sequence is one.
    digest : str
        SHA-256 of all of them.
    kept : list
        Those that are kept, as arrays, as many as a file may have.
    """

    def __init__(self, source: Any, description: Description) -> None:
        if isinstance(source, Iterable) and not isinstance(source, str | Mapping | Samples) and iter(source) is source:
            source = list(source)
        self._samples = Samples("calibrate", source, description)
        digest, kept, count = hashlib.sha256(), list[Any](), 0
        for index, sample in enumerate(self._samples):
            for step in steps_of(sample):
                add_to_digest(digest, step)
            if is_kept(index):
                kept = bounded([*kept, _stored(sample)])
            count += 1
        self.count, self.digest, self.kept = count, digest.hexdigest(), kept

    @property
    def kept_count(self) -> int:
        """How many samples are kept for choices."""
        return self.count // EVERY

    @property
    def fitted_count(self) -> int:
        """How many samples second moments are taken from."""
        return self.count - self.kept_count

    def fitted(self) -> Iterator[list[Sample]]:
        """The samples for second moments, each as the inputs of its runs."""
        return (self._inputs(sample) for index, sample in enumerate(self._samples) if not is_kept(index))

    def judging(self, most: int) -> Iterator[list[Sample]]:
        """The samples for sensitivities, evenly spread: those that are kept, or all where none is."""
        count = self.kept_count or self.count
        chosen = {number * count // min(most, count) for number in range(min(most, count))}
        number = 0
        for index, sample in enumerate(self._samples):
            if self.kept_count and not is_kept(index):
                continue
            if number in chosen:
                yield self._inputs(sample)
            number += 1

    def _inputs(self, sample: Any) -> list[Sample]:
        return [self._samples.inputs_of(step) for step in steps_of(sample)]


def is_kept(index: int) -> bool:
    """Whether a sample is kept for choices, by its place among all."""
    return index % EVERY == EVERY - 1


def add_to_digest(digest: Any, sample: Sample) -> None:
    """Add the names, types, shapes and values of one run's inputs to a digest of ``hashlib``."""
    for name, value in sorted(sample.items()):
        array = np.ascontiguousarray(value) if not isinstance(value, str | Mapping) else None
        if array is None or array.dtype == object:
            digest.update(f"{name}={value!r}".encode())
        else:
            digest.update(f"{name}:{array.dtype}{array.shape}".encode())
            digest.update(array.reshape(-1).view(np.uint8))


def _stored(sample: Any) -> Any:
    """A sample as arrays of numbers; what is none, such as text, is left out."""
    steps = [
        {name: np.array(value) for name, value in step.items() if is_image(value) or _is_numbers(value)}
        for step in steps_of(sample)
    ]
    return steps if isinstance(sample, list) else steps[0]


def _is_numbers(value: Any) -> bool:
    return not isinstance(value, str | Mapping) and np.asarray(value).dtype.kind in "fiub"
