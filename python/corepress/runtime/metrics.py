"""How good the outputs of a model are, measured by those of another or by a function of yours; higher is better."""

from __future__ import annotations

import importlib.util
import inspect
import math
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..paths import user_path
from ..suggestions import suggestion
from .distances import Distance, pairs_of

Outputs = Mapping[str, Any]
Score = Callable[[Sequence[Mapping[str, Any]], Sequence[Outputs]], float]

BUILT_IN = {
    "snr": "signal-to-noise ratio in dB",
    "psnr": "peak signal-to-noise ratio in dB",
    "cosine": "cosine of the angle between them",
    "max": "minus the largest difference",
    "top1": "fraction of samples with the same best class",
    "top5": "fraction of samples whose best class is among the other's best five",
    "kl": "minus the mean Kullback-Leibler divergence of the classes' probabilities, in nats",
}
MetricLike = str | Score


@dataclass(frozen=True)
class Metric:
    """A measure of outputs; higher is better.

    Attributes
    ----------
    name : str
        One of "snr", "psnr", "cosine", "max", "top1", "top5" and "kl", which compare the outputs of two models, or
        ``FILE.py:function``.
    function : callable or None
        Called as ``function(samples, outputs) -> float`` with two lists of dicts; None for those that compare.
    """

    name: str
    function: Score | None = None

    @classmethod
    def of(cls, function: str, given: Metric | MetricLike) -> Metric:
        """What a user names.

        Parameters
        ----------
        function : str
            The caller's name, for messages.
        given : str, callable or Metric
            Name of a metric, ``FILE.py:function``, or a function.

        Raises
        ------
        ValueError
            If there is no such metric, or no such function in the file.
        FileNotFoundError
            If there is no such file.
        TypeError
            If it is neither.
        """
        if isinstance(given, Metric):
            return given
        if isinstance(given, str) and given in BUILT_IN:
            return cls(given)
        if isinstance(given, str) and ".py:" in given:
            return cls(given, _function_of(function, given))
        if callable(given):
            return cls(getattr(given, "__name__", type(given).__name__), given)
        if isinstance(given, str):
            hint = suggestion(given, BUILT_IN)
            raise ValueError(
                f"{function}: metric is {given!r}, but must be one of {', '.join(BUILT_IN)}, or FILE.py:function{hint}"
            )
        raise TypeError(f"{function}: metric must be a name or a function, not {type(given).__name__}")

    @property
    def compares(self) -> bool:
        """Whether it compares the outputs of two models."""
        return self.function is None

    @property
    def in_words(self) -> str:
        """What it measures."""
        return BUILT_IN.get(self.name, self.name)

    def score(self, samples: Sequence[Mapping[str, Any]], outputs: Sequence[Outputs]) -> float:
        """What the user's function returns.

        Raises
        ------
        TypeError
            If it is no number.
        """
        assert self.function is not None
        found = self.function(list(samples), list(outputs))
        if isinstance(found, str | bytes) or np.size(found) != 1:
            raise TypeError(f"metric {self.name} must return a number, not {type(found).__name__}")
        try:
            return float(np.asarray(found).reshape(()).item())
        except (TypeError, ValueError) as error:
            raise TypeError(f"metric {self.name} must return a number, not {type(found).__name__}") from error


class Comparing:
    """The value of a metric that compares, from pairs of outputs that are added one after another.

    Each output of the models is measured over all samples; the lowest value counts. Metrics of classes look at the
    outputs of a classifier where there are some, and else at all arrays, whose last axis is that of the classes.

    Parameters
    ----------
    metric : Metric
        One that compares.
    """

    def __init__(self, metric: Metric) -> None:
        assert metric.compares
        self._name = metric.name
        self._distances: dict[str, Distance] = {}
        self._classes: dict[str, list[float]] = {}

    def add(self, expected: Outputs, actual: Outputs) -> None:
        """Add the outputs of two models for the same sample."""
        if self._name in ("top1", "top5", "kl"):
            self._add_classes(expected, actual)
            return
        for name, pair in pairs_of(expected, actual):
            self._distances.setdefault(name, Distance()).add(*pair)

    def _add_classes(self, expected: Outputs, actual: Outputs) -> None:
        names = [name for name in expected if name in actual]
        classes = [name for name in names if isinstance(expected[name], Mapping)]
        are_labels = [name for name in names if isinstance(expected[name], str | int | np.integer)]
        labels = are_labels if self._name != "kl" else []
        for name in classes or labels or names:
            values = _measure_classes(self._name, expected[name], actual[name])
            if values is not None:
                self._classes.setdefault(name, []).append(values)

    @property
    def value(self) -> float:
        """The value so far.

        Raises
        ------
        ValueError
            If the models have no outputs that it could compare.
        """
        if self._classes:
            return min(math.fsum(values) / len(values) for values in self._classes.values())
        measured = [self._of(distance) for distance in self._distances.values()]
        if not measured:
            raise ValueError(f"metric {self._name}: the models have no outputs in common that it could compare")
        return min(measured)

    def _of(self, distance: Distance) -> float:
        if self._name == "max":
            return -distance.max_abs
        return {"snr": distance.snr_db, "psnr": distance.psnr_db, "cosine": distance.cosine}[self._name]


