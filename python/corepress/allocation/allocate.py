"""Choosing the steps for each weight so that a package reaches a target."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..arrays import as_threads
from ..calibration.statistics import Statistics
from ..config import Config, ConfigLike, as_config
from ..config.candidates import UNCHANGED, candidate_of, parse_candidates
from ..engine.calibrated import as_calibration
from ..engine.prediction import Prediction
from ..engine.request import Made
from ..engine.run import ProgressCallback
from ..paths import StrPath
from ..reporting.documents import to_json
from ..reporting.tables import Column, format_bytes, render
from ..reporting.wording import format_decibels
from ..sources import unchanged
from .curves import Curve, ErrorModel, measure
from .errors import OutputErrors, WeightErrors
from .goals import Goal
from .opening import open_model
from .options import Survey, survey
from .search import Result, Search
from .trial import Trial


@dataclass(frozen=True)
class AllocatedWeight:
    """What was chosen for one weight.

    Attributes
    ----------
    name, function : str
        Its name in reports, and its function's.
    shape : tuple of int
        Its shape.
    method : str
        The steps, in words; "unchanged" for none.
    candidate : str
        The steps as JSON, by which files of calibration name them.
    bytes : int
        Stored bytes, including tables and scales.
    bits_per_weight : float
        The same in bits per element.
    snr_db : float
        Signal-to-noise ratio of the weight itself, as it is without error feedback; infinite if nothing is lost.
    error : float
        What it adds to the error that the allocation makes small: the squared change of the outputs over their power
        with calibration, else that of the weight over its power.
    """

    name: str
    function: str
    shape: tuple[int, ...]
    method: str
    candidate: str
    bytes: int
    bits_per_weight: float
    snr_db: float
    error: float

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON; nothing lost is None."""
        finite = self.snr_db if math.isfinite(self.snr_db) else None
        return dataclasses.asdict(self) | {"shape": list(self.shape), "snr_db": finite}


