"""Sums of products in blocks and panels, on NumPy, against products of all vectors at once."""

from __future__ import annotations

import numpy as np
import pytest

from corepress.calibration.block_sums import BlockSums

COLUMNS, SIZE = 700, 400  # blocks of 400 and 300 columns, each with two panels


def expected_mean(products, count):
    """The blocks of the mean of products, as `BlockSums.mean` returns them."""
    blocks = np.zeros((len(products), 2, SIZE, SIZE))
    blocks[:, 0] = products[:, :SIZE, :SIZE]
    blocks[:, 1, : COLUMNS - SIZE, : COLUMNS - SIZE] = products[:, SIZE:, SIZE:]
    return blocks / count


def test_vectors_are_summed_with_their_factors():
    rng = np.random.default_rng(0)
    sums, products = BlockSums(2, COLUMNS, SIZE), np.zeros((2, COLUMNS, COLUMNS))
    for number, factor in ((3, 1.0), (300, 1.0), (5, 2.0), (250, 2.0), (4, 3.0), (4, 1.0)):  # few wait, many do not
        vectors = rng.integers(-3, 4, (2, number, COLUMNS)).astype(np.float32)
        sums.add(vectors, factor, int(factor) * number)
        products += factor * np.einsum("gvi,gvj->gij", vectors.astype(np.float64), vectors)
    assert sums.count == 3 + 300 + 10 + 500 + 12 + 4
    assert sums.is_finite
    np.testing.assert_allclose(sums.mean(), expected_mean(products, sums.count), rtol=1e-6)


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_vectors_of_single_groups(factor):
    rng = np.random.default_rng(1)
    vectors, owners = rng.integers(-3, 4, (40, COLUMNS)).astype(np.float32), rng.integers(0, 3, 40)
    sums = BlockSums(3, COLUMNS, SIZE)
    sums.add_to(vectors, owners, factor, 40)
    products = np.stack([factor * vectors[owners == group].T @ vectors[owners == group] for group in range(3)])
    np.testing.assert_allclose(sums.mean(), expected_mean(products.astype(np.float64), 40), rtol=1e-6)
