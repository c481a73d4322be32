"""From what each weight takes and loses to a recipe that reaches a target, counted in bytes of the finished package."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..config import Config, Rule, WeightConfig
from ..config.candidates import Steps, describe_candidate
from ..config.patterns import MODULE, REGULAR, is_open
from ..engine.prediction import Expected, Prediction
from ..reporting.wording import format_bytes, format_decibels
from .curves import Curve
from .goals import Goal, OutOfReachError
from .options import FreeWeight, Option, Survey
from .solver import Choices, InfeasibleError, Solution, ratio_db, solve
from .units import Units

MIXED = "chosen for each weight"
LEAST_GAIN = 10**0.1  # 1 dB
# How much more than the others a weight may matter to the outputs. The embeddings of a sentence encoder, half of its
# weights, do four times as much; without data a mixture that saves on one weight must be better even then.
MORE_SENSITIVE = 4.0
_NEARLY = 0.995  # of the bytes that a target allows
_CLEARLY = 1.02  # estimates that are larger than a target by this need no counting
_MOST_TRIES = 8  # until the bytes of the finished package are below the target


@dataclass(frozen=True, eq=False)
class Recipe:
    """One option for each weight, what is expected of it, and the sum of the weights' errors."""

    options: tuple[Option, ...]
    expected: Expected
    error: float


@dataclass(frozen=True, eq=False)
class Result:
    """What a search found.

    Attributes
    ----------
    mixed : Recipe
        The best choice.
    uniform : Recipe or None
        The best single candidate for all weights, if one reaches the target.
    beyond : Recipe or None
        The smallest one that is better and larger, for comparison.
    is_uniform : bool
        Whether that is at least as good.
    picks_by_error : bool
        Whether the better one is that with the smaller error, not that with fewer bytes.
    bound : float
        No choice within the target has a smaller error.
    is_optimal : bool
        Whether no choice is known to be better than `mixed`.
    units : Units
        The problem.
    """

    mixed: Recipe
    uniform: Recipe | None
    beyond: Recipe | None
    is_uniform: bool
    bound: float
    is_optimal: bool
    units: Units
    picks_by_error: bool = True

    @property
    def chosen(self) -> Recipe:
        """The better of both."""
        return self.uniform if self.uniform is not None and self.is_uniform else self.mixed

    @property
    def gap_db(self) -> float:
        """By how much the error of the chosen recipe is above the bound."""
        return ratio_db(self.chosen.error, self.bound)

    def prediction(self, goal: Goal, measure: str, sweep_seconds: float, seconds: float) -> Prediction:
        """The same for reports."""
        return Prediction(
            target=str(goal),
            measure=measure,
            recipe=self.chosen.expected,
            uniform=None if self.uniform is None else self.uniform.expected,
            beyond=None if self.beyond is None else self.beyond.expected,
            is_uniform=self.is_uniform,
            gap_db=self.gap_db,
            is_optimal=self.is_optimal,
            counts=self._counts(),
            sweep_seconds=sweep_seconds,
            seconds=seconds,
        )

    def _counts(self) -> dict[str, int]:
        """Number of weights for each candidate, the one with the fewest bits first."""
        bits: dict[str, list[float]] = {}
        for number, option in enumerate(self.chosen.options):
            bits.setdefault(option.description, []).append(8 * option.nbytes / self.units.size(number))
        return {name: len(each) for name, each in sorted(bits.items(), key=lambda item: sum(item[1]) / len(item[1]))}


