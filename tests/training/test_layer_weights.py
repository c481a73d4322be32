"""GPTQ, SparseGPT and palettes of one layer: moments, grids, errors, and weights that are what the buffers say."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from corepress.training import grids
from corepress.training.layer_inputs import InputMoments
from corepress.training.layer_weights import Grid, palettized, pruned, quantized, store
from corepress.training.metadata import LARGEST_LOST, CompressionType, of_module

GENERATOR = torch.Generator().manual_seed(0)


def inputs_that_depend(rows: int, columns: int) -> torch.Tensor:
    mixed = torch.randn(rows, columns // 3, generator=GENERATOR) @ torch.randn(
        columns // 3, columns, generator=GENERATOR
    )
    return mixed + 0.3 * torch.randn(rows, columns, generator=GENERATOR)


def gathered(layer: nn.Module, *inputs: torch.Tensor, most: int = 1 << 16) -> InputMoments:
    moments = InputMoments(layer, most)
    for each in inputs:
        moments.add(each)
    return moments


def output_error(layer: nn.Module, values: np.ndarray, inputs: torch.Tensor) -> float:
    """The error of the layer's outputs without bias, relative to these."""
    weight = layer.weight.detach().clone()
    with torch.no_grad():
        bias = 0 if layer.bias is None else layer.bias.reshape(-1, *(1,) * (weight.dim() - 2))
        before = layer(inputs) - bias
        layer.weight.copy_(torch.from_numpy(values))
        after = layer(inputs) - bias
        layer.weight.copy_(weight)
    return float((after - before).norm() / before.norm())


def small_layer(seed: int = 0) -> tuple[nn.Linear, torch.Tensor]:
    torch.manual_seed(seed)
    return nn.Linear(48, 24), inputs_that_depend(200, 48)


