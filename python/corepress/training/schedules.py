"""How the strength of compression grows over the steps of training."""

from __future__ import annotations


def polynomial(initial: float, target: float, progress: float, power: float) -> float:
    """Return the value between two at some progress of a polynomial schedule.

    Parameters
    ----------
    initial, target : float
        The values at progress 0 and 1.
    progress : float
        0 to 1.
    power : float
        Above 1 the value changes fast at first, then slower and slower.

    References
    ----------
    Zhu and Gupta, To prune, or not to prune: exploring the efficacy of pruning for model compression,
    arXiv:1710.01878, equation 1.
    """
    return float(target + (initial - target) * (1 - progress) ** power)
