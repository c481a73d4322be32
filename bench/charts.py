"""Draws the charts of docs/benchmarks.md out of the results kept beside this script.

    python bench/charts.py [--results bench/results] [--output docs/images]

Colours are those of Okabe and Ito, which colour-blind people tell apart, and the shapes differ too; the background is
white also where the page around is dark.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from corepress.benchmark.architectures import ARCHITECTURES
from corepress.benchmark.methods import METHODS
from corepress.reporting.charts import GRID, INK, new_figure, save_figure, style
from corepress.reporting.wording import format_count

HERE = Path(__file__).parent
BLUE, ORANGE, GREEN, PINK, SKY, YELLOW, GREY = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#e69f00",
    "#7f7f7f",
)
PEER = "coremltools"
SECONDS = {0.1: "0.1 s", 1: "1 s", 10: "10 s", 60: "1 min", 600: "10 min", 3600: "1 h", 36000: "10 h"}
SHOWN_WITH_PEERS = ("4bit", "4bit-groups", "8bit", "int8", "int4-blocks", "4bit-vectors")
Document = dict[str, Any]
Results = list[dict[str, Any]]


def read(path: Path) -> Document:
    document: Document = json.loads(path.read_text(encoding="utf-8"))
    return document


def was_busy(document: Document) -> bool:
    """Whether others worked on the machine while it measured: more threads were ready than ours."""
    averages = document["load_averages"]
    return averages is not None and averages[1] > 1.5 * document["machine"]["cpus"]


def load(folder: Path, name: str) -> Document:
    """The results of a script; those of diffusion.py may be in several files, and the best of each method counts.

    Their `clock` names the times to compare: what users wait, or on a busy machine the time of all threads together.
    """
    documents = [read(path) for path in sorted(folder.glob(f"{name}*.json"))]
    if name != "diffusion":
        (document,) = documents
        return document
    clock = "cpu_seconds" if any(map(was_busy, documents)) else "seconds"
    merged: Document = {"ours": [], "peers": [], "copies": {}, "clock": clock}
    for document in documents:
        merged["ours"] += document["results"]["ours"]
        merged["peers"] += document["results"]["peers"]
        for model in {result["model"] for result in document["results"]["ours"]}:
            merged["copies"][model] = document["settings"]["copy_seconds_per_byte"]
    for kind, more in (("ours", "threads"), ("peers", "tool")):
        merged[kind].sort(key=lambda result: (-result["measured_weights"], result[clock]))  # the best comes first
        best: dict[Any, dict[str, Any]] = {}
        for result in merged[kind]:
            best.setdefault((result["model"], result["method"], result[more]), result)
        merged[kind] = sorted(best.values(), key=_place)
    return merged


def _place(result: dict[str, Any]) -> tuple[int, int, Any]:
    """Where a result stands: by model, method, and number of threads."""
    order = list(ARCHITECTURES).index(result["model"]), list(METHODS).index(result["method"])
    return *order, result.get("threads", 0)


def on_all_cpus(results: Results) -> Results:
    """The results with the largest number of threads."""
    most = max(result["threads"] for result in results)
    return [result for result in results if result["threads"] == most]


def label(axes: Any, x: str, y: str = "") -> None:
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)
    axes.tick_params(colors=INK)
    axes.grid(color=GRID)


CLOCKS = {"seconds": "time", "cpu_seconds": "CPU time of all threads"}


def by_key(results: Results, *keys: str) -> dict[Any, dict[str, Any]]:
    return {tuple(result[key] for key in keys): result for result in results}


# --- whole models ---


def draw_models(diffusion: Document, path: Path) -> None:
    """Time of each method on each model: ours, coremltools', and what a copy takes."""
    ours, peers, clock = on_all_cpus(diffusion["ours"]), diffusion["peers"], diffusion["clock"]
    theirs = by_key([peer for peer in peers if peer["tool"] == PEER], "model", "method")
    models = [key for key in ARCHITECTURES if any(result["model"] == key for result in ours)]
    figure = new_figure("Time to compress all weights of a model", (12.5, 3.4 * ((len(models) + 1) // 2) + 1))
    panels = figure.subplots((len(models) + 1) // 2, 2, sharex=True, sharey=True, squeeze=False).flat
    names = [key for key in METHODS if any(result["method"] == key for result in ours)]
    for axes, key in zip(panels, models, strict=False):
        results = by_key([result for result in ours if result["model"] == key], "method")
        first = next(iter(results.values()))
        axes.axvline(first[f"copy_{clock}"], color=GREY, linewidth=1.5, label="np.copyto, in memory")
        if clock == "seconds":  # what `cp` waits for the disk is no CPU time
            durable = 2 * first["weights"] * diffusion["copies"][key]["cp and sync"]
            axes.axvline(durable, color=GREY, linewidth=1.5, linestyle=":", label="cp and sync, a file of that size")
        places = [names.index(name) for (name,) in results]
        seconds = [result[clock] for result in results.values()]
        pairs = [
            (place, second, theirs[key, name][clock])
            for place, second, (name,) in zip(places, seconds, results, strict=True)
            if (key, name) in theirs
        ]
        for place, second, peer in pairs:
            axes.plot((second, peer), (place, place), color=GRID, linewidth=2, zorder=1)
            axes.annotate(
                f"{peer / second:.0f}x",
                (peer, place),
                xytext=(7, 0),
                textcoords="offset points",
                va="center",
                fontsize=9,
                color=INK,
            )
        axes.scatter(seconds, places, s=46, color=BLUE, zorder=3, label="corepress")
        axes.scatter(
            [peer for *_, peer in pairs],
            [place for place, *_ in pairs],
            s=46,
            marker="D",
            facecolors="white",
            edgecolors=ORANGE,
            linewidths=1.8,
            zorder=3,
            label="coremltools 9, scaled from a sample",
        )
        style(axes, f"{ARCHITECTURES[key].title}, {format_count(first['weights'])} weights")
        axes.set_yticks(range(len(names)), [METHODS[name].title for name in names])
    for axes in panels:
        axes.set_visible(False)
    for axes in figure.axes:
        axes.set_xscale("log")
        axes.minorticks_off()
        label(axes, "")
        axes.grid(axis="y", visible=False)
    low, high = figure.axes[0].get_xlim()
    ticks = {place: text for place, text in SECONDS.items() if low < place < high}
    figure.axes[0].set_xticks(list(ticks), list(ticks.values()))
    figure.axes[0].set_xlim(low, 3 * high)
    figure.axes[0].set_ylim(len(names) - 0.4, -0.6)
    for axes in figure.axes[-2:]:
        axes.set_xlabel(f"{CLOCKS[clock]}, logarithmic", color=INK)
    handles, texts = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside lower center", ncols=4, frameon=False, labelcolor=INK)
    save_figure(figure, path)


def draw_peers(diffusion: Document, path: Path) -> None:
    """Rates of all tools by method, on the first model."""
    model, clock = diffusion["ours"][0]["model"], diffusion["clock"]
    ours = by_key(on_all_cpus([r for r in diffusion["ours"] if r["model"] == model]), "method")
    peers = [peer for peer in diffusion["peers"] if peer["model"] == model]
    shown = [key for key in SHOWN_WITH_PEERS if (key,) in ours]
    per = "second" if clock == "seconds" else "CPU second"
    figure = new_figure(f"Weights per {per} by tool, {ARCHITECTURES[model].title}", (13, 7.2))
    panels = list(figure.subplots(2, (len(shown) + 1) // 2, sharex=True, squeeze=False).flat)
    for axes, key in zip(panels, shown, strict=False):
        result = ours[key,]
        rates = {
            "np.copyto": result["weights"] / result[f"copy_{clock}"],
            "corepress": result["weights"] / result[clock],
        }
        of_peers = {peer["tool"]: peer["weights"] / peer[clock] for peer in peers if peer["method"] == key}
        rates |= dict(sorted(of_peers.items(), key=lambda item: -item[1]))
        colours = [GREY, BLUE, *[ORANGE] * len(of_peers)]
        bars = axes.barh(range(len(rates)), list(rates.values()), color=colours, height=0.62)
        texts = [f"{format_count(rate)}/s" for rate in rates.values()]
        axes.bar_label(bars, texts, padding=4, fontsize=9, color=INK)
        style(axes, METHODS[key].title)
        axes.set_yticks(range(len(rates)), list(rates))
        axes.set_xscale("log")
        axes.set_ylim(8.6, -0.6)  # bars of all panels are equally thick
        label(axes, f"weights per {per}, logarithmic")
        axes.grid(axis="y", visible=False)
    for axes in panels[len(shown) :]:
        axes.set_visible(False)
    figure.axes[0].set_xlim(1e5, 3e11)
    figure.axes[0].set_xticks([1e5, 1e6, 1e7, 1e8, 1e9, 1e10], ["0.1 M", "1 M", "10 M", "100 M", "1 G", "10 G"])
    save_figure(figure, path)


def draw_quality(diffusion: Document, path: Path) -> None:
    """Signal-to-noise ratio against bits per weight on the first model."""
    results = on_all_cpus(diffusion["ours"])
    model = results[0]["model"]
    kinds = {
        "palette": (("4bit", "4bit-groups", "6bit", "8bit"), BLUE, "o"),
        "integers with scales": (("int8", "int4-blocks"), ORANGE, "s"),
        "palette of vectors": (("4bit-vectors", "8bit-vectors"), GREEN, "^"),
        "half pruned": (("half-pruned", "half-pruned-4bit"), PINK, "D"),
    }
    figure = new_figure(f"Quality against size, {ARCHITECTURES[model].title}", (9, 5.6))
    axes = figure.subplots()
    measured = by_key([result for result in results if result["model"] == model], "method")
    for kind, (keys, colour, marker) in kinds.items():
        points = [measured[key,] for key in keys if (key,) in measured]
        places = [(point["bits_per_weight"], point["snr_db"]) for point in points]
        axes.scatter(*zip(*places, strict=True), s=64, color=colour, marker=marker, label=kind, zorder=3)
        for point, place in zip(points, places, strict=True):
            left, below = (
                point["method"] in ("4bit", "6bit", "8bit"),
                point["method"] in ("4bit-vectors", "int4-blocks"),
            )
            axes.annotate(
                METHODS[point["method"]].title,
                place,
                xytext=(-9 if left else 9, -12 if below else 4),
                textcoords="offset points",
                ha="right" if left else "left",
                fontsize=10,
                color=INK,
            )
    style(axes, "")
    label(axes, "bits per weight, tables, scales and masks included", "signal-to-noise ratio of the weights, dB")
    axes.set_xlim(0, 11)
    axes.set_ylim(0, None)
    axes.legend(loc="upper left", frameon=False, labelcolor=INK)
    save_figure(figure, path)


def draw_scaling(diffusion: Document, path: Path) -> None:
    """Time against the number of weights, and what a second thread brings."""
    results, clock = diffusion["ours"], diffusion["clock"]
    names = [key for key in METHODS if any(result["method"] == key for result in results)]
    figure = new_figure("Growth with the model, and with threads", (13, 5.6))
    sizes, threads = figure.subplots(1, 2, width_ratios=(1.2, 1))
    colours = [BLUE, ORANGE, GREEN, PINK, SKY, YELLOW, GREY, "#000000", "#a65628", "#4b0092"]
    markers = "os^DvPX*<>"
    for name, colour, marker in zip(names, colours, markers, strict=False):
        points = sorted((r["weights"] / 1e9, r[clock]) for r in on_all_cpus(results) if r["method"] == name)
        sizes.plot(*zip(*points, strict=True), color=colour, marker=marker, linewidth=1.6, label=METHODS[name].title)
    copies = sorted({(r["weights"] / 1e9, r[f"copy_{clock}"]) for r in on_all_cpus(results)})
    sizes.plot(*zip(*copies, strict=True), color=GREY, linestyle=":", linewidth=2, label="np.copyto")
    sizes.set_xscale("log")
    sizes.set_yscale("log")
    sizes.minorticks_off()
    model_sizes = [place for place, _ in copies]
    sizes.set_xticks(model_sizes, [f"{place:.2g}" for place in model_sizes])
    low, high = sizes.get_ylim()
    ticks = {place: text for place, text in SECONDS.items() if low < place < high}
    sizes.set_yticks(list(ticks), list(ticks.values()))
    style(sizes, "Time by model, all CPUs")
    label(sizes, "billion weights, logarithmic", f"{CLOCKS[clock]}, logarithmic")
    sizes.legend(fontsize=9, frameon=False, labelcolor=INK, loc="upper left", bbox_to_anchor=(1, 1))
    model = max(ARCHITECTURES, key=lambda key: sum(result["model"] == key for result in results))
    of_model = by_key([result for result in results if result["model"] == model], "method", "threads")
    most = max(number for _, number in of_model)
    pairs = [(name, of_model[name, 1], of_model[name, most]) for name in names if (name, 1) in of_model]
    ups = [one["seconds"] / many["seconds"] for _, one, many in pairs]
    bars = threads.barh(range(len(pairs)), ups, color=BLUE, height=0.62)
    threads.bar_label(bars, [f"{up:.2f}" for up in ups], padding=4, fontsize=9, color=INK)
    threads.axvline(most, color=GREY, linestyle=":", linewidth=2)
    threads.set_yticks(range(len(pairs)), [METHODS[name].title for name, *_ in pairs])
    threads.invert_yaxis()
    style(threads, f"{most} threads against 1")
    label(threads, f"times as fast ({ARCHITECTURES[model].title}); dotted: {most}")
    threads.grid(axis="y", visible=False)
    threads.set_xlim(0, most * 1.15)
    save_figure(figure, path)


# --- rows ---


def draw_goals(rows: Document, path: Path) -> None:
    """Every row that has something to reach: how many times better, or worse, than required, and where the aim is."""
    goals = [goal for goal in rows["results"] if goal["required"] is not None]

    def times(goal: dict[str, Any], bound: float) -> float:
        """The ratio in units of the required one, so that more is better."""
        return goal["required"] / bound if goal["copies"] else bound / goal["required"]

    goals.sort(key=lambda goal: times(goal, goal["ratio"]))
    figure = new_figure("Measured ratios against the required ones", (11, 0.21 * len(goals) + 1.8))
    axes = figure.subplots()
    places = range(len(goals))
    values = [times(goal, goal["ratio"]) for goal in goals]
    axes.axvline(1, color=INK, linewidth=1.5, label="required")
    missed = [value < 1 for value in values]
    for reached, colour, marker, text in ((False, BLUE, "o", "measured, reached"), (True, ORANGE, "D", "missed")):
        chosen = [(value, place) for value, place, bad in zip(values, places, missed, strict=True) if bad == reached]
        if chosen:
            axes.scatter(*zip(*chosen, strict=True), s=30, color=colour, marker=marker, zorder=3, label=text)
    aims = [(times(goal, goal["aim"]), place) for goal, place in zip(goals, places, strict=True) if goal["aim"]]
    if aims:
        axes.scatter(*zip(*aims, strict=True), s=60, color=GREY, marker="|", linewidths=2, zorder=2, label="aim")
    names = [f"{goal['row']} / {'copy' if goal['copies'] else goal['against']}" for goal in goals]
    axes.set_yticks(places, names, fontsize=8)
    axes.set_xscale("log")
    axes.minorticks_off()
    axes.set_xticks([0.25, 0.5, 1, 2, 4, 8, 16], ["1/4", "1/2", "1", "2", "4", "8", "16"])
    style(axes, "")
    label(axes, "times the required ratio, logarithmic: right of the line is better")
    axes.set_ylim(-1, len(goals))
    axes.legend(loc="lower right", frameon=True, labelcolor=INK)
    save_figure(figure, path)


# --- versions ---

TOPICS = {
    "scalar palettes": lambda row: row.startswith(("palettize", "k-means")) and "cluster_dim" not in row,
    "vector palettes": lambda row: row.startswith("palettize") and "cluster_dim" in row,
    "integers and floats": lambda row: row.startswith(("int", "float", "network")),
    "pruning": lambda row: row.startswith("prune"),
    "packing": lambda row: row.startswith(("pack", "unpack")),
    "decompression": lambda row: row.startswith(("decompress", "error")),
}


def draw_history(history: Document, path: Path) -> None:
    """The time of every version relative to the first one, the geometric mean of the rows of each topic."""
    base, results = history["settings"]["base"], history["results"]
    versions = [base, *dict.fromkeys(result["version"] for result in results)]
    figure = new_figure("Time of the kernels, version by version", (8, 4.6))
    axes = figure.subplots()
    axes.axhline(1, color=GRID, linewidth=1.5)
    colours = (BLUE, ORANGE, GREEN, PINK, SKY, YELLOW)
    for (topic, holds), colour, marker in zip(TOPICS.items(), colours, "os^DvP", strict=True):
        ratios = [[r["ratio"] for r in results if r["version"] == name and holds(r["row"])] for name in versions[1:]]
        points = [(0, 1.0), *((place, geometric_mean(each)) for place, each in enumerate(ratios, 1) if each)]
        axes.plot(*zip(*points, strict=True), color=colour, marker=marker, linewidth=1.8, markersize=7, label=topic)
    axes.set_xticks(range(len(versions)), versions)
    axes.set_xlim(-0.2, len(versions) - 0.8)
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 0.5), max(high, 1.2))
    style(axes, "")
    label(axes, "version", f"time divided by that of {base}: below 1 is faster")
    axes.legend(fontsize=10, frameon=False, labelcolor=INK, loc="upper left", bbox_to_anchor=(1, 1))
    save_figure(figure, path)


CHARTS = {
    "history": (draw_history, "history"),
    "models": (draw_models, "diffusion"),
    "tools": (draw_peers, "diffusion"),
    "quality": (draw_quality, "diffusion"),
    "scaling": (draw_scaling, "diffusion"),
    "goals": (draw_goals, "rows"),
}


def draw_all(results: Path, output: Path, names: Sequence[str] = tuple(CHARTS)) -> list[Path]:
    """Draw the charts whose results are there; return what was written."""
    output.mkdir(parents=True, exist_ok=True)
    written = []
    for name in names:
        draw, source = CHARTS[name]
        if any(results.glob(f"{source}*.json")):
            draw(load(results, source), output / f"benchmark-{name}.svg")
            written.append(output / f"benchmark-{name}.svg")
    return written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--output", type=Path, default=HERE.parent / "docs" / "images")
    options = parser.parse_args()
    for path in draw_all(options.results, options.output):
        print(path)


if __name__ == "__main__":
    main()
