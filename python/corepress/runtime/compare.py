"""Compare two models: their weights and, on samples, their outputs and the results in between."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..coreai.compare_weights import compare_weights as compare_asset_weights
from ..coreai.format.asset import Asset, is_asset
from ..coreml.compare_weights import compare_weights as compare_package_weights
from ..coreml.format.package import Package
from ..engine.comparison import ComparedValue, Comparison
from ..errors import UnsupportedOperationError
from ..neural_network.compare_weights import compare_weights as compare_network_weights
from ..paths import StrPath
from .coreai_activations import corresponding
from .coreai_backend import CoreAIBackend
from .distances import Distance
from .metrics import Comparing, Metric, MetricLike
from .model import Model, load
from .outputs import OutputTally
from .samples import Samples, draw, steps_of

Progress = Callable[[int, int | None], None]


def compare(
    first: StrPath,
    second: StrPath,
    *,
    predictions: bool = False,
    inputs: Any = None,
    draw: int = 4,
    metric: MetricLike | None = None,
    layers: bool = False,
    function_name: str | None = None,
    precision: str = "float16",
    backend: str = "auto",
    device: str = "cpu",
    num_threads: int | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Report how far apart two packages are, two assets, or a package and an asset of the same model.

    Parameters
    ----------
    first, second : path-like
        The packages or assets; distances are relative to the first.
    predictions : bool
        Also run both models and compare their outputs. `inputs`, `metric` and `layers` imply it.
    inputs : path-like, dict, or iterable of dict or of list of dict, optional
        Samples to run them on: an ``.npz`` file, a folder of these or of images, or dicts by the names of the inputs;
        a list of dicts inside an iterable is one sequence that shares a state. None draws inputs.
    draw : int
        How many inputs are drawn from a normal distribution.
    metric : str or callable, optional
        Also measure this: "snr", "psnr", "cosine", "max", "top1", "top5", "kl", or ``FILE.py:function``; see
        `corepress.runtime.Metric`.
    layers : bool
        Also compare the results of all operations that both models have, by name; in two assets by the order of the
        operations where that is the same.
    function_name : str, optional
        The function to run, for models with several.
    precision : str
        "float16" or "float32", as for `corepress.runtime.load`.
    backend : str
        "auto", "torch" or "coreml", as there; assets are run by Core AI.
    device : str
        What runs the models, as there.
    num_threads : int, optional
        Threads for comparing weights; None for all CPUs this process may use, or `COREPRESS_NUM_THREADS`.
    progress : callable, optional
        Called with the number of samples that are done, and of all, None where that is not known.

    Returns
    -------
    Comparison
        One record per constant that both packages have, and totals; with predictions, a record per output.

    Raises
    ------
    FormatError
        If a package is damaged.
    ValueError
        If the samples do not fit the models.
    UnsupportedOperationError
        If a model cannot be run and `inputs` are given; without, `Comparison.note` says so.
    MissingExtraError
        If what runs the models is not installed.
    """
    measured = _Run(
        "compare",
        (first, second),
        predictions=predictions,
        samples=inputs,
        draw=draw,
        metric=metric,
        layers=layers,
        progress=progress,
        loading=(function_name, precision, backend, device),
    )
    if is_asset(first) and is_asset(second):
        return measured.added_to(compare_asset_weights(first, second, num_threads=num_threads))
    if is_asset(first) or is_asset(second):
        return measured.added_to(_sizes(first, second))
    return measured.added_to(compare_package_weights(first, second, num_threads=num_threads))


def _sizes(first: StrPath, second: StrPath) -> Comparison:
    """A comparison of what two models occupy on disk, of which one is an asset."""
    ours, theirs = ((Asset.open(path) if is_asset(path) else Package.open(path)).size for path in (first, second))
    return Comparison(os.fspath(first), os.fspath(second), (), (), (), ours, theirs, None, 0.0)


