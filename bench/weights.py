"""The weights that are timed: shapes of diffusion models, values drawn like trained ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SHAPES = {
    "convolution": (1280, 1280, 3, 3),  # 14.7 M, the widest of Stable Diffusion 1.5's UNet
    "linear": (4096, 4096),
}


def draw(shape: tuple[int, ...], dtype: str, seed: int = 0) -> NDArray[Any]:
    """Rows of different scale with slightly heavy tails."""
    generator = np.random.default_rng(seed)
    scale = 0.02 * (1 + 0.3 * np.abs(generator.standard_normal((shape[0], *[1] * (len(shape) - 1)))))
    return (generator.standard_t(8, shape) * scale).astype(dtype)
