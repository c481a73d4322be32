"""LayerwiseCompressor: configs, the order in which layers are compressed, errors beside coremltools', conversion."""

from __future__ import annotations

import copy
import logging
from collections import Counter

import numpy as np
import pytest
import torch
from attrs import define, field
from torch import nn

from corepress import coreml
from corepress.optimize.torch.layerwise_compression import (
    GPTQ,
    FirstLayerInputCacher,
    LayerwiseCompressionAlgorithm,
    LayerwiseCompressionAlgorithmConfig,
    LayerwiseCompressor,
    LayerwiseCompressorConfig,
    ModuleGPTQConfig,
    ModuleGPTQPalettizationConfig,
    ModuleSparseGPTConfig,
)
from corepress.training import layerwise
from corepress.training.metadata import VERSION_BUFFER, of_module

GPTQ_4 = {"algorithm": "gptq", "weight_dtype": "uint4"}


def compressed(model, samples, config=GPTQ_4, **options):
    whole = LayerwiseCompressorConfig.from_dict({"global_config": config} | options)
    return LayerwiseCompressor(model, whole).compress(samples, device="cpu")


class Residual(nn.Module):
    """No chain: a skip connection, a shared layer, and an argument by name."""

    def __init__(self):
        super().__init__()
        self.first, self.twice, self.last = nn.Linear(12, 12), nn.Linear(12, 12), nn.Linear(12, 4)
        self.unused = nn.Linear(12, 4)

    def forward(self, x):
        y = torch.relu(self.first(x))
        return self.last(input=x + self.twice(self.twice(y)))


