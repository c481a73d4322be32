import numpy as np
import pytest
import torch
from operations import call, random_array

SHAPE = np.array([40, 50, 10], np.int32)
KINDS = {
    "random_bernoulli": ({"prob": 0.3}, 0.3, 0.3 * 0.7),
    "random_uniform": ({"low": -1.0, "high": 3.0}, 1.0, 16 / 12),
    "random_normal": ({"mean": 2.0, "stddev": 0.5}, 2.0, 0.25),
}


@pytest.mark.parametrize("operation", KINDS)
@pytest.mark.parametrize("seed", [-1, 0, 12])
def test_moments(operation, seed):
    options, mean, variance = KINDS[operation]
    values = call(operation, SHAPE, seed=seed, **options)
    assert values.shape == (40, 50, 10)
    assert values.dtype == torch.float32
    assert abs(values.mean() - mean) < 0.05
    assert abs(values.var() - variance) < 0.05


@pytest.mark.parametrize("operation", KINDS)
def test_a_seed_gives_the_same_values_and_leaves_the_generator_of_pytorch_alone(operation):
    options = KINDS[operation][0]
    state = torch.get_rng_state()
    first, again = (call(operation, SHAPE, seed=5, **options) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, call(operation, SHAPE, seed=6, **options))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("operation", KINDS)
def test_without_a_seed_values_differ_and_follow_the_generator_of_pytorch(operation):
    options = KINDS[operation][0]
    torch.manual_seed(3)
    first, other = call(operation, SHAPE, **options), call(operation, SHAPE, **options)
    torch.manual_seed(3)
    assert not torch.equal(first, other)
    assert torch.equal(first, call(operation, SHAPE, **options))


def test_defaults():
    assert set(call("random_bernoulli", SHAPE).unique().tolist()) == {0.0, 1.0}
    uniform = call("random_uniform", SHAPE)
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert abs(call("random_normal", SHAPE).std() - 1) < 0.05
    assert call("random_normal", np.zeros(0, np.int32)).shape == ()


@pytest.mark.parametrize("mode", [None, "logits", "probs"])
def test_categories(mode):
    shares = np.array([[0.1, 0.2, 0.7], [0.5, 0.5, 0.0]], np.float32)
    x = np.broadcast_to(shares if mode == "probs" else np.log(shares + 1e-30), (4, 2, 3))
    options = {} if mode is None else {"mode": mode}
    drawn = call("random_categorical", x.astype(np.float32), size=4000, seed=1, **options)
    assert drawn.shape == (4, 2, 4000)
    assert drawn.dtype == torch.float32
    counted = torch.stack([(drawn == each).float().mean((0, 2)) for each in range(3)], 1)
    assert (counted - torch.from_numpy(shares)).abs().max() < 0.02


def test_one_category_is_drawn_by_default():
    x = random_array(5)
    assert call("random_categorical", x).shape == (1,)
    with pytest.raises(ValueError, match="mode must be logits or probs"):
        call("random_categorical", x, mode="counts")
