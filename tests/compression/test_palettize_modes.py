"""Tables that are not k-means: even steps, distinct values, given ones; and lists of weights."""

from __future__ import annotations

import numpy as np
import pytest

import corepress as cp
from corepress import reference
from helpers.arrays import DRAWS, DTYPES, PALETTE_BITS, bits, draw, normal

GROUPED = {"granularity": "per_grouped_channel", "group_size": 2}


def groups_of(array: np.ndarray, axis: int, size: int) -> list[np.ndarray]:
    return np.split(array, array.shape[axis] // size, axis)


@pytest.mark.parametrize("nbits", PALETTE_BITS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", DRAWS)
def test_uniform_is_its_twin(simd_level, name, dtype, nbits):
    weight = draw(name, 1001, dtype)
    tensor = cp.palettize(weight, mode="uniform", nbits=nbits)
    table = reference.uniform_table(weight, 2**nbits)
    assert bits(tensor.lut.reshape(-1)).tolist() == bits(table).tolist()
    assert tensor.codes().tolist() == reference.assign(weight, table).tolist()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_uniform_in_groups(axis):
    weight = normal(8, 6, 10)
    tensor = cp.palettize(weight, mode="uniform", nbits=3, channel_axis=axis, **GROUPED)
    for part, dense in zip(groups_of(weight, axis, 2), groups_of(tensor.dense(), axis, 2), strict=True):
        assert dense.tobytes() == cp.palettize(part, mode="uniform", nbits=3).dense().tobytes()


def peer_table(weight: np.ndarray, entries: int) -> np.ndarray:
    """What coremltools computes, with NumPy 2, in its own words."""
    lowest, highest = np.amin(weight), np.amax(weight)
    with np.errstate(over="ignore", invalid="ignore"):
        scale = (highest - lowest) / weight.dtype.type(entries - 1)
        return (np.arange(entries) * np.float64(scale) + np.float64(lowest)).astype(weight.dtype)


@pytest.mark.parametrize("nbits", PALETTE_BITS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("width", [0.02, 1, 100])
def test_uniform_is_the_table_of_coremltools(width, dtype, nbits):
    for offset in (-width, 0, width / 3):
        weight = (normal(3000) * width + offset).astype(dtype)
        table = cp.palettize(weight, mode="uniform", nbits=nbits).lut.reshape(-1)
        assert table.tolist() == peer_table(weight, 2**nbits).tolist()


@pytest.mark.parametrize("simd", cp.simd_levels())
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("nbits", PALETTE_BITS)
def test_uniform_steps_of_subnormal_width_have_no_larger_error_than_either_way(simd, dtype, nbits, monkeypatch):
    smallest = float(np.array([1], f"i{np.dtype(dtype).itemsize}").view(dtype)[0])
    peers_were_worse = peers_were_taken = 0
    for number in range(40):
        units = np.random.default_rng(number).normal(0, 2 ** (number / 3), 500)
        weight = (np.rint(units) * smallest).astype(dtype)
        entries = 2**nbits
        with np.errstate(under="ignore"):
            peers = peer_table(weight, entries)
        found = cp.palettize(weight, mode="uniform", nbits=nbits)
        assert bits(found.lut.reshape(-1)).tolist() == bits(reference.uniform_table(weight, entries)).tolist()
        allowed = cp.error(weight, cp.palettize(weight, lut=peers)).sse
        assert found.dense().shape == weight.shape
        assert cp.error(weight, found).sse <= allowed
        peers_were_worse += cp.error(weight, found).sse < allowed
        peers_were_taken += found.lut.reshape(-1).tolist() == peers.tolist()
    assert peers_were_taken
    assert peers_were_worse or nbits < 3


@pytest.mark.parametrize("highest", [65504, 65472])
def test_uniform_steps_that_overflow_when_rounded(highest):
    weight = np.array([0, highest, 12, 4000], np.float16)
    lut = cp.palettize(weight, mode="uniform", nbits=4).lut.reshape(-1)
    assert np.isfinite(peer_table(weight, 16)).all() == (highest != 65504)
    assert (lut[0], lut[-1]) == (0, 65504 if highest == 65504 else peer_table(weight, 16)[-1])


def test_uniform_over_the_whole_range_of_half():
    weight = np.array([-65504, 65504, 0, 1000], np.float16)
    lut = cp.palettize(weight, mode="uniform", nbits=8).lut.reshape(-1)
    assert np.isfinite(lut).all()
    assert (lut[0], lut[-1]) == (-65504, 65504)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("distinct", "nbits"), [(1, 1), (2, 1), (3, 2), (5, 3), (8, 3), (9, 4), (17, 6), (256, 8)])
def test_unique_loses_nothing_and_takes_the_fewest_bits(dtype, distinct, nbits):
    values = np.random.default_rng(distinct).permutation(np.arange(distinct) - distinct // 2).astype(dtype) / 8
    weight = np.resize(values, 70_001)
    tensor = cp.palettize(weight, mode="unique")
    assert tensor.nbits == nbits
    assert tensor.dense().tobytes() == weight.tobytes()
    entries = tensor.lut.reshape(-1)
    assert entries[:distinct].tolist() == sorted(values.tolist())
    assert set(entries[distinct:].tolist()) <= {values.max()}


def test_unique_makes_zeros_one_entry():
    tensor = cp.palettize(np.array([0.0, -0.0, 1.0], np.float32), mode="unique")
    assert tensor.nbits == 1
    assert bits(tensor.dense()).tolist() == bits(np.array([0, 0, 1], np.float32)).tolist()


def test_unique_counts_each_group_by_itself_and_the_widest_decides():
    weight = np.array([[1, 1, 2, 2], [3, 4, 5, 6], [7, 7, 7, 7], [8, 9, 8, 9]], np.float16)
    tensor = cp.palettize(weight, mode="unique", granularity="per_grouped_channel", group_size=1)
    assert tensor.nbits == 2
    assert tensor.lut.shape == (4, 1, 4, 1)
    assert tensor.dense().tobytes() == weight.tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
def test_unique_refuses_too_many(dtype):
    weight = np.arange(2 * 257, dtype=dtype).reshape(2, 257)
    weight[1] = 5
    with pytest.raises(
        ValueError, match=r"at most 256 distinct values per table, but 1 have more \(shape \(2, 257\)\)"
    ):
        cp.palettize(weight, mode="unique", granularity="per_grouped_channel", group_size=1)
    with pytest.raises(ValueError, match="needs at most 4 distinct values per table, but 1 have more"):
        cp.palettize(np.arange(5, dtype=dtype), mode="unique", nbits=2)
    assert cp.palettize(np.arange(5, dtype=dtype), mode="unique", nbits=6).nbits == 6


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [1, 2, 3, 16, 40, 256])
def test_a_given_table_takes_the_nearest_entry(simd_level, dtype, count):
    table = np.random.default_rng(count).normal(0, 0.1, count)
    weight = normal(37, 9, dtype=dtype)
    tensor = cp.palettize(weight, lut=table)
    ascending = reference.round_to(np.sort(table), dtype)
    assert tensor.lut.reshape(-1)[:count].tolist() == ascending.tolist()
    assert tensor.nbits == next(width for width in PALETTE_BITS if count <= 2**width)
    assert tensor.codes().tolist() == reference.assign(weight, ascending).tolist()


def test_a_given_table_serves_every_group():
    weight = normal(8, 6)
    tensor = cp.palettize(weight, lut=[-0.1, 0.0, 0.1], nbits=4, **GROUPED)
    assert tensor.lut.shape == (4, 1, 16, 1)
    assert tensor.dense().tobytes() == cp.palettize(weight, lut=[0.1, 0.0, -0.1]).dense().tobytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lut": []}, r"lut must be 1-D with 1 to 256 entries, not shape \(0,\)"),
        ({"lut": [[1.0]]}, r"not shape \(1, 1\)"),
        ({"lut": np.zeros(257)}, r"not shape \(257,\)"),
        ({"lut": [0.0, np.nan]}, "lut must be finite"),
        ({"lut": [1e6]}, "beyond the range of float16"),
        ({"lut": [1.0, 2.0, 3.0], "nbits": 1}, "a lut of 3 entries needs 2 bits, not 1"),
        ({"lut": [1.0], "mode": "uniform"}, "give lut or mode 'uniform', not both"),
        ({"mode": "uniform"}, "mode 'uniform' needs nbits"),
        ({}, "mode 'kmeans' needs nbits"),
    ],
)
def test_wrong_tables(options, message):
    with pytest.raises(ValueError, match=message):
        cp.palettize(np.ones(4, np.float16), **options)


