"""Errors of a compressed tensor relative to its weight."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from .._core import sum_errors
from ..arrays import as_threads, as_weight
from ..tensors import CompressedTensor


@dataclass(frozen=True)
class Error:
    """Differences between a weight and its decompressed form, as Python floats; all NaN if a difference is.

    Where both are the same infinity, that is no error, and counts neither as signal nor as noise.

    Attributes
    ----------
    sse : float
        Sum of squared errors.
    mse : float
        Mean of squared errors.
    snr_db : float
        Signal-to-noise ratio ``10 * log10(sum(weight**2) / sse)`` in decibels; inf for a lossless result.
    max_abs : float
        Largest absolute error.
    cosine : float
        Cosine of the angle between the two as vectors; 1 if both are zero.
    """

    sse: float
    mse: float
    snr_db: float
    max_abs: float
    cosine: float


def snr_db(signal: float, noise: float) -> float:
    """Signal-to-noise ratio in decibel from two sums of squares; inf where there is no noise."""
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 and noise < math.inf else -math.inf


def error(weight: Any, tensor: CompressedTensor | Any, *, num_threads: int | None = None) -> Error:
    """Compare a weight with its compressed form, or with any array of its shape.

    Parameters
    ----------
    weight : array_like of float16, bfloat16, float32 or float64
        The original; float64 is rounded to float32.
    tensor : CompressedTensor or array_like
        What to compare with: same shape and dtype.
    num_threads : int, optional
        Threads to use; None for all CPUs this process may use, or `COREPRESS_NUM_THREADS`. The result does not depend
        on it.

    Returns
    -------
    Error
        Sums in double precision.

    Raises
    ------
    ValueError
        If the shapes differ.
    TypeError
        If the dtypes differ.

    Examples
    --------
    >>> error(np.float32([3, 4]), np.float32([3, 4.5]))
    Error(sse=0.25, mse=0.125, snr_db=20.0, max_abs=0.5, cosine=0.998...)
    """
    num_threads = as_threads("error", num_threads)
    first = as_weight("error", weight)
    second = tensor if isinstance(tensor, CompressedTensor) else as_weight("error", tensor, "tensor")
    if first.shape != second.shape:
        raise ValueError(f"error: weight has shape {first.shape}, tensor has {second.shape}")
    if first.dtype != second.dtype:
        raise TypeError(f"error: weight is {first.dtype}, tensor is {second.dtype}")
    if isinstance(second, CompressedTensor):
        sums = second.error_sums(first, num_threads)
    else:
        sums = sum_errors(first, second, num_threads)
    return error_of_sums(sums, first.size)


def error_of_sums(sums: tuple[float, float, float, float, float], count: int) -> Error:
    """The error from the sums that the kernels computed over `count` pairs of values."""
    sse, signal, decoded, product, max_abs = sums
    if math.isnan(sse):
        return Error(sse, sse, math.nan, max_abs, math.nan)
    norms = math.sqrt(signal) * math.sqrt(decoded)
    if math.isinf(norms):
        cosine = math.nan
    else:
        cosine = float(signal == decoded) if norms == 0 else min(max(product / norms, -1.0), 1.0)
    return Error(sse, sse / max(count, 1), snr_db(signal, sse), max_abs, cosine)
