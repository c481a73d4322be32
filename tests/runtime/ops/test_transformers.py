import numpy as np
import pytest
import torch
from operations import call, check_gradients, close, random_array


def attention(query, key, value, mask=None):
    scores = query.astype(np.float64) @ key.swapaxes(-1, -2) / np.sqrt(query.shape[-1])
    if mask is not None:
        scores = scores + (np.where(mask, 0, -np.inf) if mask.dtype == bool else mask)
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    return shares / shares.sum(-1, keepdims=True) @ value


@pytest.mark.parametrize("batch", [(2,), (2, 3), (2, 1, 3)])
@pytest.mark.parametrize("mask", [None, (4, 5), (1, 5), (5,), "full"])
@pytest.mark.parametrize("boolean", [False, True])
def test_attention(batch, mask, boolean):
    query, key = random_array(*batch, 4, 6), random_array(*batch, 5, 6, seed=1)
    value = random_array(*batch, 5, 7, seed=2)
    given = []
    if mask is not None:
        given = [random_array(*((*batch, 4, 5) if mask == "full" else mask), seed=3)]
        if boolean:
            given = [given[0] > -0.5]
            given[0][..., 0] = True
    result = call("scaled_dot_product_attention", query, key, value, *given)
    close(result, attention(query, key, value, *given), atol=1e-5)


@pytest.mark.parametrize("batch", [(2,), (2, 3), (2, 1, 3)])
@pytest.mark.parametrize("boolean", [False, True])
def test_a_query_without_keys_gives_zeros(batch, boolean):
    x = random_array(*batch, 4, 6)
    mask = np.ones((4, 4), bool)
    mask[1] = False
    given = mask if boolean else np.where(mask, 0, -np.inf).astype(np.float32)
    result = call("scaled_dot_product_attention", x, x, x, given)
    assert torch.equal(result[..., 1, :], torch.zeros(*batch, 6))
    assert result.isfinite().all()


def test_gradients():
    x = random_array(1, 3, 4)
    check_gradients("scaled_dot_product_attention", x, 2 * x, x + 1, random_array(3, 3))
