import itertools
import math

import numpy as np
import pytest
from operations import call, check_gradients, close, random_array


def pooled(x, reduce, kernel, strides, before, after, ceil):
    """Windows of values, and of marks of what each place is: an element, padding, or what ceil adds."""
    spatial = len(kernel)
    shape = x.shape[2:]
    sizes = []
    for n, k, s, b, a in zip(shape, kernel, strides, before, after, strict=True):
        size = (math.ceil if ceil else math.floor)((n + b + a - k) / s) + 1
        if ceil and (size - 1) * s >= n + b:
            size -= 1
        sizes.append(size)
    result = np.zeros((*x.shape[:2], *sizes))
    for place in itertools.product(*map(range, sizes)):
        starts = [place[i] * strides[i] - before[i] for i in range(spatial)]
        inside = tuple(slice(max(starts[i], 0), max(starts[i] + kernel[i], 0)) for i in range(spatial))
        counted = math.prod(min(starts[i] + kernel[i], shape[i] + after[i]) - starts[i] for i in range(spatial))
        values = x[(slice(None), slice(None), *inside)].reshape(*x.shape[:2], -1)
        result[(slice(None), slice(None), *place)] = reduce(values, counted)
    return result


REDUCTIONS = {
    "max_pool": lambda values, counted: values.max(-1, initial=-np.inf),
    "avg_pool": lambda values, counted: values.sum(-1) / counted,
    "avg_pool excluding": lambda values, counted: values.sum(-1) / max(values.shape[-1], 1),
    "l2_pool": lambda values, counted: np.sqrt((values.astype(np.float64) ** 2).sum(-1)),
}
PADS = {
    "valid": [0] * 6,
    "small": [1, 1, 1, 1, 1, 1],
    "large": [2, 2, 3, 3, 2, 2],
    "asymmetric": [0, 2, 1, 0, 1, 2],
}


@pytest.mark.parametrize(
    ("name", "rank"), [each for each in itertools.product(REDUCTIONS, [3, 4, 5]) if each != ("l2_pool", 5)]
)
@pytest.mark.parametrize(
    ("padding", "ceil"), [each for each in itertools.product(PADS, [False, True]) if each != ("asymmetric", True)]
)
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_pooling(name, rank, padding, ceil, stride):
    operation, _, excluding = name.partition(" ")
    spatial = rank - 2
    x = random_array(2, 3, *(9, 7, 5)[:spatial])
    kernel, strides, pad = [3, 2, 3][:spatial], [stride] * spatial, PADS[padding][: 2 * spatial]
    expected = pooled(x, REDUCTIONS[name], kernel, strides, pad[::2], pad[1::2], ceil)
    options = {"kernel_sizes": kernel, "strides": strides, "pad_type": "custom", "pad": pad, "ceil_mode": ceil}
    if excluding:
        options["exclude_padding_from_average"] = True
    close(call(operation, x, **options), expected)
    if padding == "valid":
        options |= {"pad_type": "valid", "pad": [5] * 2 * spatial}
        close(call(operation, x, **options), expected)


@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize("pad_type", ["same", "same_lower"])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_same_padding(name, pad_type, stride):
    operation, _, excluding = name.partition(" ")
    x = random_array(1, 2, 8, 7)
    kernel = [4, 3]
    totals = [max((-(-n // stride) - 1) * stride + k - n, 0) for n, k in zip((8, 7), kernel, strict=True)]
    small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
    before, after = (small, large) if pad_type == "same" else (large, small)
    options = {"kernel_sizes": kernel, "strides": [stride] * 2, "pad_type": pad_type}
    if excluding:
        options["exclude_padding_from_average"] = True
    close(call(operation, x, **options), pooled(x, REDUCTIONS[name], kernel, [stride] * 2, before, after, False))


def test_strides_are_one_by_default():
    x = random_array(1, 1, 5)
    close(call("max_pool", x, kernel_sizes=[2], pad_type="valid"), np.maximum(x[..., 1:], x[..., :-1]))


def test_padding_is_never_the_largest():
    x = -np.ones((1, 1, 3), np.float32)
    result = call("max_pool", x, kernel_sizes=[2], strides=[2], pad_type="custom", pad=[2, 1])
    assert result.tolist() == [[[-math.inf, -1, -1]]]


def test_gradients():
    x = random_array(1, 1, 5, 5)
    for operation in ("max_pool", "avg_pool", "l2_pool"):
        check_gradients(operation, x, kernel_sizes=[3, 3], strides=[2, 2], pad_type="custom", pad=[1, 0, 0, 1])


def test_what_is_undefined_is_refused():
    x = random_array(1, 1, 5, 5)
    with pytest.raises(ValueError, match="pad must be symmetric with ceil_mode"):
        call("avg_pool", x, kernel_sizes=[2, 2], pad_type="custom", pad=[0, 1, 0, 0], ceil_mode=True)
    with pytest.raises(ValueError, match="rank 3 or 4, got 5"):
        call("l2_pool", random_array(1, 1, 2, 2, 2), kernel_sizes=[2] * 3, pad_type="valid")
    with pytest.raises(ValueError, match="rank 3, 4 or 5, got 2"):
        call("max_pool", random_array(1, 1), kernel_sizes=[], pad_type="valid")
