"""Groups and vectors of a weight."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from corepress.training.palette_layout import PaletteLayout


@given(
    st.integers(1, 4),
    st.integers(1, 3),
    st.sampled_from([1, 2, 4]),
    st.lists(st.integers(1, 3), min_size=1, max_size=3),
    st.sampled_from([0, 1]),
)
def test_join_undoes_split(groups, vectors, length, others, axis):
    channels = groups * vectors * length
    shape = (channels, *others) if axis == 0 else (others[0], channels, *others[1:])
    weight = torch.arange(float(torch.Size(shape).numel())).reshape(shape)
    layout = PaletteLayout(shape, vectors * length, length, axis)
    values = layout.split(weight)
    assert layout.groups == groups
    assert values.shape[:2] == (groups, layout.values_of_group)
    assert torch.equal(layout.join(values), weight)


def test_vectors_are_values_of_neighbouring_channels():
    weight = torch.arange(24.0).reshape(4, 3, 2)
    vectors = PaletteLayout((4, 3, 2), None, 2).split(weight)
    assert vectors.shape == (1, 12, 2)
    assert {tuple(each) for each in vectors[0].tolist()} == {
        (weight[row, i, j].item(), weight[row + 1, i, j].item()) for row in (0, 2) for i in range(3) for j in range(2)
    }


def test_luts_have_an_axis_for_each_of_the_weight():
    layout = PaletteLayout((4, 6, 1, 1), 3, 1, axis=1)
    assert layout.lut(torch.zeros(2, 16, 1)).shape == (1, 2, 1, 1, 16, 1)


@pytest.mark.parametrize(("group_size", "cluster_dim", "rule"), [(3, 1, "group_size 3"), (4, 3, "cluster_dim 3")])
def test_sizes_divide(group_size, cluster_dim, rule):
    with pytest.raises(ValueError, match=rule):
        PaletteLayout((8, 2), group_size, cluster_dim)
