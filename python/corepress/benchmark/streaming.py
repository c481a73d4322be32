"""Whole models through the kernels, one random layer at a time, so that a model of any size fits a small machine.

A layer is drawn, compressed by every method, alternating with a copy of it, and discarded. Times are those of the calls
alone; drawing is not included. Slow methods, and other tools, compress a sample of the layers.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product

import numpy as np
from numpy.typing import NDArray

from ..compression.metrics import snr_db
from ..specs import Spec
from ..tensors import CompressedTensor
from .architectures import Architecture, Layer
from .drawn_weights import WeightPool, draw_moments
from .memory import PeakMeter, tells_peaks
from .methods import Method
from .timing import Best, Job

SAMPLED_SHAPES = 4  # by how many shapes what is slow is judged, those that hold most of the weights
MOST_SECONDS_TWICE = 1.0  # what takes longer is not run again


@dataclass(frozen=True)
class Sample:
    """A layer that is measured, and how many layers of its shape it represents."""

    layer: Layer
    count: int


def every_layer(model: Architecture) -> list[Sample]:
    """All layers of a model."""
    return [Sample(layer, 1) for layer in model.layers]


def one_of_each_shape(model: Architecture, share: float = 1.0) -> list[Sample]:
    """One layer of each shape, the shapes with most weights first, until they hold `share` of all weights."""
    counts = Counter(layer.shape for layer in model.layers)
    first = {layer.shape: layer for layer in reversed(model.layers)}
    samples, covered = [], 0
    for shape in sorted(counts, key=lambda shape: -counts[shape] * math.prod(shape)):
        if covered >= share * model.weights:
            break
        samples.append(Sample(first[shape], counts[shape]))
        covered += counts[shape] * math.prod(shape)
    return samples


Peer = Callable[[tuple[Spec, ...], NDArray[np.float16]], Job | None]
"""Makes the job by which another tool does the same, or None where it has nothing like it."""


@dataclass(frozen=True)
class PeerMeasured:
    """One method on one model by another tool.

    Attributes
    ----------
    weights, measured_weights : int
        Weights of the model, and how many of them were compressed; the time is scaled from these to those.
    seconds, cpu_seconds : float
        Of one run each.
    peak_bytes : int or None
        The most memory that a call needed in addition to the weight, including its result.
    """

    model: str
    method: str
    tool: str
    weights: int
    measured_weights: int
    seconds: float
    cpu_seconds: float
    peak_bytes: int | None


@dataclass(frozen=True)
class Measured:
    """One method on one model with one number of threads.

    Attributes
    ----------
    weights, measured_weights : int
        Weights of the model, and how many of them were compressed; times are scaled from these to those.
    seconds, cpu_seconds : float
        The best runs of each layer, added up.
    copy_seconds, copy_cpu_seconds : float
        The same for np.copyto into memory that is already allocated.
    peak_bytes : int or None
        The most memory that a call needed in addition to the weight, including its result.
    process_peak_bytes : int or None
        The largest memory of the process while the model went through, by any method.
    bits_per_weight, snr_db : float
        Of all measured layers together; an unchanged one counts with 16 bits and no error.
    kept : int
        Layers that are left unchanged because groups or blocks do not divide their channels.
    """

    model: str
    method: str
    threads: int
    weights: int
    measured_weights: int
    seconds: float
    cpu_seconds: float
    copy_seconds: float
    copy_cpu_seconds: float
    weights_per_second: float
    peak_bytes: int | None
    process_peak_bytes: int | None
    bits_per_weight: float
    snr_db: float
    kept: int


@dataclass
class _Times:
    """The times of one job, added up over layers: of how many weights, and of how many these are measured."""

    seconds: float = 0
    cpu_seconds: float = 0
    counted: int = 0
    measured: int = 0

    def add(self, best: Best, size: int, count: int) -> None:
        self.seconds += best.seconds * count
        self.cpu_seconds += best.cpu_seconds * count
        self.counted += size * count
        self.measured += size


@dataclass
class _Sums:
    """What adds up over the layers for one method."""

    times: dict[int, _Times] = field(default_factory=lambda: defaultdict(_Times))
    bits: float = 0
    noise: float = 0
    signal: float = 0
    peak: int | None = None
    kept: int = 0

    def add_result(self, weight: NDArray[np.float16], tensor: CompressedTensor | None, count: int) -> None:
        """Add the size and the error of a compressed layer; None is one that was left unchanged."""
        if tensor is None:
            bits, noise, signal = 16 * weight.size, 0.0, float(np.square(weight, dtype=np.float64).sum())
            self.kept += count
        else:
            bits, (noise, signal) = 8 * tensor.nbytes, tensor.error_sums(weight)[:2]
        self.bits += bits * count
        self.noise += noise * count
        self.signal += signal * count


Progress = Callable[[int, int, str], None]
"""Called with the weights done, the weights in all, and the layer's name."""


