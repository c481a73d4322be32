"""Presets are options that the configs take; schedules fit the length of training."""

from __future__ import annotations

import copy
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corepress.optimize.torch import presets
from corepress.optimize.torch.palettization import (
    DKMPalettizer,
    DKMPalettizerConfig,
    PostTrainingPalettizer,
    PostTrainingPalettizerConfig,
)
from corepress.optimize.torch.pruning import MagnitudePruner, MagnitudePrunerConfig, PolynomialDecayScheduler
from corepress.optimize.torch.quantization import (
    LinearQuantizer,
    LinearQuantizerConfig,
    PostTrainingQuantizer,
    PostTrainingQuantizerConfig,
)
from corepress.training import metadata
from corepress.training.schedules import polynomial

CONFIGS = {
    "w2-dkm": (DKMPalettizer, DKMPalettizerConfig),
    "w4": (PostTrainingPalettizer, PostTrainingPalettizerConfig),
    "w6": (PostTrainingPalettizer, PostTrainingPalettizerConfig),
    "w8": (PostTrainingQuantizer, PostTrainingQuantizerConfig),
    "w8a8": (LinearQuantizer, LinearQuantizerConfig),
}


def test_all_presets_are_here():
    assert set(presets.names()) == set(CONFIGS)
    for name in CONFIGS:
        assert getattr(presets, name.replace("-", "_"))() == presets.preset(name)
    with pytest.raises(ValueError, match="w2-dkm, w4"):
        presets.preset("w5")


@pytest.mark.parametrize("name", CONFIGS)
def test_models_have_the_bits_of_the_preset(model, batch, train, name):
    optimizer, config = CONFIGS[name]
    compressor = optimizer(model, config.from_dict(presets.preset(name)))
    if hasattr(compressor, "compress"):
        finished = compressor.compress()
    else:
        prepared = compressor.prepare(*([(batch,)] if name == "w8a8" else []))
        train(prepared, batch, 1, compressor.step)
        finished = compressor.finalize()
    found = metadata.of_module(finished.fc)["weight"]
    bits = int(name[1])
    if found.lut is not None:
        assert found.lut.shape[-2] == 2**bits
    else:
        assert found.quantization_n_bits == bits


def test_presets_are_new_each_time():
    kept = copy.deepcopy(presets.w4())
    presets.w4()["global_config"]["n_bits"] = 1
    assert presets.w4() == kept


def test_milestones_of_w8a8():
    assert presets.w8a8(10, 20)["global_config"]["milestones"] == [0, 20, 160, 160]
    with pytest.raises(ValueError, match="both"):
        presets.w8a8(epochs=3)
    with pytest.raises(ValueError, match="at least 1"):
        presets.w8a8(0, 5)


@given(
    epochs=st.integers(1, 50),
    steps_per_epoch=st.integers(1, 2000),
    target=st.floats(0.05, 0.99),
    warmup=st.floats(0, 0.4),
    until=st.floats(0.5, 1),
)
def test_schedules_fit_into_training(epochs, steps_per_epoch, target, warmup, until):
    found = presets.sparsity_schedule(epochs, steps_per_epoch, target, warmup=warmup, until=until)
    steps = epochs * steps_per_epoch
    assert found == sorted(set(found))
    assert found[0] >= 1
    assert found[-1] <= max(steps, 1)
    assert found[-1] == max(round(until * steps), max(round(warmup * steps), 1))
    if found[-1] - found[0] >= 100:  # long enough for all updates
        levels = [polynomial(0.0, target, index / (len(found) - 1), 3) for index in range(len(found))]
        assert max(b - a for a, b in itertools.pairwise(levels)) <= 0.1 + 1e-9


def test_schedules_prune_to_the_target(model, batch, train):
    steps = presets.sparsity_schedule(4, 10, 0.75)
    assert PolynomialDecayScheduler(update_steps=steps)
    options = {"scheduler": {"update_steps": steps}, "target_sparsity": 0.75}
    pruner = MagnitudePruner(model, MagnitudePrunerConfig.from_dict({"global_config": options}))
    prepared = pruner.prepare()
    train(prepared, batch, 25, pruner.step)
    assert float((prepared.fc.weight == 0).float().mean()) == pytest.approx(0.75, abs=0.01)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"target": 1.0}, "target < 1"),
        ({"initial": 0.8}, "initial < target"),
        ({"until": 0.0}, "warmup < until"),
        ({"updates": 0}, "at least 1"),
        ({"epochs": 0}, "at least 1"),
    ],
)
def test_schedules_that_make_no_sense(changed, message):
    with pytest.raises(ValueError, match=message):
        presets.sparsity_schedule(**{"epochs": 2, "steps_per_epoch": 10, "target": 0.5, **changed})


def test_one_update():
    assert presets.sparsity_schedule(2, 10, 0.5, updates=1) == [10]
    assert presets.sparsity_schedule(1, 1, 0.5) == [1]
