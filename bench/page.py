"""Puts the tables of some pages and of the README in their places, out of the results kept beside this script.

    python bench/page.py [--check]

A table stands between two comments, `<!-- table: NAME -->` and `<!-- end -->`. --check only tells whether the pages
have the tables of the results. The charts are drawn by charts.py.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from charts import PEER, Results, by_key, load, on_all_cpus, read, was_busy
from corepress.benchmark.architectures import ARCHITECTURES
from corepress.benchmark.methods import METHODS
from corepress.coreml import Tradeoff
from corepress.demo.reading import Readings
from corepress.reporting.wording import format_bytes, format_count, format_decibels

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PAGES = (
    HERE.parent / "docs" / "benchmarks.md",
    HERE.parent / "docs" / "guides" / "checking.md",
    HERE.parent / "docs" / "guides" / "which-bits.md",
    HERE.parent / "docs" / "coming-from-coreai-opt.md",
    HERE.parent / "docs" / "gallery.md",
    HERE.parent / "README.md",
)
PROGRAM = "16.8 M weights for Core AI"
ONE_BIT = ("Digits-1bit.mlpackage", "Digits-1bit-samples.mlpackage")
SHOWN: dict[str, tuple[str, ...]] = {  # the lines that the README shows, by how they begin; none: all
    "tradeoff": (),
    "compress": ("wrote", "size", "bits per weight", "chosen for"),
    "compare": ("output", "metric"),
}
LARGE_PACKAGES = {
    "llama-1b": "Llama 3.2 1B, stateful",
    "llama-1b-two-functions": "Llama 3.2 1B, two functions",
}
DOTS, PAGE_WIDTH = "  ...", 90
_PLACE = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A table in Markdown, whose first columns are aligned left, the others right."""
    rule = ["---"] * left + ["--:"] * (len(headings) - left)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (headings, rule, *rows)) + "\n"


def duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def ratio(value: float) -> str:
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"


def machine(results: Path) -> str:
    """What each file of results was measured on."""
    rows = []
    for path in sorted(results.glob("*.json")):
        document = read(path)
        host, names = document["machine"], document["machine"]["versions"]
        memory = f", {format_bytes(host['memory_bytes'])}" if host["memory_bytes"] else ""
        cpu = f"{host['cpu']}, {host['cpus']} CPUs{memory}"
        build = f"{host['simd_level']}, {host['compiler']}, Python {host['python']}, NumPy {names['numpy']}"
        rows.append((f"`{path.name}`", document["date"], cpu, build))
    return table(("results", "date", "machine", "kernels and build"), rows, left=4)


def busy(results: Path) -> str:
    """Whether times are those that users wait."""
    loads = [document["load_averages"][1] for path in results.glob("*.json") if was_busy(document := read(path))]
    if not loads:
        return "Nothing else ran on the machine.\n"
    return (
        f"Other work ran on the machine at the same time (up to {max(loads):.0f} threads were waiting for its CPUs), "
        "so wall-clock times would say little. Tables and charts show CPU time instead, summed over all threads of a "
        "process; with two threads on an idle machine, the wall-clock time is half of it. CPU time too can be twice "
        "what it is on an idle machine, since caches and memory are shared; ratios suffer less. `cp` is as slow as it "
        "was.\n"
    )


def versions(results: Path) -> str:
    """The versions of all tools, over all files."""
    found = {}
    for path in sorted(results.glob("*.json")):
        found |= read(path)["machine"]["versions"]
    return ", ".join(f"{name} {version}" for name, version in sorted(found.items())) + ".\n"


