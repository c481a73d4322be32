"""The weights of a package as a problem for the solver: costs and errors of what can be chosen."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from ..config.candidates import UNCHANGED, Steps
from .curves import Curve
from .options import Option, Survey
from .solver import Choices


class Units:
    """What is chosen for together, and what each choice costs and loses.

    Parameters
    ----------
    found : Survey
        The weights.
    curves : sequence of Curve or None, optional
        What the pass over the weights found, None for weights that cannot be stored in another form; without it there
        are only bytes.
    """

    def __init__(self, found: Survey, curves: Sequence[Curve | None] | None = None) -> None:
        self._found = found
        self._options: list[tuple[Option, ...]] = []
        self._losses: list[dict[Option, tuple[float, float]]] = []
        for number, free in enumerate(found.free):
            curve = None if curves is None else curves[number]
            options = free.options if curves is None else () if curve is None else curve.options
            self._options.append(options)
            losses = (
                [] if curve is None else zip(curve.options, zip(curve.errors, curve.relative, strict=True), strict=True)
            )
            self._losses.append(dict(losses))
        self.members = found.units
        self.candidates = [self._candidates(members) for members in self.members]

    def _candidates(self, members: tuple[int, ...]) -> tuple[Steps, ...]:
        """What a unit may be stored as."""
        given = dict.fromkeys(option.candidate for number in members for option in self._options[number])
        return tuple(given) or (UNCHANGED,)

    def is_free(self, number: int) -> bool:
        """Whether there is anything to choose for a weight."""
        return bool(self._options[number])

    def size(self, number: int) -> int:
        """Number of elements of a weight."""
        return self._found.free[number].size

    def option(self, number: int, candidate: Steps) -> Option:
        """What a candidate does to a weight; where it has no such option, it is left unchanged."""
        options = self._options[number]
        if options and self._found.free[number].fixed:
            return options[0]
        return next((each for each in options if each.candidate == candidate), self._found.free[number].unchanged)

    def loss(self, number: int, option: Option) -> tuple[float, float]:
        """Error of an option, and its squared error relative to the weight's power."""
        return self._losses[number].get(option, (0.0, 0.0))

    def nbytes(self) -> list[NDArray[np.float64]]:
        """Stored bytes of each choice of each unit."""
        return self._sums(lambda number, option: option.nbytes)

    def file_bytes(self) -> list[NDArray[np.float64]]:
        """About the bytes in the model's files of each choice of each unit."""
        return self._sums(lambda number, option: option.file_bytes)

    def errors(self) -> list[NDArray[np.float64]]:
        """Error of each choice of each unit."""
        return self._sums(lambda number, option: self.loss(number, option)[0])

    def _sums(self, value: Callable[[int, Option], float]) -> list[NDArray[np.float64]]:
        return [
            np.array(
                [
                    math.fsum(value(number, self.option(number, candidate)) for number in members)
                    for candidate in candidates
                ]
            )
            for members, candidates in zip(self.members, self.candidates, strict=True)
        ]

    def options(self, choices: Choices) -> tuple[Option, ...]:
        """What choices do to each weight."""
        found: dict[int, Option] = {}
        for members, candidates, choice in zip(self.members, self.candidates, choices, strict=True):
            found |= {number: self.option(number, candidates[choice]) for number in members}
        return tuple(found[number] for number in range(len(found)))

    def uniform(self, candidate: Steps) -> tuple[Option, ...]:
        """What one candidate for all does to each weight."""
        return tuple(self.option(number, candidate) for number in range(len(self._found.free)))

    def choices(self, candidate: Steps) -> Choices | None:
        """The choices that are one candidate for all; None if a unit may neither be that nor left unchanged."""
        found = []
        for candidates in self.candidates:
            choice = candidate if candidate in candidates else UNCHANGED
            if choice not in candidates:
                return None
            found.append(candidates.index(choice))
        return np.array(found, np.intp)

    def error(self, options: Sequence[Option]) -> float:
        """Error of a recipe."""
        return math.fsum(self.loss(number, option)[0] for number, option in enumerate(options))

    def is_surely_better(self, options: Sequence[Option], than: Sequence[Option], times: float) -> bool:
        """Whether a recipe's error is smaller than another's even if the weight that loses most by it counts more.

        The weight whose error is larger by most counts this many `times`, in both recipes.
        """
        pairs = [
            (self.loss(number, option)[0], self.loss(number, other)[0])
            for number, (option, other) in enumerate(zip(options, than, strict=True))
        ]
        ours, theirs = max(pairs, key=lambda pair: pair[0] - pair[1], default=(0.0, 0.0))
        more = (times - 1) * (ours - theirs)
        return more + self.error(options) < self.error(than)

    def lowest_snr_db(self, options: Iterable[tuple[int, Option]]) -> float:
        """Signal-to-noise ratio of the weight that loses most, of some weights with their options."""
        worst = max((self.loss(number, option)[1] for number, option in options), default=0.0)
        return math.inf if worst == 0 else -10 * math.log10(worst)
