"""Which n of m consecutive weights become zero, chosen while the others make up for the zeros before them.

Frantar and Alistarh, arXiv:2301.00774, section 3.3.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from ..compression.error_feedback import Moments

_PANEL = 128  # columns whose errors reach the columns behind them by one product


def n_m_mask(matrix: NDArray[np.float32], moments: Moments, n: int, m: int) -> NDArray[np.bool_] | None:
    """Choose zeros by what the outputs lose.

    Parameters
    ----------
    matrix : numpy.ndarray of float32, shape (rows, columns)
        All groups, one below the other.
    moments : Moments
        Of the inputs, in one block.
    n, m : int
        Zeros in each m consecutive weights of a row; m divides the columns.

    Returns
    -------
    numpy.ndarray of bool, or None
        Whether each weight stays; None if the moments have no inverse in float32.
    """
    view = moments.view
    masks = []
    for group, weight in enumerate(view.matrices(matrix)):
        hessian = torch.from_numpy(moments.hessian[group % len(moments.hessian), 0].astype(np.float32))
        try:
            factor = _factor_of_inverse(hessian, moments.dampening)
        except RuntimeError:
            return None
        masks.append(_mask(torch.from_numpy(np.array(weight, np.float32)), factor, n, m).numpy())
    return view.restore(np.array(masks))


def _factor_of_inverse(hessian: torch.Tensor, dampening: float) -> torch.Tensor:
    diagonal = hessian.diagonal()
    mean = float(diagonal.mean())
    diagonal[diagonal == 0] = mean if mean > 0 else 1.0
    diagonal.add_(dampening * mean)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    found: torch.Tensor = torch.linalg.cholesky(inverse, upper=True)
    return found


def _mask(weight: torch.Tensor, factor: torch.Tensor, n: int, m: int) -> torch.Tensor:
    kept = torch.ones_like(weight, dtype=torch.bool)
    columns, panel = weight.shape[1], max(m, _PANEL // m * m)
    for begin in range(0, columns, panel):
        end = min(begin + panel, columns)
        part, of_part = weight[:, begin:end], factor[begin:end, begin:end]
        errors = torch.zeros_like(part)
        for first in range(0, end - begin, m):
            losses = (part[:, first : first + m] / of_part.diagonal()[first : first + m]).abs()
            zeros = torch.topk(losses, n, dim=1, largest=False).indices
            kept[:, begin + first : begin + first + m].scatter_(1, zeros, False)
            for column in range(first, first + m):
                lost = torch.where(kept[:, begin + column], 0.0, part[:, column])
                errors[:, column] = lost / of_part[column, column]
                part[:, column:].addr_(errors[:, column], of_part[column, column:], alpha=-1)
        weight[:, end:].addmm_(errors, factor[begin:end, end:], alpha=-1)
    return kept
