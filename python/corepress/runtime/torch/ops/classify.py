"""The end of a classifier."""

from __future__ import annotations

from torch import Tensor

from ..registry import implements

Label = str | int


@implements("classify", exact=True)
def classify(probabilities: Tensor, classes: list[Label | Tensor]) -> tuple[Label, dict[Label, float]]:
    """The label of the highest probability, the first one of several, and the probabilities by their labels."""
    labels = [each if isinstance(each, str) else int(each) for each in classes]
    flat = probabilities.detach().reshape(-1)
    if len(labels) != flat.numel():
        raise ValueError(f"there is one class for each of {flat.numel()} probabilities, {len(labels)} classes")
    return labels[int(flat.argmax())], dict(zip(labels, flat.tolist(), strict=True))
