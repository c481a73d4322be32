"""The weights that are timed: shapes of diffusion and language models, values drawn like trained ones."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corepress.benchmark.drawn_weights import draw

SHAPES = {
    "convolution": (1280, 1280, 3, 3),  # 14.7 M, the widest of Stable Diffusion 1.5's UNet
    "linear": (4096, 4096),
    "attention": (1280, 1280),  # for peers that take minutes on the others
}
QUICK_SHAPES = {"convolution": (320, 320, 3, 3), "linear": (1024, 1024), "attention": (320, 320)}


@cache
def weight(name: str, dtype: str = "float16", quick: bool = False) -> NDArray[Any]:
    """The weight of that name, drawn once; nobody writes to it."""
    if dtype == "bfloat16":
        import ml_dtypes

        drawn = weight(name, "float32", quick).astype(ml_dtypes.bfloat16)
    else:
        drawn = draw((QUICK_SHAPES if quick else SHAPES)[name], dtype)
    drawn.flags.writeable = False
    return drawn


def normal(shape: tuple[int, ...], dtype: str = "float16", seed: int = 0) -> NDArray[Any]:
    """Gaussian numbers, drawn a part at a time: together the float64 ones would fill the memory."""
    generator = np.random.default_rng(seed)
    drawn = np.empty(int(np.prod(shape)), dtype)
    for start in range(0, drawn.size, 1 << 16):
        part = drawn[start : start + (1 << 16)]
        part[:] = generator.standard_normal(part.size, dtype=np.float32) * np.float32(0.02)
    return drawn.reshape(shape)