def stream(
    model: Architecture,
    methods: Sequence[Method],
    threads: Sequence[int],
    samples: Iterable[Sample],
    *,
    repeat: int = 3,
    sampled_shapes: int = SAMPLED_SHAPES,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Measured]:
    """Measure methods on a model.

    Parameters
    ----------
    model : Architecture
        The model.
    methods : sequence of Method
        What is done to every layer.
    threads : sequence of int
        Numbers of threads, each of which is measured.
    samples : iterable of Sample
        The layers to measure, `every_layer` or fewer.
    repeat : int
        Runs of each job on each layer, in turns; the best counts.
    sampled_shapes : int
        How many shapes slow methods do, a layer of each; their times are scaled from the weights of these shapes to
        all.
    seed : int
        Of the drawn weights.
    progress : callable, optional
        Called after every layer.

    Returns
    -------
    list of Measured
        One per method and number of threads.
    """
    samples, pool = list(samples), WeightPool(seed=seed)
    sampled = {sample.layer.shape: sample.count for sample in one_of_each_shape(model)[:sampled_shapes]}
    sums = {method.key: _Sums() for method in methods}
    meter = PeakMeter() if tells_peaks() else None
    turns = _Turns(threads, repeat, sums, meter)
    copies, done, total = _Times(), 0, sum(sample.layer.size for sample in samples)
    room = np.full(max((sample.layer.size for sample in samples), default=0), 0, np.float16)  # there, not just promised
    for index, sample in enumerate(samples):
        weight = pool.draw(sample.layer.shape, index)
        stands_for = sampled.pop(weight.shape, 0)
        counts = {method.key: stands_for if method.slow else sample.count for method in methods}
        chosen = [method for method in methods if counts[method.key]]
        out = room[: weight.size].reshape(weight.shape)
        copies.add(turns.run(weight, out, chosen, counts), weight.size, sample.count)
        done += weight.size
        if progress is not None:
            progress(done, total, sample.layer.name)
    return [_measured(model, key, number, each, copies, meter) for key, each in sums.items() for number in threads]


@dataclass(frozen=True)
class _Turns:
    """How jobs alternate on each layer.

    Attributes
    ----------
    threads : sequence of int
        Numbers of threads that each method runs with.
    repeat : int
        Runs of each job; the best counts.
    sums : mapping of str to _Sums
        Of each method, for results to be added to.
    meter : PeakMeter or None
        Measures the memory of each method's first run.
    """

    threads: Sequence[int]
    repeat: int
    sums: Mapping[str, _Sums]
    meter: PeakMeter | None

    def run(
        self,
        weight: NDArray[np.float16],
        out: NDArray[np.float16],
        methods: Sequence[Method],
        counts: Mapping[str, int],
    ) -> Best:
        """Compress a layer by some methods, alternating with a copy; return the best times of the copy."""
        copy, best = Best(), {(method.key, number): Best() for method in methods for number in self.threads}
        moments = None
        if any(method.needs_moments for method in methods):
            moments = draw_moments(math.prod(weight.shape[1:]), math.prod(weight.shape[2:]))
        for turn in range(self.repeat):
            copy.run(lambda: np.copyto(out, weight))
            for method, number in product(methods, self.threads):
                times = best[method.key, number]
                call = partial(times.run, partial(_compress, method, weight, number, moments))
                if turn == 0 and number == self.threads[-1]:
                    self._add_result(method, weight, call, counts[method.key])
                elif turn == 0 or times.seconds < MOST_SECONDS_TWICE:
                    call()
        for (key, number), times in best.items():
            self.sums[key].times[number].add(times, weight.size, counts[key])
        return copy

    def _add_result(
        self, method: Method, weight: NDArray[np.float16], call: Callable[[], CompressedTensor | None], count: int
    ) -> None:
        sums = self.sums[method.key]
        tensor, peak = (call(), None) if self.meter is None else self.meter.call(call)
        sums.peak = None if peak is None else max(sums.peak or 0, peak)
        sums.add_result(weight, tensor, count)


