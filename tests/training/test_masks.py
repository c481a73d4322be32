"""Masks by magnitude: what they keep, and that they are coremltools'."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from corepress.training.masks import MaskRule, magnitude_mask, n_m_mask

SHAPES = st.one_of(
    st.tuples(st.integers(1, 24), st.integers(1, 24)),
    st.tuples(st.integers(1, 12), st.integers(1, 8), st.integers(1, 4)),
    st.tuples(st.integers(1, 12), st.integers(1, 8), st.integers(1, 3), st.integers(1, 3)),
)
SPARSITIES = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]))


def weights(shape, seed, ties):
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return (4 * values).round() if ties else values


@pytest.fixture(scope="module")
def peer():
    pytest.importorskip("coremltools")
    import coremltools.optimize.torch.pruning._utils as peer

    return peer


@given(
    shape=SHAPES,
    sparsity=SPARSITIES,
    seed=st.integers(0, 99),
    ties=st.booleans(),
    block_size=st.integers(1, 5),
    granularity=st.sampled_from(["per_scalar", "per_kernel", "per_channel"]),
)
@settings(deadline=None, max_examples=150)
def test_masks_are_those_of_coremltools(peer, shape, sparsity, seed, ties, block_size, granularity):
    weight = weights(shape, seed, ties)
    mask = magnitude_mask(weight, sparsity, block_size, granularity)
    expected = peer.magnitude_ranked_mask(weight, sparsity, block_size, granularity)
    assert mask.dtype == torch.bool
    if torch.isfinite(weight).all() and int(np.ceil(np.float32(expected.numel()) * np.float32(1 - sparsity))) > 0:
        assert torch.equal(mask, expected)
    else:
        assert not mask.any()


@given(
    shape=SHAPES, seed=st.integers(0, 99), ratio=st.tuples(st.integers(0, 8), st.integers(1, 8)), dim=st.integers(0, 1)
)
@settings(deadline=None, max_examples=100)
def test_n_of_m(peer, shape, seed, ratio, dim):
    zeros, length = sorted(ratio)
    weight = weights(shape, seed, ties=False)
    mask = n_m_mask(weight, (zeros, length), dim)
    if zeros < length:
        assert torch.equal(mask, peer.n_m_mask(weight, (zeros, length), dim).bool())
    else:
        assert not mask.any()
    # The rule itself, group by group.
    for row in weight.movedim(dim, -1).reshape(-1, shape[dim]).abs().split(1):
        row = row[0]
        kept = n_m_mask(row[None], (zeros, length), 1)[0]
        for start in range(0, len(row), length):
            group, flags = row[start : start + length], kept[start : start + length]
            removed = max(0, zeros - (length - len(group)))
            assert int((~flags).sum()) == removed
            if removed and removed < len(group):
                assert group[~flags].max() <= group[flags].min()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_and_devices_without_kernels(dtype):
    weight = weights((16, 12, 3), 1, ties=True).to(dtype)
    expected = magnitude_mask(weight.float(), 0.6)
    assert torch.equal(magnitude_mask(weight, 0.6), expected)
    assert torch.equal(n_m_mask(weight, (2, 4)), n_m_mask(weight.float(), (2, 4)))
    assert magnitude_mask(weight.to("meta"), 0.6).shape == expected.shape
    # Of equal magnitudes the first is removed first, with the kernels and without them (groups of more than 1024).
    ones = torch.ones(2, 2048)
    assert n_m_mask(ones, (1, 2048)).logical_not().nonzero().tolist() == [[0, 0], [1, 0]]
    assert n_m_mask(ones, (1, 1024)).logical_not().nonzero().tolist() == [[0, 0], [0, 1024], [1, 0], [1, 1024]]


def test_values_that_are_no_numbers_do_not_stop_training():
    weight = weights((4, 8), 3, ties=False)
    weight[1, 2], weight[2, 3] = torch.nan, torch.inf
    assert magnitude_mask(weight, 0.5).shape == weight.shape
    mask = n_m_mask(weight, (1, 2))
    assert mask.sum() == 16
    assert bool(mask[2, 3])


def test_removed_values_are_no_larger_than_kept_ones():
    weight = weights((64, 32, 3, 3), 5, ties=False)
    for sparsity in (0.1, 0.5, 0.9):
        mask = magnitude_mask(weight, sparsity)
        assert weight[~mask].abs().max() < weight[mask].abs().min()
        assert int((~mask).sum()) == int(weight.numel() * sparsity)
    norms = weight.double().square().sum((1, 2, 3))
    kept = magnitude_mask(weight, 0.75, granularity="per_channel").flatten()
    assert set(kept.nonzero().flatten().tolist()) == set(norms.topk(16).indices.tolist())


def test_a_ratio_is_reached_by_whole_zeros():
    rule = MaskRule(n_m_ratio=(7, 8))
    weight = weights((2, 8), 7, ties=False)
    for zeros in range(8):
        # As a schedule computes it, the product falls short of a whole number here and there.
        sparsity = 0.875 + (0 - 0.875) * (1 - zeros / 7)
        assert int((~rule.mask(weight, sparsity)).sum()) == 2 * zeros


@pytest.mark.parametrize(
    ("call", "rule"),
    [
        (lambda: magnitude_mask(torch.ones(2, 2, 3), 0.5, 1, "per_layer"), "Unsupported granularity 'per_layer'"),
        (lambda: magnitude_mask(torch.tensor(1.0), 0.5), "1 to 5 axes"),
        (lambda: n_m_mask(torch.ones(4), (1, 2)), "2 to 5 axes"),
        (lambda: n_m_mask(torch.ones(4, 4), (3, 2)), "0 <= n <= m"),
        (lambda: n_m_mask(torch.ones(4, 4), (1, 2), 2), "dim must be 0"),
    ],
)
def test_what_is_no_rule(call, rule):
    with pytest.raises(ValueError, match=rule):
        call()
