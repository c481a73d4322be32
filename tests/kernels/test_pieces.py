"""Compressed tensors divide into parts that decompress to parts of the whole."""

import numpy as np
import pytest

import corepress
from corepress import palettes
from corepress.tensor_base import pieces

SHAPES = [(1, 24, 30), (16, 6, 3, 3), (720,)]


def _tensors(weight):
    axis = next(axis for axis, length in enumerate(weight.shape) if length > 1)
    grouped = {"granularity": "per_grouped_channel", "channel_axis": axis}
    for nbits in (1, 2, 3, 4, 6, 8):
        yield corepress.palettize(weight, nbits=nbits)
        yield corepress.palettize(weight, nbits=nbits, group_size=2, **grouped)
        yield corepress.palettize(weight, nbits=nbits, group_size=weight.shape[axis] // 2, **grouped)
    yield corepress.palettize(weight, nbits=3, channel_axis=axis, enable_per_channel_scale=True)
    for vector_axis, length in enumerate(weight.shape):
        if length % 2 == 0:
            yield corepress.palettize(weight, nbits=3, cluster_dim=2, channel_axis=vector_axis)
    for dtype in ("int8", "uint4"):
        yield corepress.quantize(weight, dtype=dtype, mode="linear", granularity="per_channel", channel_axis=axis)
    channels = corepress.quantize(weight, granularity="per_channel", channel_axis=axis)
    sparse = corepress.prune(weight, target_sparsity=0.5)
    yield sparse
    yield corepress.palettize(sparse, nbits=3)
    yield corepress.palettize(sparse, nbits=2, group_size=2, **grouped)
    yield corepress.palettize(sparse, nbits=3, enable_per_channel_scale=True, channel_axis=axis)
    yield corepress.quantize(sparse, granularity="per_channel", channel_axis=axis)
    yield corepress.palettize(corepress.quantize(sparse), nbits=3)
    yield corepress.palettize(channels, nbits=3)
    yield corepress.quantize(corepress.palettize(weight, nbits=4))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("most", [7, 100])
def test_parts_decompress_to_parts_of_the_whole(shape, most):
    weight = np.random.default_rng(0).standard_normal(shape).astype(np.float16)
    for tensor in _tensors(weight):
        dense = tensor.dense()
        parts = list(pieces((dense, tensor), most))
        for ours, part in parts:
            assert ours.shape == part.shape
            np.testing.assert_array_equal(part.dense().view(np.uint16), ours.view(np.uint16), repr(tensor))
        np.testing.assert_array_equal(np.concatenate([ours.reshape(-1) for ours, _ in parts]), dense.reshape(-1))
        if getattr(tensor, "cluster_dim", 1) == 1:
            assert max(part.size for _, part in parts) <= most


SCALED = [
    {"mode": "kmeans", "granularity": "per_grouped_channel", "group_size": 2},
    {"mode": "uniform", "granularity": "per_grouped_channel", "group_size": 2},
    {"mode": "kmeans", "granularity": "per_grouped_channel", "group_size": 2, "importance": True},
    {"mode": "kmeans"},
    {"lut": [-1, -0.25, 0.5, 0.75]},
]


@pytest.mark.parametrize("shape", [(14, 9, 5), (1, 28, 6), (24, 3), (400, 300)])
@pytest.mark.parametrize("options", SCALED)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_channels_that_are_scaled_a_few_at_a_time_give_the_same_tensor(shape, options, dtype, monkeypatch):
    rng = np.random.default_rng(1)
    weight = rng.standard_normal(shape).astype(pytest.importorskip("ml_dtypes").bfloat16 if dtype[0] == "b" else dtype)
    axis = next(axis for axis, length in enumerate(shape) if length > 1)
    weight[(0,) * axis + (1,)] = 0
    options = {"nbits": 3, "channel_axis": axis, "enable_per_channel_scale": True, **options}
    if "importance" in options:
        options["importance"] = rng.random(shape)
    whole = corepress.palettize(weight, **options)
    sizes = []
    normalize = palettes.joint.normalize
    monkeypatch.setattr(palettes, "PIECE", 8)
    monkeypatch.setattr(
        palettes.joint, "normalize", lambda array, *others: (sizes.append(array.size), normalize(array, *others))[1]
    )
    assert corepress.palettize(weight, **options) == whole
    assert max(sizes) < weight.size
