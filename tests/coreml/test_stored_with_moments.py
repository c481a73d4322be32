"""Second moments reach every step of a weight in a package that uses them."""

from __future__ import annotations

import numpy as np
import pytest

import corepress as cp
from corepress.compression import WeightData, apply, output_error
from corepress.coreml.operations import lower_to
from corepress.engine.steps import compress_stored
from corepress.specs import Palettize, Prune, Quantize

VERSION = 9
STEPS = {
    "palettize": (Palettize(nbits=3),),
    "palettize, int8 table": (Palettize(nbits=4), Quantize()),
    "prune, palettize": (Prune(target_sparsity=0.5), Palettize(nbits=4)),
    "prune, quantize": (Prune(n_m_ratio=(2, 4)), Quantize()),
    "magnitudes, palettize": (Prune(threshold=0.3), Palettize(nbits=4)),
}


@pytest.fixture(scope="module")
def layer():
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((500, 20)) @ rng.standard_normal((20, 64)) + 0.5 * rng.standard_normal((500, 64))
    return rng.standard_normal((48, 64)).astype(np.float16), (inputs.T @ inputs / 500).astype(np.float32)


@pytest.mark.parametrize("name", STEPS)
def test_every_step_uses_the_moments_that_has_a_use_for_them(layer, name):
    weight, hessian = layer
    steps, data = STEPS[name], WeightData(hessian=hessian)
    plain, _ = compress_stored(weight, steps, lower_to(VERSION), 1)
    form, snr_db = compress_stored(weight, steps, lower_to(VERSION), 1, data)
    assert form.nbytes <= plain.nbytes + 8
    expected = weight
    for index, step in enumerate(steps):
        expected = apply(expected, step, data=data.of_step(step, expected, is_first=index == 0))
    assert snr_db == pytest.approx(cp.error(weight, expected).snr_db)
    lone = weight
    for step in steps:
        lone = apply(lone, step)
    assert output_error(weight, expected, hessian) < output_error(weight, lone, hessian)


def test_both_steps_are_better_than_the_first_alone(layer):
    weight, hessian = layer
    pruned = cp.prune(weight, target_sparsity=0.5, hessian=hessian)
    once, twice = cp.palettize(pruned, nbits=3), cp.palettize(pruned, nbits=3, hessian=hessian)
    assert output_error(weight, twice, hessian) < output_error(weight, once, hessian)
