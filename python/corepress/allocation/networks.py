"""Bits for the weights of a neural network by a target."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import system
from ..arrays import as_threads
from ..config import Config
from ..engine.planned import Plan
from ..engine.prediction import Prediction
from ..engine.report import Report
from ..engine.run import ProgressCallback
from ..errors import Skip, UnsuitableWeightError
from ..intake import whole
from ..neural_network.layers import LayerWeight
from ..neural_network.model_io import is_path, name_of, open_model, open_writer, size_of
from ..neural_network.modes import Quantization
from ..neural_network.network import NetworkWeight
from ..neural_network.plan import BlankTransformation, planned_weight
from ..neural_network.transform import Transformation
from ..neural_network.weight_params import HALF_BITS, stored_bytes
from ..paths import StrPath
from ..sources import unchanged
from .curves import Curve, palette_errors
from .goals import Goal
from .options import FreeWeight, Option, Survey
from .search import Search

DEFAULT_BITS = (1, 2, 3, 4, 5, 6, 7, 8, 16)  # 16 or 32: unchanged
_UNCHANGED_BITS = (HALF_BITS, 32)
Choices = Mapping[int, Quantization]


@dataclass(frozen=True, eq=False)
class _Option(Option):
    """One way to store a weight; its only step is a quantization."""

    @property
    def key(self) -> str:
        return self.description


@dataclass(frozen=True, eq=False)
class _Free(FreeWeight):
    """A weight of a network."""

    weight_name: str = ""
    elements: int = 0
    shape: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        return self.weight_name

    @property
    def size(self) -> int:
        return self.elements


class _Choosing(Transformation):
    """Stores each weight as was chosen for it, by its number among all weights."""

    choices: Choices

    def _settle(
        self, weight: NetworkWeight, work: Callable[[LayerWeight], float | None], *, chosen: bool = False
    ) -> None:
        quantization = self.choices.get(len(self.records))
        if quantization is None:
            params = weight.weight.params
            try:
                self._require_meant(weight, chosen)
                reason = Skip("the allocation keeps it", expected=True)
            except Skip as refused:
                reason = refused
            self._record(weight, stored_bytes(params), stored_bytes(params), reason=reason)
            return
        self._quantization = quantization
        super()._settle(weight, work, chosen=chosen)


class _Counting(_Choosing, BlankTransformation):
    """Stores zeros as was chosen, and records only sizes."""


class _Surveying(Transformation):
    """Finds the options of each weight, and if asked for what they lose; nothing is changed."""

    def __init__(
        self,
        mode: str,
        bits: Sequence[int],
        selector: Any,
        threads: int,
        progress: ProgressCallback | None,
        *,
        lost: bool,
    ) -> None:
        self._quantizations = [Quantization(nbits, mode) for nbits in bits if nbits not in _UNCHANGED_BITS]
        super().__init__(self._quantizations[0], selector, threads, progress)
        self._keeps, self._measures = any(nbits in _UNCHANGED_BITS for nbits in bits), lost
        self.free: list[FreeWeight] = []
        self.curves: list[Curve | None] = []
        self._name = ""

    def _settle(
        self, weight: NetworkWeight, work: Callable[[LayerWeight], float | None], *, chosen: bool = False
    ) -> None:
        self._name = weight.name
        super()._settle(weight, work, chosen=chosen)

    def _encode(self, weight: LayerWeight) -> float | None:
        now, number = stored_bytes(weight.params), len(self.records)
        options: list[Option] = [
            _Option((each,), (each,), nbytes, nbytes, each)  # type: ignore[arg-type]
            for each in self._quantizations
            if (nbytes := each.encoded_bytes(weight.size, weight.channels)) < now
        ]
        if options:
            kept = _Option((), (), now, now)
            given = (*options, *([kept] if self._keeps else []))
            free = _Free(None, given, kept, "", number, False, self._name, weight.size, weight.shape)  # type: ignore[arg-type]
            self.free.append(free)
            self.curves.append(self._curve(free, weight) if self._measures else None)
        raise Skip("", expected=True)

    def _curve(self, free: FreeWeight, weight: LayerWeight) -> Curve | None:
        values = weight.read()
        losses = []
        try:
            for option in free.options:
                quantization = option.form
                losses.append(0.0 if quantization is None else self._lost(quantization, weight, values))
        except (Skip, UnsuitableWeightError):
            return None
        return Curve(free.options, tuple(losses), tuple(losses))

    def _lost(self, quantization: Quantization, weight: LayerWeight, values: NDArray[np.float32]) -> float:
        if quantization.mode == "kmeans_lut":
            if self._tables[0] is not values:
                widths = [int(each.nbits or 0) for each in self._quantizations]
                self._tables = values, palette_errors(values, widths, self._threads)
            return self._tables[1][int(quantization.nbits or 0)]
        encoded = quantization.encode(values, weight.channel_axis, self._threads)
        return float(10 ** (-encoded.error(values, self._threads).snr_db / 10))

    _tables: tuple[Any, dict[int, float]] = (None, {})


@dataclass(frozen=True)
class _Request:
    """What is asked for."""

    function: str
    model: Any
    goal: Goal
    mode: str
    bits: tuple[int, ...]
    selector: Any
    threads: int

    @classmethod
    def of(
        cls,
        function: str,
        model: Any,
        targets: Mapping[str, Any],
        mode: str,
        bits: Any,
        selector: Any,
        num_threads: int | None,
    ) -> _Request:
        goal = Goal.of(function, **targets)
        if isinstance(bits, str) or not isinstance(bits, Sequence):
            raise TypeError(f"{function}: bits must be a list of whole numbers, not {bits!r}")
        widths = tuple(dict.fromkeys(whole(each) or 0 for each in bits))
        if not set(widths) - set(_UNCHANGED_BITS) or not set(widths) <= {*range(1, 9), *_UNCHANGED_BITS}:
            raise ValueError(f"{function}: bits must be from 1 to 8, or 16 to leave weights unchanged, not {bits!r}")
        for each in widths:
            if each not in _UNCHANGED_BITS:
                Quantization(each, mode)
        return cls(function, model, goal, mode, widths, selector, as_threads(function, num_threads))

    def choose(self, progress: ProgressCallback | None) -> tuple[Choices, Prediction]:
        """What is to be done to each weight, by its number, and what is expected."""
        started = time.perf_counter()
        search = Search(self._survey(None).found, self.goal, outputs=False, count=self._count, what="model")
        search.require_possible()
        sweep_started = time.perf_counter()
        curves = self._survey(progress, lost=True).curves
        sweep_seconds = time.perf_counter() - sweep_started
        result = search.run(curves)
        choices: dict[int, Any] = {
            free.number: option.form
            for free, option in zip(search.free, result.chosen.options, strict=True)
            if option.form is not None
        }
        return choices, result.prediction(self.goal, "weights", sweep_seconds, time.perf_counter() - started)

    def _survey(self, progress: ProgressCallback | None, *, lost: bool = False) -> _Surveyed:
        run = _Surveying(self.mode, self.bits, self.selector, self.threads, progress, lost=lost)
        with open_model(self.function, self.model) as document:
            run.apply(self.function, document)
        if not run.free:
            raise ValueError(f"{self.function}: no weight can be stored in fewer bits; nothing to choose")
        candidates = dict.fromkeys(option.candidate for free in run.free for option in free.options)
        units = tuple((number,) for number in range(len(run.free)))
        return _Surveyed(Survey(tuple(run.free), units, tuple(candidates), (), {}, 0, 0, Config()), run.curves)

    def _count(self, forms: Mapping[int, Any]) -> int:
        with open_model(self.function, self.model) as document:
            before = document.nbytes
            self.transform(_Counting, document, forms, None)
            return int(self.size(document) - before + document.size)

    def size(self, document: Any) -> int:
        return size_of(self.model) if is_path(self.model) else int(document.nbytes)

    def transform(self, kind: type[_Choosing], document: Any, choices: Choices, progress: Any) -> _Choosing:
        run = kind(Quantization(8, self.mode), self.selector, self.threads, progress)
        run.choices = choices
        run.apply(self.function, document)
        return run


@dataclass(frozen=True)
class _Surveyed:
    """A survey, and the curves of its weights."""

    found: Survey
    curves: list[Curve | None]


@unchanged("model", at_end=False)
def compress(
    model: StrPath,
    destination: StrPath,
    *,
    target_size: int | str | None = None,
    target_bits: float | None = None,
    target_snr: float | None = None,
    quantization_mode: str = "kmeans_lut",
    bits: Sequence[int] = DEFAULT_BITS,
    selector: Any = None,
    overwrite: bool = False,
    progress: ProgressCallback | None = None,
    num_threads: int | None = None,
) -> Report:
    """Store the weights of a neural network in as many bits each as it takes to reach a target with the least loss.

    Give exactly one target. Targets are reached from below, and refused before errors are measured if they cannot be.

    Parameters
    ----------
    model : path-like
        An ``.mlmodel``, or an ``.mlpackage`` that contains a neural network.
    destination : path-like
        The file, or package, to write.
    target_size, target_bits, target_snr : optional
        Bytes of the file, bits per weight, or the lowest signal-to-noise ratio of a weight in dB, as for
        `corepress.coreml.allocate`.
    quantization_mode : str
        How weights are stored, as for `quantize_weights`: "kmeans_lut", "linear", "linear_symmetric" or "linear_lut".
    bits : sequence of int
        What to choose from, 1 to 8; 16 leaves a weight unchanged.
    selector : WeightSelector or object with ``do_quantize``, optional
        Which weights to change; None for all.
    overwrite : bool
        Replace `destination` if it exists.
    progress : callable, optional
        Called with a `Progress` at the start and after each layer, once for choosing and once for storing.
    num_threads : int, optional
        Threads to use; None for all CPUs this process may use, or `COREPRESS_NUM_THREADS`. The result does not depend
        on it.

    Returns
    -------
    Report
        One record per weight, and in `predicted` what was expected, of uniform bits too.

    Raises
    ------
    ValueError
        If there is not exactly one target; if it cannot be reached, with the range that can be.
    TypeError, FormatError
        As `quantize_weights` does.
    """
    started = time.perf_counter()
    targets = {"target_size": target_size, "target_bits": target_bits, "target_snr": target_snr}
    request = _Request.of("compress", model, targets, quantization_mode, bits, selector, num_threads)
    open_writer("compress", destination, model, overwrite=overwrite)  # checks the destination first
    choices, predicted = request.choose(progress)
    with open_model("compress", model) as document:
        writer = open_writer("compress", destination, model, overwrite=overwrite)
        run = request.transform(_Choosing, document, choices, progress)
        writer.write(document.pieces())
        version = document.root.version
    return Report(
        source=name_of(model),
        destination=str(writer.destination),
        weights=tuple(run.records),
        bytes_before=size_of(model),
        bytes_after=size_of(writer.destination),
        seconds=time.perf_counter() - started,
        peak_memory_bytes=system.current.peak_memory(),
        specification_version=version,
        predicted=predicted,
    )


@unchanged("model")
def plan_network(
    model: StrPath,
    *,
    target_size: int | str | None = None,
    target_bits: float | None = None,
    target_snr: float | None = None,
    quantization_mode: str = "kmeans_lut",
    bits: Sequence[int] = DEFAULT_BITS,
    selector: Any = None,
    progress: ProgressCallback | None = None,
    num_threads: int | None = None,
) -> Plan:
    """What `compress` would do with the same arguments, without writing anything; sizes are exact."""
    started = time.perf_counter()
    targets = {"target_size": target_size, "target_bits": target_bits, "target_snr": target_snr}
    request = _Request.of("plan", model, targets, quantization_mode, bits, selector, num_threads)
    choices, predicted = request.choose(progress)
    with open_model("plan", model) as document:
        run = request.transform(_Counting, document, choices, None)
        after = request.size(document) - document.nbytes + document.size
        version = document.root.version
    return Plan(
        source=name_of(model),
        weights=tuple(map(planned_weight, run.records)),
        bytes_before=size_of(model),
        bytes_after=after,
        exact=True,
        specification_version=version,
        raised_from=None,
        notes=(),
        unmatched_rules=(),
        warnings=(),
        seconds=time.perf_counter() - started,
        predicted=predicted,
    )
