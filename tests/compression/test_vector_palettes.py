"""Vector palettes: an index stands for several consecutive channels."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import corepress as cp
from corepress import kernels, reference
from helpers.arrays import DRAWS, DTYPES, PALETTE_BITS, assert_same_bits, draw, normal

LAYOUTS = {
    "output channels of a matrix": ((24, 37), 0, None),
    "input channels of a matrix": ((19, 48), 1, None),
    "last axis, counted from the end": ((5, 3, 40), -1, None),
    "convolution": ((24, 5, 3, 3), 0, None),
    "transposed convolution": ((6, 32, 2, 2), 1, None),
    "groups of a matrix": ((48, 33), 0, 8),
    "groups of the last axis": ((17, 48), 1, 16),
    "groups of a convolution": ((24, 7, 3), 0, 8),
    "groups of an axis between": ((3, 24, 41), 1, 8),
    "long runs": ((8, 5003), 0, None),
    "one axis": ((120,), 0, None),
}


def groups_of(tensor: cp.PalettizedTensor, array: np.ndarray) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The vectors, codes and table of each group along the vector axis; of an array in the weight's shape."""
    axis, tables = tensor.vector_axis, tensor.lut.reshape(-1, 2**tensor.nbits, tensor.cluster_dim)
    parts = np.split(array, len(tables), axis)
    codes = np.split(tensor.codes(), len(tables), axis)
    return [
        (reference.vectors_of(part, tensor.cluster_dim, axis), each.reshape(-1), table)
        for part, each, table in zip(parts, codes, tables, strict=True)
    ]


def check(weight: np.ndarray, tensor: cp.PalettizedTensor) -> None:
    """What holds for every vector palette, whatever the values."""
    assert tensor.dtype == weight.dtype
    assert tensor.shape == weight.shape
    for vectors, codes, table in groups_of(tensor, weight):
        order = [tuple(entry) for entry in table.tolist()]
        assert order == sorted(order)
        np.testing.assert_array_equal(codes, reference.assign_vectors(vectors, table))
        used = len(set(order))
        assert (table[used:] == table[used - 1]).all()
        if len(np.unique(vectors, axis=0)) <= len(table):
            np.testing.assert_array_equal(table[codes], vectors)


def squared_error(vectors: np.ndarray, entries: np.ndarray) -> float:
    exact, table = vectors.astype(np.float64), entries.astype(np.float64)
    return float(((exact - table[reference.assign_vectors(vectors, entries)]) ** 2).sum())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cluster_dim", [2, 4, 8])
