"""The goals of compression that keeps behaviour, measured on trained models: a table that says which are met.

    python bench/calibration_models.py FOLDER
    python bench/calibration.py FOLDER [--only encoder crepe face digits] [--seeds 3] [--quick] [--markdown FILE]
                                [--json FILE]

For each seed the samples are divided into those that calibration fits with, those that it chooses with, and those of
the test, which nothing else sees. The base is the exact k-means palettes of one width for all weights, without data.
Errors are the signal-to-noise ratio (SNR) of the output whose SNR is lowest, in float32, over all samples of the test;
`score` is the model's own metric, in per cent. --quick takes one seed and leaves the encoder out. Where a package is
too old for palettes of 3 bits, recipes of fractions of bits are for a copy that is raised to iOS 18; rows say so.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import documents
from calibration_models import TASKS, split
from corepress import coreml, runtime
from corepress.coreml.format.versions import IOS18
from raised import raise_to_ios18, version_of

Arrays = dict[str, NDArray[Any]]
KEPT_EVERY = 4  # `calibrate` keeps every fourth sample for choices
MOST_BELOW = 0.2  # dB that a choice may be below the palettes of one width on the test
NEAREST = 0.005  # of the bytes that were asked for, where there are 30 weights or more
MOST_SECONDS = 10.0  # CPU seconds of second moments and error feedback of the encoder


@dataclass(frozen=True)
class Recipe:
    """A way to compress.

    Attributes
    ----------
    kind : str
        "uniform": palettes of one width; "allocated": widths by weight.
    bits : float
        Bits per weight. Whole ones of "allocated" mean the bytes of the uniform palettes of that width.
    calibrated : bool
        Whether the statistics are used.
    """

    kind: str
    bits: float
    calibrated: bool

    @property
    def is_whole(self) -> bool:
        return self.bits == int(self.bits)

    @property
    def name(self) -> str:
        return f"{self.bits:.1f} bits {self.kind}{', calibrated' if self.calibrated else ''}"


def uniform(bits: int, *, calibrated: bool = False) -> Recipe:
    return Recipe("uniform", bits, calibrated)


def allocated(bits: float, *, calibrated: bool = True) -> Recipe:
    return Recipe("allocated", bits, calibrated)


@dataclass(frozen=True)
class Goal:
    """What a recipe must reach: the SNR of another and some dB.

    Attributes
    ----------
    recipe, base : Recipe
        What is compared.
    decibels : float
        By how much the recipe must be better.
    """

    recipe: Recipe
    base: Recipe
    decibels: float

    @property
    def text(self) -> str:
        more = f" {self.decibels:+.1f} dB" if self.decibels else ""
        return f"{self.recipe.name} >= {self.base.name}{more}"


def never_below(bits: Sequence[int]) -> list[Goal]:
    """At equal bytes: error feedback beside none, and the choice beside one width."""
    pairs = [
        pair
        for each in bits
        for pair in (
            (uniform(each, calibrated=True), uniform(each)),
            (allocated(each), uniform(each, calibrated=True)),
        )
    ]
    return [Goal(recipe, base, -MOST_BELOW) for recipe, base in pairs]


GOALS = {
    "encoder": [
        Goal(allocated(3.0), uniform(4), 0.0),
        Goal(allocated(4.0), uniform(4), 4.0),
        *never_below((3, 4)),
    ],
    "crepe": [
        Goal(allocated(3.5), uniform(4), 3.0),
        Goal(uniform(4, calibrated=True), uniform(4), 5.0),
        *never_below((4,)),  # its package is of iOS 16, which has no 3 bits; fractions are for iOS 18
    ],
    "face": [
        Goal(uniform(4, calibrated=True), uniform(4), 10.0),
        Goal(uniform(3, calibrated=True), uniform(4), 0.0),
        *never_below((3, 4)),
    ],
    "digits": [
        Goal(uniform(4, calibrated=True), uniform(4), 10.0),
        Goal(uniform(3, calibrated=True), uniform(4), 0.0),
        *never_below((3, 4)),
    ],
}
ALSO = {"encoder": [allocated(3.5), allocated(4.0, calibrated=False)], "crepe": [allocated(3.5, calibrated=False)]}


@dataclass(frozen=True)
class Measured:
    """What a recipe gave with one seed."""

    recipe: str
    seed: int
    bytes: int
    weight_bits: float
    snr_db: float
    score: float
    cpu_seconds: float
    predicted_db: float | None


class Evaluation:
    """Runs packages on the samples of the test, and compares them with the original.

    Parameters
    ----------
    folder : Path
        Of the model.
    test : dict of str to numpy.ndarray
        The samples, with labels.
    """

    def __init__(self, folder: Path, test: Arrays) -> None:
        self._metric = f"{folder / 'score.py'}:accuracy"
        self._test = test
        self._expected = self._outputs(folder / "model.mlpackage")
        self.score = self._score(self._expected)

    def __call__(self, package: Path) -> tuple[float, float]:
        """SNR of the lowest output in dB, and the score."""
        outputs = self._outputs(package)
        return runtime.evaluate("snr", self._samples(), outputs, self._expected), self._score(outputs)

    def _samples(self) -> list[dict[str, Any]]:
        count = len(next(iter(self._test.values())))
        return [{name: array[index] for name, array in self._test.items()} for index in range(count)]

    def _score(self, outputs: list[dict[str, Any]]) -> float:
        return runtime.evaluate(self._metric, self._samples(), outputs)

    def _outputs(self, package: Path) -> list[dict[str, Any]]:
        model = runtime.load(package, precision="float32")
        samples = runtime.Samples("calibration", self._test, model.description)
        return model.predict([samples.inputs_of(each) for each in samples])


def interleaved(parts: dict[str, Arrays], names: Sequence[str]) -> Arrays:
    """The samples for calibration in such an order that it chooses with those that are for choices."""
    fit, choose = parts["fit"], parts["choose"]
    rows = len(fit[names[0]]) + len(choose[names[0]])
    is_kept = np.arange(rows) % KEPT_EVERY == KEPT_EVERY - 1
    found = {}
    for name in names:
        found[name] = np.empty((rows, *fit[name].shape[1:]), fit[name].dtype)
        found[name][is_kept], found[name][~is_kept] = choose[name], fit[name]
    return found


class Study:
    """All recipes of one model.

    Parameters
    ----------
    name : str
        The model.
    folder : Path
        What `calibration_models` built.
    scratch : Path
        For packages.
    """

    def __init__(self, name: str, folder: Path, scratch: Path) -> None:
        self.name, self._folder, self._scratch = name, folder / name, scratch
        self._source = self._folder / "model.mlpackage"
        self._raised = self._source
        if version_of(self._source) < IOS18:
            self._raised = raise_to_ios18(self._source, scratch / f"{name}-ios18.mlpackage")
        with np.load(self._folder / "pool.npz") as pool:
            self._pool = dict(pool)
        self._sizes: dict[int, int] = {}
        self.measured: list[Measured] = []
        self.calibrations: list[dict[str, Any]] = []
        self.scores: list[float] = []
        self.weights = 0

    def run(self, recipes: Sequence[Recipe], seed: int, tell: Callable[[str], None]) -> None:
        """Measure recipes with one division of the samples."""
        parts = split(TASKS[self.name], self._pool, seed)
        evaluation = Evaluation(self._folder, parts["test"])
        self.scores.append(evaluation.score)
        statistics = self._calibrated(parts, seed, tell)
        for recipe in sorted(recipes, key=lambda each: (each.kind != "uniform", each.calibrated)):
            found = self._measure(recipe, seed, statistics, evaluation)
            self.measured.append(found)
            tell(f"{recipe.name}: {found.snr_db:.2f} dB, {found.score:.2f} %, {found.weight_bits:.3f} bits")

    def _calibrated(self, parts: dict[str, Arrays], seed: int, tell: Callable[[str], None]) -> coreml.Statistics:
        names = [name for name in parts["fit"] if name not in TASKS[self.name].labels]
        samples = interleaved(parts, names)
        started = time.process_time()
        moments = coreml.calibrate(self._source, samples, candidates=None)
        middle = time.process_time()
        target = self._scratch / f"{self.name}-timed.mlpackage"
        coreml.compress(self._source, target, {"palettize": {"nbits": 4}}, calibration=moments, overwrite=True)
        fed_back = time.process_time()
        coreml.compress(self._source, target, {"palettize": {"nbits": 4}}, overwrite=True)
        plain = time.process_time() - fed_back
        statistics = coreml.calibrate(self._raised, samples, seed=seed)
        seconds = {
            "moments": middle - started,
            "error feedback": fed_back - middle - plain,
            "probes and candidates": time.process_time() - fed_back - plain - (middle - started),
        }
        self.calibrations.append({"seed": seed, "cpu_seconds": seconds, "unreached": statistics.unreached})
        tell(f"seed {seed}: CPU seconds: " + ", ".join(f"{what} {each:.1f}" for what, each in seconds.items()))
        return statistics

    def _measure(self, recipe: Recipe, seed: int, statistics: coreml.Statistics, evaluation: Evaluation) -> Measured:
        target = self._scratch / f"{self.name}.mlpackage"
        options: dict[str, Any] = {"calibration": statistics} if recipe.calibrated else {}
        started, predicted = time.process_time(), None
        if recipe.kind == "uniform":
            nbits = int(recipe.bits)
            report = coreml.compress(self._source, target, {"palettize": {"nbits": nbits}}, overwrite=True, **options)
        else:
            source = self._source if recipe.is_whole else self._raised
            goal = {"target_size": self._size_of(int(recipe.bits))} if recipe.is_whole else {"target_bits": recipe.bits}
            found = coreml.allocate(source, **goal, **options)
            predicted = found.predicted.recipe.snr_db
            report = coreml.compress(source, target, found, overwrite=True, **options)
        seconds = time.process_time() - started
        size = coreml.inspect(target).package_bytes
        if recipe.kind == "uniform":
            self._sizes[int(recipe.bits)] = size
        compressed = [each for each in report.weights if each.status == "compressed"]
        self.weights = max(self.weights, len(compressed))
        bits = 8 * sum(each.bytes_after for each in compressed) / sum(math.prod(each.shape) for each in compressed)
        return Measured(recipe.name, seed, size, bits, *evaluation(target), seconds, predicted)

    def _size_of(self, bits: int) -> int:
        if bits not in self._sizes:
            target = self._scratch / f"{self.name}-base.mlpackage"
            coreml.compress(self._source, target, {"palettize": {"nbits": bits}}, overwrite=True)
            self._sizes[bits] = coreml.inspect(target).package_bytes
        return self._sizes[bits]

    def is_raised(self, recipe: Recipe) -> bool:
        """Whether a recipe is for the copy of iOS 18."""
        return self._raised != self._source and not recipe.is_whole

    def of(self, recipe: Recipe) -> list[Measured]:
        return [each for each in self.measured if each.recipe == recipe.name]


@dataclass(frozen=True)
class Row:
    """A goal, and what was found."""

    model: str
    goal: str
    found: str
    base: str
    difference: str
    met: bool


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    array = np.asarray(values, np.float64)
    error = float(array.std(ddof=1) / math.sqrt(len(array))) if len(array) > 1 else math.nan
    return float(array.mean()), error


def in_words(values: Sequence[float], unit: str = "") -> str:
    mean, error = mean_and_error(values)
    spread = "" if math.isnan(error) else f" ± {error:.1f}"
    return f"{mean:.1f}{spread}{unit}"


def rows_of(study: Study) -> Iterator[Row]:
    for goal in GOALS[study.name]:
        ours, theirs = study.of(goal.recipe), study.of(goal.base)
        differences = [one.snr_db - other.snr_db for one, other in zip(ours, theirs, strict=True)]
        found, base = (
            f"{in_words([each.snr_db for each in some], ' dB')} ({in_words([each.score for each in some])} %)"
            for some in (ours, theirs)
        )
        met = mean_and_error(differences)[0] >= goal.decibels
        raised = " (package raised to iOS 18)" if study.is_raised(goal.recipe) else ""
        yield Row(study.name, goal.text + raised, found, base, in_words(differences, " dB"), met)
    sizes = [
        (each, study._size_of(int(recipe.bits)))
        for recipe in dict.fromkeys(goal.recipe for goal in GOALS[study.name])
        if recipe.kind == "allocated" and recipe.is_whole
        for each in study.of(recipe)
    ]
    if sizes:
        shares = [1 - each.bytes / size for each, size in sizes]
        met = min(shares) >= 0 and (max(shares) <= NEAREST or study.weights < 30)
        text = "bytes met from below" + (f" within {100 * NEAREST} %" if study.weights >= 30 else "")
        yield Row(study.name, text, f"{100 * min(shares):.2f} to {100 * max(shares):.2f} % below", "", "", met)
    if study.name == "encoder":
        seconds = [
            each["cpu_seconds"]["moments"] + each["cpu_seconds"]["error feedback"] for each in study.calibrations
        ]
        text = f"second moments and error feedback under {MOST_SECONDS:.0f} CPU s"
        yield Row(study.name, text, in_words(seconds, " s"), "", "", mean_and_error(seconds)[0] < MOST_SECONDS)


def markdown(studies: Sequence[Study]) -> str:
    lines = [
        "| model | goal | found (score) | base (score) | difference | met |",
        "| --- | --- | --: | --: | --: | --- |",
    ]
    lines += [
        f"| {row.model} | {row.goal} | {row.found} | {row.base} | {row.difference} | {'yes' if row.met else '**no**'} |"
        for study in studies
        for row in rows_of(study)
    ]
    lines += [
        "",
        "| model | recipe | bytes | bits | SNR dB | predicted dB | score % | CPU s |",
        "| --- | --- | --: | --: | --: | --: | --: | --: |",
    ]
    for study in studies:
        lines.append(f"| {study.name} | uncompressed | | 16 | | | {in_words(study.scores)} | |")
        for name in dict.fromkeys(each.recipe for each in study.measured):
            some = [each for each in study.measured if each.recipe == name]
            size, bits = (np.mean([getattr(each, what) for each in some]) for what in ("bytes", "weight_bits"))
            predictions = [each.predicted_db for each in some if each.predicted_db is not None]
            cells = [
                study.name,
                name,
                f"{size:,.0f}",
                f"{bits:.3f}",
                in_words([each.snr_db for each in some]),
                in_words(predictions) if predictions else "",
                in_words([each.score for each in some]),
                f"{np.mean([each.cpu_seconds for each in some]):.1f}",
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def recipes_of(name: str) -> list[Recipe]:
    used = [recipe for goal in GOALS[name] for recipe in (goal.base, goal.recipe)]
    return list(dict.fromkeys([*used, *ALSO.get(name, ())]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="what calibration_models.py built")
    parser.add_argument("--only", nargs="*", choices=GOALS, metavar="NAME", help="some models")
    parser.add_argument("--seeds", type=int, default=3, help="how often the samples are divided")
    parser.add_argument("--quick", action="store_true", help="one seed, without the encoder")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables to this file too")
    documents.add_options(parser)
    arguments = parser.parse_args()
    names = arguments.only or [name for name in GOALS if not (arguments.quick and name == "encoder")]
    studies = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in names:
            studies.append(Study(name, arguments.folder, Path(scratch)))
            for seed in range(1 if arguments.quick else arguments.seeds):
                studies[-1].run(recipes_of(name), seed, lambda text, name=name: print(f"{name}: {text}", flush=True))
        tables = markdown(studies)
        results = [
            {
                "model": study.name,
                "uncompressed": study.scores,
                "goals": [asdict(row) for row in rows_of(study)],
                "recipes": [asdict(each) for each in study.measured],
                "calibrations": study.calibrations,
            }
            for study in studies
        ]
    print("\n" + tables)
    if arguments.markdown:
        arguments.markdown.write_text(tables)
    documents.save(arguments, {"seeds": 1 if arguments.quick else arguments.seeds}, results)


if __name__ == "__main__":
    main()
