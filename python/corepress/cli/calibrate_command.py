"""The command that finds out what the weights of a model see."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .kinds import format_of
from .networks import require_package
from .options import (
    candidates_option,
    device_option,
    display_options,
    function_option,
    inputs_option,
    source_argument,
    thread_option,
)
from .running import require_outputs

if TYPE_CHECKING:
    from ..coreml import CalibrationProgress, Statistics, WeightStatistics

_NAMED = 8
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kMGT]?i?B?)", re.IGNORECASE)
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def _size(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    match = _SIZE.fullmatch(value.strip())
    unit = "" if match is None else match[2].lower().removesuffix("b")
    if match is None or unit not in _UNITS or float(match[1]) <= 0:
        raise click.BadParameter(f"{value!r} is not a size such as 2GB or 500MiB")
    return int(float(match[1]) * _UNITS[unit])


@click.command()
@source_argument
@inputs_option("Samples: an .npz file, or a folder of .npz files or images. No labels are needed.", required=True)
@click.option(
    "-o",
    "--output",
    "output_file",
    metavar="FILE",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write, for --calibration of the commands that compress.",
)
@click.option("--overwrite", is_flag=True, help="Replace FILE if it exists.")
@candidates_option(
    "What to measure the outputs' errors for: default, ane, gpu, groups, sparse; bits of palettes, 2,3,4; or a "
    "list of steps as inline JSON or in a file. none measures nothing. [default: 2,3,4,6,8]",
)
@click.option(
    "--probes",
    metavar="N",
    type=click.IntRange(min=1),
    help="Random probes of the outputs for each sample that is kept. [default: as many as make 48 in all, 16 in models "
    "of more than 50 M weights]",
)
@click.option("--importance", is_flag=True, help="Also sum up squared gradients, for --calibration-use fisher.")
@click.option(
    "--memory-limit",
    metavar="SIZE",
    callback=_size,
    help="For second moments and candidates, in addition to the model: 2GB. More takes fewer passes over the samples.",
)
@click.option(
    "--weight-threshold",
    metavar="N",
    type=click.IntRange(min=0),
    help="Leave weights of this many elements or fewer out. [default: 2048]",
)
@click.option("--no-resume", is_flag=True, help="Begin anew instead of continuing an interrupted calibration.")
@function_option("run")
@device_option
@thread_option
@display_options
def calibrate(
    source: Path,
    inputs: Path,
    output_file: Path,
    candidates: str | None,
    no_resume: bool,
    weight_threshold: int | None,
    verbose: bool,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Find out on samples what each weight sees.

    Runs the model on samples and writes, for each weight, the second moments of its inputs, for error feedback, and how
    much the outputs change with each candidate, for choosing bits. Every fourth sample is kept for choices. An
    interrupted calibration continues when the command is repeated.

    \b
    Examples:
      corepress calibrate UNet.mlpackage --inputs samples/ -o unet.calibration
      corepress palettize UNet.mlpackage -o UNet-4bit.mlpackage --nbits 4 --calibration unet.calibration
    """
    from .targets import parsed_candidates

    require_package(source, "only ML programs can be calibrated")
    require_outputs()
    if candidates is not None:
        options["candidates"] = None if candidates == "none" else parsed_candidates(candidates)
    if weight_threshold is not None:
        options["weight_threshold"] = weight_threshold
    with _bar(quiet) as progress:
        calibrate_model = format_of(source).calibrate
        statistics = calibrate_model(source, inputs, output_file, progress=progress, resume=not no_resume, **options)
    if as_json:
        from ..reporting.documents import to_json

        click.echo(to_json({"output": str(output_file), **statistics.to_dict()}))
    elif not quiet:
        click.echo("\n".join(_summary(statistics, output_file, verbose)))


@contextmanager
def _bar(quiet: bool) -> Iterator[Callable[[CalibrationProgress], None] | None]:
    """The callback for a progress bar, or None if none is wanted."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("calibrate", total=None, left="")

        def show(progress: CalibrationProgress) -> None:
            left = progress.seconds_left
            text = "" if left is None else f"{int(left) // 60}:{int(left) % 60:02} left"
            description = f"calibrate: {progress.stage}"
            bar.update(task, description=description, total=progress.total or None, completed=progress.done, left=text)

        yield show


def _summary(statistics: Statistics, path: Path, verbose: bool) -> Iterator[str]:
    from ..reporting.tables import Column, format_bytes, render

    kept = f", {len(statistics.kept)} of them kept for choices" if statistics.kept else ""
    yield f"wrote {path}, {format_bytes(path.stat().st_size)}"
    yield f"  samples          {statistics.sample_count}{kept}"
    yield f"  weights          {len(statistics.reached)} with second moments, {len(statistics.unreached)} without"
    by_reason: dict[str, list[str]] = {}
    for name, reason in statistics.unreached.items():
        by_reason.setdefault(reason, []).append(name)
    for reason, names in by_reason.items():
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED and not verbose else ""
        yield f"    {reason}: {', '.join(names if verbose else names[:_NAMED])}{more}"
    measured = [each for weight in statistics.weights.values() for each in weight.sensitivities.values()]
    if measured:
        relative = sorted(each.standard_error / each.mean for each in measured if each.mean > 0)
        spread = f", standard error {100 * relative[len(relative) // 2]:.0f} % (median)" if relative else ""
        count = max(each.gradients for each in measured)
        judged_by = "samples" if statistics.library.startswith("coreai-core") else "gradients"
        yield f"  sensitivities    {len(statistics.candidates)} candidates, {count} {judged_by}{spread}"
    yield f"  run by           {statistics.library}"
    yield from (f"  note             {note}" for note in statistics.notes)
    if verbose:
        yield ""
        columns = (
            Column("weight", lambda item: item[0]),
            Column("shape", lambda item: "x".join(map(str, item[1].shape))),
            Column("vectors", lambda item: str(item[1].count), right=True),
            *(Column(_heading(key), partial(_decibels, key), right=True) for key in statistics.candidates),
        )
        yield render(columns, statistics.weights.items())
        if statistics.candidates:
            yield "output SNR in dB of each candidate alone, all other weights unchanged"


def _heading(key: str) -> str:
    """A candidate in a few characters."""
    import json

    from ..config.candidates import describe_candidate
    from ..specs import spec_from_dict

    return describe_candidate([spec_from_dict(each) for each in json.loads(key)])


def _decibels(key: str, item: tuple[str, WeightStatistics]) -> str:
    sensitivity = item[1].sensitivities.get(key)
    if sensitivity is None:
        return "-"
    return "exact" if sensitivity.mean == 0 else f"{sensitivity.snr_db:.1f}"