@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_takes_and_decodes_to_the_nearest_entries(name, cluster_dim, dtype):
    shape, axis, group_size = LAYOUTS[name]
    weight = normal(*shape, dtype=dtype)
    grouping = {} if group_size is None else {"granularity": "per_grouped_channel", "group_size": group_size}
    tensor = cp.palettize(weight, nbits=3, cluster_dim=cluster_dim, channel_axis=axis, **grouping)
    axis %= len(shape)
    assert (tensor.vector_axis, tensor.cluster_dim) == (axis, cluster_dim)
    assert tensor.codes().shape == tuple(n // cluster_dim if d == axis else n for d, n in enumerate(shape))
    assert tensor.group_counts[axis] == (1 if group_size is None else shape[axis] // group_size)
    check(weight, tensor)
    dense = tensor.dense()
    assert_same_bits(dense, reference.decode_palette(tensor.codes(), tensor.lut, axis))
    measured, compared = cp.error(weight, tensor), cp.error(weight, dense)
    assert measured.sse == pytest.approx(compared.sse, rel=1e-12)
    assert measured.max_abs == compared.max_abs
    assert tensor.bits_per_weight == 8 * (tensor.indices.nbytes + tensor.lut.nbytes) / weight.size


@pytest.mark.parametrize("nbits", PALETTE_BITS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", DRAWS)
def test_every_kind_of_weight(name, dtype, nbits):
    weight = draw(name, 2400, dtype).reshape(48, 50)
    check(weight, cp.palettize(weight, nbits=nbits, cluster_dim=2))


@pytest.mark.parametrize("cluster_dim", [3, 5, 6, 7, 9, 16, 100])
def test_any_length_of_vectors(simd_level, cluster_dim):
    for count in (1, 2, 31, 32, 33):
        weight = normal(cluster_dim * 3, count, seed=count)
        check(weight, cp.palettize(weight, nbits=2, cluster_dim=cluster_dim))


@settings(max_examples=60, deadline=None)
@given(
    before=st.integers(1, 4),
    blocks=st.integers(1, 9),
    cluster_dim=st.integers(2, 5),
    after=st.integers(1, 70),
    nbits=st.sampled_from(PALETTE_BITS),
    dtype=st.sampled_from(DTYPES),
    distinct=st.sampled_from([2, 5, 1000]),
)
def test_any_shape(before, blocks, cluster_dim, after, nbits, dtype, distinct):
    rng = np.random.default_rng([before, blocks, after, distinct])
    weight = (rng.integers(-distinct, distinct, (before, blocks * cluster_dim, after)) / 8).astype(dtype)
    tensor = cp.palettize(weight, nbits=nbits, cluster_dim=cluster_dim, channel_axis=1)
    check(weight, tensor)
    assert_same_bits(tensor.dense(), reference.decode_palette(tensor.codes(), tensor.lut, 1))


@pytest.mark.parametrize("dtype", DTYPES)
def test_few_distinct_vectors_lose_nothing(dtype):
    rng = np.random.default_rng(3)
    known = rng.normal(size=(15, 4)).astype(dtype)
    weight = np.ascontiguousarray(np.moveaxis(known[rng.integers(0, 15, (6, 900))], 2, 1)).reshape(24, 900)
    tensor = cp.palettize(weight, nbits=4, cluster_dim=4)
    assert_same_bits(tensor.dense(), weight)
    np.testing.assert_array_equal(tensor.lut[0, 0, :15], known[np.lexsort(known.T[::-1])])
    np.testing.assert_array_equal(tensor.lut[0, 0, 15], tensor.lut[0, 0, 14])


def test_fewer_vectors_than_entries_lose_nothing():
    """scikit-learn, and so coremltools, refuses these."""
    weight = normal(8, 3, dtype=np.float16)
    tensor = cp.palettize(weight, nbits=8, cluster_dim=4)
    assert_same_bits(tensor.dense(), weight)


def test_the_sign_of_zero_makes_no_vector_of_its_own():
    weight = np.array([[0.0, -0.0, 0.0, -0.0], [1.0, 1.0, 1.0, 1.0]], np.float32)
    tensor = cp.palettize(weight, nbits=1, cluster_dim=2)
    assert tensor.codes().tolist() == [[0, 0, 0, 0]]
    assert np.signbit(tensor.dense()).sum() == 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cluster_dim", [2, 4])
@pytest.mark.parametrize("name", ["normal", "laplace", "bimodal", "uniform", "lognormal", "outliers"])
def test_lloyd_hardly_improves_the_table(name, cluster_dim, dtype):
    weight = draw(name, 40_000, dtype).reshape(200, 200)
    for nbits in (2, 4):
        tensor = cp.palettize(weight, nbits=nbits, cluster_dim=cluster_dim)
        vectors, table = reference.vectors_of(weight, cluster_dim, 0), tensor.lut.reshape(2**nbits, cluster_dim)
        moved = reference.round_to(reference.lloyd_step(vectors, table), weight.dtype)
        assert squared_error(vectors, table) <= 1.005 * squared_error(vectors, moved)


@pytest.mark.parametrize("cluster_dim", [2, 4])
def test_errors_are_not_larger_than_those_of_scikit_learn(cluster_dim):
    cluster = pytest.importorskip("sklearn.cluster")
    ratios = []
    for name in ("normal", "laplace", "t3", "bimodal", "uniform", "lognormal"):
        weight = draw(name, 24_000, np.float32).reshape(120, 200)
        vectors = reference.vectors_of(weight, cluster_dim, 0)
        for nbits in (3, 4, 6):
            theirs = cluster.KMeans(2**nbits, init="k-means++", tol=1e-2, n_init=1, random_state=0).fit(vectors)
            ours = cp.error(weight, cp.palettize(weight, nbits=nbits, cluster_dim=cluster_dim)).sse
            ratios.append(ours / squared_error(vectors, theirs.cluster_centers_.astype(np.float32)))
    assert np.mean(ratios) <= 1
    assert max(ratios) <= 1.03


def test_a_sample_stands_for_many_vectors():
    """More vectors than are sampled, with a few far from all others that a plain sample would miss."""
    weight = draw("normal", 600_000, np.float16).reshape(2, 300_000)
    weight[:, [7, 100_001, 299_999]] = [[100, -50, 100], [70, 70, -90]]
    tensor = cp.palettize(weight, nbits=4, cluster_dim=2)
    vectors, table = reference.vectors_of(weight, 2, 0), tensor.lut.reshape(16, 2)
    np.testing.assert_array_equal(tensor.codes().reshape(-1), reference.assign_vectors(vectors, table))
    assert_same_bits(tensor.dense()[:, [7, 100_001, 299_999]], weight[:, [7, 100_001, 299_999]])
    assert squared_error(vectors, table) <= 1.005 * squared_error(vectors, reference.lloyd_step(vectors, table))


def test_magnitudes_do_not_matter():
    weight = draw("laplace", 6000, np.float32).reshape(60, 100)
    expected = cp.palettize(weight, nbits=4, cluster_dim=2)
    for exponent in (-110, -60, 100):
        factor = np.float32(2.0**exponent)
        tensor = cp.palettize(weight * factor, nbits=4, cluster_dim=2)
        assert tensor.indices.tobytes() == expected.indices.tobytes()
        np.testing.assert_array_equal(tensor.lut, expected.lut * factor)


def test_a_list_gives_what_its_members_give():
    weights = [normal(16, 30 + index, dtype=dtype) for index in range(3) for dtype in DTYPES]
    tensors = cp.palettize(weights, nbits=4, cluster_dim=4)
    for weight, tensor in zip(weights, tensors, strict=True):
        alone = cp.palettize(weight, nbits=4, cluster_dim=4)
        assert_same_bits(tensor.lut, alone.lut)
        assert_same_bits(tensor.indices, alone.indices)


def test_strided_weights_give_what_their_copies_give():
    weight = normal(60, 80)[::2, ::-2]
    tensor = cp.palettize(weight, nbits=4, cluster_dim=2, channel_axis=1)
    check(np.ascontiguousarray(weight), tensor)


def test_nearest_divisor_is_a_multiple_of_the_vectors():
    grouping = {"granularity": "per_grouped_channel", "indivisible": "nearest_divisor"}
    tensor = cp.palettize(normal(36, 10), nbits=2, cluster_dim=2, group_size=8, **grouping)
    assert tensor.group_counts == (6, 1)  # of 6 channels; 9 is as near but odd


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", [0, 1])
def test_importance_moves_entries_to_what_matters(axis, dtype):
    weight = normal(64, 90, dtype=dtype)
    importance = np.random.default_rng(5).lognormal(0, 2, weight.shape)
    options = {"nbits": 4, "cluster_dim": 2, "channel_axis": axis}
    plain, weighted = cp.palettize(weight, **options), cp.palettize(weight, importance=importance, **options)

    def weighted_error(tensor):
        return float((importance * (weight.astype(np.float64) - tensor.dense()) ** 2).sum())

    assert weighted_error(weighted) < 0.8 * weighted_error(plain)
    scaled = np.ldexp(importance, -np.frexp(importance.max())[1]).astype(np.float32)
    table = weighted.lut.reshape(16, 2)
    codes = reference.assign_vectors(
        reference.vectors_of(weight, 2, axis), table, reference.vectors_of(scaled, 2, axis)
    )
    np.testing.assert_array_equal(weighted.codes().reshape(-1), codes)


def test_importance_of_a_sampled_weight():
    weight = normal(4, 40_000, dtype=np.float16)
    importance = np.random.default_rng(6).lognormal(0, 2, weight.shape).astype(np.float32)
    options = {"nbits": 4, "cluster_dim": 2}
    plain, weighted = cp.palettize(weight, **options), cp.palettize(weight, importance=importance, **options)
    errors = [(importance * (weight.astype(float) - each.dense()) ** 2).sum() for each in (plain, weighted)]
    assert errors[1] < 0.8 * errors[0]


def test_importance_of_any_scale_is_the_same():
    weight, importance = normal(16, 50), np.random.default_rng(7).random((16, 50))
    expected = cp.palettize(weight, nbits=3, cluster_dim=4, importance=importance)
    for factor in (2.0**-140, 2.0**90):
        tensor = cp.palettize(weight, nbits=3, cluster_dim=4, importance=importance * factor)
        assert_same_bits(tensor.lut, expected.lut)


def test_elements_without_importance_do_not_count():
    weight, importance = normal(8, 200), np.ones((8, 200))
    weight[1::2], importance[1::2] = 100 * weight[1::2], 0
    tensor = cp.palettize(weight, nbits=8, cluster_dim=2, importance=importance)
    scalar = cp.palettize(weight[::2], nbits=8)
    assert (
        cp.error(weight[::2], np.ascontiguousarray(tensor.dense()[::2])).sse <= 1.3 * cp.error(weight[::2], scalar).sse
    )


def test_importance_of_nothing_in_a_group_is_no_harm():
    weight, importance = normal(8, 20_000), np.ones((8, 20_000), np.float32)
    importance[:4] = 0
    grouping = {"granularity": "per_grouped_channel", "group_size": 4}
    tensor = cp.palettize(weight, nbits=2, cluster_dim=2, importance=importance, **grouping)
    assert np.isfinite(tensor.dense()).all()
    alone = cp.palettize(weight[4:], nbits=2, cluster_dim=2, importance=importance[4:])
    assert_same_bits(tensor.lut[1], alone.lut[0])


GRIDS = [((4, 6, 5), (2, 3, 5)), ((4, 6, 8), (2, 1, 4)), ((6, 4), (3, 2)), ((3, 64, 2), (3, 8, 2))]


@pytest.mark.parametrize(("shape", "groups"), GRIDS)
@pytest.mark.parametrize("vector_axis", [None, 0, 1])
def test_tables_for_blocks_along_any_axes_are_read(simd_level, shape, groups, vector_axis):
    """Ours are along one axis; Core ML allows them along all."""
    rng = np.random.default_rng(0)
    length = 1 if vector_axis is None else 3
    lut = rng.normal(size=(*groups, 8, length)).astype(np.float32)
    codes = rng.integers(0, 8, shape).astype(np.uint8)
    dense_shape = tuple(size * length if axis == vector_axis else size for axis, size in enumerate(shape))
    tensor = cp.PalettizedTensor(dense_shape, kernels.pack_bits(codes, 3), lut, 3, vector_axis)
    expected = reference.decode_palette(codes, lut, vector_axis)
    assert_same_bits(tensor.dense(), expected)
    assert cp.error(expected, tensor).sse == 0
    assert cp.error(expected + np.float32(0.5), tensor).sse == pytest.approx(0.25 * expected.size, rel=1e-5)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"vector_axis": None}, "a lut of vectors of 2 needs a vector_axis that they divide, not None"),
        ({"vector_axis": 2}, "not 2"),
        ({"vector_axis": 1}, "needs a vector_axis that they divide, not 1"),
        ({"lut": np.zeros((1, 1, 4, 0), np.float32)}, "must have shape"),
        ({"lut": np.zeros((1, 1, 4, 1), np.float32)}, "vector_axis 0 needs a lut of vectors"),
        ({"lut": np.zeros((4, 1, 4, 2), np.float32)}, "lut groups"),
        ({"indices": np.zeros(3, np.uint8)}, "indices must be 2 bytes"),
    ],
)
def test_parts_that_contradict_each_other_are_refused(change, rule):
    parts = {
        "shape": (4, 3),
        "indices": np.zeros(2, np.uint8),
        "lut": np.zeros((1, 1, 4, 2), np.float32),
        "nbits": 2,
        "vector_axis": 0,
    }
    cp.PalettizedTensor(**parts)
    with pytest.raises(ValueError, match=rule):
        cp.PalettizedTensor(**(parts | change))


