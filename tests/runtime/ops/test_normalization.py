import numpy as np
import pytest
import torch
from operations import call, check_gradients, close, random_array


def along_channels(values, rank):
    return np.asarray(values, np.float64).reshape(-1, *[1] * (rank - 2))


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3, 4, 5), (1, 3, 2, 3, 2)])
@pytest.mark.parametrize("scaled", [False, True])
def test_batch_norm(shape, scaled):
    x, mean, variance = random_array(*shape), random_array(3, seed=1), random_array(3, seed=2) ** 2
    gamma, beta = random_array(3, seed=3), random_array(3, seed=4)
    rank = len(shape)
    expected = (x - along_channels(mean, rank)) / np.sqrt(along_channels(variance, rank) + 1e-3)
    if scaled:
        expected = expected * along_channels(gamma, rank) + along_channels(beta, rank)
    given = (x, mean, variance, *((gamma, beta) if scaled else ()))
    close(call("batch_norm", *given, epsilon=1e-3), expected)
    trained = [torch.from_numpy(each).requires_grad_() for each in given]
    close(call("batch_norm", *trained, epsilon=1e-3), expected)


def test_the_mean_and_the_variance_have_gradients():
    check_gradients(
        "batch_norm", random_array(2, 3, 2), random_array(3), random_array(3) ** 2 + 1, random_array(3), random_array(3)
    )


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3, 4, 5), (1, 3, 2, 3, 2), (2, 3, 1)])
@pytest.mark.parametrize("scaled", [False, True])
def test_instance_norm(shape, scaled):
    x, gamma, beta = 3 + random_array(*shape), random_array(3, seed=3), random_array(3, seed=4)
    axes = tuple(range(2, len(shape)))
    expected = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 0.1)
    if scaled:
        expected = expected * along_channels(gamma, len(shape)) + along_channels(beta, len(shape))
    close(call("instance_norm", x, *((gamma, beta) if scaled else ()), epsilon=0.1), expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 4, 5), (2, 3, 4, 5), (2, 2, 1, 2, 3)])
def test_l2_norm_is_over_the_last_three_axes(shape):
    x = random_array(*shape)
    close(call("l2_norm", x, epsilon=0.5), x / np.sqrt((x**2).sum((-3, -2, -1), keepdims=True) + 0.5))
    close(call("l2_norm", 0 * x), 0 * x)


@pytest.mark.parametrize("axes", [None, [-1], [2, 3], [3, 2], [1], [0, 2], [-3, -1], [0, 1, 2, 3]])
@pytest.mark.parametrize("scaled", [False, True])
def test_layer_norm(axes, scaled):
    x = 1 + random_array(2, 3, 4, 5)
    normalized = tuple(sorted(axis % 4 for axis in axes or range(4)))
    shape = [x.shape[axis] for axis in normalized]
    gamma, beta = random_array(*shape, seed=3), random_array(*shape, seed=4)
    expected = (x - x.mean(normalized, keepdims=True)) / np.sqrt(x.var(normalized, keepdims=True) + 0.1)
    if scaled:
        broadcast = [x.shape[axis] if axis in normalized else 1 for axis in range(4)]
        expected = expected * gamma.reshape(broadcast) + beta.reshape(broadcast)
    close(call("layer_norm", x, *((gamma, beta) if scaled else ()), axes=axes, epsilon=0.1), expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(5, 2, 3), (2, 5, 2, 3), (1, 2, 5, 2, 3)])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 9])
def test_local_response_norm_runs_across_the_third_axis_from_the_end(shape, size):
    x = random_array(*shape)
    expected = np.zeros(shape)
    for channel in range(5):
        first, last = max(channel - size // 2, 0), channel + (size - 1) // 2
        sums = (x[..., first : last + 1, :, :] ** 2).sum(-3)
        expected[..., channel, :, :] = x[..., channel, :, :] / (2 + 0.5 / size * sums) ** 0.6
    close(call("local_response_norm", x, size=size, alpha=0.5, beta=0.6, k=2.0), expected)
    close(call("local_response_norm", x, size=size), x, atol=1e-3)


def test_gradients():
    x = random_array(2, 3, 2)
    check_gradients("instance_norm", x, random_array(3), random_array(3))
    check_gradients("layer_norm", x, random_array(2, 2), random_array(2, 2), axes=[0, 2])
    check_gradients("l2_norm", x)
    check_gradients("local_response_norm", x, size=2, alpha=1.0)


def test_what_is_undefined_is_refused():
    for operation, options in (("l2_norm", {}), ("local_response_norm", {"size": 3})):
        with pytest.raises(ValueError, match="x must have rank 3 or more, got 2"):
            call(operation, random_array(2, 2), **options)
    with pytest.raises(ValueError, match="size must be positive, got 0"):
        call("local_response_norm", random_array(2, 2, 2), size=0)
    with pytest.raises(ValueError, match="axes must name at least one axis"):
        call("layer_norm", random_array(2, 2), axes=[])
