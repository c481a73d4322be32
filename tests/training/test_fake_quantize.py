"""Fake quantization: values, gradients, switches and state."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from corepress import reference
from corepress.training import fake_quantize as module
from corepress.training import native_fake_quantize
from corepress.training.fake_quantize import FakeQuantize, LearnableFakeQuantize, StraightThrough
from corepress.training.observers import FixedObserver, MinMaxObserver, quantized_range
from corepress.training.quantize_dequantize import QuantizeDequantize

KINDS = (FakeQuantize, LearnableFakeQuantize)
LAYOUTS = [(torch.per_tensor_symmetric, -1), (torch.per_tensor_affine, -1), (torch.per_channel_affine, 1)]


def made(kind=FakeQuantize, qscheme=torch.per_tensor_affine, ch_axis=-1, n_bits=8, dtype=torch.quint8, channels=4):
    ends = quantized_range(n_bits, dtype)
    return kind(MinMaxObserver(dtype, qscheme, *ends, ch_axis, 0.01, channels))


def values(seed=0, shape=(3, 4, 5)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) + 0.2


def expected(x, scale, zero_point, ch_axis, ends):
    """The values in double precision."""
    shape = [-1 if axis == ch_axis else 1 for axis in range(x.ndim)]
    scale, zero_point = scale.double().reshape(shape), zero_point.double().reshape(shape)
    return ((torch.round(x.double() / scale) + zero_point).clamp(*ends) - zero_point) * scale


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("qscheme", "ch_axis"), LAYOUTS)
@pytest.mark.parametrize("n_bits", [4, 8])
def test_values_are_those_of_the_integers(kind, qscheme, ch_axis, n_bits):
    quantize = made(kind, qscheme, ch_axis, n_bits)
    x = values()
    y = quantize(x)
    scale, zero_point = quantize.calculate_qparams()
    ends = (quantize.quant_min, quantize.quant_max)
    torch.testing.assert_close(y.double(), expected(x, scale, zero_point, ch_axis, ends), rtol=1e-5, atol=1e-6)
    assert len(y.unique()) <= (4 if ch_axis != -1 else 1) * 2**n_bits


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_of_numbers_are_kept(kind, dtype):
    quantize = made(kind)
    x = values().to(dtype).requires_grad_()
    y = quantize(x)
    assert y.dtype == dtype
    torch.testing.assert_close(y.float(), made(kind)(x.detach().float()), rtol=1e-2, atol=2e-2)
    y.sum().backward()
    assert x.grad.dtype == dtype


@pytest.mark.parametrize(("qscheme", "ch_axis"), LAYOUTS)
@pytest.mark.parametrize("kernels", [True, False])
@pytest.mark.parametrize("dtype", [torch.qint8, torch.quint8])
def test_gradients_of_scale_and_zero_point(qscheme, ch_axis, kernels, dtype, monkeypatch):
    """The formulas of LSQ+, in double precision, with the kernels and plain operations."""
    if not kernels:
        monkeypatch.setattr(module, "DEVICES_OF_KERNELS", ())
        monkeypatch.setattr(native_fake_quantize, "knows", lambda *tensors: False)
    quantize = made(LearnableFakeQuantize, qscheme, ch_axis, 4, dtype)
    ends = (quantize.quant_min, quantize.quant_max)
    x = (4 * values(1, (3, 4, 50))).requires_grad_()
    quantize(x * 0.8)  # narrower than what follows, so that some values are outside
    quantize.disable_observer()
    gradient = values(2, x.shape)
    quantize(x).backward(gradient)

    d = x.detach().double()
    shape = [-1 if axis == ch_axis else 1 for axis in range(3)]
    scale = quantize.scale.detach().double().reshape(shape)
    zero_point = quantize.zero_point.detach().double().round().reshape(shape)
    integers = torch.round(d / scale) + zero_point
    inside = (integers >= ends[0]) & (integers <= ends[1])
    assert 0 < inside.sum() < inside.numel()
    each = torch.where(inside, integers - zero_point - d / scale, integers.clamp(*ends) - zero_point)
    axes = [axis for axis in range(3) if axis != ch_axis]
    factor = (x.numel() / quantize.scale.numel() * ends[1]) ** -0.5
    torch.testing.assert_close(x.grad, torch.where(inside, gradient, 0.0))
    for parameter, found in ((quantize.scale, each), (quantize.zero_point, torch.where(inside, 0.0, -scale))):
        if parameter.requires_grad:
            wanted = (gradient * found).sum(axes).reshape(-1) * factor
            torch.testing.assert_close(parameter.grad.double(), wanted, rtol=1e-4, atol=1e-5)
    assert quantize.zero_point.requires_grad == (qscheme != torch.per_tensor_symmetric)


SHAPES = [((1031,), -1), ((3, 70000), 0), ((5, 3, 9), 1), ((40, 6), 1), ((2, 3, 8, 9), 0)]


@pytest.mark.parametrize("levels", [(-8, 7), (0, 255)])
@pytest.mark.parametrize(("shape", "ch_axis"), SHAPES)
def test_kernels_give_the_bits_of_the_twin(shape, ch_axis, levels):
    channels = 1 if ch_axis == -1 else shape[ch_axis]
    x, gradient = values(3, shape), values(4, shape)
    scale = torch.linspace(0.01, 0.3, channels)
    zero_point = torch.arange(channels).float() + levels[0]
    steps = native_fake_quantize.Steps(scale, zero_point, ch_axis, levels)
    y, found = steps.quantized(x), steps.slopes(x, gradient, 1.0)
    for channel in range(channels):
        own = [each if ch_axis == -1 else each.select(ch_axis, channel) for each in (x, gradient, y, found[0])]
        values_of, slopes_of, y_of, gradient_of = (each.numpy() for each in own)
        options = (float(scale[channel]), float(zero_point[channel]), levels)
        np.testing.assert_array_equal(y_of, reference.fake_quantize(values_of, *options))
        expected_gradient, of_scale, of_zero_point = reference.fake_quantize_gradient(values_of, slopes_of, *options)
        np.testing.assert_array_equal(gradient_of, expected_gradient)
        np.testing.assert_allclose(found[1][channel], of_scale, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(found[2][channel], of_zero_point, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("ch_axis", [-1, 0, 1])
def test_gradients_are_those_of_autograd_in_double_precision(ch_axis):
    x = (3 * values(7, (4, 6, 50))).requires_grad_()
    channels = 1 if ch_axis == -1 else x.shape[ch_axis]
    scale = torch.linspace(0.1, 0.4, channels).requires_grad_()
    zero_point = (torch.arange(channels).float() - 3).requires_grad_()
    gradient = values(8, x.shape)
    StraightThrough.apply(x, scale, zero_point, ch_axis, -8, 7, 1.0).backward(gradient)

    exact = [each.detach().double().requires_grad_() for each in (x, scale, zero_point)]
    shape = [-1 if axis == ch_axis else 1 for axis in range(x.ndim)]
    step, offset = (each.reshape(shape) for each in exact[1:])
    quotient = exact[0] / step
    inside = (quotient >= -8.5 - offset) & (quotient <= 7.5 - offset)
    rounded = quotient + (quotient.round().clamp(-8 - offset, 7 - offset) - quotient).detach()
    outside = torch.where(quotient < -8 - offset, -8 - offset, 7 - offset)
    (torch.where(inside, rounded, outside) * step).backward(gradient.double())
    assert 0 < int(inside.sum()) < inside.numel()
    for one, other in zip((x, scale, zero_point), exact, strict=True):
        torch.testing.assert_close(one.grad.double(), other.grad, rtol=2e-6, atol=2e-5)


def test_memory_formats_and_threads_change_nothing():
    x = values(9, (4, 8, 24, 26))
    gradient = values(10, x.shape)
    steps = native_fake_quantize.Steps(torch.linspace(0.05, 0.1, 8), torch.zeros(8), 1, (-8, 7))
    y, slopes = steps.quantized(x), steps.slopes(x, gradient, 1.0)
    last = x.contiguous(memory_format=torch.channels_last)
    strided = torch.stack((x, x), dim=-1)[..., 0]
    for given in (last, strided):
        assert torch.equal(steps.quantized(given), y)
        torch.testing.assert_close(steps.slopes(given, gradient, 1.0), slopes, rtol=1e-6, atol=1e-9)
    assert steps.quantized(last).is_contiguous(memory_format=torch.channels_last)
    threads = torch.get_num_threads()
    many = values(11, (3, 1 << 19))
    each = native_fake_quantize.Steps(torch.tensor([0.01]), torch.zeros(1), -1, (-8, 7))
    found = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            found.append((each.quantized(many), *each.slopes(many, many.flip(0), 1.0)))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_plain_operations_agree_with_kernels():
    quantize = made(FakeQuantize, torch.per_channel_affine, 1)
    x = values().requires_grad_()
    twin = x.detach().clone().requires_grad_()
    y = quantize(x)
    z = StraightThrough.apply(twin, quantize.scale, quantize.zero_point, 1, 0, 255, 1.0)
    torch.testing.assert_close(y, z)
    y.square().sum().backward()
    z.square().sum().backward()
    torch.testing.assert_close(x.grad, twin.grad)


@pytest.mark.parametrize("kind", KINDS)
def test_switches(kind):
    quantize = made(kind)
    quantize.disable_observer()
    quantize.disable_fake_quant()
    x = values()
    assert quantize(x) is x
    assert float(quantize.scale.detach()) == 1
    quantize.enable_observer()
    assert quantize(x) is x
    assert float(quantize.scale.detach()) != 1
    assert (int(quantize.observer_enabled), int(quantize.fake_quant_enabled)) == (1, 0)
    quantize.enable_fake_quant()
    quantize.disable_observer()
    scale = quantize.scale.detach().clone()
    assert not torch.equal(quantize(x * 3), x * 3)
    assert torch.equal(quantize.scale, scale)


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_values_are_observed_in_any_case(kind):
    """With observers off from the start, coremltools quantizes by a scale of 1."""
    quantize = made(kind)
    quantize.disable_observer()
    x = values() * 0.01
    torch.testing.assert_close(quantize(x), x, rtol=0, atol=float(quantize.scale.detach()))
    scale = quantize.scale.detach().clone()
    quantize(x * 100)
    assert torch.equal(quantize.scale, scale)


def test_integers_and_nothing_pass():
    quantize = made()
    tokens = torch.arange(3)
    assert quantize(tokens) is tokens
    assert quantize(torch.empty(0, 4)).shape == (0, 4)
    assert not quantize.activation_post_process.observed


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ch_axis", [-1, 1])
def test_state_dicts_hold_everything(kind, ch_axis):
    qscheme = torch.per_channel_affine if ch_axis == 1 else torch.per_tensor_affine
    quantize, fresh = made(kind, qscheme, ch_axis), made(kind, qscheme, ch_axis)
    quantize(values())
    quantize.disable_observer()
    quantize.count_steps(7)
    state = copy.deepcopy(quantize.state_dict())
    assert all(isinstance(each, torch.Tensor) for each in state.values())
    fresh.load_state_dict(state)
    assert fresh.count == 7
    x = values(5)
    assert torch.equal(fresh(x), quantize(x))
    assert all(torch.equal(value, state[name]) for name, value in fresh.state_dict().items())
    assert torch.equal(copy.deepcopy(quantize)(x), quantize(x))


def test_shared_modules_can_observe_twice_before_the_backward_pass():
    quantize = made(LearnableFakeQuantize)
    x = values().requires_grad_()
    (quantize(x) + quantize(3 * x)).sum().backward()
    assert torch.isfinite(x.grad).all()


def test_scales_stay_positive():
    quantize = made(LearnableFakeQuantize)
    quantize(values())
    quantize.disable_observer()
    with torch.no_grad():
        quantize.scale.fill_(-1)
    assert torch.isfinite(quantize(values())).all()
    assert float(quantize.scale.detach()) > 0


def test_known_ranges():
    quantize = FakeQuantize(FixedObserver(1 / 256, 0))
    y = quantize(torch.tensor([-1.0, 0.5, 0.501, 2.0]))
    assert y.tolist() == [0, 0.5, 0.5, 255 / 256]


@pytest.mark.filterwarnings("ignore")  # PyTorch's own
def test_finalized_quantization_is_the_same_everywhere():
    quantize = QuantizeDequantize(0.05, 100)
    x = torch.linspace(-7, 9, 301)
    y = quantize(x)
    torch.testing.assert_close(
        y.double(), expected(x, torch.tensor(0.05), torch.tensor(100), -1, (0, 255)).float().double()
    )
    traced = torch.jit.trace(quantize, (x,))
    assert "quantize_per_tensor" in str(traced.graph)
    assert torch.equal(traced(x), y)
    program = torch.export.export(quantize, (x,))
    assert "quantized_decomposed.dequantize_per_tensor" in str(program.graph)
    assert torch.equal(program.module()(x), y)
    other = QuantizeDequantize(1.0, 0)
    other.load_state_dict(quantize.state_dict())
    assert torch.equal(torch.jit.trace(other, (x,))(x), y)


def test_pytorchs_switches_know_these_modules():
    host = pytest.importorskip("torch.ao.quantization")
    import corepress.optimize.torch.quantization  # noqa: F401

    quantize = made()
    quantize.apply(host.disable_observer)
    quantize.apply(host.disable_fake_quant)
    assert (int(quantize.observer_enabled), int(quantize.fake_quant_enabled)) == (0, 0)
    x = values()
    assert quantize(x) is x
