"""Calls of functions of operations as the runtime makes them, and checks of their gradients."""

import numpy as np
import torch

from corepress.coreml.format.versions import IOS26
from corepress.runtime.torch import ops  # noqa: F401
from corepress.runtime.torch.registry import implementation_of


def call(operation, *values, version=IOS26, **options):
    """The result of an operation as its newest version, or as ``version`` defines it; arrays become tensors."""
    found = implementation_of(operation, version)
    given = [
        torch.from_numpy(np.array(each)) if isinstance(each, (np.ndarray, np.generic)) else each for each in values
    ]
    before = [each.clone() if isinstance(each, torch.Tensor) else each for each in given]
    result = found.function(*given, **options)
    for each, copy in zip(given, before, strict=True):
        assert not isinstance(each, torch.Tensor) or torch.equal(each, copy) or each.isnan().any()
    return result


def close(result, expected, atol=2e-6, rtol=2e-5):
    array = result.detach().numpy()
    assert array.shape == np.shape(expected)
    np.testing.assert_allclose(array, expected, atol=atol, rtol=rtol)


def random_array(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def check_gradients(operation, *values, **options):
    """Gradients by differences, in float64."""
    given = [
        torch.from_numpy(np.array(each, np.float64)).requires_grad_() if isinstance(each, np.ndarray) else each
        for each in values
    ]
    function = implementation_of(operation, IOS26).function
    assert torch.autograd.gradcheck(lambda *arguments: function(*arguments, **options), given)
