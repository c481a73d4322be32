"""Weights to compress, and ways to compare what comes out."""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np

BFLOAT16 = ml_dtypes.bfloat16
CORE_ML_DTYPES = [np.float16, np.float32]
DTYPES = [*CORE_ML_DTYPES, BFLOAT16]
PALETTE_BITS = (1, 2, 3, 4, 6, 8)


def _bimodal(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.normal(0, 0.02, count) + np.where(rng.random(count) < 0.3, 1.0, -0.5)


def _outliers(rng: np.random.Generator, count: int) -> np.ndarray:
    values = rng.normal(0, 0.01, count)
    values[:: max(count // 5, 1)] = 6e4
    return values


def _symmetric_ties(rng: np.random.Generator, count: int) -> np.ndarray:
    return np.tile([-3.0, -1.0, 0.0, 1.0, 3.0], count // 5 + 1)[:count]


def _negative_zeros(rng: np.random.Generator, count: int) -> np.ndarray:
    return np.where(rng.random(count) < 0.5, -0.0, rng.integers(-1, 2, count) * 0.5)


# Each gives `count` float64 numbers within half's range.
DRAWS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "normal": lambda rng, count: rng.normal(0, 0.05, count),
    "t3": lambda rng, count: np.clip(0.05 * rng.standard_t(3, count), -6e4, 6e4),
    "laplace": lambda rng, count: rng.laplace(0, 0.1, count),
    "uniform": lambda rng, count: rng.uniform(-1, 1, count),
    "lognormal": lambda rng, count: rng.lognormal(-2, 1, count),
    "bimodal": _bimodal,
    "few distinct": lambda rng, count: rng.choice([-0.7, -0.1, 0.0, 0.25, 0.5], count),
    "integers": lambda rng, count: rng.integers(-200, 200, count).astype(float),
    "symmetric ties": _symmetric_ties,
    "subnormal": lambda rng, count: rng.integers(-900, 900, count) * 2.0**-24,
    "outliers": _outliers,
    "far from zero": lambda rng, count: 1000 + rng.normal(0, 4, count),
    "constant": lambda rng, count: np.full(count, -0.3),
    "all zero": lambda rng, count: np.zeros(count),
    "negative zeros": _negative_zeros,
}


def draw(name: str, count: int, dtype: type, seed: int = 0) -> np.ndarray:
    return DRAWS[name](np.random.default_rng([seed, count]), count).astype(dtype)


def normal(*shape: int, dtype: type = np.float32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(0, 0.1, shape).astype(dtype)


def bits(array: np.ndarray) -> np.ndarray:
    """The array's elements as unsigned integers, so that -0 differs from 0 and NaN equals itself."""
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}")


def assert_same_bits(first: np.ndarray, second: np.ndarray) -> None:
    assert first.dtype == second.dtype
    assert first.shape == second.shape
    np.testing.assert_array_equal(bits(first), bits(second))


def squared_error(values: np.ndarray, table: np.ndarray) -> float:
    """Squared error, in float64, of giving each value its nearest entry."""
    exact, entries = values.astype(np.float64).reshape(-1), np.unique(table.astype(np.float64))
    codes = np.searchsorted((entries[:-1] + entries[1:]) / 2, exact)
    return float(((exact - entries[codes]) ** 2).sum())


def arrays_of(result: object) -> list[np.ndarray]:
    """Every array that a compressed tensor holds."""
    return [value for value in vars(result).values() if isinstance(value, np.ndarray)]