def evaluate(
    metric: Metric | MetricLike,
    samples: Sequence[Mapping[str, Any]],
    outputs: Sequence[Outputs],
    expected: Sequence[Outputs] | None = None,
) -> float:
    """The value of a metric for outputs that are at hand; higher is better.

    Parameters
    ----------
    metric : str, callable or Metric
        "snr", "psnr", "cosine", "max", "top1", "top5", "kl", ``FILE.py:function``, or a function, which is called as
        ``function(samples, outputs)``.
    samples : list of dict
        What the model was run on, with labels.
    outputs : list of dict
        What it returned.
    expected : list of dict, optional
        What the model that it is compared with returned; a function of yours does not need it.

    Returns
    -------
    float
        The value.

    Raises
    ------
    ValueError
        If there is no such metric, or nothing to compare with.
    """
    found = Metric.of("evaluate", metric)
    if not found.compares:
        return found.score(samples, outputs)
    if expected is None:
        raise ValueError(f"evaluate: metric {found.name!r} compares two models; pass expected=")
    comparing = Comparing(found)
    for ours, theirs in zip(expected, outputs, strict=True):
        comparing.add(ours, theirs)
    return comparing.value


def _measure_classes(name: str, expected: Any, actual: Any) -> float | None:
    """The value for one sample; None for outputs without classes."""
    if isinstance(expected, str | int | np.integer):
        return None if name == "kl" else float(expected == actual)
    if isinstance(expected, Mapping):
        if not isinstance(actual, Mapping) or not expected:
            return None
        labels = list(expected)
        rows = (np.array([[float(each.get(label, 0.0)) for label in labels]]) for each in (expected, actual))
        ours, theirs = rows
    else:
        ours, theirs = (np.asarray(each) for each in (expected, actual))
        if ours.dtype.kind not in "fiu" or ours.shape != theirs.shape or not ours.size:
            return None
        ours, theirs = (each.astype(np.float64).reshape(-1, each.shape[-1]) for each in (ours, theirs))
    if name == "kl":
        return -_divergence(ours, theirs)
    best = ours.argmax(axis=1)
    count = 1 if name == "top1" else min(5, ours.shape[1])
    others = np.argsort(-theirs, axis=1, kind="stable")[:, :count]
    return float((others == best[:, None]).any(axis=1).mean())


def _divergence(expected: NDArray[np.float64], actual: NDArray[np.float64]) -> float:
    """Mean divergence of rows; rows that are no probabilities are logits."""
    are_probabilities = bool((expected >= 0).all() and np.allclose(expected.sum(axis=1), 1, atol=1e-2))
    ours, theirs = (_logarithms(each, are_probabilities) for each in (expected, actual))
    terms = np.where(ours > -math.inf, np.exp(ours) * (ours - theirs), 0.0)
    return float(terms.sum(axis=1).mean())


def _logarithms(rows: NDArray[np.float64], are_probabilities: bool) -> NDArray[np.float64]:
    if are_probabilities:
        smallest = np.finfo(np.float64).tiny
        positive = np.maximum(rows, 0.0)
        sums = np.maximum(positive.sum(axis=1, keepdims=True), smallest)
        return np.asarray(np.log(np.maximum(positive / sums, smallest)))
    shifted = rows - rows.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def _function_of(caller: str, given: str) -> Score:
    """A function in a file of Python."""
    name, _, attribute = given.rpartition(":")
    path = user_path(name)
    if not path.is_file():
        raise FileNotFoundError(f"{caller}: metric {given!r}: there is no file {path}")
    where = f"{caller}: metric {given!r}"
    with _of_user(where):
        module = _module_of(path)
    found = getattr(module, attribute, None)
    if not callable(found):
        raise ValueError(f"{caller}: metric {given!r}: {path} has no function {attribute!r}")
    try:
        inspect.signature(found).bind([], [])
    except TypeError as error:
        raise ValueError(f"{caller}: metric {given!r} must take samples and outputs ({error})") from error

    def score(samples: Any, outputs: Any) -> Any:
        with _of_user(where):
            return found(samples, outputs)

    return score


@contextmanager
def _of_user(where: str) -> Iterator[None]:
    """Say of what fails in a user's file where it is; the error itself is kept as the cause."""
    try:
        yield
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        place = f" in line {frames[-1].lineno} of {frames[-1].filename}" if not isinstance(error, SyntaxError) else ""
        raise ValueError(f"{where} raised {type(error).__name__}{place}: {error}") from error


def _module_of(path: Path) -> Any:
    """The module of a file, which can import its neighbours, as a script can."""
    name = f"_corepress_metric_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    folder = os.fspath(path.resolve().parent)
    sys.modules[name] = module
    sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(folder)
    return module
