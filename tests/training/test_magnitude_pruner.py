"""Magnitude pruning: options, life cycle, what is stored, joint compression."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import load_file, save_file

from corepress import coreml
from corepress.optimize.torch.pruning import (
    ConstantSparsityScheduler,
    MagnitudePruner,
    MagnitudePrunerConfig,
    ModuleMagnitudePrunerConfig,
    PolynomialDecayScheduler,
)
from corepress.training import metadata
from corepress.training.metadata import CompressionType, ParameterMetadata
from corepress.training.schedules import polynomial

FORMS = [
    {"target_sparsity": 0.75},
    {"block_size": 2},
    {"granularity": "per_channel"},
    {"granularity": "per_kernel"},
    {"n_m_ratio": [3, 4]},
    {"n_m_ratio": [1, 2], "dim": 0},
]


def pruner_of(model, **options):
    return MagnitudePruner(model, MagnitudePrunerConfig.from_dict({"global_config": options}))


def names(form):
    return ",".join(f"{key}={value}" for key, value in form.items())


@pytest.mark.parametrize("form", FORMS, ids=names)
def test_finalized_weights_are_what_training_used(model, batch, train, form):
    pruner = pruner_of(model, scheduler={"update_steps": [1, 2, 3]}, **form)
    prepared = pruner.prepare()
    assert not hasattr(model.conv, "weight_mask")
    train(prepared, batch, 4, pruner.step)
    finalized = pruner.finalize()
    prepared.eval()
    finalized.eval()
    assert torch.equal(finalized(batch), prepared(batch))
    for layer in (finalized.conv, finalized.fc):
        share = 0.5 if "n_m_ratio" not in form else form["n_m_ratio"][0] / form["n_m_ratio"][1]
        expected = form.get("target_sparsity", share)
        assert (layer.weight == 0).float().mean().item() == pytest.approx(expected, abs=0.09)
        assert type(layer) in (torch.nn.Conv2d, torch.nn.Linear)
        assert not {"weight_mask", "weight_orig", "pruning_method"} & set(dir(layer))
    assert type(finalized.norm) is torch.nn.LayerNorm
    assert bool((finalized.norm.weight != 0).all())


def test_removed_weights_have_no_gradient_and_come_back(model, batch, train):
    pruner = pruner_of(model, scheduler={"update_steps": [1, 3]}, initial_sparsity=0.5, target_sparsity=0.4)
    prepared = pruner.prepare()
    before = prepared.fc.weight_orig.detach().clone()
    train(prepared, batch, 1, pruner.step)
    removed = prepared.fc.weight_mask == 0
    assert removed.float().mean() == pytest.approx(0.5, abs=1e-3)
    assert torch.equal(prepared.fc.weight_orig[removed], before[removed])
    assert bool((prepared.fc.weight_orig[~removed] != before[~removed]).any())
    train(prepared, batch, 3, pruner.step)
    assert bool((prepared.fc.weight_mask[removed] == 1).any())


def test_state_is_plain_tensors_and_training_resumes(model, batch, train, tmp_path):
    options = {"scheduler": {"update_steps": "range(1, 9, 2)"}, "target_sparsity": 0.8}
    whole = pruner_of(model, **options)
    expected = whole.prepare()
    train(expected, batch, 8, whole.step)

    first = pruner_of(model, **options)
    prepared = first.prepare()
    train(prepared, batch, 4, first.step)
    save_file(prepared.state_dict(), tmp_path / "half.safetensors")
    second = pruner_of(model, **options)
    resumed = second.prepare()
    resumed.load_state_dict(load_file(tmp_path / "half.safetensors"))
    assert second._pruner_info["fc"].sparsity_level == pytest.approx(first._pruner_info["fc"].sparsity_level)
    train(resumed, batch, 4, second.step)
    for name, value in expected.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_a_resumed_step_leaves_the_mask_alone(model, batch, train):
    pruner = pruner_of(model, scheduler={"begin_step": 1}, target_sparsity=0.8)
    prepared = pruner.prepare()
    train(prepared, batch, 1, pruner.step)
    mask = prepared.fc.weight_mask.clone()
    resumed = pruner_of(model, scheduler={"begin_step": 1}, target_sparsity=0.8)
    again = resumed.prepare()
    again.load_state_dict(prepared.state_dict())
    train(again, batch, 1, lambda: None)
    resumed.step()  # 0.8 is not a value of single precision, which must not look like another sparsity
    assert torch.equal(again.fc.weight_mask, mask)
    assert resumed._step_count == 2


def test_copies_are_apart(model, batch, train):
    pruner = pruner_of(model)
    prepared = pruner.prepare()
    train(prepared, batch, 1, pruner.step)
    copied = copy.deepcopy(prepared)
    pruner.finalize(copied, inplace=True)
    assert type(copied.fc) is torch.nn.Linear
    assert torch.equal(prepared.fc.weight, copied.fc.weight)
    train(prepared, batch, 1, pruner.step)
    assert torch.equal(prepared.fc.weight == 0, prepared.fc.weight_mask == 0)
    assert hasattr(copy.deepcopy(prepared).fc, "pruning_method")


def test_report(model):
    pruner = pruner_of(model, granularity="per_channel", block_size=2)
    pruner.prepare(inplace=True)
    model.eval()
    pruner.step()
    report = pruner.report()
    assert list(report) == ["conv", "fc", "head", "global"]
    assert report["conv"]["structured_weight_sparsity"] == 0.5
    assert report["conv"]["block2_weight_sparsity"] == 0.5
    rows = [report[name] for name in ("conv", "fc", "head")]
    total = sum(row["unstructured_weight_sparsity"] * row["#params"] for row in rows) / report["global"]["#params"]
    assert report["global"]["unstructured_weight_sparsity"] == pytest.approx(total)
    assert "unstructured_weight_sparsity" in repr(report)
    odd = pruner_of(torch.nn.Linear(4, 3))
    odd.prepare()
    assert odd.report()["global"]["block2_weight_sparsity"] == -1
    assert pruner_of(torch.nn.ReLU()).report()["global"]["#params"] == 0


def test_schedules():
    config = ModuleMagnitudePrunerConfig(
        scheduler=PolynomialDecayScheduler(update_steps=[2, 4, 6], power=2), initial_sparsity=0.2, target_sparsity=0.8
    )
    levels, level = [], 0.2
    for step in range(1, 9):
        level = config.scheduler.compute_sparsity(step, level, config)
        levels.append(level)
    assert levels == pytest.approx([0.2, 0.2, 0.2, 0.65, 0.65, 0.8, 0.8, 0.8])
    assert polynomial(0.1, 0.9, 0, 3) == pytest.approx(0.1)
    assert polynomial(0.1, 0.9, 1, 3) == 0.9
    assert PolynomialDecayScheduler("range(0, 10, 5)") == PolynomialDecayScheduler([0, 5])
    assert ConstantSparsityScheduler(begin_step=3).compute_sparsity(2, 0.1, config) == 0.1


@pytest.mark.parametrize("target", ["iOS16", "iOS18"])
@pytest.mark.parametrize("form", [{"target_sparsity": 0.75}, {"n_m_ratio": [3, 4]}], ids=names)
def test_conversion_changes_nothing(model, batch, train, converted, weights_of, form, target):
    pruner = pruner_of(model, **form)
    train(pruner.prepare(), batch, 2, pruner.step)
    finalized = pruner.finalize()
    package = converted(finalized, batch, target)
    found = weights_of(package)
    for layer in (finalized.conv, finalized.fc):
        weight = layer.weight.detach().numpy()
        assert abs(found[weight.shape] - weight).max() <= 2**-11 * abs(weight).max()
        assert ((found[weight.shape] == 0) == (weight == 0)).all()
    storages = [each.storage for each in coreml.inspect(package).weights if len(each.shape) > 1]
    assert all("sparse" in each for each in storages), storages


def test_small_values_that_are_kept_are_not_marked(model, caplog):
    with torch.no_grad():
        model.fc.weight.mul_(1e-3)
    pruner = pruner_of(model)
    pruner.prepare(inplace=True)
    pruner.step()
    finalized = pruner.finalize(inplace=True)
    assert "DEFAULT_PRUNING" in caplog.text
    assert "fc.weight" in caplog.text
    assert "conv.weight" not in caplog.text
    assert not metadata.of_module(finalized.fc)
    assert metadata.of_module(finalized.conv)["weight"].compression_type == (CompressionType.pruning,)


class Halved(torch.nn.Module):
    """What another optimizer attaches."""

    def forward(self, weight):
        return weight / 2


@pytest.mark.parametrize("small", [False, True])
def test_joint_life_cycle(model, batch, small):
    from corepress.training import parametrized

    if small:
        with torch.no_grad():
            model.fc.weight.mul_(1e-3)
    parametrized.attach(model.fc, "weight", Halved())
    pruner = pruner_of(model)
    with pytest.raises(RuntimeError, match="inplace=True"):
        pruner.prepare()
    pruner.prepare(inplace=True)
    pruner.step()
    chain = [type(each).__name__ for each in model.fc.parametrizations.weight]
    assert chain == ["Pruned", "Halved"]
    with pytest.raises(RuntimeError, match="finalize that one first"):
        pruner.finalize()
    halved = parametrized.find(model.fc, "weight", Halved)
    parametrized.replace(model.fc, "weight", halved, torch.nn.Parameter(model.fc.weight.detach()))
    known = ParameterMetadata((CompressionType.quantization,), quantization_n_bits=8)
    metadata.register(model.fc, "weight", known)
    if small:
        with pytest.raises(ValueError, match=r"fc\.weight are not zero .* with quantization alone"):
            pruner.finalize(model, inplace=True)
        return
    finalized = pruner.finalize(model, inplace=True)
    found = metadata.of_module(finalized.fc)["weight"]
    assert found.compression_type == (CompressionType.pruning, CompressionType.quantization)
    assert found.quantization_n_bits == 8
    assert (finalized.fc.weight == 0).float().mean() == pytest.approx(0.5, abs=1e-3)
    again = pruner.finalize(finalized, inplace=True)
    assert metadata.of_module(again.fc)["weight"].compression_type == found.compression_type


def test_with_palettes(model, batch, train, converted, weights_of):
    palettization = pytest.importorskip("corepress.optimize.torch.palettization")
    config = palettization.DKMPalettizerConfig.from_dict({"global_config": {"n_bits": 2, "weight_threshold": 300}})
    palettizer = palettization.DKMPalettizer(model, config)
    prepared = palettizer.prepare(inplace=True)
    pruner = pruner_of(prepared, target_sparsity=0.75)
    pruner.prepare(inplace=True)

    def step():
        pruner.step()
        palettizer.step()

    train(prepared, batch, 3, step)
    finalized = pruner.finalize(palettizer.finalize(inplace=True), inplace=True)
    for layer in (finalized.conv, finalized.fc):
        assert (layer.weight == 0).float().mean() == pytest.approx(0.75, abs=0.02)
        assert len(layer.weight.unique()) <= 5
        steps = metadata.of_module(layer)["weight"].compression_type
        assert steps == (CompressionType.pruning, CompressionType.palettization)
    found = weights_of(converted(finalized, batch))
    for layer in (finalized.conv, finalized.fc):
        weight = layer.weight.detach().numpy()
        assert (found[weight.shape] == weight).all()


def test_without_effect(model, caplog):
    pruner = pruner_of(model)
    pruner.step()
    assert "call prepare first" in caplog.text
    prepared = pruner.prepare()
    assert pruner.prepare() is prepared
    assert "prepared already" in caplog.text


def test_options_by_type_and_name(model):
    config = MagnitudePrunerConfig.from_dict(
        {
            "module_type_configs": {"Linear": {"target_sparsity": 0.9}, torch.nn.Conv2d: None},
            "module_name_configs": {"he.*": {"scheduler": {"begin_step": 3}, "param_name": "bias"}},
        }
    )
    pruner = MagnitudePruner(model, config)
    prepared = pruner.prepare()
    pruner.step()
    assert not hasattr(prepared.conv, "weight_mask")
    assert (prepared.fc.weight == 0).float().mean() == pytest.approx(0.9, abs=1e-3)
    assert bool(prepared.head.bias_mask.all())
    pruner.step()
    pruner.step()
    assert int((prepared.head.bias == 0).sum()) == 4
    assert MagnitudePrunerConfig() == MagnitudePrunerConfig(global_config=ModuleMagnitudePrunerConfig())
    assert ModuleMagnitudePrunerConfig().as_dict()["scheduler"] == {"begin_step": 0}


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"sparsity": 0.5}, "unrecognized key 'sparsity'"),
        ({"granularity": "per_row"}, "granularity"),
        ({"n_m_ratio": [3]}, "n_m_ratio must be two numbers"),
        ({"n_m_ratio": [5, 4]}, "n <= m"),
        ({"n_m_ratio": [1, 4], "block_size": 2}, "block_size must be 1"),
        ({"n_m_ratio": [1, 4], "granularity": "per_channel"}, "granularity must be 'per_scalar'"),
        ({"scheduler": {"update_steps": [1.5]}}, "whole numbers"),
        ({"scheduler": {"update_steps": [-1]}}, "whole numbers"),
        ({"granularity": "per_layer"}, "Unsupported granularity"),
    ],
)
def test_wrong_options(model, options, rule):
    with pytest.raises(ValueError, match=rule):
        pruner_of(model, **options).prepare()


def test_types_that_are_not_pruned():
    with pytest.raises(ValueError, match="'LSTM' in module_type_configs is not supported"):
        MagnitudePrunerConfig.from_dict({"module_type_configs": {"LSTM": {}}})