def compare_models(
    full_precision_model: Any,
    quantized_model: Any,
    sample_data: Any = None,
    *,
    predictions: bool = False,
    draw: int = 4,
    metric: MetricLike | None = None,
    layers: bool = False,
    precision: str = "float16",
    backend: str = "auto",
    device: str = "cpu",
    num_threads: int | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Report how far apart two neural networks are.

    Parameters
    ----------
    full_precision_model, quantized_model : path-like, spec or MLModel
        The models; distances are relative to the first.
    sample_data : path-like, dict, or iterable of dict or of list of dict, optional
        Samples to run both models on, as for `corepress.coreml.compare`.
    predictions, draw, metric, layers, precision, backend, device, num_threads, progress
        As for `corepress.coreml.compare`.

    Returns
    -------
    Comparison
        One record per weight that both models have; in `outputs`, for each output, signal-to-noise ratios and the
        agreement of the best classes.

    Raises
    ------
    TypeError
        If the samples are of no such kind.
    ValueError
        If a model holds no neural network, or the samples do not fit.
    FormatError
        If a model is damaged.
    UnsupportedOperationError
        If a model cannot be run and `sample_data` is given; without, `Comparison.note` says so.
    MissingExtraError
        If what runs the models is not installed.
    """
    measured = _Run(
        "compare_models",
        (full_precision_model, quantized_model),
        predictions=predictions,
        samples=sample_data,
        draw=draw,
        metric=metric,
        layers=layers,
        progress=progress,
        loading=(None, precision, backend, device),
        always_as_network=True,
    )
    return measured.added_to(compare_network_weights(full_precision_model, quantized_model, num_threads=num_threads))


class _Run:
    """Both models, loaded and ready to be run on samples; nothing if no predictions are wanted."""

    def __init__(
        self,
        function: str,
        paths: tuple[Any, Any],
        *,
        predictions: bool,
        samples: Any,
        draw: int,
        metric: MetricLike | None,
        layers: bool,
        progress: Progress | None,
        loading: tuple[str | None, str, str, str],
        always_as_network: bool = False,
    ) -> None:
        self._started = time.perf_counter()
        self._function, self._layers, self._progress = function, layers, progress
        self._metric = None if metric is None else Metric.of(function, metric)
        self._always_as_network = always_as_network
        self._models: tuple[Model, Model] | None = None
        self._note: str | None = None
        self._drawn = 0
        if not (predictions or layers or metric is not None or samples is not None):
            return
        try:
            are_assets = [isinstance(path, str | os.PathLike) and is_asset(path) for path in paths]
            # What a package is run with does not apply to an asset that it is compared with.
            options = [loading[:1] if each and not all(are_assets) else loading for each in are_assets]
            first = load(paths[0], *options[0])
            self._models = first, load(paths[1], *options[1])
            pairs = zip(paths, self._models, strict=True)
            self._names = [os.fspath(p) if isinstance(p, str | os.PathLike) else model.name for p, model in pairs]
        except UnsupportedOperationError as error:
            if samples is not None:
                raise
            self._note = f"no predictions were made: {str(error).removeprefix('load: ')}"
            return
        if samples is None:
            self._drawn = draw
            samples = list(_drawn(function, first, draw))
        self._samples = Samples(function, samples, first.description)

    def added_to(self, comparison: Comparison) -> Comparison:
        """The comparison of the weights, with that of the outputs."""
        found: dict[str, Any] = {"note": self._note}
        if self._models is not None:
            found = self._measure(self._models)
        return dataclasses.replace(comparison, **found, seconds=time.perf_counter() - self._started)

    def _measure(self, models: tuple[Model, Model]) -> dict[str, Any]:
        tally = OutputTally(always_as_network=self._always_as_network)
        metric = self._metric
        comparing = Comparing(metric) if metric is not None and metric.compares else None
        seen: tuple[list[Any], list[Any], list[Any]] = [], [], []
        layers = LayerTally()
        names = _corresponding(models) if self._layers else None
        for index, sample in enumerate(self._samples):
            if self._progress is not None:
                self._progress(index, self._samples.total)
            states = [model.make_state() if model.states else None for model in models]
            others = [model.make_state() if model.states else None for model in models]
            for step in steps_of(sample):
                inputs = self._samples.inputs_of(step)
                runs = zip(self._names, models, states, strict=True)
                first, second = (_predict(name, model, inputs, state) for name, model, state in runs)
                tally.add(first, second)
                if comparing is not None:
                    comparing.add(first, second)
                elif metric is not None:
                    for kept, value in zip(seen, (step, first, second), strict=True):
                        kept.append(value)
                if self._layers:
                    ours, theirs = (model.values(inputs, state) for model, state in zip(models, others, strict=True))
                    layers.add(ours, theirs if names is None else _renamed(theirs, names))
        if self._progress is not None:
            self._progress(index + 1, index + 1)
        scores: Sequence[float] = ()
        if comparing is not None:
            scores = (comparing.value,)
        elif metric is not None:
            scores = [metric.score(seen[0], outputs) for outputs in seen[1:]]
        return {
            "outputs": tally.records,
            "backend": " and ".join(dict.fromkeys(model.backend for model in models)),
            "precision": models[0].precision,
            "drawn": self._drawn,
            "metric": None if metric is None else metric.name,
            "scores": tuple(scores),
            "layers": layers.records,
            "unmatched_layers": layers.unmatched,
        }


def _predict(name: str, model: Model, inputs: dict[str, Any], state: Any) -> dict[str, Any]:
    """Run a model; an error says which one it was."""
    try:
        return model.predict(inputs, state)
    except ValueError as error:
        raise ValueError(f"{name}: {str(error).removeprefix('predict: ')}") from error


def _corresponding(models: tuple[Model, Model]) -> dict[str, str] | None:
    """By the names that the second of two assets gives to its results, those of the first; None for other models."""
    first, second = (model.runner for model in models)
    if isinstance(first, CoreAIBackend) and isinstance(second, CoreAIBackend):
        return corresponding(first.activations, second.activations)
    return None


def _renamed(values: Iterator[tuple[str, Any]], names: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    return ((names.get(name, f"second: {name}"), value) for name, value in values)


def _drawn(function: str, model: Model, count: int) -> Iterator[dict[str, Any]]:
    if count < 1:
        raise ValueError(f"{function}: draw is {count}, but must be at least 1")
    return draw(function, model.description, count)


class LayerTally:
    """Adds up how far apart intermediate results of two models are, matched by their names.

    Both models are run side by side, so that of the results only those are held whose counterpart is not computed yet.
    """

    def __init__(self) -> None:
        self._distances: dict[str, Distance] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._names: list[str] = []
        self._unmatched: set[str] | None = None

    def add(self, first: Iterator[tuple[str, Any]], second: Iterator[tuple[str, Any]]) -> None:
        """Add the results for a sample."""
        ours: dict[str, list[Any]] = {}
        theirs: dict[str, list[Any]] = {}
        left, right = _arrays(first), _arrays(second)
        sides = [(left, ours, theirs), (right, theirs, ours)]
        while sides:
            for side in list(sides):
                results, own, other = side
                name, value = next(results, (None, None))
                if name is None:
                    sides.remove(side)
                    continue
                if own is ours and self._unmatched is None:
                    self._names.append(name)
                if self._unmatched is not None and name in self._unmatched:
                    continue
                waiting = other.get(name)
                if waiting:
                    self._compare(name, *((value, waiting.pop(0)) if own is ours else (waiting.pop(0), value)))
                else:
                    own.setdefault(name, []).append(value)
        if self._unmatched is None:
            self._unmatched = {name for held in (ours, theirs) for name, values in held.items() if values}

    def _compare(self, name: str, expected: Any, actual: Any) -> None:
        self._shapes.setdefault(name, expected.shape)
        self._distances.setdefault(name, Distance()).add(expected, actual)

    @property
    def records(self) -> tuple[ComparedValue, ...]:
        """One record for each result that both models have, in the first's order."""
        order = dict.fromkeys(self._names)
        found = ((name, self._distances[name]) for name in order if name in self._distances)
        return tuple(
            ComparedValue(name, self._shapes[name], each.snr_db, each.cosine, each.max_abs) for name, each in found
        )

    @property
    def unmatched(self) -> int:
        """Number of results that only one of them has."""
        return len((self._unmatched or set()) - self._distances.keys())


def _arrays(values: Iterator[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    return ((name, value) for name, value in values if isinstance(value, np.ndarray) and value.dtype.kind in "fiub")
