"""Integers without training: options, what is stored, errors beside coremltools."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from corepress import coreml
from corepress.optimize.torch.pruning import MagnitudePruner, MagnitudePrunerConfig
from corepress.optimize.torch.quantization import (
    ModulePostTrainingQuantizerConfig,
    PostTrainingQuantizer,
    PostTrainingQuantizerConfig,
    QuantizationScheme,
)
from corepress.training import metadata
from corepress.training.metadata import CompressionType

DTYPES = ["int8", "uint8", "int4", "uint4"]
FORMS = [
    {"granularity": "per_tensor"},
    {"granularity": "per_channel"},
    {"granularity": "per_block", "block_size": 4},
    {"granularity": "per_block", "block_size": [2, 4]},
]


def quantizer_of(model, **options):
    return PostTrainingQuantizer(model, PostTrainingQuantizerConfig.from_dict({"global_config": options}))


def names(form):
    return form if isinstance(form, str) else ",".join(f"{key}={value}" for key, value in form.items())


def layers():
    torch.manual_seed(3)
    nn = torch.nn
    return {
        "linear": nn.Linear(8, 12),
        "conv1d": nn.Conv1d(8, 4, 3),
        "conv2d": nn.Conv2d(8, 4, 3),
        "conv3d": nn.Conv3d(8, 4, 2),
        "transposed1d": nn.ConvTranspose1d(8, 8, 3),
        "transposed2d": nn.ConvTranspose2d(8, 8, 3),
        "transposed3d": nn.ConvTranspose3d(8, 8, 2),
        "attention": nn.MultiheadAttention(8, 2),
        "attention_of_widths": nn.MultiheadAttention(8, 2, kdim=4, vdim=12),
    }


@pytest.fixture(scope="module")
def peer():
    pytest.importorskip("coremltools")
    import coremltools.optimize.torch.quantization as peer

    return peer


@pytest.mark.parametrize("scheme", ["symmetric", "affine"])
@pytest.mark.parametrize("form", FORMS, ids=names)
def test_values_and_scales_are_those_of_coremltools(peer, form, scheme):
    given = dict(form)
    if isinstance(given.get("block_size"), list):
        given["block_size"] = tuple(given["block_size"])
    for dtype in DTYPES:
        options = {"weight_dtype": dtype, "quantization_scheme": scheme}
        model = torch.nn.ModuleDict(layers())
        ours = quantizer_of(model, **options, **form).compress()
        config = peer.PostTrainingQuantizerConfig.from_dict({"global_config": options | given})
        theirs = peer.PostTrainingQuantizer(model, config).compress()
        for (name, weight), (_, expected), (_, original) in zip(
            ours.named_parameters(), theirs.named_parameters(), model.named_parameters(), strict=True
        ):
            # A quotient halfway between two codes may be rounded either way.
            assert (weight - original).square().sum() <= (expected - original).square().sum() * (1 + 1e-5), name
        left = {name: value.shape for name, value in ours.named_buffers() if "metadata_version" not in name}
        assert left == {name: value.shape for name, value in theirs.named_buffers()}
        for name, value in theirs.named_buffers():
            if name.endswith(("scale", "zero_point")):
                torch.testing.assert_close(ours.get_buffer(name), value)


@pytest.mark.parametrize("dtype", ["int4", "uint8"])
def test_weights_are_what_the_buffers_say(dtype):
    for name, layer in layers().items():
        module = quantizer_of(layer, weight_dtype=dtype, quantization_scheme="affine").compress()
        parameters = metadata.of_module(module)
        assert parameters, name
        for parameter, known in parameters.items():
            weight = module.get_parameter(parameter).detach()
            assert known.compression_type == (CompressionType.quantization,)
            codes = (weight / known.quantization_scale).round() + known.zero_point
            low, high = (-8, 7) if dtype == "int4" else (0, 255)
            assert low <= codes.min()
            assert codes.max() <= high
            torch.testing.assert_close((codes - known.zero_point) * known.quantization_scale, weight)
            axis = 1 if name.startswith("transposed") else 0
            assert known.quantization_scale.shape[axis] == weight.shape[axis]


def test_half_precision_and_floats_of_8_bits():
    layer = torch.nn.Linear(16, 8, dtype=torch.bfloat16)
    found = quantizer_of(layer, weight_dtype="int8").compress()
    assert found.weight.dtype == torch.bfloat16
    assert (found.weight - layer.weight).abs().max() <= layer.weight.abs().max() / 64
    plain = torch.nn.Linear(16, 8)
    expected = quantizer_of(plain, weight_dtype="int8").compress()
    for dtype in ("fp8_e4m3", torch.float8_e5m2):
        assert torch.equal(quantizer_of(plain, weight_dtype=dtype).compress().weight, expected.weight)
    untouched = quantizer_of(plain, weight_dtype="float32").compress()
    assert torch.equal(untouched.weight, plain.weight)
    assert not metadata.of_module(untouched)


def test_blocks_that_do_not_fit_are_left(caplog):
    layer = torch.nn.Linear(10, 6)
    for block_size in (4, [4, 5], [2, 20]):
        found = quantizer_of(layer, granularity="per_block", block_size=block_size).compress()
        assert torch.equal(found.weight, layer.weight)
        assert "is not quantized" in caplog.text
        caplog.clear()


def test_options_by_type_and_name(model):
    config = PostTrainingQuantizerConfig.from_dict(
        {
            "module_type_configs": {"Linear": {"weight_dtype": "int4"}},
            "module_name_configs": {"head": None},
        }
    )
    quantizer = PostTrainingQuantizer(model, config)
    original = model.fc.weight.detach().clone()
    quantizer.compress(inplace=True)
    assert list(metadata.of_module(model.fc)) == ["weight"]
    assert not metadata.of_module(model.head)
    assert not metadata.of_module(model.conv)
    report = quantizer.report()
    assert list(report) == ["fc.weight"]
    assert report["fc.weight"]["dtype"] == "dtype=int4"
    assert report["fc.weight"]["error"] == pytest.approx(
        float((model.fc.weight.detach() - original).square().mean().sqrt())
    )
    assert PostTrainingQuantizerConfig().global_config == ModulePostTrainingQuantizerConfig()
    with pytest.raises(ValueError, match=r"Linear\.weight is compressed already \(quantization\)"):
        PostTrainingQuantizer(model, config).compress()


@pytest.mark.parametrize(
    ("options", "target"),
    [
        ({"weight_dtype": "int8"}, "iOS16"),
        ({"weight_dtype": "uint4", "quantization_scheme": "affine"}, "iOS18"),
        ({"weight_dtype": "int4", "granularity": "per_block", "block_size": 1}, "iOS18"),
        ({"weight_dtype": "uint8", "granularity": "per_tensor"}, "iOS18"),
    ],
    ids=names,
)
def test_conversion_rounds_once(model, batch, converted, weights_of, options, target):
    compressed = quantizer_of(model, **options).compress()
    package = converted(compressed, batch, target)
    found = weights_of(package)
    for layer in (compressed.conv, compressed.fc):
        weight = layer.weight.detach().numpy()
        np.testing.assert_allclose(found[weight.shape], weight, atol=2**-10 * abs(weight).max())
    storages = [each.storage for each in coreml.inspect(package).weights if len(each.shape) > 1]
    assert all("quantized" in each for each in storages), storages


def test_a_pruned_model_stays_pruned(model, batch, converted, weights_of):
    config = MagnitudePrunerConfig.from_dict({"global_config": {"target_sparsity": 0.75}})
    pruner = MagnitudePruner(model, config)
    pruner.prepare()
    pruner.step()
    compressed = quantizer_of(pruner.finalize(), weight_dtype="int8").compress()
    found = weights_of(converted(compressed, batch))
    for layer in (compressed.conv, compressed.fc):
        steps = metadata.of_module(layer)["weight"].compression_type
        assert steps == (CompressionType.pruning, CompressionType.quantization)
        weight = layer.weight.detach().numpy()
        assert (weight == 0).mean() >= 0.74
        np.testing.assert_allclose(found[weight.shape], weight, atol=2**-10 * abs(weight).max())
        assert ((found[weight.shape] == 0) == (weight == 0)).all()


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"weight_dtype": "int3"}, "weight_dtype must be one of"),
        ({"granularity": "per_block"}, "block_size goes with granularity 'per_block'"),
        ({"block_size": 4}, "block_size goes with granularity 'per_block', not 'per_channel' and"),
        ({"quantization_scheme": "other"}, "other"),
    ],
)
def test_wrong_options(options, rule):
    with pytest.raises(ValueError, match=rule):
        quantizer_of(torch.nn.Linear(4, 4), **options)


def test_schemes_are_the_same_for_all_modules():
    with pytest.raises(ValueError, match="quantization_scheme must be the same"):
        PostTrainingQuantizerConfig.from_dict(
            {"global_config": {}, "module_type_configs": {"Linear": {"quantization_scheme": "affine"}}}
        )
    assert PostTrainingQuantizerConfig().global_config.quantization_scheme is QuantizationScheme.symmetric


def test_weights_that_are_no_numbers():
    layer = torch.nn.Linear(4, 4)
    with torch.no_grad():
        layer.weight[1, 1] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        quantizer_of(layer).compress()