class Search:
    """Finds a recipe.

    Parameters
    ----------
    found : Survey
        The weights and what can be done to them.
    goal : Goal
        The target.
    outputs : bool
        Whether errors are those of the outputs, over their power; otherwise each is that of a weight, over its own.
    count : callable
        Returns the bytes of the package in which weights, by their numbers, have some forms.
    what : str
        What the package is called in messages.
    """

    def __init__(
        self,
        found: Survey,
        goal: Goal,
        *,
        outputs: bool,
        count: Callable[[Mapping[int, Any]], int],
        what: str = "package",
    ) -> None:
        self._what = what
        self._found, self._goal, self._outputs, self._count = found, goal, outputs, count
        self._counted: dict[tuple[tuple[str, int], ...], int] = {}

    def config(self, options: Sequence[Option]) -> Config:
        """The config that does this to the weights, after the rules that were given."""
        rules = {
            _pattern(free.name): WeightConfig(option.candidate, self._found.config.global_config.weight_threshold)
            for free, option in zip(self._found.free, options, strict=True)
        }
        given = self._found.config.weights
        return replace(self._found.config, weights=(*given, *(Rule(*rule) for rule in rules.items())))

    def require_possible(self) -> None:
        """ValueError if the bytes alone show that the target cannot be reached; no weights are read."""
        if self._goal.kind == "target_snr":
            return
        self._require_range(Units(self._found))

    def run(self, curves: Sequence[Curve | None]) -> Result:
        """Find the best recipe.

        Parameters
        ----------
        curves : sequence of Curve or None
            The weights' curves, None for those that cannot be stored in another form.

        Raises
        ------
        ValueError
            If the target cannot be reached after all.
        """
        return self._result(Units(self._found, curves))

    def instead(self, result: Result, curves: Sequence[Curve | None]) -> Recipe:
        """The best choice by other errors, with what is expected of it by those of a result."""
        other = self.run(curves).mixed
        options = tuple(result.units.option(number, option.candidate) for number, option in enumerate(other.options))
        return self._recipe(result.units, options)

    def stricter(self, shortfall: float) -> Search:
        """A search for a signal-to-noise ratio that is this much higher."""
        goal = replace(self._goal, value=self._goal.value + shortfall)
        return Search(self._found, goal, outputs=self._outputs, count=self._count, what=self._what)

    @property
    def free(self) -> tuple[FreeWeight, ...]:
        """The weights."""
        return self._found.free

    @property
    def goal(self) -> Goal:
        """The target."""
        return self._goal

    def _result(self, units: Units) -> Result:
        if self._goal.kind == "target_bits":
            return self._for_bits(units)
        if self._goal.kind == "target_size":
            return self._for_size(units)
        return self._for_outputs(units) if self._outputs else self._for_weights(units)

    def _better(
        self, mixed: Recipe, uniform: Recipe | None, beyond: Recipe | None, solution: Solution, units: Units
    ) -> Result:
        """The mixture, unless one candidate for all is as good. Errors of weights say little of what outputs lose."""
        is_uniform = uniform is not None and uniform.error <= mixed.error
        if uniform is not None and not self._outputs:
            is_as_large = uniform.expected.bytes >= _NEARLY * mixed.expected.bytes
            is_uniform = uniform.error <= (LEAST_GAIN if is_as_large else 1) * mixed.error
            is_uniform |= not units.is_surely_better(mixed.options, uniform.options, MORE_SENSITIVE)
        return Result(mixed, uniform, beyond, is_uniform, solution.bound, solution.is_optimal, units)

    def _for_bits(self, units: Units) -> Result:
        budget = self._goal.value * self._size(units) / 8 - self._given_bytes(units)
        try:
            solution = solve(units.nbytes(), units.errors(), budget, self._starts(units))
        except InfeasibleError:
            self._require_range(units)
            raise
        mixed = self._recipe(units, units.options(solution.choices))
        uniform = self._uniform(units, lambda options: self._bits(units, options) <= self._goal.value)
        return self._better(mixed, *uniform, solution, units)

    def _for_size(self, units: Units) -> Result:
        """Solve, count, and correct the budget by what the estimates of the program's text missed."""
        costs, errors, starts = units.file_bytes(), units.errors(), self._starts(units)
        cheapest = np.array([int(np.lexsort(pair)[0]) for pair in zip(errors, costs, strict=True)], np.intp)
        rest = self._total(units.options(cheapest)) - _sum(costs, cheapest)
        best = None
        for _ in range(_MOST_TRIES):
            try:
                solution = solve(costs, errors, self._goal.value - rest, starts)
            except InfeasibleError:
                break
            options = units.options(solution.choices)
            total = self._total(options)
            fits = total <= self._goal.value
            if fits and (best is None or solution.error < best[0].error):
                best = solution, options
            missed = total - solution.cost - rest
            if fits and missed >= 0:
                break
            rest += missed
        if best is None:
            self._require_range(units)
            raise OutOfReachError(f"allocate: {self._goal} is out of reach; allow a little more")
        solution, options = best

        def suits(options: tuple[Option, ...]) -> bool:
            about = rest + sum(option.file_bytes for option in options)
            return about <= _CLEARLY * self._goal.value and self._total(options) <= self._goal.value

        uniform = self._uniform(units, suits)
        return self._better(self._recipe(units, options), *uniform, solution, units)

    def _for_weights(self, units: Units) -> Result:
        """For each weight what takes the fewest bytes and has the signal-to-noise ratio that is asked for."""
        choices = []
        for members, candidates in zip(units.members, units.candidates, strict=True):
            of_each = [[(number, units.option(number, each)) for number in members] for each in candidates]
            ratios = [units.lowest_snr_db(options) for options in of_each]
            suiting = [place for place, ratio in enumerate(ratios) if ratio >= self._goal.value]
            if not suiting:
                name, highest = self._found.free[members[0]].name, format_decibels(max(ratios))
                raise OutOfReachError(
                    f"allocate: {self._goal} is out of reach; with these candidates {name} has at most {highest}; None "
                    "among the candidates leaves weights unchanged"
                )
            nbytes = [sum(option.file_bytes for _, option in options) for options in of_each]
            choices.append(min(suiting, key=lambda place: (nbytes[place], -ratios[place])))
        mixed = self._recipe(units, units.options(np.array(choices, np.intp)))

        def suits(options: tuple[Option, ...]) -> bool:
            return units.lowest_snr_db(enumerate(options)) >= self._goal.value

        uniform, _ = self._uniform(units, suits, by_bytes=True)
        return Result(mixed, uniform, None, _as_small(uniform, mixed), mixed.error, True, units, False)

    def _for_outputs(self, units: Units) -> Result:
        """The fewest bytes for an error, and then the smallest error for these bytes."""
        costs, errors = units.file_bytes(), units.errors()
        limit = 10 ** (-self._goal.value / 10)
        try:
            smallest = solve(errors, costs, limit)
        except InfeasibleError:
            least = sum(float(each.min()) for each in errors)
            raise OutOfReachError(
                f"allocate: {self._goal} is out of reach; with these candidates the outputs have at most "
                f"{format_decibels(-10 * math.log10(least))}; None among the candidates leaves weights unchanged"
            ) from None
        solution = solve(costs, errors, smallest.error, [smallest.choices])
        mixed = self._recipe(units, units.options(solution.choices))
        uniform, _ = self._uniform(units, lambda options: units.error(options) <= limit, by_bytes=True)
        is_optimal = solution.is_optimal and smallest.is_optimal
        return Result(mixed, uniform, None, _as_small(uniform, mixed), solution.bound, is_optimal, units, False)

    def _starts(self, units: Units) -> list[Choices]:
        """One candidate for all, as often as there are any."""
        found = (units.choices(candidate) for candidate in self._found.candidates if candidate)
        return [choices for choices in found if choices is not None]

    def _uniform(
        self, units: Units, suits: Callable[[tuple[Option, ...]], bool], *, by_bytes: bool = False
    ) -> tuple[Recipe | None, Recipe | None]:
        """The best single candidate that reaches the target, and the smallest of those that are better and do not."""

        def rank(candidate: Steps) -> tuple[float, float]:
            options = units.uniform(candidate)
            both = units.error(options), float(sum(option.file_bytes for option in options))
            return both[::-1] if by_bytes else both

        best, better = None, []
        for candidate in sorted(filter(None, self._found.candidates), key=rank):
            if suits(units.uniform(candidate)):
                best = candidate
                break
            better.append(candidate)
        beyond = min(better, key=lambda candidate: (rank(candidate)[1], rank(candidate)[0]), default=None)

        def recipe(candidate: Steps | None) -> Recipe | None:
            if candidate is None:
                return None
            return self._recipe(units, units.uniform(candidate), describe_candidate(candidate))

        return recipe(best), recipe(beyond)

    def _recipe(self, units: Units, options: tuple[Option, ...], description: str = MIXED) -> Recipe:
        error = units.error(options)
        free = sum(units.is_free(number) for number in range(len(options)))
        mean = error if self._outputs else error / max(1, free)
        expected = Expected(
            description,
            self._total(options),
            self._bits(units, options),
            math.inf if mean == 0 else -10 * math.log10(mean),
        )
        return Recipe(options, expected, error)

    def _total(self, options: Sequence[Option]) -> int:
        """Bytes of the package."""
        key = tuple((option.key, option.nbytes) for option in options)
        if key not in self._counted:
            forms = {
                free.number: option.form
                for free, option in zip(self._found.free, options, strict=True)
                if option.form is not None
            }
            self._counted[key] = self._count({**self._found.fixed, **forms})
        return self._counted[key]

    def _size(self, units: Units) -> int:
        """Elements of the weights that may be compressed."""
        free = (each.size for number, each in enumerate(self._found.free) if units.is_free(number))
        return self._found.fixed_size + sum(free)

    def _given_bytes(self, units: Units) -> int:
        """Stored bytes that count for the target and for which nothing is chosen, less those that do not count."""
        out = (each.unchanged.nbytes for number, each in enumerate(self._found.free) if not units.is_free(number))
        return self._found.fixed_bytes - sum(out)

    def _bits(self, units: Units, options: Sequence[Option]) -> float:
        nbytes = sum(option.nbytes for option in options) + self._given_bytes(units)
        return 8 * nbytes / max(1, self._size(units))

    def _require_range(self, units: Units) -> None:
        """ValueError if the target is below the smallest or above the largest result."""
        costs = units.nbytes() if self._goal.kind == "target_bits" else units.file_bytes()
        ends = [np.array([int(at(each)) for each in costs], np.intp) for at in (np.argmin, np.argmax)]
        smallest, largest = map(units.options, ends)
        if self._goal.kind == "target_bits":
            low, high = self._bits(units, smallest), self._bits(units, largest)
            if low <= self._goal.value <= high:
                return
            too_low = self._goal.value < low
            reach = f"its weights can have {low:.3f} to {high:.3f} bits"
        else:
            first = self._total(smallest)
            about = first + _sum(costs, ends[1]) - _sum(costs, ends[0])
            if first <= self._goal.value <= 0.99 * about:
                return
            last = self._total(largest)
            if first <= self._goal.value <= last:
                return
            too_low = self._goal.value < first
            sizes = f"{format_bytes(first)} to {format_bytes(last)}"
            reach = f"the {self._what} can have {first:,} to {last:,} bytes ({sizes})"
        advice = "ask for more, or give candidates of fewer bits" if too_low else "ask for less"
        raise OutOfReachError(f"allocate: {self._goal} is out of reach; with these candidates {reach}; {advice}")


def _as_small(uniform: Recipe | None, mixed: Recipe) -> bool:
    return uniform is not None and uniform.expected.bytes <= mixed.expected.bytes


def _sum(costs: Sequence[np.ndarray[tuple[int, ...], np.dtype[np.float64]]], choices: Choices) -> float:
    return math.fsum(float(each[choice]) for each, choice in zip(costs, choices, strict=True))


def _pattern(name: str) -> str:
    """A pattern that matches a name and no other."""
    return REGULAR + re.escape(name) if is_open(name) or name.startswith(MODULE) else name
