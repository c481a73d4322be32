"""Sizes are those of the converted package; estimates leave the model as it was."""

from __future__ import annotations

import pytest
import torch

from corepress import coreml
from corepress.optimize.torch.palettization import DKMPalettizer, DKMPalettizerConfig
from corepress.optimize.torch.pruning import MagnitudePruner, MagnitudePrunerConfig
from corepress.optimize.torch.summary import estimate, summarize


def palettizer_of(model, **options):
    return DKMPalettizer(model, DKMPalettizerConfig.from_dict({"global_config": {"weight_threshold": 300, **options}}))


@pytest.mark.parametrize(
    "options", [{"n_bits": 2}, {"n_bits": 4, "granularity": "per_grouped_channel", "group_size": 8}], ids=str
)
def test_sizes_are_those_of_packages(model, batch, train, converted, options):
    palettizer = palettizer_of(model, **options)
    train(palettizer.prepare(), batch, 1, palettizer.step)
    finalized = palettizer.finalize()
    stored = {each.shape: each.bytes for each in coreml.inspect(converted(finalized, batch)).weights}
    rows = summarize(finalized)
    for name, value in finalized.named_parameters():
        if tuple(value.shape) in stored and value.ndim > 1:
            assert rows[name]["bytes"] == pytest.approx(stored[tuple(value.shape)], abs=4)
    assert rows["fc.weight"]["compression"] == "palettization"
    assert rows["fc.bias"]["bits_per_weight"] == 16
    assert rows["total"]["#params"] == sum(value.numel() for value in model.parameters())
    assert rows["total"]["bytes"] == pytest.approx(sum(row["bytes"] for row in list(rows.values())[:-1]), abs=4)
    assert "bits_per_weight" in str(rows)


def test_sparse_weights(model):
    pruner = MagnitudePruner(model, MagnitudePrunerConfig.from_dict({"global_config": {"target_sparsity": 0.75}}))
    pruner.prepare(inplace=True)
    with torch.no_grad():
        model.fc.parametrizations.weight.original.add_(model.fc.parametrizations.weight.original.sign() * 0.01)
    pruner.step()
    rows = summarize(pruner.finalize())
    assert rows["fc.weight"]["bits_per_weight"] == pytest.approx(0.25 * 16 + 1, abs=0.1)


def test_estimates_change_nothing(model, batch):
    palettizer = palettizer_of(model, n_bits=2, milestone=3)
    prepared = palettizer.prepare()
    before = {name: value.clone() for name, value in prepared.state_dict().items()}
    rows = estimate(prepared)
    assert list(rows) == ["conv.weight", "fc.weight", "total"]
    assert rows["total"]["seconds"] > 0
    assert rows["fc.weight"]["bytes"] >= model.fc.weight.numel() * 4
    after = prepared.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(value.grad is None for value in prepared.parameters())
