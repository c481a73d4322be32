"""The error that kernels tell on the way is the one that comparing arrays finds."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import corepress as cp
from corepress import _core
from corepress.compression import apply_measured
from corepress.specs import Palettize, Prune, Quantize
from helpers.arrays import DRAWS, DTYPES, draw, normal

GROUPED = {"granularity": "per_grouped_channel"}
SPECS = {
    "4 bits": Palettize(nbits=4),
    "1 bit": Palettize(nbits=1),
    "8 bits": Palettize(nbits=8),
    "groups": Palettize(nbits=2, group_size=2, **GROUPED),
    "groups of the other axis": Palettize(nbits=3, group_size=1, channel_axis=1, **GROUPED),
    "uniform": Palettize(nbits=3, mode="uniform"),
    "int8": Quantize(),
    "uint8 per tensor": Quantize(dtype="uint8", mode="linear", granularity="per_tensor"),
    "int4": Quantize(dtype="int4"),
    "uint4 of the other axis": Quantize(dtype="uint4", mode="linear", channel_axis=1),
    "blocks": Quantize(dtype="int4", granularity="per_block", block_size=3),
    "half": Prune(target_sparsity=0.5),
    "most": Prune(target_sparsity=0.999),
    "all": Prune(target_sparsity=1),
    "zeros": Prune(target_sparsity=0),
    "threshold": Prune(threshold=0.03),
    "n of m": Prune(n_m_ratio=(1, 3)),
}


def _assert_measured(weight, spec):
    tensor, snr_db = apply_measured(weight, spec, num_threads=2)
    expected = cp.error(weight, tensor.dense())
    assert cp.error(weight, tensor, num_threads=2) == expected
    if math.isinf(expected.snr_db):
        assert snr_db == expected.snr_db
    else:
        assert 10 ** (snr_db / 10) == pytest.approx(10 ** (expected.snr_db / 10), rel=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(4, 6), (8, 9, 3, 3), (130, 81), (6, 30_003)])
@pytest.mark.parametrize("name", SPECS)
def test_it_is_the_error_of_the_dense_array(name, shape, dtype):
    _assert_measured(0.1 * normal(*shape, dtype=dtype), SPECS[name])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("draw_name", DRAWS)
@pytest.mark.parametrize("name", ["4 bits", "groups", "int8", "int4", "half", "n of m"])
def test_whatever_the_values(name, draw_name, dtype):
    _assert_measured(draw(draw_name, 1200, dtype).reshape(40, 30), SPECS[name])


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 0x7BFF) | st.integers(0x8000, 0xFBFF), min_size=1, max_size=200), st.data())
def test_halves_of_any_bits(bits, data):
    weight = np.array(bits, np.uint16).view(np.float16).reshape(1, -1)
    _assert_measured(weight, data.draw(st.sampled_from([SPECS[name] for name in ("1 bit", "4 bits", "int8", "half")])))


def test_counts_tell_it_without_another_pass():
    weight = normal(20_000, dtype=np.float16)
    (_, _, noise), *_ = _core.palettize([weight], [(1, 1, weight.size)], 4, "kmeans", [None], [None], False)
    assert noise is not None
    (_, _, noise, _), *_ = _core.prune([weight], [("rank", 10_000)], True)
    assert noise is not None
