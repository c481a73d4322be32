"""The end of a classifier."""

from __future__ import annotations

import torch
from torch import Tensor

from ..registry import implements

Label = str | int


@implements("classify", exact=True)
def classify(probabilities: Tensor, classes: list[Label | Tensor]) -> tuple[str | Tensor, dict[Label, float]]:
    """The label of the highest probability, the first one of several, and the probabilities by their labels.

    A label that is a number is a tensor, as other numbers are; in the dictionary it is a Python number.
    """
    labels = [each if isinstance(each, str) else int(each) for each in classes]
    flat = probabilities.detach().reshape(-1)
    if len(labels) != flat.numel():
        raise ValueError(f"there is one class for each of {flat.numel()} probabilities, {len(labels)} classes")
    best = labels[int(flat.argmax())]
    by_label = dict(zip(labels, flat.tolist(), strict=True))
    return best if isinstance(best, str) else torch.tensor(best), by_label
