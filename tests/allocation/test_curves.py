"""What is said to be lost is what is lost."""

import math

import numpy as np
import pytest

import corepress as cp
from corepress.allocation import curves
from corepress.allocation.curves import palette_errors
from corepress.errors import Skip

WIDTHS = (1, 2, 3, 4, 6, 8)


def weight_of(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.standard_t(4, shape) * 0.05).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("shape", [(64, 100), (3, 5), (1, 1)])
def test_tables_of_all_widths_lose_what_palettize_loses(dtype, shape):
    weight = weight_of(shape, dtype)
    found = palette_errors(weight, WIDTHS)
    for nbits in WIDTHS:
        error = cp.error(weight, cp.palettize(weight, nbits=nbits))
        expected = 0.0 if math.isinf(error.snr_db) else 10 ** (-error.snr_db / 10)
        assert found[nbits] == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_counting_in_cells_changes_little(monkeypatch):
    weight = weight_of((256, 512), np.float32, 1)
    exact = palette_errors(weight, WIDTHS)
    monkeypatch.setattr(curves, "_MOST_VALUES", 1000)
    monkeypatch.setattr(curves, "_PIECE", 5000)
    for nbits, error in palette_errors(weight, WIDTHS).items():
        assert abs(10 * math.log10(error / exact[nbits])) < 0.01
        assert error != exact[nbits]


def test_counting_in_pieces_changes_nothing(monkeypatch):
    weight = weight_of((100, 130), np.float16, 2)
    exact = palette_errors(weight, WIDTHS)
    monkeypatch.setattr(curves, "_PIECE", 999)
    assert palette_errors(weight, WIDTHS) == exact


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("dtype", "most"), [(np.float16, 1 << 20), (np.float32, 1 << 20), (np.float32, 10)])
def test_weights_that_are_not_finite_have_no_table(monkeypatch, value, dtype, most):
    monkeypatch.setattr(curves, "_MOST_VALUES", most)
    weight = weight_of((32, 32), dtype)
    weight[3, 4] = value
    with pytest.raises(Skip, match="not finite"):
        palette_errors(weight, WIDTHS)


def test_a_weight_of_zeros_loses_nothing():
    assert palette_errors(np.zeros((40, 50), np.float16), (2, 4)) == {2: 0.0, 4: 0.0}


def test_the_number_of_threads_changes_nothing():
    weight = weight_of((200, 300), np.float16, 3)
    assert palette_errors(weight, WIDTHS, 1) == palette_errors(weight, WIDTHS, 4)
