"""Differentiable k-means in NumPy, with a number for each value and entry; `corepress._core.soft_kmeans` stores none.

A round assigns each value w_i to the entries c_j of its palette in part, and moves the entries:

    p_ij = softmax_j(-|w_i - c_j|^2 / temperature),   a_ij = max(p_ij, smallest),
    S_j = sum_i a_ij,   c'_j = sum_i a_ij w_i / S_j.

After the last round value i becomes y_i = sum_j a_ij c'_j (DKM: Cho et al., ICLR 2022). The gradient runs back through
all rounds. With g = dL/dy, H_j = sum_i g_i a_ij and hs_j = H_j / S_j, for each round, the last one first:

    u_ij = [p_ij >= smallest] (hs_j (w_i - c'_j) + [last round] g_i c'_j),
    z_ij = p_ij (u_ij - sum_l p_il u_il),
    dL/dw_i += sum_j hs_j a_ij - 2 / temperature sum_j z_ij (w_i - c_j),
    H_j := 2 / temperature sum_i z_ij (w_i - c_j).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SoftKMeans:
    """Differentiable k-means of one group.

    Attributes
    ----------
    temperature : float
    iterations : int
        Rounds, at most.
    tolerance : float
        Rounds end where the sum of squared distances changes by no more.
    prune_threshold : float
        What squared distances to the first entry are less.
    smallest_weight : float
        Of an entry in a mean.
    enforce_zero : bool
        Whether the first entry is 0 after each round.
    """

    temperature: float = 1e-4
    iterations: int = 3
    tolerance: float = 1e-4
    prune_threshold: float = 1e-7
    smallest_weight: float = 1e-7
    enforce_zero: bool = False

    def shares(self, values: Array, entries: Array) -> tuple[Array, Array]:
        """Softmax over the entries, (n, k), and the least squared distances, (n); values (n, d), entries (k, d)."""
        distances = np.square(values[:, None] - entries).sum(-1)
        distances[:, 0] -= self.prune_threshold
        least = distances.min(1)
        powers = np.exp((least[:, None] - distances) / self.temperature)
        return powers / powers.sum(1, keepdims=True), least

    def means(self, values: Any, entries: Any) -> tuple[Array, list[Array], list[Array]]:
        """Return the means, (n, d), entries before each round and after the last, and the sums S of each round."""
        points = np.asarray(values, np.float64)
        tape, sums, last = [np.asarray(entries, np.float64)], [], None
        for _ in range(self.iterations):
            shares, least = self.shares(points, tape[-1])
            weights = np.maximum(shares, self.smallest_weight)
            sums.append(weights.sum(0))
            with np.errstate(invalid="ignore", divide="ignore"):
                moved = weights.T @ points / sums[-1][:, None]
            moved = np.where(sums[-1][:, None] > 0, moved, tape[-1])
            if self.enforce_zero:
                moved[0] = 0
            tape.append(moved)
            if last is not None and abs(last - least.sum()) <= self.tolerance:
                break
            last = least.sum()
        return weights @ tape[-1], tape, sums

    def gradient(self, values: Any, slopes: Any, tape: list[Array], sums: list[Array]) -> Array:
        """Return dL/dw, (n, d), from dL/dy and what `means` returned with the means."""
        points, given = np.asarray(values, np.float64), np.asarray(slopes, np.float64)
        found = np.zeros_like(points)
        pulls = np.maximum(self.shares(points, tape[-2])[0], self.smallest_weight).T @ given
        for step in reversed(range(len(sums))):
            now, after = tape[step], tape[step + 1]
            shares, _ = self.shares(points, now)
            weights = np.maximum(shares, self.smallest_weight)
            pulls = np.divide(pulls, sums[step][:, None], out=np.zeros_like(pulls), where=sums[step][:, None] > 0)
            if self.enforce_zero:
                pulls[0] = 0
            change = ((points[:, None] - after) * pulls).sum(-1)
            if step == len(sums) - 1:
                change += given @ after.T
            change = np.where(shares >= self.smallest_weight, change, 0)
            factor = shares * (change - (shares * change).sum(1, keepdims=True)) * (2 / self.temperature)
            moved = factor[:, :, None] * (points[:, None] - now)
            found += weights @ pulls - moved.sum(1)
            pulls = moved.sum(0)
        return found