PEAK = """
import sys
import numpy as np
import corepress as cp

def kib(field):
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1])

case, cluster_dim, nbits = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
shapes = {"one": [(2048, 4096)], "groups": [(2048, 4096)], "large groups": [(64, 131072)], "list": [(512, 2048)] * 8}
weights = [np.random.default_rng(0).normal(size=shape).astype(np.float16) for shape in shapes[case]]
grouping = {"granularity": "per_grouped_channel", "group_size": 8} if "groups" in case else {}
cp.palettize(weights[0][:8, :64], nbits=2, cluster_dim=2, num_threads=8)
open("/proc/self/clear_refs", "w").write("5")  # the peak begins anew
before = kib("VmRSS")
tensors = cp.palettize(weights, nbits=nbits, cluster_dim=cluster_dim, num_threads=8, **grouping)
print((kib("VmHWM") - before) / 1024 - sum(tensor.nbytes for tensor in tensors) / 2**20)
"""


@pytest.mark.skipif("COREPRESS_SANITIZED" in os.environ, reason="sanitizers keep memory of their own")
@pytest.mark.parametrize(
    ("case", "cluster_dim", "nbits"),
    [("one", 2, 8), ("one", 4, 8), ("groups", 2, 6), ("groups", 4, 6), ("large groups", 2, 8), ("list", 4, 8)],
)
def test_memory_beyond_the_result_is_bounded(case, cluster_dim, nbits):
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("the peak of this process's memory is not to be had")
    command = [sys.executable, "-c", PEAK, case, str(cluster_dim), str(nbits)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(done.stdout) <= 64


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(("count", "nbits"), [(1, 1), (2, 1), (3, 2), (16, 4), (17, 6), (256, 8)])
def test_distinct_vectors_become_the_table(dtype, axis, count, nbits):
    rng = np.random.default_rng(count)
    table = rng.permutation(4 * count).reshape(count, 4).astype(dtype)
    chosen = np.concatenate([np.arange(count), rng.integers(0, count, 8 * 12 * 5 - count)]).reshape(8, 12, 5)
    shape = [length * (4 if each == axis else 1) for each, length in enumerate((8, 12, 5))]
    weight = np.moveaxis(table[chosen], -1, axis + 1).reshape(shape)
    tensor = cp.palettize(weight, mode="unique", cluster_dim=4, channel_axis=axis)
    assert (tensor.nbits, tensor.cluster_dim) == (nbits, 4)
    np.testing.assert_array_equal(tensor.dense(), weight)


def test_the_group_with_most_distinct_vectors_decides_the_width():
    weight = np.zeros((8, 64), np.float16)
    weight[4:] = np.arange(256).reshape(4, 64)
    tensor = cp.palettize(weight, mode="unique", cluster_dim=2, granularity="per_grouped_channel", group_size=4)
    assert tensor.nbits == 8
    assert tensor.group_counts == (2, 1)
    np.testing.assert_array_equal(tensor.dense(), weight)


def test_zeros_of_both_signs_are_one_vector():
    weight = np.array([[0.0, -0.0, 0.0, 1.0], [-0.0, 0.0, 0.0, 1.0]], np.float32)
    assert cp.palettize(weight, mode="unique", cluster_dim=2).nbits == 1


@pytest.mark.parametrize(("nbits", "count"), [(None, 257), (3, 9)])
def test_more_distinct_vectors_than_entries_are_refused(nbits, count):
    weight = np.stack([np.arange(count), np.arange(count) % 2]).astype(np.float32)
    with pytest.raises(cp.TooManyValuesError, match=f"needs at most {2 ** (nbits or 8)} distinct vectors per table"):
        cp.palettize(weight, mode="unique", cluster_dim=2, nbits=nbits)


@pytest.mark.parametrize("exponent", [-140, -126, 100, 127])
def test_importance_of_any_size_gives_the_same_palette(exponent):
    """Only ratios matter, even where squares times importance would be 0 or infinite in single precision."""
    rng = np.random.default_rng(3)
    weight = (rng.standard_normal((64, 64)) * 1e-3).astype(np.float32)
    importance = rng.integers(1, 128, weight.shape).astype(np.float32)
    expected = cp.palettize(weight, nbits=3, cluster_dim=2, importance=importance)
    scaled = np.ldexp(importance, exponent - 6)
    assert np.array_equal(np.ldexp(scaled, 6 - exponent), importance)
    assert cp.palettize(weight, nbits=3, cluster_dim=2, importance=scaled) == expected


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_tables_of_integers_decode_to_their_integers(dtype):
    rng, limits = np.random.default_rng(0), np.iinfo(dtype)
    lut = rng.integers(limits.min, limits.max + 1, (2, 1, 4, 3)).astype(dtype)
    lut[0, 0, 0] = limits.min, limits.max, limits.max
    codes = rng.integers(0, 4, (4, 6)).astype(np.uint8)
    codes[0, 0] = 0
    tensor = cp.PalettizedTensor((4, 18), kernels.pack_bits(codes, 2), lut, 2, 1)
    expected = lut[np.repeat([0, 1], 2)[:, None], 0, codes].reshape(4, 18)
    assert_same_bits(tensor.dense(), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_tables_of_floats_decode_to_their_floats(dtype):
    """Those of bfloat16 too, whose largest and smallest float16 does not hold."""
    rng = np.random.default_rng(0)
    powers = rng.integers(*((-14, 15) if np.dtype(dtype) == np.float16 else (-120, 120)), (2, 1, 4, 3))
    lut = (rng.standard_normal((2, 1, 4, 3)) * np.exp2(powers.astype(np.float64))).astype(dtype)
    codes = rng.integers(0, 4, (4, 6)).astype(np.uint8)
    tensor = cp.PalettizedTensor((4, 18), kernels.pack_bits(codes, 2), lut, 2, 1)
    expected = lut[np.repeat([0, 1], 2)[:, None], 0, codes].reshape(4, 18)
    assert_same_bits(tensor.dense(), expected)
