"""Labels and their probabilities."""

from __future__ import annotations

import pytest
import torch

from corepress.runtime.torch.ops.classify import classify


@pytest.mark.parametrize("shape", [(3,), (1, 3), (1, 3, 1, 1)])
def test_labels(shape):
    probabilities = torch.tensor([0.25, 0.5, 0.25]).reshape(shape)
    assert classify(probabilities, ["cat", "dog", "bird"]) == ("dog", {"cat": 0.25, "dog": 0.5, "bird": 0.25})


def test_numbers_as_labels():
    for classes in ([10, 20], [torch.tensor(10), torch.tensor(20)], torch.tensor([10, 20])):
        label, found = classify(torch.tensor([0.75, 0.25], requires_grad=True), classes)
        assert label.dtype == torch.int64
        assert (label.item(), found) == (10, {10: 0.75, 20: 0.25})


def test_the_first_of_equal_probabilities():
    assert classify(torch.full((1, 4), 0.25), list("abcd"))[0] == "a"


def test_as_many_labels_as_probabilities():
    with pytest.raises(ValueError, match="3 probabilities, 2 classes"):
        classify(torch.zeros(1, 3), ["a", "b"])
