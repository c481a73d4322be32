"""Draws the pictures of the README and the documentation, from runs of corepress and from measured figures.

python docs/pictures.py [--output docs/images]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import corepress as cp
from corepress import coreml
from corepress.compression import output_error
from corepress.demo.model import TrainedLikeWeights
from corepress.demo.reading import Readings
from corepress.demo.reading_plot import readings_figure
from corepress.reference.soft_kmeans import SoftKMeans
from corepress.reporting.charts import BLUE, FAINT, GRID, INK, ORANGE, ORIGINAL_COLOUR, new_figure, save_figure, style

HERE = Path(__file__).parent
GROUPED = {"granularity": "per_grouped_channel", "group_size": 16}
BLOCKS = {"granularity": "per_block", "block_size": 32}
WIDTH = 10.0


def draw_weight(shape: tuple[int, ...] = (256, 256, 3, 3)) -> NDArray[np.float16]:
    """A weight that is distributed as trained ones are: rows of different scale, tails a little heavy."""
    return TrainedLikeWeights().matrix("weight", shape)


def snr(weight: Any, tensor: Any) -> str:
    return f"{cp.error(weight, tensor).snr_db:.1f} dB"


def panels(title: str, count: int, height: float = 3.1, **options: Any) -> tuple[Any, list[Any]]:
    figure = new_figure(title, (WIDTH, height))
    axes = figure.subplots(1, count, squeeze=False, **options)[0]
    return figure, list(axes)


def histogram(axes: Any, title: str, values: Any, limit: float, colour: str = ORIGINAL_COLOUR, bins: int = 120) -> None:
    """Weights as a histogram."""
    counts, edges = np.histogram(np.asarray(values, np.float32), bins=bins, range=(-limit, limit))
    axes.stairs(counts, edges, fill=True, color=colour, alpha=0.6)
    style(axes, title)
    axes.set_xlim(-limit, limit)
    axes.set_yticks([])
    axes.set_xlabel("weight", color=FAINT)


def levels(axes: Any, values: Any, colour: str = BLUE) -> None:
    """The values that are left of some weights, as lines as high as many weights take them."""
    positions, counts = np.unique(np.asarray(values, np.float32), return_counts=True)
    tallest = axes.get_ylim()[1]
    axes.vlines(positions, 0, 0.95 * tallest * counts / counts.max(), color=colour, linewidth=1.6)
    axes.set_ylim(0, tallest)


def limit_of(weight: Any, quantile: float = 0.999) -> float:
    return float(np.quantile(np.abs(np.asarray(weight, np.float32)), quantile))


def choosing() -> Any:
    """Quality against size of every method."""
    weight = draw_weight((128, 128, 3, 3))
    sparse = {share: cp.prune(weight, target_sparsity=share) for share in (0.5, 0.75)}
    families: dict[str, tuple[str, dict[str, Any]]] = {
        "palette": (BLUE, {f"{bits} bits": cp.palettize(weight, nbits=bits) for bits in (2, 3, 4, 6, 8)}),
        "palettes of 16 channels": ("#7c3aed", {"4": cp.palettize(weight, nbits=4, **GROUPED)}),
        "palette of pairs": (
            "#0d9488",
            {f"{bits} bits a pair": cp.palettize(weight, nbits=bits, cluster_dim=2) for bits in (4, 6, 8)},
        ),
        "integers": (
            ORANGE,
            {
                "int4": cp.quantize(weight, dtype="int4"),
                "int4, blocks of 32": cp.quantize(weight, dtype="int4", scale_search="mse", **BLOCKS),
                "int8": cp.quantize(weight, dtype="int8"),
            },
        ),
        "pruned": (INK, {f"{share:.0%} pruned": tensor for share, tensor in sparse.items()}),
        "pruned, then 4 bits": (
            "#be185d",
            {f"{share:.0%}, 4 bits": cp.palettize(tensor, nbits=4) for share, tensor in sparse.items()},
        ),
    }
    figure, (axes,) = panels("What is left of a weight, and what it takes", 1, 4.6)
    style(axes, "")
    for family, (colour, tensors) in families.items():
        points = [(tensor.bits_per_weight, cp.error(weight, tensor).snr_db) for tensor in tensors.values()]
        axes.plot(*zip(*points, strict=True), marker="o", color=colour, label=family, linewidth=1.2)
        for name, (bits, decibels) in zip(tensors, points, strict=True):
            if family in ("palette", "integers", "pruned"):
                below = family != "palette"
                offset = (7, -13) if below else (-7, 6)
                axes.annotate(
                    name,
                    (bits, decibels),
                    xytext=offset,
                    textcoords="offset points",
                    fontsize=8.5,
                    color=colour,
                    ha="left" if below else "right",
                )
    axes.set_xlabel("bits per weight, tables and scales included (float16: 16)", color=FAINT)
    axes.set_ylabel("signal-to-noise ratio, dB", color=FAINT)
    axes.grid(color=GRID)
    axes.set_xlim(1.4, 10)
    axes.legend(frameon=False, loc="upper left", fontsize=9)
    return figure


def palettize() -> Any:
    """The entries of a table among the weights."""
    weight = draw_weight()
    limit = limit_of(weight)
    figure, (kmeans, uniform, grouped) = panels("16 values for all weights", 3)
    for axes, mode in ((kmeans, "kmeans"), (uniform, "uniform")):
        tensor = cp.palettize(weight, nbits=4, mode=mode)
        histogram(axes, f"{mode}: {snr(weight, tensor)}", weight, limit)
        levels(axes, tensor.dense())
    tensor = cp.palettize(weight, nbits=4, **GROUPED)
    spreads = weight.reshape(16, -1).astype(np.float32).std(axis=1)
    chosen = (int(spreads.argmax()), ORANGE), (int(spreads.argmin()), BLUE)
    for group, colour in chosen:
        rows = slice(16 * group, 16 * (group + 1))
        histogram(grouped, f"groups of 16: {snr(weight, tensor)}", weight[rows], limit, colour)
    tallest = grouped.get_ylim()[1]
    for height, (group, colour) in enumerate(chosen):
        bottom = -0.07 * tallest * (height + 1)
        grouped.vlines(tensor.lut[group].ravel(), bottom, bottom + 0.05 * tallest, color=colour, linewidth=1.6)
    grouped.set_ylim(-0.15 * tallest, tallest)
    return figure


def vectors() -> Any:
    """Two bits per weight: four values each, or sixteen pairs."""
    weight = draw_weight()
    scalar, vector = cp.palettize(weight, nbits=2), cp.palettize(weight, nbits=4, cluster_dim=2)
    limit = 1.1 * limit_of(vector.lut, 1)
    pairs = weight.reshape(128, 2, -1).astype(np.float32).swapaxes(1, 2).reshape(-1, 2)
    seen, _, _ = np.histogram2d(*pairs.T, bins=80, range=[[-limit, limit]] * 2)
    figure, both = panels("Pairs of weights at 2 bits per weight", 2, 4.2, subplot_kw={"aspect": "equal"})
    grid = np.array(np.meshgrid(scalar.lut.ravel(), scalar.lut.ravel())).reshape(2, -1).T
    for axes, title, entries in (
        (both[0], f"4 values for each: {snr(weight, scalar)}", grid),
        (both[1], f"16 pairs: {snr(weight, vector)}", vector.lut.reshape(-1, 2)),
    ):
        axes.imshow(np.sqrt(seen.T), origin="lower", extent=[-limit, limit] * 2, cmap="Greys")
        axes.plot(*entries.T, "o", color=BLUE)
        style(axes, title)
        axes.set(xlim=(-limit, limit), ylim=(-limit, limit), xticks=[], yticks=[])
        axes.set_xlabel("a weight", color=FAINT)
        axes.set_ylabel("that of the next output channel", color=FAINT)
    return figure


def quantize() -> Any:
    """The steps of one channel under scales of its own and of others, and under a zero point."""
    weight = draw_weight()
    row = int(weight.reshape(256, -1).astype(np.float32).std(axis=1).argmin())
    limit = 1.05 * limit_of(weight[row], 1)
    figure, axes = panels("A channel in 4 bits: whose scale, and with or without a zero point", 4)
    for place, granularity in zip(axes, ("per_tensor", "per_channel"), strict=False):
        decoded = cp.quantize(weight, dtype="int4", granularity=granularity).dense()
        histogram(place, f"{granularity}\n{snr(weight[row], decoded[row])}", weight[row], limit, bins=60)
        levels(place, decoded[row])
    skewed = np.abs(weight[row]) - np.float16(0.1 * limit)
    for place, mode in zip(axes[2:], ("linear_symmetric", "linear"), strict=True):
        tensor = cp.quantize(skewed, dtype="int4", mode=mode, granularity="per_tensor")
        histogram(place, f"{mode}\n{snr(skewed, tensor)}", skewed, limit, bins=60)
        levels(place, tensor.dense(), ORANGE)
    return figure


def blocks() -> Any:
    """int4 with fewer and fewer weights to a scale."""
    weight = draw_weight((512, 1024))
    figure, (axes,) = panels("int4: weights that share a scale", 1, 3.6)
    style(axes, "")
    sizes = (1024, 512, 256, 128, 64, 32, 16)
    for search, colour, label in ((None, ORIGINAL_COLOUR, "scale of the range"), ("mse", BLUE, "scale_search='mse'")):
        tensors = [
            cp.quantize(weight, dtype="int4", granularity="per_block", block_size=size, scale_search=search)
            for size in sizes
        ]
        points = [(tensor.bits_per_weight, cp.error(weight, tensor).snr_db) for tensor in tensors]
        axes.plot(*zip(*points, strict=True), marker="o", color=colour, label=label)
        for size, (bits, decibels), tensor in zip(sizes, points, tensors, strict=True):
            if search and size <= 128:
                text = f"blocks of {size}\n{snr(weight, tensor)}"
                offset, ends = (-7, 4), {"ha": "right", "va": "bottom"}
                axes.annotate(
                    text,
                    (bits, decibels),
                    xytext=offset,
                    textcoords="offset points",
                    fontsize=8.5,
                    color=colour,
                    **ends,
                )
    axes.set_ylim(13, 23.5)
    axes.set_xlabel("bits per weight, scales included", color=FAINT)
    axes.set_ylabel("signal-to-noise ratio, dB", color=FAINT)
    axes.grid(color=GRID)
    axes.legend(frameon=False, loc="lower right")
    return figure


def prune() -> Any:
    """What stays of the weights."""
    weight = draw_weight()
    limit = limit_of(weight)
    ways: dict[str, dict[str, Any]] = {
        "the smaller half": {"target_sparsity": 0.5},
        "2 of every 4": {"n_m_ratio": (2, 4)},
        "blocks of 4": {"target_sparsity": 0.5, "block_size": 4},
    }
    figure, axes = panels("Half of the weights pruned", len(ways))
    for place, (name, options) in zip(axes, ways.items(), strict=True):
        sparse = cp.prune(weight, **options)
        histogram(place, f"{name}: {snr(weight, sparse)}", weight, limit)
        histogram(place, f"{name}: {snr(weight, sparse)}", sparse.values, limit, BLUE)
    return figure


def joint() -> Any:
    """A table for all weights, and one for those that survived."""
    weight = draw_weight()
    limit = limit_of(weight)
    sparse = cp.prune(weight, target_sparsity=0.5)
    tensors = {
        "4 bits": cp.palettize(weight, nbits=4),
        "half pruned, then 4 bits": cp.palettize(sparse, nbits=4),
        "half pruned, then 3 bits": cp.palettize(sparse, nbits=3),
    }
    figure, axes = panels("Tables for what is left", len(tensors))
    for place, (name, tensor) in zip(axes, tensors.items(), strict=True):
        decoded = tensor.dense()
        kept = decoded[decoded != 0]
        left = weight if "pruned" not in name else sparse.values
        histogram(place, f"{name}\n{tensor.bits_per_weight:.2f} bits, {snr(weight, tensor)}", left, limit)
        levels(place, kept)
    return figure


def mixed() -> Any:
    """One weight in several widths."""
    weight = draw_weight()
    limit = limit_of(weight)
    figure, axes = panels("What a recipe chooses from", 4)
    for place, bits in zip(axes, (2, 3, 4, 6), strict=True):
        tensor = cp.palettize(weight, nbits=bits)
        histogram(place, f"{bits} bits: {snr(weight, tensor)}", weight, limit)
        levels(place, tensor.dense())
    return figure


def optimum() -> Any:
    """The least error of k entries, and the price at which k of them are cheapest."""
    values = draw_weight((16, 256)).ravel().astype(np.float64)
    found = cp.kernels.kmeans1d_sweep(values, range(2, 17))
    entries = np.array(list(found))
    errors = np.array([clusters.inertia for clusters in found.values()])
    errors /= errors[0]
    figure, (axes,) = panels("One price for every number of entries", 1, 3.8)
    style(axes, "")
    axes.plot(entries, errors, "o-", color=BLUE, label="least squared error of k entries")
    for chosen, colour in ((4, ORANGE), (8, INK)):
        place = chosen - 2
        price = (errors[place - 1] - errors[place + 1]) / 2
        line = errors[place] - price * (entries - chosen)
        shown = (line > -0.06) & (line < 1.05)
        axes.plot(entries[shown], line[shown], "--", color=colour, label=f"price {price:.3f}: k = {chosen} is cheapest")
    axes.set_ylim(-0.06, 1.05)
    axes.set_xlabel("k, entries of the table", color=FAINT)
    axes.set_ylabel("squared error", color=FAINT)
    axes.grid(color=GRID)
    axes.legend(frameon=False)
    return figure


SPEED = {
    "palettize 4 bits": "palettize, 4 bits per tensor",
    "palettize 8 bits": "palettize, 8 bits per tensor",
    "palettize 4 bits, groups of 16": "palettize, 4 bits, groups of 16",
    "palettize 4 bits, float32": "palettize, 4 bits, float32",
    "int8 per channel": "quantize, int8 per channel",
    "int4 blocks of 32, convolution": "quantize, int4, blocks of 32",
}


def speed() -> Any:
    """Measured times beside coremltools."""
    measured = json.loads((HERE.parent / "bench" / "results" / "rows.json").read_text(encoding="utf-8"))["results"]
    found = {row["row"]: row for row in measured if row["against"] == "coremltools"}
    rows = [(title, found[name]) for name, title in SPEED.items()][::-1]
    figure, (axes,) = panels("14.7 M weights (1280 x 1280 x 3 x 3, float16 unless stated otherwise) in memory", 1, 3.9)
    style(axes, "")
    places = np.arange(len(rows))
    for offset, tool, colour in ((0.2, "corepress", BLUE), (-0.2, "coremltools", ORIGINAL_COLOUR)):
        seconds = [row["seconds" if tool == "corepress" else "their_seconds"] for _, row in rows]
        axes.barh(places + offset, seconds, 0.38, left=1e-3, color=colour, label=tool)
        for place, value, (_, row) in zip(places, seconds, rows, strict=True):
            text = f"{1000 * value:.2g} ms" if value < 0.1 else f"{value:.2g} s"
            if tool == "corepress":
                text += f", {row['ratio']:.0f} times faster"
            axes.text(1.12 * (value + 1e-3), place + offset, text, va="center", fontsize=9, color=INK)
    axes.set_xscale("log")
    axes.set_xlim(1e-3, 40)
    axes.set_xticks([1e-3, 1e-2, 0.1, 1, 10], ["1 ms", "10 ms", "0.1 s", "1 s", "10 s"])
    axes.set_yticks(places, [title for title, _ in rows], color=INK)
    axes.set_xlabel("time, on a logarithmic scale", color=FAINT)
    axes.legend(frameon=False, loc="lower right")
    return figure


def feedback() -> Any:
    """Errors that cancel in the outputs, and what that is worth."""
    figure, (left, right) = panels("Codes that make up for each other's errors", 2)
    rng = np.random.default_rng(0)
    weight = TrainedLikeWeights().matrix("weight", (64, 256))
    inputs = rng.standard_normal((4000, 48)) @ rng.standard_normal((48, 256)) + rng.standard_normal((4000, 256))
    inputs, others = inputs[80:], inputs[:80]
    hessian = inputs.T @ inputs / len(inputs)
    ways = (("nearest", ORANGE, {}), ("error feedback", BLUE, {"hessian": hessian}))
    for name, colour, data in ways:
        tensor = cp.palettize(weight, nbits=4, **data)
        missed = (weight - tensor.dense()).astype(np.float64)
        left.plot(others @ missed[5], color=colour, linewidth=1.4, label=name)
        decibels = []
        for nbits in (2, 3, 4, 6, 8):
            tensor = cp.palettize(weight, nbits=nbits, **data)
            signal = output_error(weight, np.zeros_like(weight), hessian)
            decibels.append(10 * np.log10(signal / output_error(weight, tensor, hessian)))
        right.plot((2, 3, 4, 6, 8), decibels, "o-", color=colour, linewidth=1.4, markersize=4, label=name)
    style(left, "Error of one output, 4 bits")
    left.set_xlabel("sample that was not used", color=FAINT)
    style(right, "Error of the outputs")
    right.set_xticks((2, 3, 4, 6, 8))
    right.set_xlabel("bits", color=FAINT)
    right.set_ylabel("SNR in dB", color=FAINT)
    right.legend(frameon=False, loc="lower right")
    return figure


def allocation() -> Any:
    """One price for all weights, and what choosing bits by it is worth."""
    figure, (left, right) = panels("Bits where they matter", 2)
    rng = np.random.default_rng(0)
    price = 0.012  # of a kilobyte, in units of the error
    layers = (
        ("matters much", 1.0, 64, BLUE),
        ("matters less", 0.15, 64, ORANGE),
        ("matters less, small", 0.15, 24, "#0d9488"),
    )
    for name, sensitivity, rows, colour in layers:
        weight = rng.standard_normal((rows, 256)).astype(np.float16)
        tensors = {nbits: cp.palettize(weight, nbits=nbits) for nbits in (1, 2, 3, 4, 6, 8)}
        kilobytes = np.array([tensor.nbytes / 1000 for tensor in tensors.values()])
        errors = np.array([sensitivity * cp.error(weight, tensor).mse for tensor in tensors.values()])
        best = int(np.argmin(errors + price * kilobytes))
        left.plot(kilobytes, errors, "o-", color=colour, linewidth=1.4, markersize=3.5, label=name)
        left.plot(
            kilobytes[best], errors[best], "o", color=colour, markersize=10, fillstyle="none", markeredgewidth=1.6
        )
        nearby = np.array([-1.2, 1.2])
        left.plot(kilobytes[best] + nearby, errors[best] - price * nearby, color=FAINT, linewidth=1.2)
    style(left, "Error of the outputs against size, of three weights")
    left.set_xlabel("kilobytes; a dot for each number of bits", color=FAINT)
    left.set_xlim(0, 9)
    left.set_ylim(-0.01, 0.16)
    left.set_yticks([])
    left.legend(frameon=False, loc="upper right")
    table = coreml.Tradeoff.load(HERE.parent / "bench" / "results" / "tradeoffs" / "encoder.json")
    for kind, colour, name in (("uniform", ORANGE, "the same bits for all"), ("allocated", BLUE, "chosen bits")):
        points = sorted((row.bits_per_weight, row.snr_db) for row in table.rows if row.kind == kind and row.calibrated)
        points = [point for point in points if point[0] < 5]
        right.plot(*zip(*points, strict=True), "o-", color=colour, linewidth=1.4, markersize=4, label=name)
    style(right, "A sentence encoder, with samples")
    right.set_xlabel("bits per weight", color=FAINT)
    right.set_ylabel("SNR of the outputs in dB", color=FAINT)
    right.legend(frameon=False, loc="upper left")
    return figure


def soft_kmeans() -> Any:
    """What a weight is while a palette of four entries is learnt, and where gradients move it."""
    figure, (left, right) = panels("Weights that are a mean of the entries of a palette", 2)
    values = np.linspace(-2.6, 2.6, 1001)[:, None]
    entries = np.array([[-1.5], [-0.45], [0.45], [1.5]])
    left.plot(values, values, color=GRID, linewidth=1.4)
    for temperature, colour, name in ((0.3, ORANGE, "soft"), (0.03, BLUE, "harder")):
        means, _, _ = SoftKMeans(temperature=temperature, tolerance=0).means(values, entries)
        left.plot(values, means, color=colour, linewidth=1.6, label=f"{name}: temperature {temperature:g}")
        right.plot(values, np.gradient(means[:, 0], values[:, 0]), color=colour, linewidth=1.4, label=name)
    for axes, title in ((left, "Weight in the forward pass"), (right, "Share of the gradient that reaches it")):
        style(axes, title)
        axes.set_xlabel("weight", color=FAINT)
        axes.set_xlim(-2.6, 2.6)
    left.legend(frameon=False, loc="upper left")
    right.legend(frameon=False, loc="upper right")
    return figure


def reading() -> Any:
    """What the demo's network reads after compression."""
    measured = json.loads((HERE.parent / "bench" / "results" / "demo" / "digits.json").read_text(encoding="utf-8"))
    return readings_figure(Readings.from_dict(measured["results"]["readings"]))


PICTURES: tuple[Callable[[], Any], ...] = (
    choosing,
    palettize,
    vectors,
    quantize,
    blocks,
    prune,
    joint,
    mixed,
    optimum,
    feedback,
    allocation,
    soft_kmeans,
    speed,
    reading,
)


def draw_all(output: Path) -> list[Path]:
    """Write every picture as an SVG file."""
    output.mkdir(parents=True, exist_ok=True)
    paths = [output / f"{picture.__name__}.svg" for picture in PICTURES]
    for picture, path in zip(PICTURES, paths, strict=True):
        save_figure(picture(), path)
    for table in sorted((HERE.parent / "bench" / "results" / "tradeoffs").glob("*.json")):
        paths.append(output / f"tradeoff_{table.stem}.svg")
        coreml.Tradeoff.load(table).plot(paths[-1])  # what `corepress tradeoff -o` saved
    return paths


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=HERE / "images", help="folder to write to")
    for written in draw_all(parser.parse_args().output):
        print(written)