def of_buffers(found, shape) -> torch.Tensor:
    """The nearest weight that conversion can make of the buffers."""
    metadata, values = found.metadata, torch.from_numpy(found.values)
    if metadata.lut is not None:
        scale = torch.ones(1) if metadata.palettization_scale is None else metadata.palettization_scale
        scale = scale.reshape(*scale.shape, *(1,) * (len(shape) - scale.dim()))
        for axis, (length, count) in enumerate(zip(shape, scale.shape, strict=False)):
            scale = scale.repeat_interleave(length // count, axis)
        groups = metadata.lut.shape[0]
        lut = metadata.lut.reshape(groups, -1).repeat_interleave(shape[0] // groups, 0).reshape(shape[0], -1)
        scaled = (values / scale).flatten(1)
        codes = (scaled[:, :, None] - lut[:, None, :]).abs().argmin(2)
        return torch.gather(lut, 1, codes).reshape(shape) * scale
    scale, zero_point = metadata.quantization_scale, metadata.zero_point
    for axis, (length, count) in enumerate(zip(shape, scale.shape, strict=True)):
        scale, zero_point = (each.repeat_interleave(length // count, axis) for each in (scale, zero_point))
    codes = ((values / scale).round() + zero_point).clamp(0, 2**metadata.quantization_n_bits - 1)
    return scale * (codes - zero_point)


CONVOLUTIONS = [
    (nn.Conv1d(6, 8, 3, padding=1), (2, 6, 11)),
    (nn.Conv1d(4, 4, 4, padding="same", dilation=2, groups=2), (2, 4, 17)),
    (nn.Conv2d(4, 6, 3, stride=2, padding=1), (2, 4, 9, 8)),
    (nn.Conv2d(4, 6, (2, 3), dilation=(1, 2), padding=(0, 2), groups=2), (3, 4, 7, 9)),
    (nn.Conv2d(3, 5, 3, padding=1, padding_mode="reflect"), (3, 6, 7)),
    (nn.Conv3d(2, 3, 2, padding="valid"), (1, 2, 4, 5, 3)),
]


@pytest.mark.parametrize(("layer", "shape"), CONVOLUTIONS, ids=str)
def test_windows_of_convolutions_make_their_outputs(layer, shape):
    """The moments of the outputs follow from those of the inputs, whatever the geometry."""
    x = torch.randn(shape, generator=GENERATOR)
    moments = gathered(layer, x)
    with torch.no_grad():
        y = layer(x) - layer.bias.reshape(-1, *(1,) * (layer.weight.dim() - 2))
    y = y[None] if y.dim() < layer.weight.dim() else y
    rows = y.movedim(1, -1).reshape(-1, layer.groups, layer.out_channels // layer.groups).transpose(0, 1).double()
    weight = layer.weight.detach().double().reshape(layer.groups, -1, layer.weight[0].numel())
    hessian = torch.from_numpy(moments.mean()[:, 0]).double()
    expected = rows.mT @ rows / rows.shape[1]
    assert moments.count == rows.shape[1]
    torch.testing.assert_close(weight @ hessian @ weight.mT, expected, rtol=1e-5, atol=1e-6)


def test_moments_of_linear_layers_are_those_of_all_rows():
    layer, x = small_layer()
    moments = gathered(layer, x[:100].reshape(4, 25, 48), x[100:].half())
    rows = torch.cat((x[:100], x[100:].half().float())).double()
    np.testing.assert_allclose(moments.mean()[0, 0], rows.T @ rows / 200, rtol=1e-5, atol=1e-5)


def test_some_vectors_stand_for_all():
    layer, x = small_layer()
    moments = gathered(layer, x, most=50)
    assert moments.count == 200
    everything = gathered(layer, x).mean()[0, 0]
    assert np.trace(moments.mean()[0, 0]) == pytest.approx(np.trace(everything), rel=0.2)


def test_other_layers_are_refused():
    with pytest.raises(TypeError, match=r"InputMoments: layer must be one of Linear, .* not Embedding"):
        InputMoments(nn.Embedding(4, 4))


GRIDS = [
    Grid(8),
    Grid(4),
    Grid(3),
    Grid(4, symmetric=False),
    Grid(3, symmetric=False, block_size=16),
    Grid(8, per_channel=False, symmetric=False),
    Grid(4, block_size=16),
    Grid(4, per_channel=False, block_size=8),
    Grid(4, normal_float=True),
    Grid(3, normal_float=True, block_size=24),
]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("sparse", [False, True])
def test_weights_are_what_the_buffers_say(grid, sparse):
    layer, x = small_layer()
    inputs = gathered(layer, x)
    found = pruned(layer, inputs, 0.5, grid=grid) if sparse else quantized(layer, inputs, grid)
    torch.testing.assert_close(of_buffers(found, layer.weight.shape), torch.from_numpy(found.values), rtol=2e-7, atol=0)
    kind = CompressionType.palettization if grid.normal_float else CompressionType.quantization
    assert found.metadata.compression_type == ((CompressionType.pruning, kind) if sparse else (kind,))
    if sparse:
        assert (found.values == 0).mean() >= 0.5
        assert (np.abs(found.values[found.values != 0]) > LARGEST_LOST).all()
    for scale in (found.metadata.quantization_scale, found.metadata.palettization_scale):
        if scale is not None:
            assert torch.equal(scale, scale.half().float())
            assert scale.shape == (24, 48 // (grid.block_size or 48))


@pytest.mark.parametrize("options", [{}, {"group_size": 8}, {"enable_per_channel_scale": True}], ids=str)
@pytest.mark.parametrize("layer", [small_layer()[0], nn.Conv2d(4, 24, 3)], ids=["linear", "conv"])
def test_palettes_have_entries_of_float16(layer, options):
    x = inputs_that_depend(200, 48) if isinstance(layer, nn.Linear) else torch.randn(2, 4, 9, 9, generator=GENERATOR)
    found = palettized(layer, gathered(layer, x), 3, **options)
    lut = found.metadata.lut
    assert lut.shape == (24 // options.get("group_size", 24), *(1,) * (layer.weight.dim() - 1), 8, 1)
    assert torch.equal(lut, lut.half().float())
    torch.testing.assert_close(of_buffers(found, layer.weight.shape), torch.from_numpy(found.values), rtol=2e-7, atol=0)
    plain = quantized(layer, gathered(layer, x), Grid(3))
    assert output_error(layer, found.values, x) < 1.1 * output_error(layer, plain.values, x)


@pytest.mark.parametrize("grid", [Grid(4), Grid(3, symmetric=False), Grid(4, block_size=16)], ids=str)
def test_outputs_change_less_than_by_rounding(grid):
    layer, x = small_layer()
    weight = layer.weight.detach().numpy()
    scale, zero_point = grids.block_scales(
        weight, grid.blocks(layer), grid.n_bits, grid.symmetric, np.ones_like(weight)
    )
    parts = weight.reshape(24, scale.shape[1], -1)
    codes = np.clip(np.round(parts / scale[:, :, None]) + zero_point[:, :, None], 0, 2**grid.n_bits - 1)
    rounded = (scale[:, :, None] * (codes - zero_point[:, :, None])).reshape(weight.shape).astype(np.float32)
    found = quantized(layer, gathered(layer, x), grid)
    assert output_error(layer, found.values, x) < 0.6 * output_error(layer, rounded, x)


@pytest.mark.parametrize("ratio", [(2, 4), (1, 3), (6, 8)])
def test_n_of_m_weights_are_zero(ratio):
    layer, x = small_layer()
    values = pruned(layer, gathered(layer, x), n_m_ratio=ratio).values
    zeros = (values == 0).reshape(24, -1, ratio[1]).sum(2)
    assert (zeros >= ratio[0]).all()
    assert (zeros == ratio[0]).mean() > 0.95  # others have become small
    magnitude = layer.weight.detach().abs().reshape(24, -1, ratio[1])
    kept = magnitude.argsort(2).argsort(2) >= ratio[0]
    simple = (layer.weight.detach() * kept.reshape(24, 48)).numpy()
    assert output_error(layer, values, x) < 0.7 * output_error(layer, simple, x)


def test_groups_of_n_of_m_must_divide():
    layer, x = small_layer()
    with pytest.raises(ValueError, match=r"n_m_ratio \(2, 5\): 5 must divide the 48 inputs"):
        pruned(layer, gathered(layer, x), n_m_ratio=(2, 5))


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(1, 3),
    st.sampled_from([Grid(8), Grid(4), Grid(3, symmetric=False)]),
    st.integers(0, 99),
)
def test_any_shape(groups, rows, channels, grid, seed):
    torch.manual_seed(seed)
    layer = nn.Conv2d(groups * channels, groups * rows, (1, 2), groups=groups)
    found = quantized(layer, gathered(layer, torch.randn(1, groups * channels, 2, 3)), grid)
    torch.testing.assert_close(of_buffers(found, layer.weight.shape), torch.from_numpy(found.values), rtol=2e-7, atol=0)
    error = (torch.from_numpy(found.values) - layer.weight.detach()).abs()
    assert float(error.max()) <= 4 * float(layer.weight.detach().abs().max())


def test_dead_inputs_keep_their_weights():
    layer, x = small_layer()
    x[:, 5] = 0
    found = quantized(layer, gathered(layer, x), Grid(8))
    np.testing.assert_allclose(found.values[:, 5], layer.weight.detach()[:, 5], atol=0.01)
    assert np.abs(found.values[:, 5]).max() > 0.05


def test_symmetric_scales_fit_rows_of_one_sign():
    scale, zero_point = grids.scale_of_range(np.float32([0.5]), np.float32([1.5]), 8, True)
    assert scale * (255 - int(zero_point[0])) > 1.49


def test_small_and_large_scales_stay_as_they_are():
    scale = np.float32([1e-6, 0.1, 1e6])
    found = grids.storable(scale)
    assert found[0] == scale[0]
    assert found[2] == scale[2]
    assert found[1] == np.float32(np.float16(0.1)) != scale[1]


@pytest.mark.parametrize("broken", ["weight", "inputs", "nothing"])
def test_what_is_not_finite_is_refused(broken):
    layer, x = small_layer()
    if broken == "weight":
        with torch.no_grad():
            layer.weight[3, 4] = float("nan")
    if broken == "inputs":
        x[0, 0] = float("inf")
    with pytest.raises(ValueError, match=r"not finite|no inputs"):
        quantized(layer, InputMoments(layer) if broken == "nothing" else gathered(layer, x), Grid(8))


def test_values_that_conversion_loses_are_warned_of(caplog):
    layer, x = small_layer()
    with torch.no_grad():
        layer.weight.mul_(1e-3)
    with caplog.at_level(logging.WARNING):
        found = pruned(layer, gathered(layer, x))
    assert "coremltools.convert makes them zero" in caplog.text
    assert (found.values != 0).mean() == pytest.approx(0.5, abs=0.01)


def test_storing_keeps_the_dtype_and_sets_buffers():
    layer, x = small_layer()
    half = nn.Linear(48, 24).half()
    half.load_state_dict(layer.state_dict())
    store(half, quantized(half, gathered(half, x), Grid(4)))
    assert half.weight.dtype == torch.float16
    assert of_module(half)["weight"].quantization_n_bits == 4


def test_block_sizes_must_divide_input_channels():
    with pytest.raises(ValueError, match="block_size 9 must divide the 32 input channels"):
        Grid(8, block_size=9).blocks(nn.Conv2d(32, 4, 3))  # though it divides the 288 columns
