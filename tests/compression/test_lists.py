"""A list in, a list out: the same bytes as one by one."""

from __future__ import annotations

import numpy as np
import pytest

import corepress as cp
from helpers.arrays import DTYPES, arrays_of, draw, normal

CALLS = {
    "palettize": lambda weight, **options: cp.palettize(weight, nbits=3, **options),
    "quantize": lambda weight, **options: cp.quantize(weight, dtype="uint4", mode="linear", **options),
    "searched scales": lambda weight, **options: cp.quantize(weight, dtype="int4", scale_search="mse", **options),
    "sparsity": lambda weight, **options: cp.prune(weight, target_sparsity=0.6, **options),
    "threshold": lambda weight, **options: cp.prune(weight, threshold=0.05, **options),
    "n:m": lambda weight, **options: cp.prune(weight, n_m_ratio=(2, 4), **options),
    "blocks": lambda weight, **options: cp.prune(weight, target_sparsity=0.5, block_size=4, **options),
}


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("name", CALLS)
def test_the_same_bytes_as_one_by_one(name, threads):
    weights = [draw("laplace", rows * 24, dtype).reshape(rows, 24) for rows in (1, 7, 300) for dtype in DTYPES]
    weights.append(normal(2100, 2000))  # large enough to have all threads for itself
    together = CALLS[name](weights, num_threads=threads)
    assert isinstance(together, list)
    for weight, tensor in zip(weights, together, strict=True):
        alone = CALLS[name](weight)
        assert type(alone) is type(tensor)
        assert [part.tobytes() for part in arrays_of(alone)] == [part.tobytes() for part in arrays_of(tensor)]


@pytest.mark.parametrize("name", CALLS)
def test_an_empty_list(name):
    assert CALLS[name]([]) == []


@pytest.mark.parametrize("name", CALLS)
def test_errors_say_which_weight(name):
    wrong = normal(4, 8)
    wrong[0, 0] = np.nan
    with pytest.raises(cp.NonFiniteError, match=r"^\w+: weight 1 of the list: 1 of 32 values are NaN or infinite"):
        CALLS[name]([normal(4, 8), wrong])
    with pytest.raises(TypeError, match=r"^\w+: weight 0 of the list: weight must be float16"):
        CALLS[name]([np.arange(4)])


def test_empty_tensors_of_a_list_are_pruned_to_nothing():
    tensors = cp.prune([np.zeros((0, 3), np.float32), normal(2, 3)], target_sparsity=0.5)
    assert tensors[0].dense().shape == (0, 3)
    assert tensors[1].nnz == 3
