"""One calibration of a Core AI asset: its function run on samples, for second moments, ranges and sensitivities."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from importlib.metadata import version
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config.candidates import Steps
from ..coreai.program.identity import stored_digest
from ..coreai.program.program import Program
from ..coreai.program.weights import Weight
from ..runtime.coreai_activations import Activation, Place
from ..runtime.coreai_backend import CoreAIBackend
from .activation_ranges import ActivationRange
from .array_observer import ArrayObserver
from .asset_differences import MOST_SAMPLES, Differences, TooSlowError
from .asset_uses import AssetUse, AssetUses, distinct_sources
from .block_sums import (
    BLOCK_COLUMNS,
    BLOCK_COLUMNS_OF_LARGE,
    LARGE,
    VECTORS,
    VECTORS_OF_COLUMN,
    BlockSums,
    within,
)
from .known_weight import KnownWeight, Moments
from .progress import Work
from .samples import DividedSamples
from .statistics import Sensitivity, Statistics, WeightStatistics
from .unfinished import Unfinished

_RANGE, _SENSITIVITIES = "range", "sensitivities"
_DTYPES = ("float16", "bfloat16", "float32")


@dataclass(kw_only=True)
class _Known(KnownWeight):
    """A weight of an asset, and the operations that use it."""

    weight: Weight
    uses: list[AssetUse]

    @property
    def observed(self) -> list[AssetUse]:
        """The uses that there are vectors of, or only numbers of look-ups."""
        kinds = [use for use in self.uses if use.view is not None]
        return kinds if self.view is not None else [use for use in self.uses if use.kind == "lookup"]


class AssetCalibration:
    """An asset, its samples, and the weights to look at.

    Parameters
    ----------
    program : Program
        The program.
    backend : CoreAIBackend
        A function of it, ready to run.
    samples : DividedSamples
        The samples.
    block_columns_limit : int or None
        Largest block of second moments, in columns; None for the default.
    memory_limit : int
        Bytes for second moments.
    weight_threshold : int
        Weights of this many elements or fewer are left out.
    candidates : sequence of tuple of Spec
        The candidates to measure.
    most_seconds : float or None
        For sensitivities: they are left out where they would take longer; None for as long as it takes.
    num_threads : int
        Threads for making candidates.
    work : Work
        Counts what is done.
    """

    def __init__(
        self,
        program: Program,
        backend: CoreAIBackend,
        samples: DividedSamples,
        *,
        block_columns_limit: int | None,
        memory_limit: int,
        weight_threshold: int,
        candidates: Sequence[Steps],
        most_seconds: float | None,
        num_threads: int,
        work: Work,
    ) -> None:
        self._program, self._candidates = program, candidates
        self._most_seconds, self._threads = most_seconds, num_threads
        self._backend, self._samples, self._work = backend, samples, work
        self._memory_limit = memory_limit
        self._named = {each.place: each.name for each in backend.activations}
        uses = AssetUses(program, backend.function_name)
        chosen = [each for each in program.weights if _is_candidate(each, weight_threshold)]
        is_large = sum(each.size for each in chosen) > LARGE
        most = block_columns_limit or (BLOCK_COLUMNS_OF_LARGE if is_large else BLOCK_COLUMNS)
        self._weights = [
            _Known(name=each.name, shape=each.shape, digest=stored_digest(each), weight=each, uses=uses.of(each))
            for each in chosen
        ]
        self._shapes = uses.shapes
        for each in self._weights:
            _settle(each, backend.function_name, most)
        self._ranges: dict[str, ActivationRange] = {}

    @property
    def digests(self) -> dict[str, str]:
        """The digest of each weight, by name."""
        return {each.name: each.digest for each in self._weights}

    def run(self, unfinished: Unfinished) -> Statistics:
        """Do it; each part is kept once it is finished."""
        groups = within(
            [each for each in self._weights if each.observed], self._memory_limit, lambda each: each.moment_bytes
        )
        fit_count = self._samples.fitted_count
        self._work.total = len(groups) * fit_count
        self._work.begin("second moments")
        moments: Moments = {}
        for number, group in enumerate(groups):
            name = f"moments-{number:04}"
            kept = unfinished.read(name)
            if kept is None:
                self._sum_up(name, group, unfinished)
                kept = unfinished.read(name)
                assert kept is not None
            else:
                self._work.add(fit_count, skipped=True)
            arrays, counts = kept
            moments |= {key: (arrays.get(f"hessian/{key}"), count) for key, count in counts.items()}
            self._ranges |= _ranges(arrays)
        notes = []
        if not self._samples.kept_count:
            notes.append(f"only {self._samples.count} samples, of which none is kept for choices; give at least 4")
        weights = {each.name: each.statistics(moments) for each in self._weights}
        if self._candidates:
            measured, more = self._sensitivities(weights, unfinished)
            notes += more
            weights |= {name: replace(weights[name], sensitivities=found) for name, found in measured.items()}
        return Statistics(
            weights=weights,
            function_name=self._backend.function_name,
            library=f"coreai-core {version('coreai-core')} on cpu ({platform.machine()})",
            sample_count=self._samples.count,
            kept=self._samples.kept,
            ranges={name: each.to_arrays() for name, each in self._ranges.items()},
            notes=tuple(notes),
        )

    def _sensitivities(
        self, weights: Mapping[str, WeightStatistics], unfinished: Unfinished
    ) -> tuple[dict[str, dict[str, Sensitivity]], list[str]]:
        """The sensitivities of each weight, and what a user should know of them."""
        kept = unfinished.read(_SENSITIVITIES)
        if kept is not None:
            return {name: _sensitivities_in(each) for name, each in kept[1]["weights"].items()}, kept[1]["notes"]
        self._work.begin("sensitivities")
        samples = self._samples.judging(MOST_SAMPLES)
        differences = Differences(self._program, self._backend, samples, self._candidates, self._threads, self._work)
        notes, found = [], dict[str, dict[str, Sensitivity]]()
        if not differences.can_judge:
            notes.append("no output is a floating-point number, so that sensitivities could not be measured")
        else:
            used = [each.weight for each in self._weights if each.uses and each.weight.obstacle is None]
            moments = {name: (each.hessian, each.view) for name, each in weights.items()}
            try:
                found.update(differences.measure(used, moments, self._most_seconds))
            except TooSlowError as time:
                found = {}
                notes.append(
                    f"no sensitivities: to run the asset with each weight changed would take {time}; name candidates "
                    "to do it all the same"
                )
            else:
                notes.append(
                    "sensitivities: of each weight one candidate was run; those of the others are in proportion to "
                    "errors at the layer's own outputs"
                )
        document = {name: {key: astuple(one) for key, one in each.items()} for name, each in found.items()}
        unfinished.write(_SENSITIVITIES, {}, {"weights": document, "notes": notes})
        return found, notes

    def _sum_up(self, name: str, group: Sequence[_Known], unfinished: Unfinished) -> None:
        fit_count = self._samples.fitted_count
        sums = {each.name: BlockSums(*each.blocks) for each in group if each.view is not None}
        counts = {each.name: 0 for each in group}
        observers: dict[Place | str, list[Any]] = {}
        for each in group:
            for use in each.observed:
                assert use.source is not None or each.view is None
                if use.source is not None:
                    observers.setdefault(use.source, []).append(self._observer(each, use, sums, counts, fit_count))
        ranges = {
            source: self._named.get(source, "") if isinstance(source, tuple) else source
            for source in distinct_sources(
                use for each in group for use in each.observed if use.view is not None and use.source != use.chosen
            )
        }
        found = {value: ActivationRange() for value in ranges.values() if value and value not in self._ranges}

        def observe(source: Place | str, values: Mapping[Place | str, NDArray[Any]]) -> None:
            for observer in observers[source]:
                observer(values)
            value = values[source]
            known = found.get(ranges.get(source, ""))
            if known is not None and value.size and value.dtype.kind == "f":
                known.add(value)

        beside: dict[Any, set[Any]] = {}
        for each in group:
            for use in each.observed:
                if use.kind == "experts" and use.chosen != use.source:
                    beside.setdefault(use.source, set()).add(use.chosen)
        self._observe(list(observers), beside, observe)
        arrays: dict[str, NDArray[Any]] = {}
        for key in list(sums):
            sum_of_one = sums.pop(key)  # so that sums and means are not all in memory
            counts[key] = sum_of_one.count
            if sum_of_one.count and sum_of_one.is_finite:
                arrays[f"hessian/{key}"] = sum_of_one.mean()
        for value, each_range in found.items():
            arrays |= {f"{_RANGE}/{what}/{value}": array for what, array in each_range.to_arrays().items()}
        unfinished.write(name, arrays, counts)

    def _observer(
        self, known: _Known, use: AssetUse, sums: dict[str, BlockSums], counts: dict[str, int], fit_count: int
    ) -> Any:
        if known.view is None:

            def count(values: Mapping[Place | str, NDArray[Any]]) -> None:
                assert use.source is not None
                counts[known.name] += prod(values[use.source].shape[:-1])

            return count
        most = max(VECTORS, -(-VECTORS_OF_COLUMN * known.size // fit_count))
        return ArrayObserver(use, sums[known.name], most)

    def _observe(self, sources: list[Place | str], beside: Mapping[Any, set[Any]], observe: Any) -> None:
        """Run the function on all samples that second moments are taken from, and show the values of sources.

        What else is to be seen at a source is among the values of the same run.
        """
        names = [source for source in sources if isinstance(source, str)]
        wanted = {source for source in sources if not isinstance(source, str)}
        activations = [Activation(place, "", "", "float32", self._shapes[place], False) for place in sorted(wanted)]
        groups: list[list[Activation]] | None = None
        parts = 1
        part = 0
        while part < parts:
            for steps in self._samples.fitted():
                state = self._backend.make_state()
                for step in steps:
                    inputs = self._backend.description.arguments("calibrate", step)
                    if groups is None:
                        groups = self._backend.groups(activations, inputs)
                        parts = max(1, len(groups))
                    values: dict[Place | str, NDArray[Any]]
                    values = {name: np.asarray(value) for name, value in inputs.items()}
                    if groups:
                        places = _places_of(groups[part], beside)
                        values |= zip(places, self._backend.tapped(places, inputs, state), strict=True)
                    if part == 0:
                        for name in names:
                            observe(name, values)
                    if groups:
                        for each in groups[part]:
                            observe(each.place, values)
                if part == 0:
                    self._work.add(1)
            if groups:
                self._backend.forget(_places_of(groups[part], beside))
            part += 1


def _places_of(activations: Sequence[Activation], beside: Mapping[Any, set[Any]]) -> list[Place]:
    """The places of activations, and of what else is to be seen at them."""
    places = [each.place for each in activations]
    others = [other for place in places for other in sorted(beside.get(place, ()), key=str) if isinstance(other, tuple)]
    return list(dict.fromkeys((*places, *others)))


def _is_candidate(weight: Weight, threshold: int) -> bool:
    """Whether compression would look at a weight."""
    return weight.dtype in _DTYPES and len(weight.shape) >= 2 and weight.size > threshold


def _settle(known: _Known, function: str, most: int) -> None:
    """Find how a weight is read; look-ups of rows need no moments if there are products."""
    if not known.uses:
        known.reason = f"function {function} does not use it"
        return
    products = [use for use in known.uses if use.kind != "lookup"]
    if known.weight.obstacle is not None:
        known.reason = f"it {known.weight.obstacle}"
    elif not products:
        known.reason = known.uses[0].reason
    else:
        known.settle(products, most)


def _sensitivities_in(found: Mapping[str, Sequence[Any]]) -> dict[str, Sensitivity]:
    return {key: Sensitivity(*values) for key, values in found.items()}


def _ranges(arrays: Any) -> dict[str, ActivationRange]:
    """The ranges among the arrays of a part."""
    found: dict[str, dict[str, NDArray[Any]]] = {}
    for key in arrays:
        if key.startswith(f"{_RANGE}/"):
            _, what, name = key.split("/", 2)
            found.setdefault(name, {})[what] = np.array(arrays[key])
    return {name: ActivationRange.from_arrays(each, name) for name, each in found.items()}