class Blocks(nn.Module):
    """A chain of blocks between other layers, with an argument that all of them get."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)

        def forward(self, x, mask, scale=None):
            return x + self.down(torch.relu(self.up(x))) * mask * scale, None

    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(20, 8), nn.Linear(8, 20)
        self.blocks = nn.ModuleList(self.Block() for _ in range(3))

    def forward(self, tokens):
        x, mask = self.embedding(tokens), (tokens > 2)[..., None].float()
        for block in self.blocks:
            x = block(x, mask, scale=0.5)[0]
        return self.head(x)


def samples_for(model, count=4):
    generator = torch.Generator().manual_seed(3)
    if isinstance(model, Blocks):
        return [torch.randint(0, 20, (3, 7), generator=generator) for _ in range(count)]
    return [torch.randn(10, 12, generator=generator) for _ in range(count)]


def by_hand(model, samples, stages):
    """The same in the plainest way: the whole model runs for each stage."""
    model = copy.deepcopy(model)
    for stage in stages:
        algorithms = {name: GPTQ(model.get_submodule(name), ModuleGPTQConfig(weight_dtype="uint4")) for name in stage}
        hooks = [
            model.get_submodule(name).register_forward_hook(
                lambda _, args, kwargs, out, each=each: each.add_batch(args[0] if args else kwargs["input"], out),
                with_kwargs=True,
            )
            for name, each in algorithms.items()
        ]
        with torch.no_grad():
            for sample in samples:
                model(sample)
        for hook in hooks:
            hook.remove()
        for each in algorithms.values():
            each.compress()
    return model


@pytest.mark.parametrize(
    ("kind", "options", "stages"),
    [
        (Residual, {}, [["first"], ["twice"], ["last"]]),
        (Residual, {"layers": ["last", "first"]}, [["first"], ["last"]]),
        (Blocks, {"layers": [r"blocks\.\d"]}, [[f"blocks.{i}.up", f"blocks.{i}.down"] for i in range(3)]),
        (Blocks, {}, [[f"blocks.{i}.{n}"] for i in range(3) for n in ("up", "down")] + [["head"]]),
    ],
)
def test_each_stage_sees_what_the_compressed_ones_before_it_make(kind, options, stages):
    torch.manual_seed(0)
    model = kind()
    samples = samples_for(model)
    found, expected = compressed(model, samples, **options), by_hand(model, samples, stages)
    for name, value in expected.named_parameters():
        torch.testing.assert_close(found.get_parameter(name), value, rtol=0, atol=0, msg=name)
    chosen = {name for stage in stages for name in stage}
    for name, module in found.named_modules():
        assert ("weight" in of_module(module)) == (name in chosen)
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_blocks_of_a_chain_run_twice():
    torch.manual_seed(0)
    model, runs = Blocks(), Counter()
    samples = samples_for(model, 6)
    for name in ("blocks.0.up", "blocks.1.up", "blocks.2.up", "head"):
        model.get_submodule(name).register_forward_hook(lambda *_, name=name: runs.update([name]))
    whole = LayerwiseCompressorConfig.from_dict({"global_config": GPTQ_4, "layers": [r"blocks\.\d"]})
    LayerwiseCompressor(model, whole).compress(samples, inplace=True)
    assert runs == {"blocks.0.up": 1 + 12, "blocks.1.up": 1 + 12, "blocks.2.up": 1 + 6, "head": 1}


def test_other_models_run_a_bounded_number_of_times(monkeypatch):
    monkeypatch.setattr(layerwise, "MOST_STAGES", 4)
    torch.manual_seed(0)

    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = nn.ModuleList(nn.Linear(6, 6) for _ in range(12))

        def forward(self, x):
            for part in self.parts:
                x = x + torch.tanh(part(x))
            return x

    model, runs = Deep(), Counter()
    model.parts[0].register_forward_hook(lambda *_: runs.update(["first"]))
    model.parts[11].register_forward_hook(lambda *_: runs.update(["last"]))
    whole = LayerwiseCompressorConfig.from_dict({"global_config": GPTQ_4})
    found = LayerwiseCompressor(model, whole).compress([torch.randn(5, 6) for _ in range(3)], inplace=True)
    assert runs == {"first": 1 + 4 * 3, "last": 1 + 3}
    assert all("weight" in of_module(part) for part in found.parts)


def test_modules_that_change_their_inputs():
    torch.manual_seed(0)
    layers = [nn.Linear(12, 12), nn.Hardswish(inplace=True), nn.Linear(12, 12), nn.ReLU(inplace=True), nn.Linear(12, 3)]
    model = nn.Sequential(nn.Sequential(*layers[:1]), nn.Sequential(*layers[1:3]), nn.Sequential(*layers[3:]))
    samples = samples_for(model)
    found, expected = compressed(model, samples), by_hand(model, samples, [["0.0"], ["1.1"], ["2.1"]])
    for name, value in expected.named_parameters():
        torch.testing.assert_close(found.get_parameter(name), value, rtol=0, atol=0)


def test_sequences_that_pass_several_values_on():
    """coremltools calls each child with all that the one before it returned."""

    class Split(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(12, 6), nn.Linear(12, 6)

        def forward(self, x):
            return self.a(x), self.b(x)

    class Join(nn.Module):
        def __init__(self):
            super().__init__()
            self.c = nn.Linear(6, 6)

        def forward(self, x, y):
            return self.c(x * y)

    found = compressed(model := nn.Sequential(Split(), Join()), samples_for(model))
    assert all("weight" in of_module(found.get_submodule(name)) for name in ("0.a", "0.b", "1.c"))


def test_attention_runs_layer_by_layer(caplog):
    torch.manual_seed(0)
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(12, 2, 24, batch_first=True), 2).eval()
    with caplog.at_level(logging.WARNING):
        found = compressed(model, [torch.randn(2, 5, 12)])
    assert "weight" in of_module(found.layers[0].linear1)
    before = model.layers[0].self_attn.out_proj.weight
    assert torch.equal(found.layers[0].self_attn.out_proj.weight, before)
    assert "layers.0.self_attn.out_proj" in caplog.text


@pytest.mark.parametrize(
    "sample", [(torch.ones(4, 3), torch.ones(4, 3)), {"x": torch.ones(4, 3), "y": torch.ones(4, 3)}]
)
def test_samples_of_several_arguments(sample):
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x, y):
            return self.layer(x + y)

    assert "weight" in of_module(compressed(Sum(), [sample]).layer)


def test_no_more_samples_are_taken_than_asked_for():
    taken = []

    def samples():
        for index in range(9):
            taken.append(index)
            yield torch.randn(4, 12)

    compressed(nn.Sequential(nn.Linear(12, 3)), samples(), calibration_nsamples=3)
    assert taken == [0, 1, 2]


def test_modes_devices_and_the_original_stay():
    model = nn.Sequential(nn.Linear(12, 12), nn.Dropout(), nn.Linear(12, 3)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = compressed(model, samples_for(model))
    assert all(module.training for module in (*model.modules(), *found.modules()))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert VERSION_BUFFER in found.state_dict()


def test_what_cannot_be_compressed_is_named_and_stays(caplog):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 9), nn.Linear(9, 4))
    config = GPTQ_4 | {"granularity": "per_block", "block_size": 4}
    with caplog.at_level(logging.WARNING):
        found = compressed(model, samples_for(model), config)
    assert torch.equal(found[1].weight, model[1].weight)
    assert "1 is left unchanged: block_size 4 must divide the 9 input channels" in caplog.text
    assert "weight" in of_module(found[0])


def test_layers_that_share_a_weight():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 12))
    model[2].weight = model[0].weight
    found = compressed(model, samples_for(model))
    assert found[2].weight is found[0].weight
    one, other = (of_module(found[index])["weight"] for index in (0, 2))
    assert torch.equal(one.quantization_scale, other.quantization_scale)


class TestConfigs:
    @pytest.mark.parametrize("name", ["uint8", "int8", torch.uint8, torch.int8])
    def test_eight_bits(self, name):
        assert ModuleGPTQConfig(weight_dtype=name).weight_n_bits == 8

    @pytest.mark.parametrize(("name", "bits"), [("int4", 4), ("uint4", 4), ("int3", 3), ("uint3", 3)])
    def test_fewer_bits_by_both_spellings(self, name, bits):
        for kind in (ModuleGPTQConfig, ModuleSparseGPTConfig):
            config = kind(weight_dtype=name)
            assert (config.weight_n_bits, config.weight_dtype) == (bits, torch.uint8)

    def test_sizes_without_effect_are_warned_of(self, caplog):
        ModuleGPTQConfig(), ModuleSparseGPTConfig(processing_group_size=128)
        assert not caplog.records
        for kind in (ModuleGPTQConfig, ModuleSparseGPTConfig):
            caplog.clear()
            kind(processing_group_size=64)
            assert f"{kind.__name__}: processing_group_size 64 has no effect" in caplog.text

    def test_input_channels_of_large_moments_come_first_in_any_case(self):
        torch.manual_seed(0)
        layer = nn.Linear(32, 16, bias=False)
        inputs = torch.randn(256, 32) * torch.linspace(0.1, 3, 32)
        order = inputs.square().sum(0).argsort(descending=True)
        sorted_layer = nn.Linear(32, 16, bias=False)
        with torch.no_grad():
            sorted_layer.weight.copy_(layer.weight[:, order])
        for heuristic in (False, True):
            options = {"algorithm": "gptq", "weight_dtype": "uint4", "use_activation_order_heuristic": heuristic}
            config = LayerwiseCompressorConfig.from_dict({"global_config": options})
            found, other = (
                LayerwiseCompressor(nn.Sequential(one), config).compress([samples], device="cpu")[0].weight
                for one, samples in ((layer, inputs), (sorted_layer, inputs[:, order]))
            )
            torch.testing.assert_close(found[:, order], other)

    def test_defaults_are_those_of_the_code(self):
        assert not ModuleGPTQConfig().use_activation_order_heuristic
        assert ModuleSparseGPTConfig().weight_dtype == torch.uint8

    @pytest.mark.parametrize(
        ("config", "reason"),
        [
            ({"algorithm": "gptq", "weight_dtype": "float16"}, "weight_dtype must be one of"),
            ({"algorithm": "gptq", "enable_normal_float": True}, "normal floats have 3 or 4 bits, not 8"),
            ({"algorithm": "gptq", "hessian_dampening": -1.0}, "hessian_dampening"),
            ({"algorithm": "gptq", "block": 3}, "Found unrecognized key 'block'"),
            ({"algorithm": "sparse_gpt", "n_m_ratio": [5, 4]}, "n_m_ratio must be two numbers"),
            ({"algorithm": "sparse_gpt", "target_sparsity": 1.5}, "target_sparsity"),
            ({"algorithm": "gptq_palettize", "n_bits": 5}, "n_bits"),
            ({"algorithm": "gptq_palettize", "group_size": 8}, "group_size must be given for per_grouped_channel"),
            ({"weight_dtype": "uint4"}, "need the name of an algorithm, one of gptq, sparse_gpt"),
        ],
    )
    def test_wrong_values(self, config, reason):
        with pytest.raises(ValueError, match=reason):
            LayerwiseCompressorConfig.from_dict({"global_config": config})

    def test_yaml(self, tmp_path):
        path = tmp_path / "config.yaml"
        path.write_text(
            "global_config: {algorithm: gptq, weight_dtype: uint4, block_size: 16, granularity: per_block}\n"
            "module_type_configs: {Linear: {algorithm: sparse_gpt, n_m_ratio: [2, 4]}, Conv2d: null}\n"
            "module_name_configs: {'head.*': {algorithm: gptq_palettize, n_bits: 3}}\n"
            "layers: ['block.*']\ncalibration_nsamples: 16\n",
            encoding="utf-8",
        )
        config = LayerwiseCompressorConfig.from_yaml(path)
        assert config.global_config.block_size == 16
        assert config.get_module_config("x", nn.Linear(1, 1)).n_m_ratio == [2, 4]
        assert config.get_module_config("x", nn.Conv2d(1, 1, 1)) is None
        assert isinstance(config.get_module_config("head.1", nn.Linear(1, 1)), ModuleGPTQPalettizationConfig)

    def test_float32_leaves_weights_as_they_are(self):
        model = nn.Sequential(nn.Linear(12, 3))
        found = compressed(model, samples_for(model), {"algorithm": "gptq", "weight_dtype": "float32"})
        assert torch.equal(found[0].weight, model[0].weight)
        assert not of_module(found[0])

    def test_no_samples_and_no_layers(self):
        with pytest.raises(ValueError, match="dataloader has no samples"):
            compressed(nn.Sequential(nn.Linear(2, 2)), [])
        with pytest.raises(ValueError, match="no module of the model is one of layers"):
            compressed(nn.Sequential(nn.Linear(2, 2)), [torch.ones(1, 2)], layers=["decoder"])


def test_algorithms_and_cachers_of_others():
    seen = []

    @LayerwiseCompressionAlgorithmConfig.register("test_double")
    @define
    class DoubleConfig(LayerwiseCompressionAlgorithmConfig):
        algorithm: str = field(default="test_double")

    @LayerwiseCompressionAlgorithm.register("test_double")
    class Double(LayerwiseCompressionAlgorithm):
        def __init__(self, layer, config):
            self.layer = layer

        def add_batch(self, inp, out):
            seen.append((inp.clone(), out.clone()))

        def compress(self):
            self.layer.weight.data.mul_(2)

        def cleanup(self):
            seen.append("cleaned up")

    @FirstLayerInputCacher.register("test_halves")
    class Halves(FirstLayerInputCacher):
        def cache(self, dataloader, nsamples, device):
            return [each / 2 for each in dataloader][:nsamples], {}

    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 2))
    x = torch.randn(4, 3)
    config = {"algorithm": "test_double"}
    found = compressed(model, [x], config, input_cacher="test_halves")
    torch.testing.assert_close(found[0].weight, model[0].weight * 2)
    torch.testing.assert_close(seen[0][0], x / 2)
    torch.testing.assert_close(seen[2][0], model[0](x).detach())  # of the doubled layer
    assert seen[1] == seen[3] == "cleaned up"


@pytest.mark.parametrize("name", ["default", "gpt"])
def test_cachers_return_what_the_first_block_is_called_with(name):
    model = Blocks()
    tokens = samples_for(model)
    cacher = FirstLayerInputCacher.get_class(name)(model, [r"blocks\.0"])
    inputs, named = cacher.cache(tokens, 2, "cpu")
    assert len(inputs) == 2
    if name == "gpt":
        torch.testing.assert_close(inputs[1][0], model.embedding(tokens[1]).detach())
        assert named == {"scale": 0.5}
    else:
        assert inputs[1] is tokens[1]


def test_reports():
    model = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 4))
    names = {
        "0": {"algorithm": "sparse_gpt", "target_sparsity": 0.25},
        "2": {"algorithm": "gptq_palettize", "n_bits": 2},
    }
    whole = LayerwiseCompressorConfig.from_dict({"module_name_configs": names})
    compressor = LayerwiseCompressor(model, whole)
    with pytest.raises(ValueError, match="call compress first"):
        compressor.report()
    compressor.compress(samples_for(model))
    report = compressor.report()
    assert report["0.weight"]["dtype"] == "dtype=int8"
    assert report["0.weight"]["unstructured_weight_sparsity"] >= 0.25
    assert report["2.weight"]["palettization_mode"] == "num_clusters=4, cluster_dim=1"


PEER_CASES = [
    {"algorithm": "gptq", "weight_dtype": "uint4"},
    {"algorithm": "gptq", "weight_dtype": "uint3", "quantization_scheme": "affine"},
    {"algorithm": "gptq", "weight_dtype": "uint4", "granularity": "per_tensor"},
    {"algorithm": "gptq", "weight_dtype": "uint4", "granularity": "per_block", "block_size": 16},
    {"algorithm": "gptq", "weight_dtype": "uint4", "use_activation_order_heuristic": True},
    {"algorithm": "gptq", "weight_dtype": "uint4", "enable_normal_float": True},
    {"algorithm": "sparse_gpt", "weight_dtype": "float32"},
    {"algorithm": "sparse_gpt", "weight_dtype": "uint8"},
    {"algorithm": "sparse_gpt", "weight_dtype": "uint4", "enable_normal_float": True},
    {"algorithm": "sparse_gpt", "weight_dtype": "float32", "n_m_ratio": [2, 4]},
]


@pytest.mark.parametrize("config", PEER_CASES, ids=str)
def test_outputs_are_never_further_off_than_those_of_coremltools(config):
    pytest.importorskip("coremltools")
    from coremltools.optimize.torch import layerwise_compression as peer

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(96, 64, bias=False))
    x = torch.relu(torch.randn(300, 24) @ torch.randn(24, 96) + torch.randn(300, 96))
    theirs = peer.LayerwiseCompressor(model, peer.LayerwiseCompressorConfig.from_dict({"global_config": config}))
    with torch.no_grad():
        errors = [
            float((each(x) - model(x)).norm()) for each in (compressed(model, [x], config), theirs.compress([x], "cpu"))
        ]
    assert errors[0] <= errors[1]


CONVERTED = [
    (GPTQ_4, 1, "quantized uint4"),
    (GPTQ_4 | {"granularity": "per_block", "block_size": 16}, 1, "quantized uint4"),
    ({"algorithm": "gptq", "quantization_scheme": "affine"}, 1, "quantized uint8"),
    ({"algorithm": "sparse_gpt", "weight_dtype": "float16"}, 0, "sparse float16"),
    ({"algorithm": "sparse_gpt", "weight_dtype": "uint8"}, 1, "quantized uint8"),
    ({"algorithm": "gptq_palettize", "granularity": "per_grouped_channel", "group_size": 8}, 0, "palettized 4 bits"),
    (GPTQ_4 | {"enable_normal_float": True}, 1, "scaled"),
    (
        {"algorithm": "sparse_gpt", "weight_dtype": "uint4", "enable_normal_float": True},
        1,
        "palettized 4 bits + sparse",
    ),
]


@pytest.mark.parametrize(("config", "roundings", "storage"), CONVERTED, ids=str)
def test_conversion_keeps_what_was_found(model, batch, converted, weights_of, config, roundings, storage):
    found = compressed(model, [batch], config, module_name_configs={"conv": None})
    package = converted(found, batch)
    weights = weights_of(package)
    for layer in (found.fc, found.head):
        weight = layer.weight.detach().numpy()
        # A product in float16 of numbers of float16: half a unit in the last place, 2^-11.
        allowed = roundings * 2.0**-11 * np.abs(weight)
        difference = np.abs(weights[weight.shape] - weight.astype(np.float16 if not roundings else np.float32))
        assert (difference <= allowed).all()
    storages = {each.shape: each.storage for each in coreml.inspect(package).weights if len(each.shape) > 1}
    assert all(storages[layer.weight.shape].startswith(storage) for layer in (found.fc, found.head))
