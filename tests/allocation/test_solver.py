"""The solver against brute force and dynamic programming, and its bound."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corepress.allocation.solver import InfeasibleError, ratio_db, solve

BITS = np.array([2, 3, 4, 6, 8, 16, 4.5, 5.0])


def brute_force(costs, errors, budget):
    """The smallest error of all choices; None if none fits."""
    best = None
    for choices in itertools.product(*(range(len(each)) for each in costs)):
        cost = sum(each[choice] for each, choice in zip(costs, choices, strict=True))
        error = math.fsum(each[choice] for each, choice in zip(errors, choices, strict=True))
        if cost <= budget and (best is None or error < best):
            best = error
    return best


def by_dynamic_programming(costs, errors, budget):
    """The smallest error within a whole budget, for whole costs: a table over all budgets."""
    table = np.zeros(budget + 1)
    for of_weight, lost in zip(costs, errors, strict=True):
        following = np.full(budget + 1, np.inf)
        for cost, error in zip(of_weight, lost, strict=True):
            if cost <= budget:
                following[cost:] = np.minimum(following[cost:], table[: budget + 1 - cost] + error)
        table = following
    return table[budget]


def drawn(seed, count):
    """Sizes of weights and their errors at each width, as trained ones have them."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(3_000, 3_000_000, count)
    costs = [np.ceil(size * BITS / 8 / 64) * 64 + 128 for size in sizes]
    lost = 4.0 ** -np.array([2, 3, 4, 6, 8, np.inf, 4.4, 4.8])
    errors = [rng.lognormal(0, 1.5) * lost * rng.lognormal(0, 0.1, len(BITS)) for _ in sizes]
    return costs, errors, float(sizes.sum() * 3.5 / 8)


numbers = st.integers(0, 30)
options = st.lists(st.tuples(numbers, numbers), min_size=1, max_size=5)


@settings(max_examples=400)
@given(problem=st.lists(options, min_size=1, max_size=5), budget=st.integers(0, 100))
def test_small_problems_are_solved_as_by_brute_force(problem, budget):
    costs = [[cost for cost, _ in each] for each in problem]
    errors = [[error for _, error in each] for each in problem]
    expected = brute_force(costs, errors, budget)
    if expected is None:
        with pytest.raises(InfeasibleError, match="the cheapest options cost"):
            solve(costs, errors, budget)
        return
    found = solve(costs, errors, budget)
    assert found.cost == sum(each[choice] for each, choice in zip(costs, found.choices, strict=True)) <= budget
    assert found.error == sum(each[choice] for each, choice in zip(errors, found.choices, strict=True))
    assert found.bound <= expected + 1e-9
    assert found.error == expected if found.is_optimal else found.error >= expected
    assert found.is_optimal  # problems of this size always are solved


@pytest.mark.parametrize("seed", range(20))
def test_whole_costs_are_solved_as_by_dynamic_programming(seed):
    rng = np.random.default_rng(seed)
    costs = [np.sort(rng.integers(1, 60, 6)) for _ in range(25)]
    errors = [np.sort(rng.lognormal(0, 2, 6))[::-1] for _ in range(25)]
    budget = int(sum(each[0] for each in costs) * 2)
    found = solve(costs, errors, budget)
    assert found.is_optimal
    assert found.error == pytest.approx(by_dynamic_programming(costs, errors, budget), rel=1e-12)


@pytest.mark.parametrize("count", [30, 100, 1000])
def test_the_gap_of_many_weights_is_small(count):
    costs, errors, budget = drawn(1, count)
    found = solve(costs, errors, budget)
    assert 0.995 * budget < found.cost <= budget
    assert 0 <= found.gap_db < 0.1
    assert found.bound <= found.error


def test_a_start_is_never_made_worse():
    costs, errors, budget = drawn(2, 40)
    start = np.full(40, 1, np.intp)
    found = solve(costs, errors, budget, [start])
    assert found.error <= sum(each[1] for each in errors)
    assert solve(costs, errors, budget, [np.full(40, 5, np.intp)]).error == solve(costs, errors, budget).error


def test_the_bound_holds_where_nothing_is_proven(monkeypatch):
    monkeypatch.setattr("corepress.allocation.solver._MOST_STATES", 0)
    costs, errors, budget = drawn(3, 8)
    unproven = solve(costs, errors, budget)
    assert not unproven.is_optimal
    assert unproven.bound <= brute_force_of_eight(costs, errors, budget) <= unproven.error


@pytest.mark.parametrize("seed", range(30))
def test_no_exchange_of_one_or_two_weights_is_missed(seed, monkeypatch):
    monkeypatch.setattr("corepress.allocation.solver._MOST_STATES", 0)  # so that only exchanges improve what is filled
    rng = np.random.default_rng(seed)
    costs, errors = rng.integers(1, 40, (6, 5)), rng.integers(0, 30, (6, 5))
    budget = int(costs.min(1).sum() * 1.5)
    found = solve(list(costs), list(errors), budget)
    for first, second in itertools.combinations(range(6), 2):
        for options in itertools.product(range(5), repeat=2):
            others = found.choices.copy()
            others[[first, second]] = options
            if costs[np.arange(6), others].sum() <= budget:
                assert errors[np.arange(6), others].sum() >= found.error


def brute_force_of_eight(costs, errors, budget):
    halves = []
    for part in (slice(0, 4), slice(4, 8)):
        choices = list(itertools.product(range(len(BITS)), repeat=4))
        sums = [
            np.array([sum(each[choice] for each, choice in zip(values[part], one, strict=True)) for one in choices])
            for values in (costs, errors)
        ]
        order = np.argsort(sums[0], kind="stable")
        halves.append((sums[0][order], np.minimum.accumulate(sums[1][order])))
    (first_costs, first_errors), (second_costs, second_errors) = halves
    place = np.searchsorted(second_costs, budget - first_costs, side="right") - 1
    return float(np.where(place >= 0, first_errors + second_errors[place], np.inf).min())


def test_equal_choices_are_settled_in_one_way():
    costs, errors = [[1, 2]] * 6, [[2.0, 1.0]] * 6
    first, second = (solve(costs, errors, 9) for _ in range(2))
    assert (first.choices == second.choices).all()
    assert first.choices.tolist() == [1, 1, 1, 0, 0, 0]


def test_edges():
    empty = solve([], [], 5)
    assert (empty.error, empty.cost, empty.is_optimal, empty.gap_db) == (0, 0, True, 0)
    everything = solve([[1, 2], [3, 7]], [[5.0, 0.0], [4.0, 0.0]], 100)
    assert (everything.choices.tolist(), everything.gap_db) == ([1, 1], 0)
    assert solve([[3, 3, 3]], [[2, 1, 1]], 3).choices.tolist() == [1]
    assert ratio_db(1.0, 0.0) == math.inf
    assert ratio_db(10.0, 1.0) == pytest.approx(10)
    with pytest.raises(ValueError, match="has not as many costs as errors"):
        solve([[1, 2]], [[1]], 5)
    with pytest.raises(ValueError, match="1 weights have costs, 2 have errors"):
        solve([[1]], [[1], [2]], 5)
    for wrong in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="must be finite and not negative"):
            solve([[1]], [[wrong]], 5)