def _compress(
    method: Method, weight: NDArray[np.float16], threads: int, moments: NDArray[np.float32] | None
) -> CompressedTensor | None:
    """The compressed weight, or None where groups or blocks do not divide its channels."""
    try:
        return method.compress(weight, threads, moments)
    except ValueError:  # drawn weights are sound: nothing else can be wrong with them
        return None


def _measured(
    model: Architecture, method: str, threads: int, sums: _Sums, copies: _Times, meter: PeakMeter | None
) -> Measured:
    times = sums.times[threads]
    scale = model.weights / max(times.counted, 1)
    return Measured(
        model=model.key,
        method=method,
        threads=threads,
        weights=model.weights,
        measured_weights=times.measured,
        seconds=times.seconds * scale,
        cpu_seconds=times.cpu_seconds * scale,
        copy_seconds=copies.seconds * model.weights / max(copies.counted, 1),
        copy_cpu_seconds=copies.cpu_seconds * model.weights / max(copies.counted, 1),
        weights_per_second=times.counted / times.seconds if times.seconds else 0.0,
        peak_bytes=sums.peak,
        process_peak_bytes=meter.largest if meter else None,
        bits_per_weight=sums.bits / max(times.counted, 1),
        snr_db=snr_db(sums.signal, sums.noise),
        kept=sums.kept,
    )


def stream_peers(
    model: Architecture,
    methods: Sequence[Method],
    peers: Mapping[str, Peer],
    *,
    sampled_shapes: int = SAMPLED_SHAPES,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[PeerMeasured]:
    """Measure other tools: a layer of each of the shapes with the most weights, once.

    Parameters
    ----------
    model : Architecture
        The model.
    methods : sequence of Method
        What is done to the layers.
    peers : mapping of str to callable
        The tools, by name.
    sampled_shapes : int
        How many shapes they do; the times are scaled from the weights of these shapes to all.
    seed : int
        Of the drawn weights.
    progress : callable, optional
        Called after every layer.

    Returns
    -------
    list of PeerMeasured
        One per method and tool that has an equivalent.
    """
    pool, meter = WeightPool(seed=seed), PeakMeter() if tells_peaks() else None
    samples = one_of_each_shape(model)[:sampled_shapes]
    times: dict[tuple[str, str], _Times] = defaultdict(_Times)
    peaks: dict[tuple[str, str], int] = defaultdict(int)
    done, total = 0, sum(sample.layer.size for sample in samples)
    for index, sample in enumerate(samples):
        weight = pool.draw(sample.layer.shape, index)
        for method in methods:
            if method.needs_moments:
                continue  # the steps alone are another method
            for tool, make in peers.items():
                job, best = make(method.steps, weight), Best()
                if job is None:
                    continue
                if meter is None:
                    best.run(job)
                else:
                    _, peak = meter.call(partial(best.run, job))
                    peaks[method.key, tool] = max(peaks[method.key, tool], peak)
                times[method.key, tool].add(best, weight.size, sample.count)
        done += weight.size
        if progress is not None:
            progress(done, total, sample.layer.name)
    return [
        PeerMeasured(
            model=model.key,
            method=method,
            tool=tool,
            weights=model.weights,
            measured_weights=each.measured,
            seconds=each.seconds * model.weights / each.counted,
            cpu_seconds=each.cpu_seconds * model.weights / each.counted,
            peak_bytes=peaks.get((method, tool)),
        )
        for (method, tool), each in times.items()
    ]
