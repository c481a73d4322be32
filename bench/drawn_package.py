"""A package with the weights of a diffusion or language model, drawn: a linear layer for each, in iOS 18's format.

    python bench/drawn_package.py flux1-dev FLUX.mlpackage

It cannot be run, but is as large as the model, whose weights are in memory one at a time: `package_speed.py` measures
what the shell needs for it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from corepress.benchmark.architectures import ARCHITECTURES
from corepress.benchmark.drawn_weights import WeightPool
from corepress.benchmark.packages import build_package


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=ARCHITECTURES)
    parser.add_argument("package", type=Path)
    options = parser.parse_args()
    pool, layers = WeightPool(), ARCHITECTURES[options.model].layers
    build_package(options.package, (pool.draw(layer.shape, index) for index, layer in enumerate(layers)))


if __name__ == "__main__":
    main()