@pytest.mark.parametrize("num_threads", [1, 3])
@pytest.mark.parametrize("options", [{"nbits": 4}, {"nbits": 3, "mode": "uniform"}, {"lut": [-1.0, 0.0, 1.0]}])
def test_a_list_gives_what_its_members_give(options, num_threads):
    weights = [normal(100, seed=1), normal(70, 1001, dtype=np.float16), normal(2100, 2100), normal(3, 3, 3), normal(1)]
    together = cp.palettize(weights, num_threads=num_threads, **options)
    assert [tensor.shape for tensor in together] == [weight.shape for weight in weights]
    for weight, tensor in zip(weights, together, strict=True):
        alone = cp.palettize(weight, **options)
        assert (tensor.nbits, tensor.dtype) == (alone.nbits, weight.dtype)
        assert tensor.lut.tobytes() == alone.lut.tobytes()
        assert tensor.indices.tobytes() == alone.indices.tobytes()


def test_an_empty_list_gives_an_empty_list():
    assert cp.palettize([], nbits=4) == []


def test_unique_of_a_list_chooses_bits_for_each():
    first, second = cp.palettize([np.float16([1, 2]), np.float16([1, 2, 3])], mode="unique")
    assert (first.nbits, second.nbits) == (1, 2)


@pytest.mark.parametrize(
    ("length", "group_size", "chosen"), [(60, 16, 15), (120, 16, 15), (7, 4, 1), (64, 48, 32), (10, 100, 10), (4, 3, 2)]
)
def test_the_nearest_divisor_is_taken(length, group_size, chosen):
    options = {"nbits": 2, "granularity": "per_grouped_channel"}
    weight = normal(length, 5)
    tensor = cp.palettize(weight, group_size=group_size, indivisible="nearest_divisor", **options)
    assert tensor.lut.shape == (length // chosen, 1, 4, 1)
    assert tensor.dense().tobytes() == cp.palettize(weight, group_size=chosen, **options).dense().tobytes()


def test_one_table_where_groups_do_not_divide():
    weight = normal(5, 6)
    tensor = cp.palettize(
        weight, nbits=2, granularity="per_grouped_channel", group_size=4, channel_axis=1, indivisible="per_tensor"
    )
    assert tensor.dense().tobytes() == cp.palettize(weight, nbits=2).dense().tobytes()


@pytest.mark.parametrize("indivisible", ["skip", "error"])
def test_an_array_that_does_not_divide_is_refused(indivisible):
    with pytest.raises(cp.IndivisibleError, match="axis 0 of length 5 is not a multiple of group_size 4"):
        cp.palettize(normal(5, 6), nbits=2, granularity="per_grouped_channel", group_size=4, indivisible=indivisible)
