"""`tradeoff`: recipes for a model, what they cost, and what the outputs keep."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import system
from ..calibration.collect import calibrate
from ..calibration.samples import add_to_digest
from ..calibration.statistics import Statistics
from ..coreai.format.asset import is_asset
from ..outputs import write_output
from ..paths import user_path
from ..runtime.metrics import Comparing, Metric, MetricLike
from ..runtime.model import Model, load
from ..runtime.samples import Samples, steps_of
from ..sources import unchanged
from .goals import OutOfReachError
from .opening import format_of
from .tradeoff_recipes import DEFAULT_BITS, Recipe, candidates_for, recipes_of
from .tradeoff_table import Tradeoff, TradeoffRow

TEST_EVERY = 4  # of this many samples, the first is for the test
FEWEST_DIVIDED = 8
_PIECE = 1 << 20
_STATE, _STATISTICS, _COMPRESSED = "rows.json", "statistics.calibration", "compressed"


@dataclass(frozen=True)
class TradeoffProgress:
    """How far a table is.

    Attributes
    ----------
    stage : str
        What is done now, in words.
    done, total : int
        Recipes that are measured, and all.
    """

    stage: str
    done: int
    total: int


@unchanged("src")
def tradeoff(
    src: str | os.PathLike[str],
    samples: Any,
    bits: Iterable[float] = DEFAULT_BITS,
    *,
    metric: MetricLike | None = None,
    preset: str | None = None,
    recipes: Mapping[str, Any] | None = None,
    allocated: bool = True,
    candidates: Any = None,
    calibration: Statistics | str | os.PathLike[str] | None = None,
    function_name: str | None = None,
    precision: str = "float16",
    backend: str = "auto",
    device: str = "cpu",
    target: str | None = None,
    weight_threshold: int | None = None,
    folder: str | os.PathLike[str] | None = None,
    num_threads: int | None = None,
    progress: Callable[[TradeoffProgress], None] | None = None,
) -> Tradeoff:
    """Measure what recipes for a model cost and what its outputs keep: one row for each.

    For each number of bits there are uniform palettes and, of the same size, steps that are chosen for each weight,
    both without samples and with calibration. Every fourth sample, from the first on, is for the test: rows are
    measured on these, and calibration sees the others. With fewer than eight samples all are used for both, and a note
    says so.

    Parameters
    ----------
    src : path-like
        An ``.mlpackage`` with an ML program, or an ``.aimodel``.
    samples : path-like, dict, or iterable of dict or of list of dict
        An ``.npz`` file, a folder of these or of images, or dicts by the names of inputs; see
        `corepress.runtime.Samples`. Arrays that are no input, such as labels, are for the metric.
    bits : iterable of float
        Bits per weight, tables and scales included.
    metric : str or callable, optional
        Also measure this: "snr", "psnr", "cosine", "max", "top1", "top5", "kl", or ``FILE.py:function``; see
        `corepress.runtime.Metric`.
    preset : {"demonstration", "sizes"}, optional
        Another table in place of `bits`: 10 to 75 % pruned and palettes of 8 to 2 bits; or what each width takes.
    recipes : dict of str to config, optional
        Recipes of your own by name, measured too.
    allocated : bool
        Whether steps are also chosen for each weight.
    candidates
        What to choose from, as for `allocate`.
    calibration : Statistics or path-like, optional
        What `calibrate` returned; then all samples are for the test. None calibrates with those that are not.
    function_name, precision, backend, device
        As for `corepress.runtime.load`.
    target, weight_threshold
        As for `compress`.
    folder : path-like, optional
        Where rows, calibration and the package that is being measured are kept: a later call with the same model,
        samples and folder continues where an interrupted one ended. None for a temporary folder.
    num_threads : int, optional
        Threads to use; None for all CPUs this process may use, or `COREPRESS_NUM_THREADS`.
    progress : callable, optional
        Called with a `TradeoffProgress` before each step and at the end.

    Returns
    -------
    Tradeoff
        The original and one row for each recipe; `Tradeoff.save` writes Markdown, JSON, HTML or a picture.

    Raises
    ------
    ValueError
        If there is nothing to measure, the samples do not fit the model, or a number of bits cannot be reached.
    UnsupportedOperationError
        If the model cannot be run here.
    MissingExtraError
        If PyTorch is not installed.
    FormatError
        If the package is damaged.
    """
    asked = recipes_of(bits, preset, recipes, allocated=allocated)
    choices = candidates_for(asked, candidates, target)
    measure = None if metric is None else Metric.of("tradeoff", metric)
    model = load(src, function_name, precision, backend, device)
    known = Statistics.load(calibration) if isinstance(calibration, str | os.PathLike) else calibration
    divided = _Divided(samples, model, known is not None)
    options = {"target": target, "weight_threshold": weight_threshold, "num_threads": num_threads}
    loading = (function_name, precision, backend, device)
    wanted, impossible = _possible(src, asked, options)

    def tell(stage: str, done: int) -> None:
        if progress is not None:
            progress(TradeoffProgress(stage, done, len(wanted)))

    with _folder_of(folder) as place:
        identity = [
            *(_digest_of_package(src), divided.digest, function_name, precision, backend, device),
            *(None if measure is None else measure.name, target, weight_threshold, repr(choices)),
        ]
        state = _State(place / _STATE, identity)
        tell("running the original", 0)
        evaluation = _Evaluation(model, divided.test, measure)
        original = _original(src, evaluation)
        rows = [original]
        unreached: list[tuple[Recipe, OutOfReachError]] = []
        if known is None and any(recipe.calibrated for recipe in wanted):
            if state.continues and (place / _STATISTICS).exists():
                known = Statistics.load(place / _STATISTICS)
            else:
                tell("calibrating", 0)
                known = calibrate(
                    src,
                    divided.others,
                    place / _STATISTICS,
                    **({} if candidates is choices or is_asset(src) else {"candidates": choices}),
                    function_name=function_name,
                    device=device,
                    num_threads=num_threads,
                    overwrite=True,
                )
        for number, recipe in enumerate(wanted):
            tell(recipe.name, number)
            row = state.row(recipe)
            if row is None:
                path = place / (_COMPRESSED + user_path(src).suffix)
                measured = recipe.calibrated and known is not None and known.candidates
                among = candidates if measured else choices
                try:
                    row = _measured(src, path, recipe, known, among, options, loading, evaluation)
                except OutOfReachError as error:
                    unreached.append((recipe, error))
                    continue
                state.add(recipe, row)
            rows.append(row)
        tell("", len(wanted))
    if len(rows) == 1:
        raise ValueError(f"tradeoff: {_reason(unreached[0][1])}") from unreached[0][1]
    return Tradeoff(
        source=os.fspath(src),
        rows=tuple(rows),
        metric=None if measure is None else measure.name,
        samples=0 if known is None else known.sample_count,
        test_samples=len(divided.test),
        notes=(*divided.notes, *impossible, *map(_left_out, unreached)),
    )


def _possible(
    src: Any, recipes: Iterable[Recipe], options: Mapping[str, Any]
) -> tuple[tuple[Recipe, ...], tuple[str, ...]]:
    """The recipes that the package can express, before any work, and a note about each of the others.

    A choice of the size of palettes that it cannot express is one of as many bits per weight.
    """
    found: list[Recipe] = []
    notes: dict[str, None] = {}
    sizes: dict[str, int | ValueError] = {}
    for recipe in recipes:
        config = recipe.size_of if recipe.config is None else recipe.config
        if config is None:
            found.append(recipe)
            continue
        key = repr(config)
        if key not in sizes:
            sizes[key] = _planned_size(src, config, options)
        size = sizes[key]
        if not isinstance(size, ValueError):
            found.append(recipe if recipe.size_of is None else dataclasses.replace(recipe, target_size=size))
        elif recipe.kind == "recipe":
            raise ValueError(f"tradeoff: {recipe.name}: {size}") from size
        elif recipe.kind == "uniform":
            notes[f"Without {recipe.name}: {size}."] = None
        else:
            found.append(recipe.of_bits())
    return tuple(found), tuple(notes)


def _left_out(unreached: tuple[Recipe, OutOfReachError]) -> str:
    recipe, error = unreached
    samples = "with" if recipe.calibrated else "without"
    return f"Without the row {recipe.name!r} {samples} samples: {_reason(error).rpartition('; ')[0]}."


def _reason(error: OutOfReachError) -> str:
    return str(error).removeprefix("allocate: ")


def _planned_size(src: Any, config: Any, options: Mapping[str, Any]) -> int | ValueError:
    """Bytes of the package that a config makes, or why the package cannot express it."""
    try:
        return int(format_of(src).plan(src, config, **options).bytes_after)
    except ValueError as error:
        return error


class _Divided:
    """The samples for the test, and those that calibration sees."""

    def __init__(self, source: Any, model: Model, calibrated: bool) -> None:
        self._samples = Samples("tradeoff", source, model.description)
        every = [[dict(step) for step in steps_of(sample)] for sample in self._samples]
        self.notes: tuple[str, ...] = ()
        divides = not calibrated and len(every) >= FEWEST_DIVIDED
        self.test = every[::TEST_EVERY] if divides else every
        self._others = [each for index, each in enumerate(every) if index % TEST_EVERY] if divides else every
        if not divides and not calibrated:
            self.notes = (
                f"With {len(every)} samples all are used for calibration and for the test, which flatters what was "
                f"calibrated; give at least {FEWEST_DIVIDED}.",
            )
        digest = hashlib.sha256()
        for steps in every:
            for step in steps:
                add_to_digest(digest, step)
        self.digest = digest.hexdigest()

    @property
    def others(self) -> list[Any]:
        """The inputs for calibration."""
        inputs = [[self._samples.inputs_of(step) for step in steps] for steps in self._others]
        return [steps if len(steps) > 1 else steps[0] for steps in inputs]


class _Evaluation:
    """Runs models on the test samples, and compares them with the original."""

    def __init__(self, original: Model, samples: list[list[Any]], metric: Metric | None) -> None:
        self._samples, self._metric = samples, metric
        self._expected = list(self._run(original))

    def _run(self, model: Model) -> Iterator[tuple[Any, Any]]:
        names = {each.name for each in model.inputs}
        for steps in self._samples:
            state = model.make_state() if model.states else None
            for step in steps:
                yield step, model.predict({name: value for name, value in step.items() if name in names}, state)

    def of(self, model: Model) -> tuple[float, float | None]:
        """Signal-to-noise ratio of the outputs, and the metric."""
        ratio = Comparing(Metric("snr"))
        comparing = Comparing(self._metric) if self._metric is not None and self._metric.compares else None
        seen: list[tuple[Any, Any]] = []
        for (_, expected), (step, found) in zip(self._expected, self._run(model), strict=True):
            ratio.add(expected, found)
            if comparing is not None:
                comparing.add(expected, found)
            elif self._metric is not None:
                seen.append((step, found))
        return ratio.value, comparing.value if comparing is not None else self._score(seen)

    @property
    def of_original(self) -> tuple[float, float | None]:
        """The same for the original."""
        if self._metric is None or not self._metric.compares:
            return float("inf"), self._score(self._expected)
        comparing = Comparing(self._metric)
        for _, expected in self._expected:
            comparing.add(expected, expected)
        return float("inf"), comparing.value

    def _score(self, seen: list[tuple[Any, Any]]) -> float | None:
        if self._metric is None:
            return None
        return self._metric.score([step for step, _ in seen], [found for _, found in seen])


def _original(src: Any, evaluation: _Evaluation) -> TradeoffRow:
    snr_db, score = evaluation.of_original
    found = format_of(src).inspect(src)
    return TradeoffRow(
        name="original",
        kind="original",
        calibrated=False,
        bytes=sum(path.stat().st_size for path in _files(src)),
        download_bytes=_deflated(src),
        bits_per_weight=found.bits_per_weight,
        snr_db=snr_db,
        score=score,
        seconds=0.0,
    )


def _measured(
    src: Any,
    package: Path,
    recipe: Recipe,
    known: Statistics | None,
    candidates: Any,
    options: Mapping[str, Any],
    loading: tuple[Any, ...],
    evaluation: _Evaluation,
) -> TradeoffRow:
    started = time.perf_counter()
    report = format_of(src).compress(
        src,
        package,
        recipe.config,
        target_bits=recipe.target_bits if recipe.target_size is None else None,
        target_size=recipe.target_size,
        candidates=candidates if recipe.kind == "allocated" else None,
        calibration=known if recipe.calibrated else None,
        overwrite=True,
        **options,
    )
    seconds = time.perf_counter() - started
    snr_db, score = evaluation.of(load(package, *loading))
    row = TradeoffRow(
        name=recipe.name,
        kind=recipe.kind,
        calibrated=recipe.calibrated,
        bytes=report.bytes_after,
        download_bytes=_deflated(package),
        bits_per_weight=report.bits_per_weight,
        snr_db=snr_db,
        score=score,
        seconds=seconds,
    )
    system.current.remove_tree(package)
    return row


def _files(package: str | os.PathLike[str]) -> list[Path]:
    return sorted(each for each in user_path(package).rglob("*") if each.is_file())


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece


def _deflated(package: str | os.PathLike[str]) -> int:
    """Bytes of a package's files, deflated one by one."""
    total = 0
    for path in _files(package):
        deflate = zlib.compressobj(6, zlib.DEFLATED, -15)
        total += sum(len(deflate.compress(piece)) for piece in _pieces(path)) + len(deflate.flush())
    return total