def models(results: Path) -> str:
    """One table for each model."""
    diffusion = load(results, "diffusion")
    theirs = by_key([peer for peer in diffusion["peers"] if peer["tool"] == PEER], "model", "method")
    texts, clock = [], diffusion["clock"]
    for key, of_model in _by_model(on_all_cpus(diffusion["ours"])).items():
        first, copies = of_model[0], diffusion["copies"][key]
        rows = []
        for result in of_model:
            peer = theirs.get((key, result["method"]))
            sampled = result["measured_weights"] < result["weights"]
            rows.append(
                (
                    METHODS[result["method"]].title + ("¹" if sampled else ""),
                    format_count(result["weights"] / result[clock]),
                    duration(result[clock]),
                    ratio(result[clock] / result[f"copy_{clock}"]),
                    f"{result['bits_per_weight']:.2f}",
                    format_decibels(result["snr_db"]),
                    format_bytes(result["peak_bytes"]),
                    duration(peer[clock]) if peer else "",
                    ratio(peer[clock] / result[clock]) if peer else "",
                )
            )
        time = "time" if clock == "seconds" else "CPU time"
        headings = "weights/s", time, "copies", "bits", "SNR", "memory", "coremltools²", "ratio"
        layers = len(ARCHITECTURES[key].layers)
        size = 2 * first["weights"]
        floors = f"`np.copyto` of all weights {duration(first[f'copy_{clock}'])}, " + ", ".join(
            f"`{name}` {duration(size * each)}" for name, each in copies.items()
        )
        process = first["process_peak_bytes"]
        peak = f" Peak memory of the process: {format_bytes(process)}." if process else ""
        texts.append(
            f"### {ARCHITECTURES[key].title}\n\n{format_count(first['weights'])} weights in {layers} layers, "
            f"{format_bytes(size)} as float16, {first['threads']} threads. Floors: {floors}.{peak}\n\n"
            + table(("method", *headings), rows)
        )
    return "\n".join(texts)


def language(results: Path) -> str:
    """A language model, in CPU time."""
    rows = [
        (
            METHODS[each["method"]].title,
            format_count(each["weights"] / each["cpu_seconds"]),
            duration(each["cpu_seconds"]),
            ratio(each["cpu_seconds"] / each["copy_cpu_seconds"]),
            f"{each['bits_per_weight']:.2f}",
            format_decibels(each["snr_db"]),
            format_bytes(each["peak_bytes"]),
        )
        for each in read(results / "language.json")["results"]["ours"]
    ]
    return table(("method", "weights per CPU second", "CPU time", "copies", "bits", "SNR", "memory"), rows)


def feedback(results: Path) -> str:
    """Error feedback on the diffusion models, in CPU time."""
    rows = [
        (
            ARCHITECTURES[each["model"]].title,
            format_count(each["weights"]),
            format_count(each["weights"] / each["cpu_seconds"]),
            duration(each["cpu_seconds"]),
            format_bytes(each["peak_bytes"]),
        )
        for each in read(results / "feedback.json")["results"]["ours"]
    ]
    return table(("model", "weights", "weights per CPU second", "CPU time", "memory"), rows)


def _by_model(results: Results) -> dict[str, Results]:
    found: dict[str, Results] = {}
    for result in results:
        found.setdefault(result["model"], []).append(result)
    return found


def tools(results: Path) -> str:
    """All tools on the first model: time, and how many times ours it is."""
    diffusion = load(results, "diffusion")
    model, clock = diffusion["ours"][0]["model"], diffusion["clock"]
    ours = by_key([each for each in on_all_cpus(diffusion["ours"]) if each["model"] == model], "method")
    rows = []
    for (method,), result in ours.items():
        peers = [peer for peer in diffusion["peers"] if (peer["model"], peer["method"]) == (model, method)]
        for peer in sorted(peers, key=lambda peer: peer[clock]):
            cells = duration(peer[clock]), ratio(peer[clock] / result[clock])
            memory = "" if peer["peak_bytes"] is None else format_bytes(peer["peak_bytes"])
            rows.append((METHODS[method].title, peer["tool"], *cells, memory))
    return table(("method", "tool", "time", "times ours", "memory"), rows, left=2)


def missed(results: Path) -> str:
    """The rows that do not reach what is required of them."""
    goals = [goal for goal in load(results, "rows")["results"] if goal["reached"] == "no"]
    if not goals:
        return "None.\n"
    rows = [
        (
            goal["row"],
            "at most, copies" if goal["copies"] else f"{goal['against']}, times as fast",
            f"{goal['required']:g}",
            ratio(goal["ratio"]),
        )
        for goal in goals
    ]
    return table(("row", "against", "required", "measured"), rows, left=2)


