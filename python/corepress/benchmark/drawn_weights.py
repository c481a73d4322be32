"""Random weights distributed like trained ones: rows of different scale with slightly heavy tails."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..calibration.block_sums import BLOCK_COLUMNS_OF_LARGE, block_columns
from ..kernels import to_float16

TAILS = 8  # degrees of freedom of Student's t distribution
SCALE, SPREAD = 0.02, 0.3
FACTORS = 64  # that inputs share


def draw(shape: tuple[int, ...], dtype: Any, seed: int = 0) -> NDArray[Any]:
    """Draw a weight, every value independently."""
    generator = np.random.default_rng(seed)
    scale = _row_scales(generator, shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    return (generator.standard_t(TAILS, shape) * scale).astype(dtype)


def draw_moments(columns: int, of_channel: int = 1, seed: int = 0) -> NDArray[np.float32]:
    """Draw second moments of the inputs of a layer: channels of unequal scale that share some factors.

    Parameters
    ----------
    columns : int
        Inputs of the layer.
    of_channel : int
        How many of them belong to one channel.
    seed : int
        Of the drawn numbers.

    Returns
    -------
    numpy.ndarray of float32
        (blocks, size, size), in blocks as `corepress.coreml.calibrate` divides the columns of a large model. What is
        beyond the columns is 0.
    """
    generator = np.random.default_rng((seed, columns))
    size = block_columns(columns, of_channel, BLOCK_COLUMNS_OF_LARGE)
    blocks = -(-columns // size)
    found = np.zeros((blocks, size, size), np.float32)
    for block in range(blocks):
        count = min(size, columns - block * size)
        loads = generator.standard_normal((count, FACTORS), dtype=np.float32) / np.float32(math.sqrt(FACTORS))
        scales = np.exp(SPREAD * generator.standard_normal(count)).astype(np.float32)
        moments = loads @ loads.T
        moments[np.diag_indices(count)] += 1
        found[block, :count, :count] = scales[:, None] * moments * scales
    return found


def _row_scales(generator: np.random.Generator, rows: int) -> NDArray[np.float64]:
    scales: NDArray[np.float64] = SCALE * (1 + SPREAD * np.abs(generator.standard_normal(rows)))
    return scales


class WeightPool:
    """Draws float16 weights of the distribution of `draw`, a hundred times as fast.

    The numbers of the t distribution are drawn once. A weight is a run of them that begins anywhere and wraps around,
    with each row multiplied by its own scale; so the same number hardly ever gives the same value twice.

    Parameters
    ----------
    size : int
        How many numbers are drawn. Not a power of two, so that rows of usual lengths do not repeat.
    seed : int
        Of the pool, and with a weight's own seed of that weight.
    """

    PART = 1 << 18  # values that are scaled at once, in the cache

    def __init__(self, size: int = 4_000_037, seed: int = 0) -> None:
        self.size, self.seed = size, seed
        numbers = np.random.default_rng(seed).standard_t(TAILS, size).astype(np.float32)
        self._numbers = np.resize(numbers, size + self.PART)  # goes on behind its end with its beginning

    def draw(self, shape: tuple[int, ...], seed: int = 0) -> NDArray[np.float16]:
        """Draw a weight; the same for the same pool, shape and seed."""
        generator = np.random.default_rng((self.seed, seed))
        start, scales = int(generator.integers(self.size)), _row_scales(generator, shape[0]).astype(np.float32)
        length = math.prod(shape[1:])
        weight = np.empty((shape[0], length), np.float16)
        rows, columns = max(1, self.PART // max(length, 1)), min(length, self.PART)
        for row in range(0, shape[0], rows):
            factors = scales[row : row + rows, None]
            for column in range(0, length, columns):
                part = weight[row : row + rows, column : column + columns]
                first = (start + row * length + column) % self.size
                numbers = self._numbers[first : first + part.size].reshape(part.shape)
                part[...] = to_float16(numbers * factors)
        return weight.reshape(shape)
