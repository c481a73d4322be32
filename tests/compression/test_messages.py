"""Errors say function, value and rule."""

from __future__ import annotations

import re

import numpy as np
import pytest

import corepress as cp
from corepress import kernels
from helpers.arrays import normal

WEIGHT = normal(6, 10)
GROUPED = {"nbits": 4, "granularity": "per_grouped_channel"}
CASES = {
    "palettize: nbits must be 1, 2, 3, 4, 6, 8, not 5": lambda: cp.palettize(WEIGHT, nbits=5),
    "palettize: nbits must be 1, 2, 3, 4, 6, 8, not '4'": lambda: cp.palettize(WEIGHT, nbits="4"),
    "palettize: nbits must be 1, 2, 3, 4, 6, 8, not 4.0": lambda: cp.palettize(WEIGHT, nbits=4.0),
    "palettize: nbits must be 1, 2, 3, 4, 6, 8, not True": lambda: cp.palettize(WEIGHT, nbits=True),
    "palettize: axis 0 of length 6 is not a multiple of group_size 4 (shape (6, 10))": lambda: cp.palettize(
        WEIGHT, group_size=4, **GROUPED
    ),
    "palettize: group_size must be at least 1, not 0": lambda: cp.palettize(WEIGHT, group_size=0, **GROUPED),
    "palettize: channel_axis 2 is not an axis of shape (6, 10)": lambda: cp.palettize(
        WEIGHT, channel_axis=2, **GROUPED
    ),
    "palettize: channel_axis -3 is not an axis": lambda: cp.palettize(WEIGHT, channel_axis=-3, **GROUPED),
    "palettize: channel_axis 0 is not an axis of shape ()": lambda: cp.palettize(np.float32(1), **GROUPED),
    "palettize: axis 0 of length 6 is not a multiple of cluster_dim 4 (shape (6, 10))": lambda: cp.palettize(
        WEIGHT, nbits=4, cluster_dim=4
    ),
    "palettize: cluster_dim must be a whole number from 1 on, not 0": lambda: cp.palettize(
        WEIGHT, nbits=4, cluster_dim=0
    ),
    "palettize: cluster_dim must be a whole number from 1 on, not 2.0": lambda: cp.palettize(
        WEIGHT, nbits=4, cluster_dim=2.0
    ),
    "palettize: cluster_dim above 1 needs mode 'kmeans' or 'unique', not 'uniform'": lambda: cp.palettize(
        WEIGHT, nbits=4, mode="uniform", cluster_dim=2
    ),
    "palettize: group_size 3 is not a multiple of cluster_dim 2": lambda: cp.palettize(
        WEIGHT, group_size=3, cluster_dim=2, **GROUPED
    ),
    "palettize: give lut or cluster_dim 2, not both": lambda: cp.palettize(WEIGHT, lut=[0, 1], cluster_dim=2),
    "palettize: channel_axis 3 is not an axis of shape (6, 10)": lambda: cp.palettize(
        WEIGHT, nbits=4, cluster_dim=2, channel_axis=3
    ),
    "palettize: weight has no elements (shape (0, 4))": lambda: cp.palettize(np.ones((0, 4)), nbits=4, cluster_dim=2),
    "palettize: importance has shape (3,), the weight (6, 10)": lambda: cp.palettize(
        WEIGHT, nbits=4, cluster_dim=2, importance=[1, 2, 3]
    ),
    "palettize: importance must be finite and not negative, not -": lambda: cp.palettize(
        WEIGHT, nbits=4, cluster_dim=2, importance=-np.abs(WEIGHT)
    ),
    "not 'per_channel'": lambda: cp.palettize(WEIGHT, nbits=4, granularity="per_channel"),
    "quantize: dtype must be ": lambda: cp.quantize(WEIGHT, dtype="int16"),
    "quantize: mode must be ": lambda: cp.quantize(WEIGHT, mode="affine"),
    "quantize: granularity must be ": lambda: cp.quantize(WEIGHT, granularity="per_row"),
    "quantize: channel_axis 5 is not an axis of shape (6, 10)": lambda: cp.quantize(WEIGHT, channel_axis=5),
    "prune: give exactly one of target_sparsity, threshold and n_m_ratio": lambda: cp.prune(WEIGHT),
    "prune: give exactly one of": lambda: cp.prune(WEIGHT, target_sparsity=0.5, threshold=0.1),
    "prune: target_sparsity must be between 0 and 1, not 1.5": lambda: cp.prune(WEIGHT, target_sparsity=1.5),
    "prune: target_sparsity must be between 0 and 1, not nan": lambda: cp.prune(WEIGHT, target_sparsity=np.nan),
    "prune: threshold must not be negative or NaN, not -0.1": lambda: cp.prune(WEIGHT, threshold=-0.1),
    "prune: threshold must not be negative or NaN, not nan": lambda: cp.prune(WEIGHT, threshold=np.nan),
    "prune: n_m_ratio must be two whole numbers, 0 <= n <= m and 1 <= m <= 1024, not (4, 2)": lambda: cp.prune(
        WEIGHT, n_m_ratio=(4, 2)
    ),
    "not (-1, 2)": lambda: cp.prune(WEIGHT, n_m_ratio=(-1, 2)),
    "not (0, 0)": lambda: cp.prune(WEIGHT, n_m_ratio=(0, 0)),
    "not (2, 1025)": lambda: cp.prune(WEIGHT, n_m_ratio=(2, 1025)),
    "not (2.0, 4)": lambda: cp.prune(WEIGHT, n_m_ratio=(2.0, 4)),
    "not '2:4'": lambda: cp.prune(WEIGHT, n_m_ratio="2:4"),
    "prune: block_size must be a whole number from 2 on, not 1": lambda: cp.prune(
        WEIGHT, target_sparsity=0.5, block_size=1
    ),
    "prune: block_size needs target_sparsity": lambda: cp.prune(WEIGHT, threshold=0.5, block_size=4),
    "prune: dim needs n_m_ratio or block_size": lambda: cp.prune(WEIGHT, target_sparsity=0.5, dim=0),
    "prune: dim must be 0, 1, not -1": lambda: cp.prune(WEIGHT, n_m_ratio=(2, 4), dim=-1),
    "prune: dim 1 is not an axis of shape (10,)": lambda: cp.prune(WEIGHT[0], n_m_ratio=(2, 4)),
    "n_m_mask: n_m_ratio must be two whole numbers": lambda: kernels.n_m_mask(WEIGHT, 3, 2),
    "n_m_mask: dim 2 is not an axis of shape (6, 10)": lambda: kernels.n_m_mask(WEIGHT, 2, 4, 2),
    "n_m_mask: 1 of 2 values are NaN or infinite (shape (1, 2))": lambda: kernels.n_m_mask([[np.nan, 1.0]], 1, 2),
    "prune: 2 of 3 values are NaN or infinite (shape (3,))": lambda: cp.prune(
        np.array([np.nan, 1.0, np.inf]), threshold=0
    ),
    "prune: weight 1 of the list: 1 of 2 values are NaN or infinite (shape (2,))": lambda: cp.prune(
        [WEIGHT, np.array([0, np.inf])], threshold=0
    ),
    "quantize: weight 2 of the list: channel_axis 1 is not an axis of shape (10,)": lambda: cp.quantize(
        [WEIGHT, WEIGHT, WEIGHT[0]], channel_axis=1
    ),
    "palettize: weight 1 of the list: axis 0 of length 6 is not a multiple": lambda: cp.palettize(
        [WEIGHT[:4], WEIGHT], group_size=4, **GROUPED
    ),
    "quantize: num_threads must be at least 1, not 0": lambda: cp.quantize(WEIGHT, num_threads=0),
    "palettize: num_threads must be at least 1, not -2": lambda: cp.palettize(WEIGHT, nbits=4, num_threads=-2),
    "pack_bits: nbits must be 1 to 8, not 9": lambda: kernels.pack_bits(np.zeros(3, np.uint8), 9),
    "pack_bits: code 9 does not fit 3 bits": lambda: kernels.pack_bits(np.array([1, 9], np.uint8), 3),
    "pack_bits: out must be a writable, C-contiguous and aligned uint8 array of shape (2,), not uint8 (3,)": lambda: (
        kernels.pack_bits(np.zeros(4, np.uint8), 4, np.empty(3, np.uint8))
    ),
    "unpack_bits: 5 codes of 3 bits are 2 bytes, not 3": lambda: kernels.unpack_bits(np.zeros(3, np.uint8), 3, 5),
    "array of shape (4,), not uint8 (4,), not C-contiguous": lambda: kernels.unpack_bits(
        np.zeros(2, np.uint8), 4, 4, np.empty(8, np.uint8)[::2]
    ),
    "pack_bits: code -9 does not fit 4 bits": lambda: kernels.pack_bits(np.array([-8, -9], np.int8), 4),
    "pack_bits: code 8 does not fit 4 bits": lambda: kernels.pack_bits(np.array([7, 8], np.int8), 4),
    "pack_bits: bitorder must be 'little', 'big', not 'msb'": lambda: kernels.pack_bits(
        np.zeros(3, np.uint8), 4, bitorder="msb"
    ),
    "unpack_mask: out must be a writable, C-contiguous and aligned bool array": lambda: kernels.unpack_mask(
        np.zeros(1, np.uint8), 4, np.empty(4, np.uint8)
    ),
    "pack_bits: num_threads must be at least 1, not 0": lambda: kernels.pack_bits(
        np.zeros(3, np.uint8), 4, num_threads=0
    ),
    "encode_sparse: out must be": lambda: kernels.encode_sparse(WEIGHT, WEIGHT > 0, out=np.empty(3, np.float32)),
    "decode_sparse: out must be": lambda: kernels.decode_sparse(
        WEIGHT[WEIGHT > 0], WEIGHT > 0, (6, 10), out=np.empty((6, 10), np.float16)
    ),
    "unpack_bits: count must not be negative, not -1": lambda: kernels.unpack_bits(np.zeros(0, np.uint8), 4, -1),
}


@pytest.mark.parametrize("message", CASES)
def test_wrong_values(message):
    with pytest.raises(ValueError, match=re.escape(message)):
        CASES[message]()


def test_wrong_dtypes():
    with pytest.raises(TypeError, match="quantize: weight must be float16, bfloat16, float32 or float64, not int64"):
        cp.quantize(np.array([1, 2, 3]))
    with pytest.raises(TypeError, match="pack_bits: codes must be uint8, int8 or bool, not int64"):
        kernels.pack_bits([1, 2, 3], 4)


def test_options_have_names():
    with pytest.raises(TypeError):
        cp.palettize(WEIGHT, 4)
    with pytest.raises(TypeError):
        cp.quantize(WEIGHT, "int8")
