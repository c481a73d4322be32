"""One option for each weight: the least error within a budget, with a bound of how far from the optimum it is.

This is the multiple-choice knapsack problem (Sinha and Zoltners, 1979). Its Lagrangian relaxation is solved by the
lower convex hulls of the weights' options, whose steps are taken in the order of their slopes (Everett, 1963); the rest
of the budget is filled, options are exchanged in pairs, and where few options remain that a better solution could have,
dynamic programming over these finds the optimum (Pisinger, 1995).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

_MOST_EXCHANGES = 400
_MOST_STATES = 1 << 16  # of dynamic programming at a time
_MOST_STATES_IN_ALL = 1 << 21

Choices = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Solution:
    """One option for each weight.

    Attributes
    ----------
    choices : numpy.ndarray of intp
        The number of the option of each weight.
    cost, error : float
        Their sums.
    bound : float
        No choice within the budget has a smaller error.
    is_optimal : bool
        Whether no choice within the budget is known to be better than this one; where it is False, there may be one.
    """

    choices: Choices
    cost: float
    error: float
    bound: float
    is_optimal: bool

    @property
    def gap_db(self) -> float:
        """How far the error is above the bound, in dB; infinite if only the bound is zero."""
        return ratio_db(self.error, self.bound)


def ratio_db(error: float, bound: float) -> float:
    """By how many dB an error is above another one, at least 0."""
    if error <= bound:
        return 0.0
    return 10 * math.log10(error / bound) if bound > 0 else math.inf


class InfeasibleError(ValueError):
    """Even the cheapest options exceed the budget."""


class _Hulls(NamedTuple):
    """Steps between neighbours on the lower convex hulls of all weights, the most effective first."""

    weights: Choices
    starts: Choices
    ends: Choices
    costs: NDArray[np.float64]
    gains: NDArray[np.float64]
    slopes: NDArray[np.float64]


def solve(
    costs: Sequence[ArrayLike], errors: Sequence[ArrayLike], budget: float, also: Sequence[Choices] = ()
) -> Solution:
    """Choose an option for each weight.

    Parameters
    ----------
    costs, errors : sequence of array_like
        For each weight the costs and errors of its options, at least one; not negative, finite.
    budget : float
        The largest sum of costs.
    also : sequence of numpy.ndarray of intp
        Choices to start from too; those beyond the budget are ignored.

    Returns
    -------
    Solution
        Of equally good choices always the same one.

    Raises
    ------
    InfeasibleError
        If even the cheapest options exceed the budget.
    ValueError
        If the arguments do not fit together.

    Notes
    -----
    A thousand weights with eight options take a few hundred milliseconds.
    """
    problem = _Problem(costs, errors, float(budget))
    return problem.solved(also)


class _Problem:
    def __init__(self, costs: Sequence[ArrayLike], errors: Sequence[ArrayLike], budget: float) -> None:
        if len(costs) != len(errors):
            raise ValueError(f"solve: {len(costs)} weights have costs, {len(errors)} have errors")
        self._costs, self._errors = _padded("costs", costs), _padded("errors", errors)
        if self._costs.shape != self._errors.shape or (np.isinf(self._costs) != np.isinf(self._errors)).any():
            raise ValueError("solve: a weight has not as many costs as errors")
        self._budget = budget
        self._rows = np.arange(len(costs))
        pairs = zip(self._errors, self._costs, strict=True)
        self._cheapest = np.array([np.lexsort(pair)[0] for pair in pairs], np.intp)
        cheapest = self._sum(self._costs, self._cheapest)
        if cheapest > budget:
            raise InfeasibleError(f"solve: the budget is {budget:g}, but the cheapest options cost {cheapest:g}")

    def solved(self, also: Sequence[Choices]) -> Solution:
        """The solution."""
        if not len(self._rows):
            return Solution(self._cheapest, 0.0, 0.0, 0.0, True)
        hulls = self._hulls()
        bound, price, taken = self._relaxed(hulls)
        best = self._improved(self._filled(hulls, taken))
        for start in also:
            if self._sum(self._costs, start) <= self._budget and self._better(best, start) is start:
                best = self._improved(np.array(start, np.intp))
        is_optimal = ratio_db(self._sum(self._errors, best), bound) == 0
        if not is_optimal:
            best, is_optimal = self._completed(best, bound, price)
        cost, error = self._sum(self._costs, best), self._sum(self._errors, best)
        return Solution(best, cost, error, min(bound, error), is_optimal)

    def _sum(self, values: NDArray[np.float64], choices: Choices) -> float:
        return math.fsum(values[self._rows, choices].tolist())

    def _better(self, first: Choices, second: Choices) -> Choices:
        ranks = [(self._sum(self._errors, each), self._sum(self._costs, each)) for each in (first, second)]
        return second if ranks[1] < ranks[0] else first

    def _hulls(self) -> _Hulls:
        steps = [
            (weight, *pair)
            for weight, (costs, errors) in enumerate(zip(self._costs, self._errors, strict=True))
            for pair in pairwise(_hull(costs, errors))
        ]
        weights, starts, ends = (np.array([step[part] for step in steps], np.intp) for part in range(3))
        costs = self._costs[weights, ends] - self._costs[weights, starts]
        gains = self._errors[weights, starts] - self._errors[weights, ends]
        slopes = gains / costs
        order = np.argsort(-slopes, kind="stable")
        return _Hulls(weights[order], starts[order], ends[order], costs[order], gains[order], slopes[order])

    def _relaxed(self, hulls: _Hulls) -> tuple[float, float, int]:
        """The bound by the relaxation, the price of a unit of cost there, and the number of whole steps it takes."""
        spare = self._budget - self._sum(self._costs, self._cheapest)
        base = self._sum(self._errors, self._cheapest)
        spent = np.cumsum(hulls.costs)
        taken = int(np.searchsorted(spent, spare, side="right"))
        gain = math.fsum(hulls.gains[:taken].tolist())
        if taken == len(spent):
            return self._sum(self._errors, self._errors.argmin(1)), 0.0, taken
        rest = spare - (spent[taken - 1] if taken else 0.0)
        price = float(hulls.slopes[taken])
        return max(0.0, base - gain - rest * price), price, taken

    def _filled(self, hulls: _Hulls, taken: int) -> Choices:
        """The steps that the relaxation takes, and those after them that fit."""
        choices = self._cheapest.copy()
        spent = self._sum(self._costs, choices)
        for step, (weight, start, end, cost) in enumerate(
            zip(hulls.weights, hulls.starts, hulls.ends, hulls.costs, strict=True)
        ):
            if choices[weight] == start and (step < taken or spent + cost <= self._budget):
                choices[weight] = end
                spent += cost
        return choices

    def _improved(self, choices: Choices) -> Choices:
        """Exchange the options of one weight, or of two, for as long as that helps."""
        choices = choices.copy()
        for _ in range(_MOST_EXCHANGES):
            move = self._exchange(choices)
            if move is None:
                break
            for weight, option in move:
                choices[weight] = option
        return choices

    def _exchange(self, choices: Choices) -> list[tuple[int, int]] | None:
        """The best change of one weight or of a pair that keeps the budget; None if none reduces the error."""
        costs = self._costs - self._costs[self._rows, choices][:, None]
        errors = self._errors - self._errors[self._rows, choices][:, None]
        spare = self._budget - self._sum(self._costs, choices)
        weights = np.broadcast_to(self._rows[:, None], costs.shape)
        gains = np.isfinite(costs) & (errors < 0)
        if not gains.any():
            return None
        found = _Changes(costs[gains], errors[gains], weights[gains], np.nonzero(gains)[1])
        best, move = 0.0, None
        single = found.within(np.array([spare]), np.array([-1]))[0]
        if single >= 0:
            best, move = float(found.errors[single]), [found.change(single)]
        saves = np.isfinite(costs) & (costs < 0) & (errors >= 0)
        saved, lost, of, options = costs[saves], errors[saves], weights[saves], np.nonzero(saves)[1]
        partners = found.within(spare - saved, of)
        sums = np.where(partners >= 0, lost + found.errors[partners], np.inf)
        if sums.size:
            first = int(sums.argmin())
            if sums[first] < best:
                best = float(sums[first])
                move = [(int(of[first]), int(options[first])), found.change(int(partners[first]))]
        total = self._sum(self._errors, choices)
        return move if -best > 1e-12 * total else None

    def _completed(self, best: Choices, bound: float, price: float) -> tuple[Choices, bool]:
        """The optimum by dynamic programming, if that takes few states; whether it did."""
        # A choice's error is the bound, plus how much each option is worse than its weight's best at this price, plus
        # what is left of the budget at that price: options that are worse by more than the gap are in no better choice.
        worse = self._errors + price * self._costs
        worse = worse - worse.min(1, keepdims=True)
        gap = (self._sum(self._errors, best) - bound) * (1 - 1e-12)
        remain = [np.flatnonzero(row < gap) for row in worse]
        if any(len(options) == 0 for options in remain):
            return best, True
        settled = np.array([options[0] for options in remain], np.intp)
        open_ = [weight for weight, options in enumerate(remain) if len(options) > 1]
        spent = math.fsum(float(self._costs[w, settled[w]]) for w in self._rows if len(remain[w]) == 1)
        lost = math.fsum(float(worse[w, settled[w]]) for w in self._rows if len(remain[w]) == 1)
        open_.sort(key=lambda weight: (-float(np.ptp(self._costs[weight, remain[weight]])), weight))
        least = np.cumsum([0.0, *(float(self._costs[w, remain[w]].min()) for w in reversed(open_))])[::-1]
        states, losses = np.array([spent]), np.array([lost])
        trail: list[tuple[NDArray[Any], NDArray[Any]]] = []
        in_all = 0
        for place, weight in enumerate(open_):
            options = remain[weight]
            costs = (states[:, None] + self._costs[weight, options]).reshape(-1)
            lost_here = (losses[:, None] + worse[weight, options]).reshape(-1)
            kept = np.flatnonzero((costs + least[place + 1] <= self._budget) & (lost_here < gap))
            kept = kept[_undominated(costs[kept], lost_here[kept] - price * costs[kept])]
            in_all += len(kept)
            if len(kept) > _MOST_STATES or in_all > _MOST_STATES_IN_ALL:
                return best, False
            if not len(kept):
                return best, True
            trail.append((kept // len(options), options[kept % len(options)]))
            states, losses = costs[kept], lost_here[kept]
        final = losses + price * (self._budget - states)
        state = int(final.argmin())
        choices = settled
        for weight, (parents, options) in zip(reversed(open_), reversed(trail), strict=True):
            choices[weight] = options[state]
            state = int(parents[state])
        return (self._better(best, choices) if self._sum(self._costs, choices) <= self._budget else best), True


class _Changes:
    """Changes of single weights that reduce the error, by what they cost."""

    def __init__(
        self, costs: NDArray[np.float64], errors: NDArray[np.float64], weights: Choices, options: Choices
    ) -> None:
        order = np.lexsort((errors, costs))
        self._costs, self.errors = costs[order], errors[order]
        self._weights, self._options = weights[order], options[order]
        # For each number of cheapest changes the first of those that reduce the error most.
        least = np.minimum.accumulate(self.errors)
        is_first = np.ones(len(order), bool)
        is_first[1:] = self.errors[1:] < least[:-1]
        self._best = np.maximum.accumulate(np.where(is_first, np.arange(len(order)), 0))

    def within(self, costs: NDArray[np.float64], but: Choices) -> Choices:
        """For each cost the best change that costs at most this much, of another weight than `but`; -1 if none."""
        count = np.searchsorted(self._costs, costs, side="right")
        found = np.where(count > 0, self._best[np.maximum(count - 1, 0)], -1)
        for place in np.flatnonzero((count > 0) & (self._weights[found] == but)):
            others = np.flatnonzero(self._weights[: count[place]] != but[place])
            found[place] = others[self.errors[others].argmin()] if others.size else -1
        return found

    def change(self, index: int) -> tuple[int, int]:
        """Its weight and option."""
        return int(self._weights[index]), int(self._options[index])


def _padded(name: str, values: Sequence[ArrayLike]) -> NDArray[np.float64]:
    rows = [np.asarray(each, np.float64).reshape(-1) for each in values]
    if any(not row.size or not np.isfinite(row).all() or row.min() < 0 for row in rows):
        raise ValueError(f"solve: {name} must be finite and not negative, at least one for each weight")
    padded = np.full((len(rows), max((row.size for row in rows), default=0)), np.inf)
    for place, row in enumerate(rows):
        padded[place, : row.size] = row
    return padded


def _hull(costs: NDArray[np.float64], errors: NDArray[np.float64]) -> list[int]:
    """The options on the lower convex hull, the cheapest first; errors descend."""
    points: list[int] = []
    cost, error = costs.tolist(), errors.tolist()
    for option in np.lexsort((errors, costs)).tolist():
        if math.isinf(cost[option]) or (points and error[option] >= error[points[-1]]):
            continue
        while len(points) > 1:
            first, middle = points[-2:]
            left = (error[first] - error[middle]) * (cost[option] - cost[middle])
            if left > (error[middle] - error[option]) * (cost[middle] - cost[first]):
                break
            points.pop()
        points.append(option)
    return points


def _undominated(costs: NDArray[np.float64], errors: NDArray[np.float64]) -> Choices:
    """The states of which no other costs as much or less and has an error as small; in the order of cost."""
    order = np.lexsort((errors, costs))
    least = np.minimum.accumulate(errors[order])
    first = np.ones(len(order), bool)
    first[1:] = errors[order][1:] < least[:-1]
    return order[first]
