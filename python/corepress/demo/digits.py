"""A small trained network that reads handwritten digits, as a Core ML package, and the images that it is tried on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .program import ProgramBuilder, Variable

DATA = Path(__file__).with_name("data")
STAGES, BLOCKS = 3, 2
GREY_LEVELS = 16


@dataclass(frozen=True)
class Digits:
    """What `bench/train_digits.py` wrote.

    Attributes
    ----------
    weights : dict of str to array
        The network's weights and biases, float16.
    samples, tests : array
        Images for calibration, of those that the network was trained on, and others for the test; both as the network
        takes them.
    labels : array
        What the test images show.
    """

    weights: Mapping[str, NDArray[np.float16]]
    samples: NDArray[np.float16]
    tests: NDArray[np.float16]
    labels: NDArray[np.int32]


@cache
def load_digits() -> Digits:
    """Read the network and its images, which are part of corepress; data/NOTICE says where the images come from."""
    with np.load(DATA / "digits.npz") as file:
        arrays = dict(file)
    samples, tests = (_images(arrays.pop(name)) for name in ("samples", "tests"))
    return Digits(arrays, samples, tests, arrays.pop("labels").astype(np.int32))


def _images(levels: NDArray[np.uint8]) -> NDArray[np.float16]:
    return (levels[:, None] / np.float16(GREY_LEVELS)).astype(np.float16)


def build_digits(destination: Path) -> None:
    """Write the network to `destination`, a new ``.mlpackage`` of specification version 9 (iOS 18)."""
    weights = load_digits().weights
    with ProgramBuilder(destination, 9, "Reads handwritten digits of 8 x 8 pixels; trained for corepress demo") as op:

        def conv(name: str, x: Variable, stride: int = 1, **options: Any) -> Variable:
            return op(
                "conv",
                x=x,
                weight=op.const(f"{name}_weight", weights[f"{name}_weight"]),
                bias=op.const(f"{name}_bias", weights[f"{name}_bias"]),
                strides=[stride, stride],
                pad_type="custom",
                pad=[1] * 4,
                dilations=[1, 1],
                groups=1,
                name=name,
            )

        x = op.input("image", (1, 1, 8, 8))
        for stage in range(STAGES):
            x = op("relu", x=conv(f"stage{stage}_enter", x, stride=1 if stage == 0 else 2))
            for block in range(BLOCKS):
                name = f"stage{stage}_block{block}"
                inner = op("relu", x=conv(f"{name}_first", x))
                x = op("relu", x=op("add", x=x, y=conv(f"{name}_second", inner)))
        x = op("reduce_mean", x=x, axes=[2, 3], keep_dims=False)
        weight, bias = (op.const(f"classifier_{part}", weights[f"classifier_{part}"]) for part in ("weight", "bias"))
        op.output(op("linear", x=x, weight=weight, bias=bias, name="scores"))
