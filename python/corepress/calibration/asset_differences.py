"""How much the outputs of a Core AI asset change with a candidate of a weight: by running it with and without.

Core AI has no gradients. Each weight takes a copy of the asset that is made ready to run, so only one candidate of each
is run; the others are in proportion to the errors that they make at the layer's own outputs.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..compression.error_feedback import output_error
from ..compression.matrix_view import MatrixView
from ..config.candidates import Steps
from ..coreai.operations import UnsupportedForm
from ..coreai.program.program import Program
from ..coreai.program.weights import Weight
from ..engine.calibrated import feedback_data
from ..runtime.coreai_asset import CoreAIAsset
from ..runtime.coreai_backend import CoreAIBackend
from ..runtime.samples import Sample
from .progress import Work
from .references import Reference, references_of
from .statistics import Sensitivity

MOST_SAMPLES = 8

Moments = Mapping[str, tuple[NDArray[np.float32] | None, MatrixView | None]]
Outputs = list[dict[str, NDArray[np.float64]]]  # of the runs of a sample


class TooSlowError(Exception):
    """The differences of all weights would take too long; the message says how long."""


class Differences:
    """Measures how much outputs change, weight by weight.

    Parameters
    ----------
    program : Program
        The program; it is edited, and as before in the end.
    backend : CoreAIBackend
        The function, ready to run.
    samples : iterable of list of dict
        The samples to judge by, each as the inputs of its runs.
    candidates : sequence of tuple of Spec
        The candidates.
    num_threads : int
        Threads for making candidates.
    work : Work
        Counts what is done.
    """

    def __init__(
        self,
        program: Program,
        backend: CoreAIBackend,
        samples: Iterable[list[Sample]],
        candidates: Sequence[Steps],
        num_threads: int,
        work: Work,
    ) -> None:
        self._program, self._function = program, backend.function_name
        self._candidates, self._threads, self._work = candidates, num_threads, work
        self._samples = list(samples)
        self._expected = self._outputs(backend)
        self._powers = _powers(self._expected)

    @property
    def can_judge(self) -> bool:
        """Whether there is an output of floating-point numbers that are not all zero."""
        return bool(self._powers)

    def measure(
        self, weights: Sequence[Weight], moments: Moments, most_seconds: float | None
    ) -> Iterable[tuple[str, dict[str, Sensitivity]]]:
        """The sensitivities of weights, one after another, by name.

        Parameters
        ----------
        weights : sequence of Weight
            The weights.
        moments : mapping of str to (numpy.ndarray or None, MatrixView or None)
            What is known of their inputs.
        most_seconds : float or None
            For all of them; None for as long as it takes.

        Raises
        ------
        TooSlowError
            After the first one, if all would take longer than that.
        """
        for number, weight in enumerate(weights):
            started = time.perf_counter()
            yield weight.name, self._of(weight, *moments.get(weight.name, (None, None)))
            seconds = (time.perf_counter() - started) * len(weights)
            if number == 0 and most_seconds is not None and seconds > most_seconds:
                raise TooSlowError(f"{seconds / 60:.0f} minutes")

    def _of(self, weight: Weight, hessian: Any, view: MatrixView | None) -> dict[str, Sensitivity]:
        try:
            stored = weight.read()
        except UnsupportedForm:
            return {}
        if not isinstance(stored, np.ndarray) or not np.isfinite(stored).all():
            return {}
        data = feedback_data(hessian, view)
        references = references_of(weight, stored, self._candidates, data, self._threads)
        errors = {key: _layer_error(each, hessian, view, self._threads) for key, each in references.items()}
        lossy = sorted((key for key, error in errors.items() if error > 0), key=lambda key: errors[key])
        found = {key: Sensitivity(0.0, 0.0, len(self._samples)) for key in references}
        if lossy:
            middle = lossy[len(lossy) // 2]
            measured = Sensitivity.of(self._changes(weight, references[middle]))
            for key in lossy:
                ratio = errors[key] / errors[middle]
                found[key] = Sensitivity(measured.mean * ratio, measured.standard_error * ratio, measured.gradients)
        return found

    def _changes(self, weight: Weight, reference: Reference) -> list[float]:
        """The power of the change of the outputs over their own power, for each sample."""
        original = weight.node
        weight.replace(reference.tensor.dense(num_threads=self._threads))
        try:
            with tempfile.TemporaryDirectory(prefix="corepress-") as folder:
                copy = Path(folder) / "candidate.aimodel"
                self._program.write_asset(copy)
                outputs = self._outputs(CoreAIBackend(CoreAIAsset(copy, "calibrate"), self._function))
        finally:
            weight.store(original)
        self._work.add(len(self._samples))
        return [
            sum(
                float(np.square(ours[name] - theirs[name]).sum()) / power
                for ours, theirs in zip(expected, found, strict=True)
                for name, power in self._powers.items()
            )
            for expected, found in zip(self._expected, outputs, strict=True)
        ]

    def _outputs(self, backend: CoreAIBackend) -> list[Outputs]:
        found = []
        for steps in self._samples:
            state = backend.make_state()
            found.append(
                [
                    {
                        name: np.asarray(value, np.float64)
                        for name, value in backend.predict(
                            backend.description.arguments("calibrate", step), state
                        ).items()
                        if _is_float(value)
                    }
                    for step in steps
                ]
            )
        return found


def _powers(outputs: Sequence[Outputs]) -> dict[str, float]:
    """The mean power of each output in a sample, of those that have any."""
    sums: dict[str, float] = {}
    for runs in outputs:
        for run in runs:
            for name, value in run.items():
                sums[name] = sums.get(name, 0.0) + float(np.square(value).sum())
    return {name: total / len(outputs) for name, total in sums.items() if 0 < total < np.inf}


def _is_float(value: Any) -> bool:
    dtype = np.asarray(value).dtype
    return dtype.kind == "f" or dtype.name == "bfloat16"


def _layer_error(reference: Reference, hessian: Any, view: MatrixView | None, num_threads: int) -> float:
    """The squared error at the layer's own outputs; that of the weight where its inputs are not known."""
    if hessian is not None and view is not None:
        return float(output_error(reference.stored, reference.tensor, hessian, view))
    return float(np.square(reference.error(num_threads), dtype=np.float64).sum())
