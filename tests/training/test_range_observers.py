"""Observers: ranges, scales and zero points."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from corepress.training.observers import (
    FixedObserver,
    MinMaxObserver,
    quantized_range,
    scale_and_zero_point,
    symmetric_zero_point,
)

SCHEMES = (torch.per_tensor_symmetric, torch.per_tensor_affine)


@given(
    low=st.floats(-100, 100, width=32),
    width=st.floats(0, 100, width=32),
    symmetric=st.booleans(),
    n_bits=st.sampled_from([4, 8]),
    dtype=st.sampled_from([torch.qint8, torch.quint8]),
)
def test_zero_is_exact_and_the_range_is_covered(low, width, symmetric, n_bits, dtype):
    ends = quantized_range(n_bits, dtype)
    scale, zero_point = (
        float(each)
        for each in scale_and_zero_point(torch.tensor(low), torch.tensor(low + width), symmetric, dtype, *ends)
    )
    assert scale > 0
    assert ends[0] <= zero_point <= ends[1]
    assert zero_point == int(zero_point)
    least, most = ((end - zero_point) * scale for end in ends)
    slack = scale * (1.01 if symmetric else 0.51) + 1e-4
    assert least - slack <= min(low, 0)
    assert most + slack >= max(low + width, 0)
    if symmetric:
        assert zero_point == symmetric_zero_point(dtype, *ends)


@pytest.mark.parametrize("ch_axis", [-1, 0, 1])
@pytest.mark.parametrize("constant", [None, 0.01, 0.1])
def test_ranges_follow_batches(ch_axis, constant):
    observer = MinMaxObserver(ch_axis=ch_axis, averaging_constant=constant)
    batches = np.random.default_rng(0).normal(size=(5, 3, 4, 6))
    axes = tuple(axis for axis in range(3) if axis != ch_axis)
    low = high = None
    for batch in batches:
        x = torch.tensor(batch, dtype=torch.float32)
        assert observer(x) is x
        new = batch.min(axis=axes), batch.max(axis=axes)
        if low is None:
            low, high = new
        elif constant is None:
            low, high = np.minimum(low, new[0]), np.maximum(high, new[1])
        else:
            low, high = low + constant * (new[0] - low), high + constant * (new[1] - high)
    np.testing.assert_allclose(observer.min_val.numpy(), low, rtol=1e-6)
    np.testing.assert_allclose(observer.max_val.numpy(), high, rtol=1e-6)


def test_nothing_observed_has_scale_one():
    observer = MinMaxObserver()
    assert not observer.observed
    scale, zero_point = observer.calculate_qparams()
    assert (float(scale), int(zero_point)) == (1, 0)
    observer(torch.empty(0))
    assert not observer.observed


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("constant", [None, 0.01])
def test_batches_that_are_not_finite_do_not_count(bad, constant):
    observer = MinMaxObserver(averaging_constant=constant)
    observer(torch.tensor([bad, 1.0]))
    assert not observer.observed
    observer(torch.tensor([-1.0, 2.0]))
    observer(torch.tensor([5.0, bad]))
    assert (float(observer.min_val), float(observer.max_val)) == (-1, 2)


def test_only_channels_that_are_finite_count():
    observer = MinMaxObserver(ch_axis=0, channels=2)
    observer(torch.tensor([[1.0, float("nan")], [-3.0, 4.0]]))
    assert observer.min_val.tolist() == [float("inf"), -3]
    assert observer.max_val.tolist() == [float("-inf"), 4]


@pytest.mark.parametrize(("dtype", "ends", "zero_point"), [(torch.quint8, (0, 255), 128), (torch.quint8, (0, 15), 7)])
def test_symmetric_zero_points_of_unsigned_integers(dtype, ends, zero_point):
    assert symmetric_zero_point(dtype, *ends) == zero_point


def test_known_ranges_do_not_change():
    observer = FixedObserver(1 / 256, 0)
    observer(torch.tensor([-10.0, 10.0]))
    scale, zero_point = observer.calculate_qparams()
    assert (float(scale), int(zero_point)) == (1 / 256, 0)


@pytest.mark.parametrize("qscheme", SCHEMES)
@pytest.mark.parametrize("n_bits", [4, 8])
@pytest.mark.parametrize("dtype", [torch.qint8, torch.quint8])
def test_scales_are_those_of_pytorch(qscheme, n_bits, dtype):
    peer = pytest.importorskip("torch.ao.quantization").MovingAverageMinMaxObserver
    ends = (None, None) if n_bits == 8 else quantized_range(n_bits, dtype)
    mine = MinMaxObserver(dtype, qscheme, *ends, averaging_constant=0.01)
    theirs = peer(dtype=dtype, qscheme=qscheme, quant_min=ends[0], quant_max=ends[1])
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        x = torch.randn(50, generator=generator) + 0.3
        mine(x), theirs(x)
    for one, other in zip(mine.calculate_qparams(), theirs.calculate_qparams(), strict=True):
        torch.testing.assert_close(one.reshape(-1).double(), other.reshape(-1).double(), rtol=1e-6, atol=0)
