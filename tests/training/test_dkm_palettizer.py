"""Palettes that are learnt: options, life cycle, what is stored."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import load_file, save_file

from corepress import coreml
from corepress.optimize.torch.palettization import DKMPalettizer, DKMPalettizerConfig, ModuleDKMPalettizerConfig
from corepress.optimize.torch.pruning import MagnitudePruner, MagnitudePrunerConfig
from corepress.training import metadata

FORMS = [
    {"n_bits": 2},
    {"n_bits": 1},
    {"n_bits": 3, "granularity": "per_grouped_channel", "group_size": 4},
    {"n_bits": 2, "granularity": "per_grouped_channel", "group_size": 8, "enable_per_channel_scale": True},
    {"n_bits": 2, "cluster_dim": 2},
    {"n_bits": 3, "cluster_dim": 4, "granularity": "per_grouped_channel", "group_size": 8},
    {"n_bits": 2, "lut_dtype": "i8"},
    {"n_bits": 4, "lut_dtype": "u8", "granularity": "per_grouped_channel", "group_size": 8},
    {"n_bits": 4, "add_extra_centroid": True, "enforce_zero": True},
    {"n_bits": 2, "palett_mode": "hard"},
    {"n_bits": 2, "palett_mode": "gsm"},
    {"n_bits": 2, "palett_mode": "topk"},
]


def palettizer_of(model, **options):
    config = {"global_config": {"weight_threshold": 300, **options}}
    return DKMPalettizer(model, DKMPalettizerConfig.from_dict(config))


def names(form):
    return ",".join(f"{key}={value}" for key, value in form.items())


@pytest.mark.parametrize("form", FORMS, ids=names)
def test_finalized_weights_are_what_evaluation_used(model, batch, train, form):
    palettizer = palettizer_of(model, **form)
    prepared = palettizer.prepare()
    losses = train(prepared, batch, 4, palettizer.step)
    assert losses[-1] < losses[0]
    finalized = palettizer.finalize()
    prepared.eval()
    assert torch.equal(finalized(batch), prepared(batch))
    assert type(finalized.conv) is torch.nn.Conv2d
    layout = prepared.conv.weight_fake_quant.layout
    for group in layout.split(
        finalized.conv.weight / (getattr(finalized.conv, "_COREML_/weight/palettization_scale", 1))
    ):
        values = group.reshape(len(group), -1)
        if not form.get("enable_per_channel_scale"):
            assert len(torch.unique(values, dim=0)) <= 2 ** form["n_bits"] + form.get("add_extra_centroid", 0)


@pytest.mark.parametrize("form", FORMS[:9], ids=names)
def test_conversion_changes_nothing(model, batch, train, converted, weights_of, form):
    palettizer = palettizer_of(model, **form)
    train(palettizer.prepare(), batch, 2, palettizer.step)
    finalized = palettizer.finalize()
    package = converted(finalized, batch)
    found = weights_of(package)
    rounding = 2**-10 if {"lut_dtype", "enable_per_channel_scale"} & form.keys() else 0
    for layer in (finalized.conv, finalized.fc):
        weight = layer.weight.detach().numpy()
        assert abs(found[weight.shape] - weight).max() <= rounding * abs(weight).max()
    storages = [each.storage for each in coreml.inspect(package).weights if len(each.shape) > 1]
    assert sum("palettized" in each for each in storages) == 2


def test_state_is_plain_tensors_and_training_resumes(model, batch, train, tmp_path):
    options = {"n_bits": 2, "milestone": 2, "granularity": "per_grouped_channel", "group_size": 8}
    whole = palettizer_of(model, **options)
    expected = whole.prepare()
    train(expected, batch, 6, whole.step)

    first = palettizer_of(model, **options)
    prepared = first.prepare()
    train(prepared, batch, 4, first.step)
    save_file(prepared.state_dict(), tmp_path / "half.safetensors")
    second = palettizer_of(model, **options)
    resumed = second.prepare()
    resumed.load_state_dict(load_file(tmp_path / "half.safetensors"))
    train(resumed, batch, 2, second.step)
    for name, value in expected.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_palettes_start_at_the_milestone(model, batch, train):
    palettizer = palettizer_of(model, n_bits=2, milestone=2)
    prepared = palettizer.prepare()
    for step in range(4):
        assert bool(prepared.fc.weight_fake_quant.fake_palett_enabled[0]) == (step > 2)
        train(prepared, batch, 1, palettizer.step)


def test_not_enabled_is_unchanged(model, batch):
    palettizer = palettizer_of(model, n_bits=2, milestone=5)
    prepared = palettizer.prepare()
    assert torch.equal(prepared(batch), model(batch))
    finalized = palettizer.finalize()
    assert torch.equal(finalized.fc.weight, model.fc.weight)
    assert not metadata.of_module(finalized.fc)


def test_copies_are_apart(model, batch, train):
    palettizer = palettizer_of(model, n_bits=2)
    prepared = palettizer.prepare()
    train(prepared, batch, 1, palettizer.step)
    copied = copy.deepcopy(prepared)
    palettizer.finalize(copied, inplace=True)
    assert type(copied.fc) is torch.nn.Linear
    prepared.train()
    train(prepared, batch, 1, palettizer.step)
    assert not torch.equal(prepared.fc.parametrizations.weight.original, copied.fc.weight)


def test_shared_weights_stay_shared(train):
    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = torch.nn.Linear(32, 32), torch.nn.Linear(32, 32)
            self.head = torch.nn.Linear(32, 8)
            self.second.weight = self.first.weight

        def forward(self, x):
            return self.head(torch.relu(self.second(torch.relu(self.first(x)))))

    palettizer = palettizer_of(Tied(), n_bits=2)
    prepared = palettizer.prepare()
    train(prepared, torch.randn(8, 32), 3, palettizer.step)
    finalized = palettizer.finalize()
    assert finalized.first.weight is finalized.second.weight
    assert len(finalized.first.weight.unique()) == 4
    assert metadata.of_module(finalized.first).keys() == metadata.of_module(finalized.second).keys() == {"weight"}


@pytest.mark.parametrize("widths", [None, 8])
def test_attention(widths):
    torch.manual_seed(0)
    attention = torch.nn.MultiheadAttention(16, 2, kdim=widths, vdim=widths, batch_first=True)
    palettizer = DKMPalettizer(attention, DKMPalettizerConfig.from_dict({"global_config": {"weight_threshold": 100}}))
    prepared = palettizer.prepare()
    query, key = torch.randn(2, 5, 16), torch.randn(2, 5, widths or 16)
    prepared(query, key, key)[0].sum().backward()
    palettizer.step()
    finalized = palettizer.finalize()
    prepared.eval()
    torch.testing.assert_close(finalized(query, key, key)[0], prepared(query, key, key)[0])
    assert torch.equal(finalized.out_proj.weight, prepared.out_proj.weight)
    assert len(finalized.out_proj.weight.unique()) == 4
    expected = ["in_proj_weight"] if widths is None else ["q_proj_weight", "k_proj_weight", "v_proj_weight"]
    assert list(metadata.of_module(finalized)) == expected
    assert list(metadata.of_module(finalized.out_proj)) == ["weight"]


def test_options_of_a_weight_are_those_of_its_size(model):
    config = DKMPalettizerConfig.from_dict(
        {
            "module_type_configs": {
                torch.nn.Linear: [
                    {"n_bits": 4, "weight_threshold": 1000},
                    {"n_bits": 2, "weight_threshold": 100},
                ],
                "Conv2d": None,
            },
            "module_name_configs": {"nor.*": {"n_bits": 1, "weight_threshold": 0}},
        }
    )
    prepared = DKMPalettizer(model, config).prepare()
    assert prepared.fc.weight_fake_quant.n_clusters == 16
    assert prepared.head.weight_fake_quant.n_clusters == 4
    assert prepared.norm.weight_fake_quant.n_clusters == 2
    assert type(prepared.conv) is torch.nn.Conv2d


def test_defaults():
    config = DKMPalettizerConfig()
    bits = {kind.__name__: each.n_bits for kind, each in config.module_type_configs.items()}
    assert bits["Linear"] == 4
    assert set(bits.values()) == {2, 4}


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"nbits": 4}, "unrecognized key 'nbits'"),
        ({"group_size": 4}, "per_grouped_channel, not per_tensor"),
        ({"granularity": "per_grouped_channel"}, "needs group_size"),
        ({"channel_axis": 1}, "channel_axis"),
        ({"lut_dtype": "i4"}, "lut_dtype must be one of"),
        ({"palett_mode": "soft"}, "mode must be one of"),
    ],
)
def test_wrong_options(model, batch, options, rule):
    with pytest.raises(ValueError, match=rule):
        palettizer_of(model, **options).prepare()(batch)


def test_deprecated_options():
    with pytest.raises(DeprecationWarning, match="group_size"):
        ModuleDKMPalettizerConfig(partition_size=100)
    with pytest.raises(DeprecationWarning, match="lut_dtype"):
        DKMPalettizerConfig.from_dict({"global_config": {"cluster_dtype": "f16"}})


def test_report(model, batch, train):
    palettizer = palettizer_of(model, n_bits=2)
    prepared = palettizer.prepare()
    train(prepared, batch, 1, palettizer.step)
    report = palettizer.report()
    assert list(report) == ["conv", "fc"]
    assert prepared.training
    assert report["fc"]["#params"] == model.fc.weight.numel()
    assert 0 < report["fc"]["error"] < 0.05
    lines = str(report).splitlines()
    assert len(lines) == 4
    assert len({len(line) for line in lines}) == 1


@pytest.mark.parametrize("form", [FORMS[0], FORMS[2]], ids=names)
def test_pruned_too(model, batch, train, converted, weights_of, form):
    with torch.no_grad():  # conversion takes values up to 2**-10 for zeros
        for module in (model.conv, model.fc):
            module.weight += 0.05 * module.weight.sign()
    palettizer = palettizer_of(model, **form)
    prepared = palettizer.prepare()
    pruner = MagnitudePruner(prepared, MagnitudePrunerConfig.from_dict({"global_config": {"target_sparsity": 0.75}}))
    pruner.prepare(inplace=True)

    def step():
        palettizer.step()
        pruner.step()

    train(prepared, batch, 4, step, lr=0.01)
    finalized = pruner.finalize(palettizer.finalize())
    assert type(finalized.fc) is torch.nn.Linear
    assert float((finalized.fc.weight == 0).float().mean()) == pytest.approx(0.75, abs=0.01)
    kept = finalized.fc.weight[finalized.fc.weight != 0]
    assert len(kept.unique()) <= 2 ** form["n_bits"] * prepared.fc.weight_fake_quant.layout.groups
    steps = [str(each) for each in metadata.of_module(finalized.fc)["weight"].compression_type]
    assert steps == ["pruning", "palettization"]
    found = weights_of(converted(finalized, batch))
    for layer in (finalized.conv, finalized.fc):
        weight = layer.weight.detach().numpy()
        assert abs(found[weight.shape] - weight).max() == 0


def test_models_prepared_for_pruning_are_refused(model):
    pruned = MagnitudePruner(model).prepare()
    with pytest.raises(RuntimeError, match="palettization first"):
        palettizer_of(pruned, n_bits=2).prepare()


def test_groups_of_nothing_but_zeros(model, batch, train):
    with torch.no_grad():
        model.conv.weight[:4] *= 1e-3  # pruned first, all of them
    palettizer = palettizer_of(model, n_bits=2, granularity="per_grouped_channel", group_size=4)
    prepared = palettizer.prepare()
    options = {"initial_sparsity": 0.5, "target_sparsity": 0.5}
    pruner = MagnitudePruner(prepared, MagnitudePrunerConfig.from_dict({"module_name_configs": {"conv": options}}))
    pruner.prepare(inplace=True)
    palettizer.step()
    train(prepared, batch, 2, lambda: (palettizer.step(), pruner.step()), lr=1e-3)
    finalized = palettizer.finalize()
    assert not prepared.conv.weight[:4].any()
    assert torch.isfinite(finalized(batch)).all()


@pytest.mark.parametrize("form", [{"cluster_dim": 2}, {"lut_dtype": "i8"}], ids=names)
def test_forms_that_cannot_be_converted_pruned(model, form):
    palettizer = palettizer_of(model, n_bits=2, **form)
    MagnitudePruner(palettizer.prepare()).prepare(inplace=True)
    with pytest.raises(ValueError, match="cluster_dim 1"):
        palettizer.step()


def test_results_are_quantized_too(model, batch, train, converted):
    palettizer = palettizer_of(model, n_bits=2, quantize_activations=True)
    prepared = palettizer.prepare()
    train(prepared, batch, 4, palettizer.step)
    finalized = palettizer.finalize()
    assert len(finalized.fc(torch.rand(64, 256)).unique()) <= 256
    for layer in (prepared.conv, prepared.fc):
        layer.activation_post_process.disable_observer()
    torch.testing.assert_close(finalized(batch), prepared.eval()(batch))
    ct = pytest.importorskip("coremltools")
    spec = ct.models.MLModel(str(converted(finalized, batch)), skip_model_load=True).get_spec()
    (block,) = spec.mlProgram.functions["main"].block_specializations.values()
    kinds = [each.type for each in block.operations]
    assert kinds.count("quantize") == kinds.count("dequantize") == 2
