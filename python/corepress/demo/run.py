"""Build the models, compress them in every way, run those that are small, and show the results."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..extras import installed, missing
from ..outputs import write_output
from ..reporting.documents import to_json
from ..reporting.wording import format_count
from . import reading
from .reading import Readings
from .variants import VARIANTS, Original, Result, measure

if TYPE_CHECKING:
    from ..coreml import Report

ORIGINAL = "UNet.mlpackage"
PLOT, READ, RESULTS, MARKER = "quality-vs-size.png", "digits.png", "results.json", ".made-by-corepress-demo"


def package_name(slug: str) -> str:
    return f"UNet-{slug}.mlpackage"


UNETS = (ORIGINAL, *(package_name(variant.slug) for variant in VARIANTS))
OUTPUTS = (*UNETS, *reading.OUTPUTS, PLOT, READ, RESULTS, MARKER)


def run_demo(
    directory: Path, *, overwrite: bool = False, verbose: bool = False, as_json: bool = False, quiet: bool = False
) -> None:
    """Write the demo's packages, plot and results into `directory` and print a summary.

    Parameters
    ----------
    directory : pathlib.Path
        Folder to write to; output of an earlier demo in it is replaced.
    overwrite : bool
        Also write into a folder that no earlier demo made. Other files in it are kept.
    verbose : bool
        Print the report of each package as well, one line per weight.
    as_json : bool
        Print the results as one JSON document.
    quiet : bool
        Print nothing (except the JSON, if requested).

    Raises
    ------
    FileExistsError
        If the folder has files, no demo made it, and `overwrite` is false.
    """
    with _own_output(directory, overwrite):
        detailed = verbose and not (quiet or as_json)
        original, results = _compress_all(directory, quiet, detailed)
        readings = _read(directory, quiet, detailed)
        document = {
            "original": asdict(original),
            "results": [asdict(result) for result in results],
            "digits": None if readings is None else readings.to_dict(),
        }
        write_output(directory / RESULTS, to_json(document) + "\n")
        _draw(directory, original, results, readings, quiet)
    if as_json:
        click.echo(to_json(document))
    elif not quiet:
        _tell(directory, original, results, readings)


def _compress_all(directory: Path, quiet: bool, verbose: bool) -> tuple[Original, list[Result]]:
    from .. import coreml
    from .model import build_unet

    _say(quiet, "building a small diffusion UNet")
    weights = build_unet(directory / ORIGINAL)
    results = []
    for variant in VARIANTS:
        _say(quiet, f"compressing: {variant.label}")
        package = package_name(variant.slug)
        report = coreml.compress(directory / ORIGINAL, directory / package, variant.spec)
        if verbose:
            _show(package, report)
        results.append(measure(variant, package, report, weights.energies))
    return Original(package=ORIGINAL, bytes=report.bytes_before, weights=weights.count), results


def _read(directory: Path, quiet: bool, verbose: bool) -> Readings | None:
    """Compress and run the network that reads digits, or say which package that needs."""
    if not installed("torch"):
        if not quiet:
            click.echo(f"corepress demo: the network that reads digits is left out: {missing('torch')}", err=True)
        return None
    return reading.read_digits(directory, lambda text: _say(quiet, text), _show if verbose else lambda *_: None)


def _show(package: str, report: Report) -> None:
    click.echo(f"{package}\n{report}\n")


def _draw(directory: Path, original: Original, results: list[Result], readings: Readings | None, quiet: bool) -> None:
    """Draw the pictures, or say which package they need; the rest of the demo works without them."""
    if installed("matplotlib"):
        from .plot import draw_plot
        from .reading_plot import draw_readings

        _say(quiet, "drawing the plots")
        draw_plot(original, results, directory / PLOT)
        if readings is not None:
            draw_readings(readings, directory / READ)
    elif not quiet:
        click.echo(f"corepress demo: no plot: {missing('matplotlib')}", err=True)


@contextmanager
def _own_output(directory: Path, overwrite: bool) -> Iterator[None]:
    """Remove an earlier demo's output from the folder, and this run's too if it fails."""
    marker = directory / MARKER
    new = not directory.exists()
    if not (new or overwrite or marker.exists() or not any(directory.iterdir())):
        raise FileExistsError(
            f"{directory} has files that corepress demo did not make; choose another -o or pass --overwrite"
        )
    directory.mkdir(parents=True, exist_ok=True)
    _remove_outputs(directory)
    try:
        marker.touch()
        yield
    except BaseException:
        _remove_outputs(directory)
        if new:
            directory.rmdir()
        raise


def _remove_outputs(directory: Path) -> None:
    for name in OUTPUTS:
        path = directory / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _say(quiet: bool, text: str) -> None:
    if not quiet and sys.stderr.isatty():
        click.echo(f"{text} ...", err=True)


def _tell(directory: Path, original: Original, results: list[Result], readings: Readings | None) -> None:
    from rich.console import Console

    from .table import readings_table, results_table

    console = Console(highlight=False, soft_wrap=True)
    console.print(results_table(original, results))
    console.print(
        f"{format_count(original.weights)} weights. Bits: per weight, tables and scales included. SNR: of all\n"
        "compressed weights; worst: of the weight that lost most. Time: end to end.\n",
        markup=False,
    )
    if readings is not None:
        console.print(readings_table(readings))
        console.print(
            f"Reads handwritten digits, here {readings.test_images} that it never saw. Samples: {readings.samples} "
            "of those it was\n"
            "trained on, without labels. SNR: of the outputs; time: of compressing; a run: of one image.\n",
            markup=False,
        )
    files = {
        PLOT: "the UNet's quality against its size, as a picture",
        READ: "what the compressed networks read, as a picture",
        ORIGINAL: "the UNet, float16; UNet-*.mlpackage are compressed",
        reading.ORIGINAL: "the network, float16; Digits-*.mlpackage are compressed",
        reading.IMAGES: "the test images; score.py counts which are read right",
        reading.STATISTICS: "what calibration found",
        RESULTS: "the numbers of these tables, for programs",
    }
    console.print(f"In {directory}:", markup=False)
    for name, text in files.items():
        if (directory / name).exists():
            console.print(f"  {name:20} {text}", markup=False)
    of_digits = (
        f"  corepress compress {directory / reading.ORIGINAL} -o Digits-small.mlpackage \\\n"
        f"      --target-size 70kB --calibration {directory / reading.STATISTICS}\n"
    )
    console.print(
        f"\nTry next:\n"
        f"{'' if readings is None else of_digits}"
        f"  corepress inspect {directory / package_name('4bit-groups')}\n"
        f"  corepress palettize {directory / ORIGINAL} -o UNet-3bit.mlpackage --nbits 3\n"
        f"  corepress palettize YourModel.mlpackage -o YourModel-4bit.mlpackage --nbits 4",
        markup=False,
    )