def package(results: Path) -> str:
    """The whole process from the shell beside a durable copy."""
    rows = [
        (
            each["job"],
            f"{each['seconds']:.2f} s",
            f"{each['cpu_seconds']:.2f} s",
            f"{each['copy_seconds']:.2f} s",
            f"{each['ratio']:.2f}",
            "" if each["required_ratio"] is None else f"{each['required_ratio']:g}",
            f"{each['peak_megabytes']:.0f} MB",
        )
        for each in load(results, "package")["results"]
    ]
    return table(("job", "time", "CPU time", "durable copy", "copies", "at most", "peak memory"), rows)


def packages(results: Path) -> str:
    """Whole processes on packages as large as the largest models, in the order of size."""
    found = [(path.stem, read(path)) for path in (results / "packages").glob("*.json")]
    rows = []
    for key, document in sorted(found, key=lambda each: (each[1]["settings"]["package_megabytes"], each[0])):
        size = format_bytes(1e6 * document["settings"]["package_megabytes"])
        titles = iter([f"{LARGE_PACKAGES.get(key) or ARCHITECTURES[key].title}, {size}"])
        rows += [
            (
                next(titles, ""),
                each["job"],
                duration(each["seconds"]),
                duration(each["cpu_seconds"]),
                duration(each["copy_seconds"]),
                format_bytes(1e6 * each["peak_megabytes"]),
                format_bytes(1e6 * each["package_megabytes"]),
            )
            for each in document["results"]
        ]
    names = "job", "time", "CPU time", "durable copy", "peak memory", "result"
    return table(("package", *names), rows, left=2)


def arrays(results: Path) -> str:
    """Each row that coremltools has too."""
    rows = [
        (goal["row"], milliseconds(goal["seconds"]), milliseconds(goal["their_seconds"]), ratio(goal["ratio"]))
        for goal in load(results, "rows")["results"]
        if goal["against"] == PEER
    ]
    return table(("row", "corepress", "coremltools", "ratio"), rows)


def milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.2g} ms" if seconds < 0.0995 else f"{1000 * seconds:,.0f} ms"


def trained(results: Path) -> str:
    """A trained package, from the command to the finished file."""
    found = by_key(load(results, "models")["results"], "job", "tool")
    rows = []
    for (job, tool), ours in found.items():
        if tool == "corepress":
            both = found[job, PEER], ours
            rows.append((job, *(f"{duration(each['seconds'])}, {each['peak_megabytes']:.0f} MB" for each in both)))
    return table(("", "coremltools", "corepress"), rows)


def behaviour(results: Path) -> str:
    """What compressed versions of a pitch tracker still do."""
    rows = [
        (
            each["name"],
            format_bytes(each["bytes"]),
            "" if each["snr_db"] is None else format_decibels(each["snr_db"]),
            f"{each['in_tune']:.1f} %",
            f"{each['median_cents']:.1f}",
        )
        for each in read(results / "behaviour.json")["results"]
    ]
    return table(("weights", "package", "SNR of the output", "in tune", "median error, cents"), rows)


def small_weights(results: Path) -> str:
    """What outputs keep of weights of several magnitudes, with coreai-opt and with corepress."""
    rows = read(results / "coreai" / "assets.json")["results"]["small-weights"]
    names = [f"{who} {nbits} bits{how}" for nbits in (4, 8) for who, how in _WAYS]
    cells = ((f"{row['standard deviation']:g}", *(format_decibels(row[name]) for name in names)) for row in rows)
    return table(("standard deviation", *names), cells)


def tradeoff(name: str) -> Callable[[Path], str]:
    """What returns the table that `corepress tradeoff` saved of a model."""

    def rows(results: Path) -> str:
        lines = Tradeoff.load(results / "tradeoffs" / f"{name}.json").to_markdown().splitlines()
        return "".join(f"{line}\n" for line in lines if line.startswith("|"))

    return rows


