"""What an allocation makes small: errors of the weights, or with calibration errors of the outputs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

import numpy as np

from ..compression.error_feedback import output_error
from ..config.candidates import candidate_of
from ..engine.resolution import resolve_all
from ..errors import Skip
from ..specs import Spec
from .curves import Stored, relative_error
from .made import made
from .options import FreeWeight, Option


class Sensitivity(Protocol):
    """How much the outputs change with a candidate: the mean of squared changes."""

    mean: float


class WeightErrors:
    """Sums of squared errors over the weight's own sum of squares: the same loss of any weight counts the same.

    Without data there is no better measure that is as cheap: plain squared errors would give the bits to the weights
    with the largest values, whatever follows them.
    """

    measure = "weights"

    def errors(
        self, free: FreeWeight, options: Sequence[Option], relative: Sequence[float], stored: Stored, num_threads: int
    ) -> tuple[float, ...]:
        """The error of each option; see `curves.ErrorModel`."""
        return tuple(relative)


class OutputErrors:
    """Squared changes of the outputs, as calibration measured them.

    Parameters
    ----------
    statistics : Statistics
        What `calibrate` returned.

    Notes
    -----
    A candidate that was not measured has the error of the measured one that loses most nearly as much, times the ratio
    of the errors of both at the layer's own outputs; where second moments are missing, of what both lose of the weight.
    """

    measure = "outputs"

    def __init__(self, statistics: Any) -> None:
        self._weights = statistics.weights

    def errors(
        self, free: FreeWeight, options: Sequence[Option], relative: Sequence[float], stored: Stored, num_threads: int
    ) -> tuple[float, ...] | None:
        """The error of each option; None for weights that no sample reached. See `curves.ErrorModel`."""
        known = self._weights.get(free.key)
        if known is None or known.shape != free.weight.shape or not known.reached:
            return None
        measured: Mapping[str, Sensitivity] = known.sensitivities
        if not measured:
            return None
        references = self._references(free, measured, options, relative, stored, num_threads)
        return tuple(
            self._error(option, loss, known, references, stored, num_threads) if option.steps else 0.0
            for option, loss in zip(options, relative, strict=True)
        )

    def _references(
        self,
        free: FreeWeight,
        measured: Mapping[str, Sensitivity],
        options: Sequence[Option],
        relative: Sequence[float],
        stored: Stored,
        num_threads: int,
    ) -> list[_Reference]:
        """The measured candidates, if there are options that were not measured."""
        if all(option.key in measured or not option.steps for option in options):
            return []
        losses = {option.key: loss for option, loss in zip(options, relative, strict=True)}
        found = []
        for key, sensitivity in measured.items():
            with suppress(Skip, ValueError):
                steps = resolve_all(candidate_of(key), free.weight)
                loss = losses.get(key)
                if loss is None:
                    loss = relative_error(stored, steps, num_threads)
                if loss > 0:
                    found.append(_Reference(steps, loss, max(0.0, float(sensitivity.mean))))
        return found

    def _error(
        self,
        option: Option,
        loss: float,
        known: Any,
        references: Sequence[_Reference],
        stored: Stored,
        num_threads: int,
    ) -> float:
        if option.key in known.sensitivities:
            return max(0.0, float(known.sensitivities[option.key].mean))
        if not references or loss == 0:
            return 0.0 if loss == 0 else math.nan
        nearest = min(references, key=lambda reference: abs(math.log(reference.loss / loss)))
        ratio = loss / nearest.loss
        if known.hessian is not None and isinstance(stored, np.ndarray):
            ours, theirs = (
                output_error(stored, tensor, known.hessian, known.view)
                for tensor in made(stored, (option.steps, nearest.steps), known, num_threads)
            )
            ratio = ours / theirs if theirs > 0 else ratio
        return nearest.error * ratio


class _Reference(NamedTuple):
    """A measured candidate: its steps, what it loses of the weight, and the error of the outputs."""

    steps: tuple[Spec, ...]
    loss: float
    error: float
