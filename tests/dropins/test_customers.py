"""Tools that call coremltools' private k-means, and solvers of k-means on a line: what they expect of each swap.

torchao and flash1dkmeans themselves are tested where they are installed; their calls are tested everywhere.
"""

from __future__ import annotations

import logging

import numpy as np
import pytest
from coreml_helpers import quiet
from dropin_helpers import TOLERANCE, both_ways, normal, squared_error

import corepress as cp


def assert_same_kinds(ours, theirs) -> None:
    assert [(each.shape, each.dtype) for each in ours] == [(each.shape, each.dtype) for each in theirs]


@pytest.fixture(scope="module")
def quantization_utils(ct):
    from coremltools.models.neural_network import quantization_utils

    return quantization_utils


class TestTorchao:
    """Its codebook quantizer calls the helper for each group of rows or columns with a view of a tensor."""

    @pytest.mark.parametrize("by_rows", [False, True])
    @pytest.mark.parametrize("dtype", [np.float16, np.float32])
    @pytest.mark.parametrize(("nbits", "size"), [(2, 4), (4, 16), (6, 32)])
    def test_calls_with_a_view_for_each_group(self, quantization_utils, by_rows, dtype, nbits, size):
        rows, columns = 64, 96
        weight = normal(rows, columns).astype(dtype)
        if by_rows:
            blocks = list(weight.reshape(-1, size, columns))
        else:
            blocks = list(np.moveaxis(weight.reshape(rows, -1, size), 1, 0))

        def quantize():
            helper = quantization_utils._get_kmeans_lookup_table_and_weight
            return [helper(nbits, block, False, 1, None) for block in blocks]

        theirs, ours = both_ways(quantize)
        for block, found, expected in zip(blocks, ours, theirs, strict=True):
            assert_same_kinds(found, expected)
            assert found[0].shape == (2**nbits, 1)
            errors = [squared_error(lut[codes.reshape(block.shape), 0], block) for lut, codes in (found, expected)]
            assert errors[0] <= errors[1] * (1 + TOLERANCE)
            assert 0 <= found[1].min() <= found[1].max() < 2**nbits

    @pytest.mark.parametrize("block_size", [[-1, 16], [8, -1], [-1, -1]])
    @pytest.mark.parametrize("dtype", ["float16", "float32"])
    def test_its_own_function(self, block_size, dtype):
        torch = pytest.importorskip("torch")
        with quiet():
            logging.disable()
            operations = pytest.importorskip("torchao.prototype.quantization.codebook_coreml.codebook_ops")
            logging.disable(logging.NOTSET)
        weight = torch.from_numpy(normal(64, 160)).to(getattr(torch, dtype))

        def quantize():
            return operations.choose_qparams_and_quantize_codebook_coreml(weight, torch.uint4, list(block_size))

        def error_of(lut, codes):
            decoded = operations.dequantize_codebook(codes.long(), lut, 4, list(block_size), torch.float32)
            return squared_error(decoded.numpy(), weight.numpy())

        theirs, ours = both_ways(quantize)
        assert_same_kinds(ours, theirs)
        assert error_of(*ours) <= error_of(*theirs) * (1 + TOLERANCE)


class TestStableDiffusion:
    """Apple's mixed-bit scripts decode what the helper returns: ``lut[indices]``, in the weight's shape and float16."""

    @pytest.mark.parametrize("shape", [(320, 64), (40, 30), (320, 4, 3, 3), (300,)])
    @pytest.mark.parametrize("nbits", [1, 2, 4, 6, 8])
    def test_palettized_and_back(self, quantization_utils, shape, nbits):
        weight = normal(*shape).astype(np.float16)

        def palettize():
            return quantization_utils._get_kmeans_lookup_table_and_weight(nbits, weight)

        theirs, ours = both_ways(palettize)
        assert_same_kinds(ours, theirs)

        def error_of(lut, indices, dtype):
            return squared_error(lut.astype(dtype)[indices.astype(np.uint8)].reshape(shape), weight)

        assert error_of(*ours, np.float64) <= error_of(*theirs, np.float64) * (1 + TOLERANCE)
        if weight.size > 2 * 2**nbits:
            # With fewer values for an entry, what is left of the error is how the rounding to halves falls.
            assert error_of(*ours, weight.dtype) <= error_of(*theirs, weight.dtype) * (1 + TOLERANCE)

    @pytest.mark.parametrize("axis", [0, 1])
    def test_parts_of_channels(self, quantization_utils, axis):
        weight = normal(64, 256, 3, 3).astype(np.float16)

        def palettize():
            parts = []
            for part in np.split(weight, 4, axis):
                lut, indices = quantization_utils._get_kmeans_lookup_table_and_weight(4, part)
                parts.append(lut.astype(part.dtype)[indices].reshape(part.shape))
            return np.concatenate(parts, axis)

        theirs, ours = both_ways(palettize)
        assert_same_kinds([ours], [theirs])
        assert squared_error(ours, weight) <= squared_error(theirs, weight) * (1 + TOLERANCE)


class TestFlash1dkmeans:
    """The swaps that the documentation of `corepress.kernels.kmeans1d` shows."""

    @pytest.fixture
    def kmeans_1d(self):
        return pytest.importorskip("flash1dkmeans").kmeans_1d

    @pytest.mark.parametrize("weighted", [False, True])
    def test_labels(self, kmeans_1d, weighted):
        rng = np.random.default_rng(4)
        values, weights = rng.normal(size=3000), rng.uniform(0.1, 3, 3000) if weighted else None
        centroids, labels = kmeans_1d(values, 6, sample_weights=weights, random_state=0)
        found = cp.kernels.kmeans1d(values, 6, weights)
        shares = np.ones(3000) if weights is None else weights
        assert found.codes.shape == labels.shape
        assert found.centroids.shape == centroids.shape
        allowed = (shares * (centroids[labels] - values) ** 2).sum()
        assert found.inertia == pytest.approx((shares * (found.centroids[found.codes] - values) ** 2).sum())
        assert found.inertia <= allowed * (1 + 1e-12)

    def test_borders(self, kmeans_1d):
        values = np.sort(np.random.default_rng(5).normal(size=3000))
        centroids, borders = kmeans_1d(values, 6, is_sorted=True, return_cluster_borders=True, random_state=0)
        labels, found, _ = cp.kernels.kmeans1d(values, 6)
        found_borders = np.searchsorted(labels, np.arange(7))
        assert found_borders.shape == borders.shape
        assert (found_borders[0], found_borders[-1]) == (borders[0], borders[-1])

        def cost(entries, ends):
            parts = zip(entries, np.split(values, ends[1:-1]), strict=True)
            return sum(((part - entry) ** 2).sum() for entry, part in parts)

        assert cost(found, found_borders) <= cost(centroids, borders) * (1 + 1e-12)