def tradeoff_rows(results: Path, model: str) -> dict[tuple[Any, ...], Any]:
    """Rows of a table that `corepress tradeoff` saved, by name and whether samples were used."""
    return by_key(read(results / "tradeoffs" / f"{model}.json")["rows"], "name", "calibrated")


def readings(results: Path) -> Readings:
    """What the demo found."""
    return Readings.from_dict(read(results / "demo" / "digits.json")["results"]["readings"])


def beside_others(results: Path) -> str:
    """Speed beside coremltools and coreai-opt, and quality at equal sizes."""
    models = by_key(load(results, "models")["results"], "job", "tool")
    trained = format_bytes(1e6 * models["durable copy", "cp"]["package_megabytes"])
    rows = []
    for job in ("4 bits", "8 bits", "int8 per channel"):
        theirs, ours = (
            f"{duration(models[job, tool]['seconds'])}, {models[job, tool]['peak_megabytes']:.0f} MB"
            for tool in (PEER, "corepress")
        )
        rows.append((f"{job}, a trained package of {trained}", f"coremltools: {theirs}", ours))
    programs = by_key(read(results / "coreai" / "assets.json")["results"]["drop-ins"], "job")
    for job in ("4 bits", "4 bits, groups of 8", "int8"):
        row = programs[(job,)]
        theirs, ours = (f"{duration(row[f'CPU, {tool}'])} of CPU time" for tool in ("coreai-opt", "corepress"))
        rows.append((f"{job}, {PROGRAM}", f"coreai-opt: {theirs}", ours))
    encoder = tradeoff_rows(results, "encoder")
    plain, chosen = encoder["palettes of 3 bits", False], encoder["chosen, size of 3 bits", True]
    size, best = format_bytes(plain["bytes"]), encoder["original", False]["score"]
    rows += [
        (
            f"sentence encoder in {size}: score",
            f"k-means: {plain['score']:.1f}",
            f"{chosen['score']:.1f} of {best:.1f}",
        ),
        (f"sentence encoder in {size}: output SNR", *(format_decibels(row["snr_db"]) for row in (plain, chosen))),
    ]
    digits = readings(results)
    plain, chosen = ({row.package: row for row in digits.versions}[name] for name in ONE_BIT)
    best = digits.original.accuracy
    task = f"the demo's network in {format_bytes(plain.bytes)}: digits read"
    rows.append((task, f"k-means: {plain.accuracy:.1f} %", f"{chosen.accuracy:.1f} of {best:.1f} %"))
    return table(("", "others", "corepress"), rows)


def settings(results: Path) -> str:
    """Tasks, commands and what they cost."""
    encoder = tradeoff_rows(results, "encoder")
    whole = encoder["original", False]["bytes"]
    packages = by_key(load(results, "models")["results"], "job", "tool")
    pruned, copied = packages["50 % pruned", "corepress"], packages["durable copy", "cp"]

    def cost(name: str, calibrated: bool) -> str:
        row = encoder[name, calibrated]
        return f"{100 * row['bytes'] / whole:.0f} % of the size, score {row['score']:.1f}"

    palettes, targets = "palettize M -o OUT --nbits", "compress M -o OUT --calibration C --target-bits"
    rows = (
        ("half the size", f"{palettes} 8", cost("palettes of 8 bits", False), "palettize"),
        ("a quarter, without samples", f"{palettes} 4", cost("palettes of 4 bits", False), "palettize"),
        ("a quarter, with samples", f"{targets} 4", cost("chosen, size of 4 bits", True), "targets"),
        ("a fifth, with samples", f"{targets} 3", cost("chosen, size of 3 bits", True), "targets"),
        (
            "half of the weights zero",
            "prune M -o OUT --target-sparsity 0.5",
            f"{100 * pruned['package_megabytes'] / copied['package_megabytes']:.0f} % of the size",
            "prune",
        ),
    )
    cells = ((task, f"`corepress {line}`", paid, f"[{page}](docs/guides/{page}.md)") for task, line, paid, page in rows)
    return table(("for", "command", "what it costs", "guide"), cells, left=4)