@dataclass(frozen=True, repr=False)
class Allocation:
    """A recipe that reaches a target, and what it is expected to lose; it is accepted wherever a config is.

    Attributes
    ----------
    config : Config
        One rule for each weight.
    weights : tuple of AllocatedWeight
        The weights for which there was something to choose, in program order.
    predicted : Prediction
        Size and loss, of the recipe and of uniform bits of the same size.
    notes : tuple of str
        What a user should know.
    made : dict of (str, str) to (tuple of Spec, CompressedTensor)
        Weights that were made to try the recipe, by function and name, with the steps: `compress` need not make them
        again.
    """

    config: Config
    weights: tuple[AllocatedWeight, ...]
    predicted: Prediction
    notes: tuple[str, ...] = ()
    made: Mapping[tuple[str, str], Made] = field(default_factory=dict, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return {
            "predicted": self.predicted.to_dict(),
            "notes": list(self.notes),
            "config": self.config.to_dict(),
            "weights": [weight.to_dict() for weight in self.weights],
        }

    def to_json(self) -> str:
        """As strict JSON."""
        return to_json(self.to_dict())

    def to_yaml(self) -> str:
        """The config, as `Config.from_yaml` and ``corepress compress --config`` read it."""
        return self.config.to_yaml()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save the config to a ``.yaml``, ``.yml`` or ``.json`` file, which appears only when it is complete."""
        self.config.save(path)

    def __str__(self) -> str:
        width = max(len(heading) for heading, _ in self.predicted.lines())
        facts = (f"{heading:{width}}  {text}" for heading, text in self.predicted.lines())
        return "\n".join((render(_COLUMNS, self.weights), *facts, *self.notes))

    def __repr__(self) -> str:
        recipe = self.predicted.recipe
        return (
            f"<Allocation for {self.predicted.target}: {len(self.weights)} weights, {recipe.bytes} bytes, "
            f"{recipe.bits_per_weight:.3f} bits/weight>"
        )


_LISTED = 8
_COLUMNS = (
    Column("weight", lambda weight: weight.name),
    Column("shape", lambda weight: "x".join(map(str, weight.shape))),
    Column("chosen", lambda weight: weight.method),
    Column("bits", lambda weight: f"{weight.bits_per_weight:.2f}", right=True),
    Column("bytes", lambda weight: format_bytes(weight.bytes), right=True),
    Column("SNR", lambda weight: format_decibels(weight.snr_db), right=True),
)


@unchanged("src")
def allocate(
    src: StrPath,
    *,
    target_size: int | str | None = None,
    target_bits: float | None = None,
    target_snr: float | None = None,
    config: ConfigLike | None = None,
    candidates: Any = None,
    calibration: Any = None,
    target: str | None = None,
    weight_threshold: int | None = None,
    joint_compression: bool | None = None,
    keep_position_tables: bool | None = None,
    strict: bool = False,
    check: bool = True,
    progress: ProgressCallback | None = None,
    num_threads: int | None = None,
) -> Allocation:
    """Choose how each weight of a package is stored, so that the package reaches a target and loses the least.

    Give exactly one target. Targets are reached from below, and refused before weights are read if they cannot be.

    Parameters
    ----------
    src : path-like
        The package.
    target_size : int or str, optional
        Bytes of the whole package, for example ``"1.4GB"`` or ``"500MiB"`` (1 MB is 10**6 bytes): what stays
        uncompressed, alignment and the program included.
    target_bits : float, optional
        Bits per weight: 8 times the stored bytes, with tables, scales and masks, over the elements of the weights that
        may be compressed.
    target_snr : float, optional
        Lowest signal-to-noise ratio in dB, with as few bytes as possible: of the outputs with `calibration`, else that
        the report has of every weight.
    config : Config, dict or path, optional
        Rules by operation type and name, as for `compress`: what they match is fixed, the rest is chosen.
    candidates : str or list, optional
        What to choose from: "default" (palettes of 2, 3, 4, 6 and 8 bits, and to leave a weight unchanged), "ane",
        "gpu", "groups", "sparse"; or a list of configs' short forms, bits of palettes, or None, which leaves a weight
        unchanged. None for the set of the target "ane" or "gpu", otherwise the default; of these, what the package's
        specification version cannot express is left out.
    calibration : Statistics or path-like, optional
        What `calibrate` returned: errors are those of the outputs, and the default candidates those that it measured.
    check : bool
        With calibration, also run the model on the samples that it kept, with the recipe and with uniform bits, and
        keep the better. Of models of up to 50 million weights, also with two other mixtures.
    target, weight_threshold, joint_compression, keep_position_tables, strict
        As for `compress`.
    progress : callable, optional
        Called with a `Progress` at the start and after each weight.
    num_threads : int, optional
        Threads to use; None for all CPUs this process may use, or `COREPRESS_NUM_THREADS`. The result does not
        depend on it.

    Returns
    -------
    Allocation
        The recipe, accepted wherever a config is, and what is expected of it.

    Raises
    ------
    ValueError
        If there is not exactly one target; if it cannot be reached, with the range that can be; if the config has steps
        for all weights, or nothing is left to choose; if the calibration is of another model.
    FormatError
        If the package is damaged.

    Notes
    -----
    Every weight is read once: all palettes of one table are found by one sorting, other candidates are made. Without
    calibration the error of a weight is its squared error over its sum of squares. The choice is a multiple-choice
    knapsack problem; see `corepress.allocation.solver`. Sparse candidates take bytes that depend on the values; these
    are known, and used, after the pass.
    """
    started = time.perf_counter()
    goal = Goal.of("allocate", target_size=target_size, target_bits=target_bits, target_snr=target_snr)
    threads = as_threads("allocate", num_threads)
    options = {
        "weight_threshold": weight_threshold,
        "target": target,
        "joint_compression": joint_compression,
        "keep_position_tables": keep_position_tables,
    }
    rules = as_config(Config() if config is None else config, **options)
    opened = open_model(src)
    statistics: Statistics | None = as_calibration("allocate", calibration, Statistics)
    model, notes = _model(statistics)
    choices = parse_candidates(candidates, rules.target)
    if candidates is None and rules.target is None and statistics is not None and statistics.candidates:
        choices = (*map(candidate_of, statistics.candidates), UNCHANGED)
    found = survey(opened, rules, choices, strict=strict, named=candidates is None or isinstance(candidates, str))

    search = Search(found, goal, outputs=model.measure == "outputs", count=opened.counted_bytes, what=opened.what)
    search.require_possible()
    if statistics is not None:
        statistics.require_model(opened.model)
    sweep_started = time.perf_counter()
    curves = measure(opened, found.free, model, progress=progress, num_threads=threads)
    sweep_seconds = time.perf_counter() - sweep_started
    result = search.run(curves)
    notes = (*found.notes, *notes, *_lossy(found, curves))
    made: dict[tuple[str, str], Made] = {}
    if statistics is not None and check:
        trial = Trial(src, opened, statistics, search, curves, threads)
        result, checked = trial.best(result)
        notes += checked
        made = _made(found, result, trial)
    config = dataclasses.replace(search.config(result.chosen.options), calibrated=statistics is not None)
    predicted = result.prediction(goal, model.measure, sweep_seconds, time.perf_counter() - started)
    return Allocation(config, tuple(_weights(found, result)), predicted, notes, made)


def _made(found: Survey, result: Result, trial: Trial) -> dict[tuple[str, str], Made]:
    """The weights of the recipe that were made to try it."""
    made = {}
    for number, (free, option) in enumerate(zip(found.free, result.chosen.options, strict=True)):
        tensor = trial.tensors.get((number, option.key))
        if tensor is not None:
            made[free.weight.function, free.name] = (option.steps, tensor)
    return made


def _model(statistics: Statistics | None) -> tuple[ErrorModel, tuple[str, ...]]:
    """What is to be small, and what a user should know of that."""
    if statistics is None:
        return WeightErrors(), ()
    if not statistics.candidates:
        return WeightErrors(), (
            "the calibration has no sensitivities: bits are chosen by errors of the weights; calibrate with candidates",
        )
    return OutputErrors(statistics), ()


def _lossy(found: Survey, curves: Sequence[Curve | None]) -> Iterator[str]:
    """The weights that no candidate can store."""
    names = [free.name for free, curve in zip(found.free, curves, strict=True) if curve is None]
    if names:
        listed = ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")
        yield f"left unchanged, since they are not finite or no candidate makes them smaller: {listed}"


def _weights(found: Survey, result: Result) -> Iterator[AllocatedWeight]:
    for number, (free, option) in enumerate(zip(found.free, result.chosen.options, strict=True)):
        error, relative = result.units.loss(number, option)
        yield AllocatedWeight(
            name=free.name,
            function=free.weight.function,
            shape=free.weight.shape,
            method=option.description,
            candidate=option.key,
            bytes=option.nbytes,
            bits_per_weight=8 * option.nbytes / free.size,
            snr_db=math.inf if relative == 0 else -10 * math.log10(relative),
            error=error,
        )
