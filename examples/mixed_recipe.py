"""Finds how many bits each weight of a package needs, without data, and compresses the package accordingly.

The package is compressed to every width once. The reports show the size and loss of each weight at each; bits then go,
step by step, where they save the most error per byte, until the size is reached.
"""

from __future__ import annotations

import argparse
import heapq
import json
import tempfile
from collections import Counter
from pathlib import Path

from corepress import Config, coreml

IOS18_VERSION = 9  # from this specification version on there are tables of 3 bits

# For each weight: its bytes and its error at each width.
Losses = dict[str, dict[int, tuple[int, float]]]


def measure(package: Path, widths: list[int]) -> Losses:
    """Compress to each width. A weight's error is the part of its energy that is lost, times its number of elements."""
    losses: Losses = {}
    with tempfile.TemporaryDirectory() as folder:
        for nbits in widths:
            report = coreml.compress(package, Path(folder) / f"{nbits}.mlpackage", {"palettize": {"nbits": nbits}})
            for weight in report.weights:
                if weight.snr_db is not None:
                    error = weight.size * 10 ** (-weight.snr_db / 10)
                    losses.setdefault(weight.name, {})[nbits] = (weight.bytes_after, error)
    return losses


def choose(losses: Losses, budget: float) -> dict[str, int]:
    """Start every weight at its smallest width, and widen the one that gains most per byte while the budget lasts."""
    recipe = {name: min(widths) for name, widths in losses.items()}
    budget -= sum(losses[name][nbits][0] for name, nbits in recipe.items())
    steps: list[tuple[float, str, int, int]] = []  # a heap: the best step is the smallest

    def offer(name: str) -> None:
        wider = min((nbits for nbits in losses[name] if nbits > recipe[name]), default=None)
        if wider is not None:
            (size, error), (wider_size, wider_error) = losses[name][recipe[name]], losses[name][wider]
            heapq.heappush(steps, ((wider_error - error) / (wider_size - size), name, wider, wider_size - size))

    for name in recipe:
        offer(name)
    while steps:
        _, name, wider, growth = heapq.heappop(steps)
        if growth <= budget:
            recipe[name] = wider
            budget -= growth
            offer(name)
    return recipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="the .mlpackage to compress")
    parser.add_argument("destination", type=Path, help="the .mlpackage to write")
    parser.add_argument("--bits-per-weight", type=float, default=4.0, help="of the compressed weights (default: 4)")
    parser.add_argument("--recipe", type=Path, help="also save the recipe, as JSON that `corepress compress` reads")
    parser.add_argument("--overwrite", action="store_true", help="replace the destination if it exists")
    options = parser.parse_args()

    inspection = coreml.inspect(options.source)
    widths = [2, 3, 4, 6, 8] if inspection.specification_version >= IOS18_VERSION else [2, 4, 6, 8]
    losses = measure(options.source, widths)
    count = sum(weight.size for weight in inspection.weights if weight.name in losses)
    recipe = choose(losses, options.bits_per_weight * count / 8)
    if options.recipe is not None:
        options.recipe.write_text(json.dumps(recipe, indent=2) + "\n", encoding="utf-8")

    config = Config.from_recipe(recipe)
    report = coreml.compress(options.source, options.destination, config, overwrite=options.overwrite)
    print(f"{report.bytes_before:,} -> {report.bytes_after:,} bytes, {report.bits_per_weight:.2f} bits per weight")
    for nbits, weights in sorted(Counter(recipe.values()).items()):
        print(f"{weights:6} weights of {nbits} bits")
    print(f"signal-to-noise ratio: {coreml.compare(options.source, options.destination).snr_db:.2f} dB")


if __name__ == "__main__":
    main()
