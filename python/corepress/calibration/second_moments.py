"""Second moments of what weights are multiplied with, and ranges of activations, of samples that are run forward."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..coreml.program.graph import Operation
from ..runtime.torch.schedule import Step, Values
from .activation_observer import RangeObserver
from .block_sums import VECTORS, VECTORS_OF_COLUMN
from .known_weight import Moments as FoundMoments
from .model_runs import ModelRuns
from .moments import Moments
from .observers import InputObserver, Options
from .package_weights import PackageWeight
from .progress import Work
from .samples import DividedSamples
from .unfinished import Checkpoints, Unfinished


class SecondMoments:
    """The samples that second moments are taken from, each run once for a group of weights.

    Parameters
    ----------
    model : ModelRuns
        The model.
    samples : DividedSamples
        The samples.
    options : Options
        Those of the model's operations.
    work : Work
        Counts what is done.
    unfinished : Unfinished
        What an interrupted calibration left, and where this one keeps what is finished.
    """

    def __init__(
        self, model: ModelRuns, samples: DividedSamples, options: Options, work: Work, unfinished: Unfinished
    ) -> None:
        self._model, self._samples, self._options = model, samples, options
        self._work, self._unfinished = work, unfinished

    def of(self, name: str, group: Sequence[PackageWeight], ranges: RangeObserver | None) -> FoundMoments:
        """Those of some weights, kept under a name; with `ranges` also the ranges."""
        kept = self._unfinished.read(name)
        if kept is None:
            self._sum_up(name, group, ranges)
            kept = self._unfinished.read(name)
            assert kept is not None
        else:
            self._work.add(self._samples.fitted_count, skipped=True)
        arrays, counts = kept
        if ranges is not None:
            ranges.restore(arrays)
        return {key: (arrays.get(key), count) for key, count in counts.items()}

    def _sum_up(self, name: str, group: Sequence[PackageWeight], ranges: RangeObserver | None) -> None:
        fitted_count = self._samples.fitted_count
        sums = {each.name: Moments(*each.blocks) for each in group}
        observers: dict[Operation, list[InputObserver]] = defaultdict(list)
        for each in group:
            most = max(VECTORS, -(-VECTORS_OF_COLUMN * each.size // fitted_count))
            for use in each.uses:
                observers[use.operation].append(InputObserver(use, sums[each.name], most, self._options))

        def observe(step: Step, values: Values) -> None:
            for observer in observers.get(step.operation, ()):
                observer(step, values)
            if ranges is not None:
                ranges(step, values)

        self._work.begin("second moments")
        checkpoint = f"{name}-begun"
        done = self._continue(checkpoint, sums, ranges) if self._unfinished.folder is not None else 0
        self._work.add(done, skipped=True)
        due = Checkpoints(self._unfinished)
        begin = None if ranges is None else ranges.begin_run
        for number, steps in enumerate(self._samples.fitted()):
            if number < done:
                continue
            with torch.no_grad():
                for _ in self._model.forward(steps, observe, begin):
                    pass
            done = number + 1
            self._work.add(1)
            with due.now() as is_due:
                if is_due and done < fitted_count:
                    self._write_begun(checkpoint, sums, done, ranges)
        arrays, counts = {}, {key: each.count for key, each in sums.items()}
        for key in counts:
            found = sums.pop(key)  # so that sums and means are not all in memory
            if found.count and found.is_finite:
                arrays[key] = found.mean()
        if ranges is not None:
            arrays |= ranges.state()
        self._unfinished.write(name, arrays, counts)
        self._unfinished.forget(checkpoint)

    def _write_begun(self, name: str, sums: dict[str, Moments], done: int, ranges: RangeObserver | None) -> None:
        arrays: dict[str, NDArray[Any]]
        arrays = {f"{key}/{part}": array for key, each in sums.items() for part, array in each.state().items()}
        if ranges is not None:
            arrays |= ranges.state()
        document = {"done": done, "counts": {key: each.count for key, each in sums.items()}}
        self._unfinished.write(name, arrays, document)

    def _continue(self, name: str, sums: dict[str, Moments], ranges: RangeObserver | None) -> int:
        """Take up what an interrupted run had summed up, and return how many samples that are."""
        kept = self._unfinished.read(name)
        if kept is None:
            return 0
        arrays, document = kept
        for key, each in sums.items():
            parts = (*each.state(), *Moments.WAITING)
            state = {part: np.asarray(arrays[f"{key}/{part}"]) for part in parts if f"{key}/{part}" in arrays}
            each.restore(state, document["counts"][key])
        if ranges is not None:
            ranges.restore(arrays)
        return int(document["done"])
