"""How much each weight loses with each candidate: one pass over the weights of a model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..engine.opened import OpenedModel
from ..engine.report import Progress
from ..engine.run import ProgressCallback
from ..engine.steps import compress_stored
from ..errors import NonFiniteError, Skip
from ..kernels import kmeans1d_sweep
from ..overlap import RunAhead, Task
from ..specs import Palettize, Spec
from ..tensors import CompressedTensor
from .options import FreeWeight, Option

Stored: TypeAlias = NDArray[Any] | CompressedTensor

_PIECE = 1 << 22  # elements that are counted at a time
_MOST_VALUES = 1 << 20  # single-precision values that are clustered one by one; more are counted in cells
_CELL_BITS = 12  # of a single-precision number that a cell leaves out: its values differ by a part in 2,048


@dataclass(frozen=True, eq=False)
class Curve:
    """A weight's options and what is lost with each.

    Attributes
    ----------
    options : tuple of Option
        The options, with the bytes that were really needed.
    errors : tuple of float
        What counts, by the error model.
    relative : tuple of float
        Sum of squared errors over sum of squares.
    """

    options: tuple[Option, ...]
    errors: tuple[float, ...]
    relative: tuple[float, ...]

    def losses(self) -> dict[Option, tuple[float, float]]:
        """Error and relative error by option."""
        return dict(zip(self.options, zip(self.errors, self.relative, strict=True), strict=True))


class ErrorModel(Protocol):
    """What is to be small.

    Attributes
    ----------
    measure : str
        What errors are of: "weights" or "outputs".
    """

    measure: str

    def errors(
        self, free: FreeWeight, options: Sequence[Option], relative: Sequence[float], stored: Stored, num_threads: int
    ) -> tuple[float, ...] | None:
        """The error of each option of a weight; None if nothing is known of this weight.

        Parameters
        ----------
        free : FreeWeight
            The weight.
        options : sequence of Option
            Its options.
        relative : sequence of float
            For each the sum of squared errors over the sum of squares.
        stored : numpy.ndarray or CompressedTensor
            The weight as it is stored.
        num_threads : int
            Threads to use.
        """


def measure(
    opened: OpenedModel,
    free: Sequence[FreeWeight],
    model: ErrorModel,
    *,
    progress: ProgressCallback | None,
    num_threads: int | None,
) -> list[Curve | None]:
    """The curve of each weight; None for weights that no candidate can store, since they are not finite.

    Every weight is read once. All palettes of one table are found by one sorting of the weight's values; other
    candidates are made, completely.

    Parameters
    ----------
    opened : OpenedModel
        The model.
    free : sequence of FreeWeight
        The weights.
    model : ErrorModel
        What counts.
    progress : callable or None
        Called with a `Progress` at the start and after each weight.
    num_threads : int or None
        Threads that the weights share; None for all CPUs this process may use, or `COREPRESS_NUM_THREADS`.
    """
    total, total_bytes = sum(each.size for each in free), sum(each.weight.stored_bytes for each in free)
    done = done_bytes = 0

    def tell(name: str) -> None:
        if progress is not None:
            progress(Progress(name, done, total, done_bytes, total_bytes))

    curves: list[Curve | None] = []
    with opened.reading([each.weight for each in free]):
        tasks = [Task(_work(opened, each, model), 3 * opened.memory(each.weight)) for each in free]
        tell("")
        with RunAhead(tasks, num_threads) as ahead:
            for each, result in zip(free, ahead.results(), strict=True):
                curves.append(result())
                done, done_bytes = done + each.size, done_bytes + each.weight.stored_bytes
                tell(each.name)
    return _completed(free, curves)


def _completed(free: Sequence[FreeWeight], curves: Sequence[Curve | None]) -> list[Curve | None]:
    """Curves in which weights of which nothing is known have errors too.

    Their errors are as large, compared with the loss of the weight, as those of the median weight.
    """
    known = [
        math.log(error / relative)
        for curve in curves
        if curve is not None
        for error, relative in zip(curve.errors, curve.relative, strict=True)
        if error > 0 and relative > 0 and not math.isnan(error)
    ]
    factor = math.exp(float(np.median(known))) if known else 1.0
    return [
        replace(curve, errors=tuple(factor * relative for relative in curve.relative))
        if curve is not None and any(map(math.isnan, curve.errors))
        else curve
        for curve in curves
    ]


def _work(opened: OpenedModel, free: FreeWeight, model: ErrorModel) -> Callable[[int], Curve | None]:
    def work(threads: int) -> Curve | None:
        stored = opened.stored(free.weight)
        try:
            return _curve(opened, free, stored, model, threads)
        except NonFiniteError as failure:
            raise ValueError(f"{free.name}: {failure}") from failure
        finally:
            opened.release(free.weight)

    return work


def _curve(opened: OpenedModel, free: FreeWeight, stored: Stored, model: ErrorModel, threads: int) -> Curve | None:
    """The curve of a weight, without the options that cannot store it; None if that leaves none."""
    made = _made(opened, free, [each for each in free.options if each.steps], stored, threads)
    if not made:
        return None
    unchanged = [(each, 0.0) for each in free.options if not each.steps]
    options, relative = zip(*made, *unchanged, strict=True)
    if free.fixed:
        return Curve(options, (0.0,) * len(options), relative)
    errors = model.errors(free, options, relative, stored, threads)
    return Curve(options, (math.nan,) * len(options) if errors is None else errors, relative)


def _made(
    opened: OpenedModel, free: FreeWeight, options: Sequence[Option], stored: Stored, threads: int
) -> list[tuple[Option, float]]:
    """The options that can store a weight, each with what is lost, relative to the weight's power."""
    widths = [_width(each.steps) for each in options]
    found: dict[int, float] = {}
    if isinstance(stored, np.ndarray) and any(widths):
        with suppress(Skip):
            found = palette_errors(stored, sorted({nbits for nbits in widths if nbits}), threads)
    made = []
    for option, nbits in zip(options, widths, strict=True):
        if nbits and isinstance(stored, np.ndarray):
            if nbits in found:
                made.append((option, found[nbits]))
            continue
        with suppress(Skip):
            form, snr_db = compress_stored(stored, option.steps, opened.lower(free.weight), threads)
            option = option if option.exact else _as_made(opened, free, option, form)
            if option.nbytes < free.unchanged.nbytes:
                made.append((option, 10 ** (-snr_db / 10)))
    return made


