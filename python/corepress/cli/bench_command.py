"""The command that measures the kernels on the user's own machine."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from ..benchmark.architectures import ARCHITECTURES, Architecture
from ..benchmark.methods import METHODS
from ..extras import require
from ..reporting.documents import to_json
from ..reporting.wording import format_bytes, format_count, format_decibels
from .options import display_options, thread_option

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..benchmark.streaming import Measured, PeerMeasured, Sample
    from ..reporting.tables import Column

PEER = "coremltools"
SHARE = 0.8  # of a model's weights that the measured shapes hold together


@click.command()
@click.option(
    "--model",
    type=click.Choice(list(ARCHITECTURES)),
    default="sd15",
    show_default=True,
    help="The model whose layers to use.",
)
@click.option(
    "--method",
    "methods",
    multiple=True,
    type=click.Choice(list(METHODS)),
    help="Measure only this method. Can be repeated. Default: all but vectors and error feedback, which are slow.",
)
@click.option("--peers", is_flag=True, help="Also measure coremltools, which takes minutes.")
@thread_option
@display_options
def bench(
    model: str,
    methods: tuple[str, ...],
    peers: bool,
    num_threads: int | None,
    verbose: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure how fast this machine compresses a large model.

    Of a diffusion or language model; none is needed: layers of its shapes are filled with random values, distributed
    like trained ones, compressed in memory by every method, and compared with a plain copy (np.copyto). One layer of
    each of the most common shapes is measured, and the times are scaled to the whole model. They do not include reading
    and writing packages.

    \b
    Examples:
      corepress bench
      corepress bench --model flux1-dev --method 4bit --method int8
      corepress bench --method 4bit --peers
    """
    from ..arrays import as_threads
    from ..benchmark import coremltools_jobs
    from ..benchmark.machine import describe_machine
    from ..benchmark.streaming import one_of_each_shape, stream, stream_peers
    from ..coreml import Progress
    from .progress import progress_bar

    architecture, chosen = ARCHITECTURES[model], [METHODS[key] for key in dict.fromkeys(methods)]
    chosen = chosen or [method for method in METHODS.values() if not method.slow]
    if peers:
        require("--peers", PEER)
    samples = one_of_each_shape(architecture, SHARE)
    threads = as_threads("bench", num_threads)
    with progress_bar("bench", quiet, rates=False) as show:

        def tell(done: int, total: int, name: str) -> None:
            if show is not None:
                show(Progress(name, done, total, 2 * done, 2 * total))

        results = stream(architecture, chosen, [threads], samples, progress=tell)
        others = stream_peers(architecture, chosen, {PEER: coremltools_jobs.job}, progress=tell) if peers else []
    machine = describe_machine([PEER])
    if as_json:
        document = {"machine": machine, "results": [asdict(result) for result in results]}
        click.echo(to_json({**document, "peers": [asdict(other) for other in others]}))
    elif not quiet:
        click.echo(_text(architecture, machine, len(samples), results, others))
        if verbose:
            click.echo("\n" + "\n".join(map(_sample, samples)))


def _text(
    model: Architecture, machine: dict[str, Any], layers: int, results: list[Measured], others: list[PeerMeasured]
) -> str:
    """The results as a table, with the conditions of the measurement above and below it."""
    from ..reporting.tables import render

    threads = f"{results[0].threads} thread{'s' if results[0].threads != 1 else ''}"
    return "\n".join(
        (
            f"{model.title}: {format_count(results[0].weights)} weights in {len(model.layers)} layers, random values",
            f"{machine['cpu']}, {machine['cpus']} CPUs, {machine['simd_level']}, {threads}",
            "",
            render(tuple(_columns(results, others)), results),
            "",
            *_notes(layers, results[0], others),
        )
    )


def _columns(results: list[Measured], others: list[PeerMeasured]) -> Iterator[Column]:
    from ..reporting.tables import Column

    theirs = {other.method: other.seconds for other in others}
    yield Column("method", lambda result: METHODS[result.method].title)
    yield Column("weights/s", lambda result: format_count(result.weights_per_second), right=True)
    yield Column("whole model", lambda result: _seconds(result.seconds), right=True)
    yield Column("copies", lambda result: f"{result.seconds / result.copy_seconds:.1f}", right=True)
    yield Column("bits", lambda result: f"{result.bits_per_weight:.2f}", right=True)
    yield Column("SNR", lambda result: format_decibels(result.snr_db), right=True)
    if results[0].peak_bytes is not None:
        yield Column("memory", lambda result: format_bytes(result.peak_bytes), right=True)
    if others:
        yield Column(PEER, lambda result: _peer_seconds(theirs, result), right=True)
        yield Column("ratio", lambda result: _ratio(theirs, result), right=True)


def _notes(layers: int, first: Measured, others: list[PeerMeasured]) -> Iterator[str]:
    """What the columns mean."""
    weights, copy = format_count(first.measured_weights), _seconds(first.copy_seconds)
    yield f"Measured on one layer of each of {layers} shapes ({weights} weights), scaled to the whole model."
    yield f"Copies: the time divided by that of np.copyto, {copy}. Bits: per weight, including palettes and scales."
    if first.peak_bytes is not None:
        yield "Memory: the most that a call needed in addition to its weight, including the result."
    if others:
        measured = format_count(max(other.measured_weights for other in others))
        yield f"{PEER}: scaled from {measured} weights; excludes reading and writing packages."


def _sample(sample: Sample) -> str:
    shape = "x".join(map(str, sample.layer.shape))
    return f"measured: {shape}, {sample.count} layers, for example {sample.layer.name}"


def _seconds(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _peer_seconds(theirs: dict[str, float], result: Measured) -> str:
    return _seconds(theirs[result.method]) if result.method in theirs else "-"


def _ratio(theirs: dict[str, float], result: Measured) -> str:
    return f"{theirs[result.method] / result.seconds:.0f}x" if result.method in theirs else "-"
