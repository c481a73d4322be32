"""What an allocation makes small: errors of the weights, or with calibration errors of the outputs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ..config.candidates import candidate_key, candidate_of
from ..coreml.resolution import resolve_all
from ..errors import Skip
from .curves import Stored, relative_error
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
    of what both lose of the weight.
    """

    measure = "outputs"

    def __init__(self, statistics: Any) -> None:
        self._weights = statistics.weights

    def errors(
        self, free: FreeWeight, options: Sequence[Option], relative: Sequence[float], stored: Stored, num_threads: int
    ) -> tuple[float, ...] | None:
        """The error of each option; None for weights that no sample reached. See `curves.ErrorModel`."""
        known = self._weights.get(free.key)
        if known is None or known.shape != free.weight.first.shape or not known.reached:
            return None
        measured: Mapping[str, Sensitivity] = known.sensitivities
        if not measured:
            return None
        losses = {option.key: loss for option, loss in zip(options, relative, strict=True)}
        references = self._references(free, measured, losses, stored, num_threads)
        return tuple(
            0.0 if not option.steps else _error(option.key, loss, measured, references)
            for option, loss in zip(options, relative, strict=True)
        )

    def _references(
        self,
        free: FreeWeight,
        measured: Mapping[str, Sensitivity],
        losses: Mapping[str, float],
        stored: Stored,
        num_threads: int,
    ) -> list[tuple[float, float]]:
        """Loss and error of the measured candidates, if there are options that were not measured."""
        if all(key in measured or key == candidate_key(()) for key in losses):
            return []
        found = []
        for key, sensitivity in measured.items():
            loss = losses.get(key)
            if loss is None:
                try:
                    steps = resolve_all(candidate_of(key), free.weight)
                    loss = relative_error(stored, steps, free.weight.first.version, num_threads)
                except (Skip, ValueError):
                    continue
            if loss > 0:
                found.append((loss, float(sensitivity.mean)))
        return found


def _error(
    key: str, loss: float, measured: Mapping[str, Sensitivity], references: Sequence[tuple[float, float]]
) -> float:
    if key in measured:
        return max(0.0, float(measured[key].mean))
    if not references or loss == 0:
        return 0.0 if loss == 0 else math.nan
    nearest, error = min(references, key=lambda reference: abs(math.log(reference[0] / loss)))
    return max(0.0, error) * loss / nearest
