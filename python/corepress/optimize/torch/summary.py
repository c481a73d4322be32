"""Sizes after conversion, and the cost of a step of training: what coremltools' reports do not say."""

from __future__ import annotations

import torch

from ...training import summary as _summary
from ._utils.reports import Report

__all__ = ["estimate", "summarize"]


def summarize(model: torch.nn.Module) -> Report:
    """Return what conversion stores of a finalized model, as a table.

    Parameters
    ----------
    model : torch.nn.Module
        As the optimizers' `finalize` and `compress` return it.

    Returns
    -------
    dict of str to dict
        For each parameter, and for all of them as ``"total"``: ``compression``, the steps; ``#params``;
        ``bits_per_weight``, with palettes, scales and masks; ``bytes``. What is not compressed is stored as float16.
    """
    return Report(_summary.summarize(model))


def estimate(model: torch.nn.Module) -> Report:
    """Measure what compression adds to a step of training, before the training.

    Parameters
    ----------
    model : torch.nn.Module
        As the optimizers' `prepare` returns it; it is not changed.

    Returns
    -------
    dict of str to dict
        For each weight, and for all of them as ``"total"``: ``#params``; ``seconds``, of a step; ``bytes``, what is
        held in addition to the weight and its gradient until the step ends.
    """
    return Report(_summary.estimate(model))
