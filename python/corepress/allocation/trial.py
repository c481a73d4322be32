"""Which recipe is best on samples, among those that predictions and uniform bits suggest."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from ..engine.opened import OpenedModel
from ..paths import StrPath
from ..tensors import CompressedTensor
from .check import check
from .curves import Curve
from .search import Recipe, Result, Search

# Predictions are those of small changes. Where a weight loses this part of its power, they are doubled in one of the
# alternatives; with 2 bits, which lose three times as much, the error is up to six times as large as predicted.
_LARGE_LOSS = 0.05
_LARGE = 50_000_000  # weights, from which on alternatives are not tried: each takes as long as compressing the model
_MOST_TRIES = 3  # to reach a signal-to-noise ratio that is measured


class Trial:
    """Runs recipes on the samples that calibration kept.

    Parameters
    ----------
    src : path-like
        The model.
    opened : OpenedModel
        The same, opened.
    statistics : Statistics
        What calibration found.
    search : Search
        The problem.
    curves : sequence of Curve or None
        The weights' curves.
    num_threads : int
        Threads for making weights.

    Attributes
    ----------
    tensors : dict of (int, str) to CompressedTensor
        The weights that were made, by their numbers and the options' keys.
    """

    def __init__(
        self,
        src: StrPath,
        opened: OpenedModel,
        statistics: Any,
        search: Search,
        curves: Sequence[Curve | None],
        num_threads: int,
    ) -> None:
        self._src, self._opened, self._statistics, self._threads = src, opened, statistics, num_threads
        self._search, self._curves = search, curves
        self._is_large = sum(each.size for each in search.free) > _LARGE
        self.tensors: dict[tuple[int, str], CompressedTensor] = {}

    def best(self, result: Result) -> tuple[Result, tuple[str, ...]]:
        """The result with the recipe that is best on the samples, and notes for the user.

        For a signal-to-noise ratio, the recipe with the fewest bytes that has it on the samples too.
        """
        if not result.picks_by_error:
            return self._reaching(result)
        others = () if self._is_large else self._other_errors()
        alternatives = [result.mixed, *(self._search.instead(result, curves) for curves in others)]
        mixtures = list({tuple(option.key for option in each.options): each for each in alternatives}.values())
        measured, notes = self._measured([*mixtures, *([] if result.uniform is None else [result.uniform])])
        if notes:
            return result, notes
        best = max(measured[: len(mixtures)], key=_ratio)
        uniform = None if result.uniform is None else measured[-1]
        is_uniform = uniform is not None and _ratio(uniform) >= _ratio(best)
        is_first = best.options == result.mixed.options
        if not (is_first or is_uniform):
            notes = ("another mixture than the one with the smallest predicted error was better on the kept samples",)
        is_optimal = result.is_optimal and is_first
        return replace(result, mixed=best, uniform=uniform, is_uniform=is_uniform, is_optimal=is_optimal), notes

    def _other_errors(self) -> Iterator[list[Curve | None]]:
        """Curves by errors of the weights, and by output errors that grow faster with the loss of a weight."""
        for scaled in (
            lambda error, loss: loss,
            lambda error, loss: error * (1 + (loss / _LARGE_LOSS) ** 2),
        ):
            yield [
                None if curve is None else replace(curve, errors=tuple(map(scaled, curve.errors, curve.relative)))
                for curve in self._curves
            ]

    def _reaching(self, result: Result) -> tuple[Result, tuple[str, ...]]:
        search, found = self._search, result
        for _ in range(_MOST_TRIES):
            recipes = [found.mixed] + ([] if found.uniform is None else [found.uniform])
            measured, notes = self._measured(recipes)
            if notes:
                return found, notes
            found = replace(found, mixed=measured[0], uniform=measured[1] if len(measured) > 1 else None)
            missing = self._search.goal.value - _ratio(measured[0])
            if missing <= 0:
                return found, ()
            search = search.stricter(missing)
            try:
                found = search.run(self._curves)
            except ValueError:
                break
        return found, ("the recipe has a lower signal-to-noise ratio on the kept samples than was asked for",)

    def _measured(self, recipes: Sequence[Recipe]) -> tuple[list[Recipe], tuple[str, ...]]:
        """The recipes with what they reach on the samples; otherwise why they were not run."""
        options = [each.options for each in recipes]
        found = check(self._src, self._opened, self._statistics, self._search.free, options, self._threads)
        if found.note is not None:
            return [], (found.note,)
        self.tensors |= found.tensors
        return [
            replace(each, expected=replace(each.expected, measured_snr_db=snr_db))
            for each, snr_db in zip(recipes, found.snr_db, strict=True)
        ], ()


def _ratio(recipe: Recipe) -> float:
    ratio = recipe.expected.measured_snr_db
    return -math.inf if ratio is None else ratio
