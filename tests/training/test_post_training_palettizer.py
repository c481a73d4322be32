"""Palettes without training: options, what is stored, errors beside coremltools."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from corepress import coreml
from corepress.kernels import kmeans1d
from corepress.optimize.torch.palettization import PostTrainingPalettizer, PostTrainingPalettizerConfig
from corepress.optimize.torch.pruning import MagnitudePruner, MagnitudePrunerConfig
from corepress.training import metadata
from corepress.training.metadata import CompressionType
from corepress.training.palette_layout import PaletteLayout
from corepress.training.post_training import PaletteOptions, palettized

GROUPED = {"granularity": "per_grouped_channel"}
FORMS = [
    {"n_bits": 4},
    {"n_bits": 1},
    {"n_bits": 5},
    {"n_bits": 2, "group_size": 4, **GROUPED},
    {"n_bits": 2, "group_size": 1, "channel_axis": 1, **GROUPED},
    {"n_bits": 3, "cluster_dim": 2},
    {"n_bits": 2, "cluster_dim": 4, "group_size": 8, **GROUPED},
    {"n_bits": 3, "enable_per_channel_scale": True},
    {"n_bits": 4, "lut_dtype": "int8"},
    {"n_bits": 4, "lut_dtype": "uint8", "group_size": 8, **GROUPED},
    {"n_bits": 4, "lut_dtype": "int8", "group_size": 1, "channel_axis": 1, **GROUPED},
]


def palettizer_of(model, **options):
    return PostTrainingPalettizer(model, PostTrainingPalettizerConfig.from_dict({"global_config": options}))


def names(form):
    return form if isinstance(form, str) else ",".join(f"{key}={value}" for key, value in form.items())


def decoded(weight, known):
    """The weight that conversion makes of palettes: the nearest entries, in float64."""
    lut = known.lut.double()
    groups, (entries, length) = lut.shape[:-2], lut.shape[-2:]
    axis = next((axis for axis, count in enumerate(groups) if count > 1), 0)
    if known.vector_axis is not None:
        axis = known.vector_axis
    layout = PaletteLayout(tuple(weight.shape), weight.shape[axis] // max(groups), length, axis)
    scale = 1 if known.palettization_scale is None else known.palettization_scale.double()
    values = layout.split(weight.double() / scale).reshape(layout.groups, -1, length)
    tables = lut.reshape(layout.groups, entries, length)
    nearest = torch.cdist(values, tables).argmin(-1)
    found = torch.stack([table[codes] for table, codes in zip(tables, nearest, strict=True)])
    return layout.join(found if length > 1 else found[..., 0]) * scale


@pytest.mark.parametrize("form", FORMS, ids=names)
def test_weights_are_what_the_buffers_say(model, form):
    compressed = palettizer_of(model, **form).compress()
    for layer in (compressed.conv, compressed.fc):
        known = metadata.of_module(layer)["weight"]
        weight = layer.weight.detach()
        assert known.lut.shape[-2] == 2 ** max(form["n_bits"], 6 if form["n_bits"] == 5 else 0)
        torch.testing.assert_close(decoded(weight, known).float(), weight, rtol=1e-6, atol=0)
        if "lut_dtype" not in form:
            assert torch.equal(known.lut, known.lut.half().float())
    assert type(compressed.norm) is torch.nn.LayerNorm
    assert not metadata.of_module(compressed.norm)
    assert torch.equal(compressed.norm.weight, model.norm.weight)


@given(
    rows=st.integers(1, 12),
    columns=st.integers(1, 12),
    n_bits=st.integers(1, 8),
    seed=st.integers(0, 50),
    scaled=st.booleans(),
    weighted=st.booleans(),
    zeros=st.booleans(),
)
@settings(deadline=None, max_examples=60)
def test_palettes_are_optimal(rows, columns, n_bits, seed, scaled, weighted, zeros):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator)
    importance = torch.rand(rows, columns, generator=generator) if weighted else torch.ones(rows, columns)
    if zeros:
        weight[torch.rand(rows, columns, generator=generator) < 0.5] = 0
    options = PaletteOptions(n_bits, PaletteLayout((rows, columns)), scaled)
    values, known = palettized(weight, options, importance if weighted else None, pruned=zeros)
    scale = 1 if known.palettization_scale is None else known.palettization_scale
    kept = weight != 0 if CompressionType.pruning in known.compression_type else torch.ones_like(weight) > 0
    assert bool((values[~kept] == 0).all())
    if not kept.any():
        return
    counted = importance * scale**2 if weighted else torch.ones_like(weight)
    points, weights = (weight / scale)[kept].numpy(), torch.as_tensor(counted)[kept].numpy()
    best = kmeans1d(points, min(2**n_bits, points.size), weights).inertia
    error = float((counted[kept] * ((values - weight) / scale)[kept].square()).sum())
    rounding = float((counted[kept] * ((weight / scale)[kept] * 2**-10).square()).sum())
    assert error <= best + 2 * (best * rounding) ** 0.5 + rounding + 1e-9


@pytest.fixture(scope="module")
def peer():
    pytest.importorskip("coremltools")
    import coremltools.optimize.torch.palettization as peer

    return peer


@pytest.mark.parametrize("form", [FORMS[0], FORMS[3], FORMS[4], FORMS[7], FORMS[9]], ids=names)
def test_errors_and_buffers_beside_coremltools(peer, model, form):
    ours = palettizer_of(model, **form).compress()
    config = peer.PostTrainingPalettizerConfig.from_dict({"global_config": form | {"enable_fast_kmeans_mode": False}})
    theirs = peer.PostTrainingPalettizer(model, config).compress()
    for name in ("conv", "fc", "head"):
        weight = getattr(model, name).weight
        error, expected = ((getattr(each, name).weight - weight).square().sum() for each in (ours, theirs))
        assert error <= expected * (1 + 1e-3)
    shapes = {name: value.shape for name, value in ours.named_buffers()}
    for name, value in theirs.named_buffers():
        assert shapes[name] == value.shape, name


@pytest.mark.parametrize("form", [*FORMS[:7], *FORMS[7:9]], ids=names)
def test_conversion_changes_nothing(model, batch, converted, weights_of, form):
    compressed = palettizer_of(model, **form).compress()
    package = converted(compressed, batch)
    found = weights_of(package)
    rounding = 2**-10 if {"lut_dtype", "enable_per_channel_scale"} & form.keys() else 0
    for layer in (compressed.conv, compressed.fc):
        weight = layer.weight.detach().numpy()
        assert abs(found[weight.shape] - weight).max() <= rounding * abs(weight).max()
    storages = [each.storage for each in coreml.inspect(package).weights if len(each.shape) > 1]
    assert all("palettized" in each for each in storages), storages


@pytest.mark.parametrize("small", [False, True])
def test_a_pruned_model_stays_pruned(model, batch, converted, weights_of, small):
    config = MagnitudePrunerConfig.from_dict({"global_config": {"target_sparsity": 0.75}})
    pruner = MagnitudePruner(model, config)
    pruner.prepare()
    pruner.step()
    finalized = pruner.finalize()
    if small:  # of what is kept, conversion would make zeros: the palette has an entry for zeros then
        with torch.no_grad():
            finalized.fc.weight.mul_(1e-2)
    compressed = palettizer_of(finalized, n_bits=2).compress()
    found = weights_of(converted(compressed, batch))
    for layer in (compressed.conv, compressed.fc):
        weight = layer.weight.detach().numpy()
        assert (found[weight.shape] == weight).all()
        steps = metadata.of_module(layer)["weight"].compression_type
        if small and layer is compressed.fc:
            assert steps == (CompressionType.palettization,)
            assert len(np.unique(weight)) == 4
        else:
            assert steps == (CompressionType.pruning, CompressionType.palettization)
            assert (weight == 0).mean() >= 0.74
            assert len(np.unique(weight)) == 5


def test_attention_embeddings_and_subclasses():
    class Own(torch.nn.Linear):
        pass

    torch.manual_seed(1)
    model = torch.nn.ModuleDict(
        {
            "attention": torch.nn.MultiheadAttention(8, 2),
            "widths": torch.nn.MultiheadAttention(8, 2, kdim=4, vdim=4),
            "embedding": torch.nn.Embedding(20, 8),
            "own": Own(8, 8),
            "conv1d": torch.nn.Conv1d(4, 4, 2),
        }
    )
    palettizer = palettizer_of(model, n_bits=2)
    compressed = palettizer.compress(num_kmeans_workers=3)
    expected = [
        "attention.in_proj_weight",
        "attention.out_proj.weight",
        "widths.q_proj_weight",
        "widths.k_proj_weight",
        "widths.v_proj_weight",
        "widths.out_proj.weight",
        "embedding.weight",
        "own.weight",
    ]
    report = palettizer.report()
    assert list(report) == expected
    for name in expected:
        assert len(compressed.get_parameter(name).unique()) == 4
        assert report[name]["palettization_mode"] == "num_clusters=4, cluster_dim=1"
    alone = palettizer_of(model, n_bits=2).compress()
    for (name, value), (_, other) in zip(compressed.named_parameters(), alone.named_parameters(), strict=True):
        assert torch.equal(value, other), name


def test_half_precision_and_large_values():
    layer = torch.nn.Linear(16, 8, dtype=torch.bfloat16)
    found = palettizer_of(layer, n_bits=8).compress()
    assert found.weight.dtype == torch.bfloat16
    assert torch.equal(found.weight, layer.weight)
    with torch.no_grad():
        layer.weight[0, 0] = 1e6
    with pytest.raises(ValueError, match="float16, whose largest value is 65504"):
        palettizer_of(layer).compress()
    with torch.no_grad():
        layer.weight[0, 0] = torch.inf
    with pytest.raises(ValueError, match="infinite"):
        palettizer_of(layer).compress()


def test_options_that_do_not_fit_leave_weights(model, caplog):
    compressed = palettizer_of(model, n_bits=2, cluster_dim=3).compress()
    assert torch.equal(compressed.fc.weight, model.fc.weight)
    assert "not divisible by cluster_dim=3" in caplog.text
    compressed = palettizer_of(model, n_bits=2, group_size=5, **GROUPED).compress()
    assert torch.equal(compressed.fc.weight, model.fc.weight)
    assert "not divisible by group_size=5" in caplog.text


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"bits": 4}, "unrecognized key 'bits'"),
        ({"group_size": 4}, "group_size goes with granularity 'per_grouped_channel'"),
        (GROUPED, "needs a group_size of at least 1, not None"),
        ({"group_size": 0, **GROUPED}, "at least 1, not 0"),
        ({"channel_axis": 2}, "channel_axis"),
        ({"lut_dtype": "float16"}, "lut_dtype"),
        ({"cluster_dim": 2, "enable_per_channel_scale": True}, "goes without enable_per_channel_scale"),
        ({"n_bits": 9}, "1 to 8 bits"),
        ({"n_bits": 5, "cluster_dim": 2}, "those of several values 1, 2, 3, 4, 6, 8"),
    ],
)
def test_wrong_options(model, options, rule):
    with pytest.raises(ValueError, match=rule):
        palettizer_of(model, **options).compress()


def test_what_is_compressed_is_not_compressed_again(model):
    compressed = palettizer_of(model).compress()
    with pytest.raises(ValueError, match=r"weight is compressed already \(palettization\)"):
        palettizer_of(compressed).compress()