def _digest_of_package(package: str | os.PathLike[str]) -> str:
    digest = hashlib.sha256()
    for path in _files(package):
        digest.update(path.relative_to(user_path(package)).as_posix().encode())
        for piece in _pieces(path):
            digest.update(piece)
    return digest.hexdigest()


@contextmanager
def _folder_of(folder: str | os.PathLike[str] | None) -> Iterator[Path]:
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="corepress-tradeoff-") as place:
            yield Path(place)
        return
    given = user_path(folder)
    if given.exists() and not (given / _STATE).is_file() and any(given.iterdir()):
        raise FileExistsError(f"tradeoff: {given} exists, and no table was made in it; name another folder")
    given.mkdir(parents=True, exist_ok=True)
    yield given


class _State:
    """The rows that are measured, in a file.

    Attributes
    ----------
    continues : bool
        Whether the file is that of an earlier run of the same model, samples and options.
    """

    def __init__(self, path: Path, identity: list[Any]) -> None:
        self._path, self._identity = path, identity
        self._rows: dict[str, Any] = {}
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = None
        self.continues = isinstance(found, dict) and found.get("identity") == identity
        if self.continues:
            self._rows = found["rows"]
        self._write()

    def row(self, recipe: Recipe) -> TradeoffRow | None:
        """The row of a recipe, if it is measured."""
        found = self._rows.get(recipe.key)
        return None if found is None else dataclasses.replace(TradeoffRow.from_dict(found), name=recipe.name)

    def add(self, recipe: Recipe, row: TradeoffRow) -> None:
        """Keep a row."""
        self._rows[recipe.key] = row.to_dict()
        self._write()

    def _write(self) -> None:
        write_output(self._path, json.dumps({"identity": self._identity, "rows": self._rows}, indent=1))
