"""Compressed tensors divide into parts that decompress to parts of the whole."""

import numpy as np
import pytest

import corepress
from corepress.compression import piecewise, quotients
from corepress.tensors import base as tensor_base
from corepress.tensors.base import pieces

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


def _weight(shape, dtype):
    if dtype == "bfloat16":
        dtype = pytest.importorskip("ml_dtypes").bfloat16
    return np.random.default_rng(1).standard_normal(shape).astype(dtype)


@pytest.fixture
def in_small_pieces(monkeypatch):
    """What makes pieces small, and the sizes of the arrays that were scaled since."""

    def begin():
        sizes = []
        normalize = quotients.normalize_native
        for module, name, size in (
            (tensor_base, "PIECE", 8),
            (piecewise, "_PIECE", 40),
            (piecewise, "_LEAST_BATCH", 20),
        ):
            monkeypatch.setattr(module, name, size)

        def measured(array, *others):
            sizes.append(array.size)
            return normalize(array, *others)

        monkeypatch.setattr(quotients, "normalize_native", measured)
        return sizes

    return begin


GROUPS_OF_2 = {"granularity": "per_grouped_channel", "group_size": 2}
SCALED = [
    {"mode": "kmeans", **GROUPS_OF_2},
    {"mode": "uniform", **GROUPS_OF_2},
    {"mode": "kmeans", **GROUPS_OF_2, "importance": True},
    {"mode": "kmeans"},
    {"mode": "uniform"},
    {"lut": [-1, -0.25, 0.5, 0.75]},
]


@pytest.mark.parametrize("shape", [(14, 9, 5), (1, 28, 6), (24, 3), (400, 300)])
@pytest.mark.parametrize("options", SCALED)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_channels_that_are_scaled_a_few_at_a_time_give_the_same_tensor(shape, options, dtype, in_small_pieces):
    weight = _weight(shape, dtype)
    axis = next(axis for axis, length in enumerate(shape) if length > 1)
    weight[(0,) * axis + (1,)] = 0
    options = {"nbits": 3, "channel_axis": axis, "enable_per_channel_scale": True, **options}
    if "importance" in options:
        options["importance"] = np.random.default_rng(1).random(shape)
    whole = corepress.palettize(weight, **options)
    sizes = in_small_pieces()
    assert corepress.palettize(weight, **options) == whole
    assert max(sizes) < weight.size


@pytest.mark.parametrize(("shape", "axis"), [((14, 9, 5), 1), ((14, 9, 5), 2), ((1, 28, 6), -1), ((24, 3), 1)])
@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        ("float16", {"mode": "kmeans"}),
        ("bfloat16", {"mode": "kmeans"}),
        ("float16", {"mode": "uniform"}),
        ("float32", {"mode": "uniform"}),
        ("float32", {"lut": [-1, -0.25, 0.5, 0.75]}),
    ],
)
def test_inner_channels_that_are_scaled_by_pieces_give_the_same_tensor(shape, axis, dtype, options, in_small_pieces):
    weight = _weight(shape, dtype)
    weight[(*(slice(None),) * (axis % len(shape)), 1)] = 0
    options = {"nbits": 3, "channel_axis": axis, "enable_per_channel_scale": True, **options}
    whole = corepress.palettize(weight, **options)
    sizes = in_small_pieces()
    assert corepress.palettize(weight, **options) == whole
    assert max(sizes) < weight.size


JOINT = [
    {"mode": "kmeans"},
    {"mode": "uniform"},
    {"lut": [-1, -0.25, 0, 0.5, 0.75]},
    {"mode": "kmeans", "enable_per_channel_scale": True},
    {"mode": "uniform", "enable_per_channel_scale": True},
    {"mode": "kmeans", **GROUPS_OF_2},
    {"mode": "uniform", **GROUPS_OF_2},
    {"mode": "kmeans", **GROUPS_OF_2, "enable_per_channel_scale": True},
]


@pytest.mark.parametrize(("shape", "axis"), [((14, 9, 6), 0), ((14, 9, 6), 2), ((1, 28, 6), 1), ((24, 4), -1)])
@pytest.mark.parametrize("options", JOINT)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_joint_steps_by_pieces_give_the_same_tensor(shape, axis, options, dtype, in_small_pieces):
    weight = _weight(shape, dtype)
    weight[0, 0] = 0
    sparse = corepress.prune(weight, target_sparsity=0.5)
    codes = corepress.quantize(weight, granularity="per_tensor")
    tensors = [sparse, codes, corepress.quantize(sparse, granularity="per_tensor")]
    if options.get("enable_per_channel_scale"):
        tensors = [sparse]
    if "lut" in options and tensors[1:]:
        options = {**options, "lut": [-100, -20, 0, 40, 90]}
    options = {"nbits": 3, "channel_axis": axis, **options}
    wholes = [corepress.palettize(tensor, **options) for tensor in tensors]
    in_small_pieces()
    for tensor, whole in zip(tensors, wholes, strict=True):
        assert corepress.palettize(tensor, **options) == whole


@pytest.mark.parametrize(("shape", "axis"), [((14, 9, 6), 0), ((14, 9, 6), 2), ((1, 28, 6), 2), ((24, 4), -1)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"dtype": "uint8", "mode": "linear"},
        {"dtype": "int4", "mode": "linear"},
        {"dtype": "uint4", "scale_search": "mse"},
        {"granularity": "per_tensor", "dtype": "int4"},
        {"granularity": "per_tensor", "mode": "linear", "scale_search": "mse"},
    ],
)
@pytest.mark.parametrize("size", [1, 1e-6])  # of which subnormal scales come
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_sparse_values_are_quantized_by_pieces_as_in_one(shape, axis, options, size, dtype, in_small_pieces):
    weight = _weight(shape, "float32") * np.float32(size)
    sparse = corepress.prune(weight.astype(_weight((1,), dtype).dtype), target_sparsity=0.5)
    whole = corepress.quantize(sparse, channel_axis=axis, **options)
    in_small_pieces()
    assert corepress.quantize(sparse, channel_axis=axis, **options) == whole


@pytest.mark.parametrize("shape", [(14, 9, 6), (1, 28, 6), (24, 4), (61, 3)])
@pytest.mark.parametrize(
    "options",
    [
        {"target_sparsity": 0.75},
        {"threshold": 0.5},
        {"n_m_ratio": (2, 4), "dim": 0},
        {"n_m_ratio": (3, 7), "dim": 1},
        {"target_sparsity": 0.5, "block_size": 2},
    ],
)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_compressed_tensors_are_pruned_by_pieces_as_in_one(shape, options, dtype, in_small_pieces):
    weight = _weight(shape, dtype)
    sparse = corepress.prune(weight, target_sparsity=0.5)
    tensors = [sparse, corepress.palettize(weight, nbits=3), corepress.quantize(sparse, dtype="int4")]
    wholes = [corepress.prune(tensor, **options) for tensor in tensors]
    in_small_pieces()
    for tensor, whole in zip(tensors, wholes, strict=True):
        pruned, of_dense = corepress.prune(tensor, **options), corepress.prune(tensor.dense(), **options)
        assert pruned == whole
        assert (pruned.mask == of_dense.mask).all()
        np.testing.assert_array_equal(pruned.dense(), of_dense.dense())
