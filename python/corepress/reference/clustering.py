"""Optimal k-means of numbers on a line, in rational arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction


def kmeans1d(values: Sequence[float], k: int, weights: Sequence[float] | None = None) -> tuple[list[float], float]:
    """Cluster numbers optimally, in exact rational arithmetic, by a dynamic program over all cuts.

    Parameters
    ----------
    values : sequence of float
        Numbers in any order, repetitions allowed. The work grows with ``k * n**2``.
    k : int
        Number of clusters.
    weights : sequence of float, optional
        Importance of each value; None for 1 each. Values of weight 0 are left out.

    Returns
    -------
    centroids : list of float
        Means of the clusters of an optimal solution, ascending; as many as distinct values if those are fewer than k.
    inertia : float
        The least possible weighted sum of squared distances to the nearest centroid.
    """
    totals: dict[Fraction, Fraction] = {}
    for value, weight in zip(values, weights if weights is not None else [1.0] * len(values), strict=True):
        if weight > 0:
            totals[Fraction(value)] = totals.get(Fraction(value), Fraction(0)) + Fraction(weight)
    points = sorted(totals.items())
    count = len(points)
    weight_sums, moment_sums, square_sums = [Fraction(0)], [Fraction(0)], [Fraction(0)]
    for point, weight_of_point in points:
        weight_sums.append(weight_sums[-1] + weight_of_point)
        moment_sums.append(moment_sums[-1] + weight_of_point * point)
        square_sums.append(square_sums[-1] + weight_of_point * point * point)

    def mean(begin: int, end: int) -> Fraction:
        return (moment_sums[end] - moment_sums[begin]) / (weight_sums[end] - weight_sums[begin])

    def cost(begin: int, end: int) -> Fraction:
        return square_sums[end] - square_sums[begin] - (moment_sums[end] - moment_sums[begin]) * mean(begin, end)

    best = [cost(0, end) if end else Fraction(0) for end in range(count + 1)]  # of the points before `end`
    starts = [[0] * (count + 1)]
    for clusters in range(2, min(k, count) + 1):
        start_of = [0] * (count + 1)
        new = list(best)
        for end in range(clusters, count + 1):
            start_of[end] = min(range(clusters - 1, end), key=lambda start: best[start] + cost(start, end))
            new[end] = best[start_of[end]] + cost(start_of[end], end)
        best = new
        starts.append(start_of)
    centroids = []
    end = count
    for start_of in reversed(starts):
        centroids.append(float(mean(start_of[end], end)))
        end = start_of[end]
    return centroids[::-1], float(best[count])