def _as_made(opened: OpenedModel, free: FreeWeight, option: Option, form: Any) -> Option:
    """An option with the bytes that it really takes."""
    size = opened.file_bytes(free.weight, form)
    return replace(option, nbytes=form.nbytes, file_bytes=size, form=form.without_data())


def _width(steps: Sequence[Spec]) -> int:
    """Bits of the table, for steps that find the optimal one for all values of a weight; 0 for others."""
    spec = steps[0]
    if len(steps) != 1 or not isinstance(spec, Palettize) or spec.nbits is None:
        return 0
    plain = Palettize(nbits=spec.nbits, channel_axis=spec.channel_axis, indivisible=spec.indivisible)
    return spec.nbits if spec == plain else 0


def relative_error(stored: Stored, steps: Sequence[Spec], num_threads: int) -> float:
    """The sum of squared errors of some steps over the sum of squares of a weight; raises `Skip`."""
    nbits = _width(steps)
    if nbits and isinstance(stored, np.ndarray):
        return palette_errors(stored, [nbits], num_threads)[nbits]
    _, snr_db = compress_stored(stored, tuple(steps), lambda tensor: tensor, num_threads)
    return float(10 ** (-snr_db / 10))


def palette_errors(weight: NDArray[Any], widths: Sequence[int], num_threads: int | None = None) -> dict[int, float]:
    """What is lost with the optimal table of each width.

    Parameters
    ----------
    weight : numpy.ndarray of float16 or float32
        The weight.
    widths : sequence of int
        Bits of the tables.
    num_threads : int, optional
        Threads to use.

    Returns
    -------
    dict of int to float
        For each width the sum of squared errors over the sum of squares.

    Raises
    ------
    Skip
        If the weight is not finite.

    Notes
    -----
    Exact for half precision, whose distinct values are counted, and for up to 2**20 values of single precision. More
    of these are counted in cells whose values differ by a part in 2,048, which changes the result by less than 0.01
    dB.
    """
    values, counts, within = _counted(weight)
    power = float(counts @ (values * values)) + within
    sizes = [2**nbits for nbits in widths]
    clusters = kmeans1d_sweep(values, sizes, counts, num_threads=num_threads)
    found = {}
    for nbits, size in zip(widths, sizes, strict=True):
        table = clusters[size].centroids.astype(weight.dtype).astype(np.float64)
        middles = (table[1:] + table[:-1]) / 2
        difference = values - table[np.searchsorted(middles, values)]
        found[nbits] = (float(counts @ (difference * difference)) + within) / power if power else 0.0
    return found


def _counted(weight: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Distinct values of a weight, how often each is met, and the sum of squares that their grouping leaves out."""
    flat = weight.reshape(-1)
    if flat.dtype == np.float16:
        counts = np.zeros(1 << 16, np.int64)
        for piece in _pieces(flat):
            counts += np.bincount(piece.view(np.uint16), minlength=counts.size)
        present = np.flatnonzero(counts)
        values = present.astype(np.uint16).view(np.float16).astype(np.float64)
        _require_finite(values)
        return _sorted(values, counts[present], 0.0)
    if flat.size <= _MOST_VALUES:
        distinct, counts = np.unique(flat, return_counts=True)
        _require_finite(distinct)
        return _sorted(distinct.astype(np.float64), counts, 0.0)
    cells = 1 << (32 - _CELL_BITS)
    number, sums, squares = np.zeros(cells), np.zeros(cells), np.zeros(cells)
    for piece in _pieces(flat):
        _require_finite(piece)
        cell = piece.view(np.uint32) >> _CELL_BITS
        exact = piece.astype(np.float64)
        number += np.bincount(cell, minlength=cells)
        sums += np.bincount(cell, exact, cells)
        squares += np.bincount(cell, exact * exact, cells)
    present = np.flatnonzero(number)
    values = sums[present] / number[present]
    within = max(0.0, math.fsum((squares[present] - number[present] * values * values).tolist()))
    return _sorted(values, number[present], within)


def _sorted(
    values: NDArray[np.float64], counts: NDArray[Any], within: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    order = np.argsort(values, kind="stable")
    return values[order], counts[order].astype(np.float64), within


def _pieces(flat: NDArray[Any]) -> Iterator[NDArray[Any]]:
    for start in range(0, flat.size, _PIECE):
        yield np.ascontiguousarray(flat[start : start + _PIECE])


def _require_finite(values: NDArray[Any]) -> None:
    if not np.isfinite(values).all():
        raise Skip("has values that are not finite")