def shown(command: str, printed: str) -> list[str]:
    """The lines of a command's output that the README shows; dots stand for the others."""
    starts = SHOWN[command.split()[1]]
    found: list[str] = []
    for line in printed.rstrip().splitlines():
        if not starts or line.strip().startswith(starts):
            found.append(line.rstrip())
        elif found and found[-1] != DOTS:
            found.append(DOTS)
    return found


def typed(command: str) -> list[str]:
    """A command as lines that fit a page."""
    lines = ["$"]
    for part in re.split(r" (?=-)", command):
        if len(lines[-1]) + len(part) > PAGE_WIDTH:
            lines[-1] += " \\"
            lines.append("   ")
        lines[-1] += f" {part}"
    return lines


def commands(results: Path) -> str:
    """Three commands on the demo's network and what they print."""
    told = read(results / "demo" / "digits.json")["results"]["commands"]
    lines = [line for command, text in told.items() for line in ("", *typed(command), *shown(command, text))]
    return "\n".join(["```text", *lines[1:], "```", ""])


_WAYS = (("coreai-opt", ", default"), ("coreai-opt", ", exact"), ("corepress", ""))


def core_ai_programs(results: Path) -> str:
    """Functions on programs in memory."""
    rows = read(results / "coreai" / "assets.json")["results"]["drop-ins"]
    cells = (
        (
            row["job"],
            *(duration(row[who]) for who in ("corepress", "coreai-opt")),
            ratio(row["ratio"]),
            *(duration(row[f"CPU, {who}"]) for who in ("corepress", "coreai-opt")),
            ratio(row["ratio of CPU"]),
        )
        for row in rows
    )
    names = "corepress", "coreai-opt", "ratio"
    return table(("job", *names, *(f"CPU, {name}" for name in names)), cells)


def core_ai_assets(results: Path) -> str:
    """Whole processes on assets."""
    rows = read(results / "coreai" / "assets.json")["results"]["assets"]
    cells = []
    for row in rows:
        copied = next(each for each in rows if each["asset"] == row["asset"] and "copied" in each["job"])
        decibels = format_decibels(row["outputs, dB"]) if "outputs, dB" in row else ""
        times = duration(row["seconds"]), ratio(row["seconds"] / copied["seconds"])
        cpu_times = duration(row["CPU seconds"]), ratio(row["CPU seconds"] / copied["CPU seconds"])
        memory = format_bytes(row["memory"]), ratio(row["memory"] / copied["memory"])
        cells.append((row["asset"], row["job"], format_bytes(row["bytes"]), *times, *cpu_times, *memory, decibels))
    names = "time", "copies", "CPU", "copies", "memory", "copies", "output SNR"
    return table(("asset", "job", "size", *names), cells, left=2)


TABLES: dict[str, Callable[[Path], str]] = {
    "machine": machine,
    "busy": busy,
    "versions": versions,
    "models": models,
    "language": language,
    "feedback": feedback,
    "tools": tools,
    "missed": missed,
    "package": package,
    "packages": packages,
    "arrays": arrays,
    "trained": trained,
    "behaviour": behaviour,
    "beside_others": beside_others,
    "settings": settings,
    "commands": commands,
    "small_weights": small_weights,
    "core_ai_programs": core_ai_programs,
    "core_ai_assets": core_ai_assets,
} | {f"tradeoff_{name}": tradeoff(name) for name in ("crepe", "crepe_full", "digits", "encoder", "face")}


def filled(page: str, results: Path = RESULTS) -> str:
    """The page with all its tables made anew."""

    def fill(match: re.Match[str]) -> str:
        return f"{match[1]}\n{TABLES[match[2]](results)}\n{match[3]}"

    return _PLACE.sub(fill, page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    for path in PAGES:
        before = path.read_text(encoding="utf-8")
        after = filled(before)
        if not options.check:
            path.write_text(after, encoding="utf-8")
        elif before != after:
            raise SystemExit(f"{path} has other tables than the results; run bench/page.py")


if __name__ == "__main__":
    main()
