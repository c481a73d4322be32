"""Build the model, compress it in every way, and show the results."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import click

from ..extras import installed, missing
from ..outputs import write_output
from ..reporting.documents import to_json
from ..reporting.wording import format_count
from .variants import VARIANTS, Original, Result, measure

ORIGINAL = "UNet.mlpackage"
PLOT, RESULTS, MARKER = "quality-vs-size.png", "results.json", ".made-by-corepress-demo"


def package_name(slug: str) -> str:
    return f"UNet-{slug}.mlpackage"


OUTPUTS = (ORIGINAL, *(package_name(variant.slug) for variant in VARIANTS), PLOT, RESULTS, MARKER)


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
        original, results = _compress_all(directory, quiet, verbose and not (quiet or as_json))
        document = {"original": asdict(original), "results": [asdict(result) for result in results]}
        write_output(directory / RESULTS, to_json(document) + "\n")
        _draw(directory, original, results, quiet)
    if as_json:
        click.echo(to_json(document))
    elif not quiet:
        _tell(directory, original, results)


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
            click.echo(f"{package}\n{report}\n")
        results.append(measure(variant, package, report, weights.energies))
    return Original(package=ORIGINAL, bytes=report.bytes_before, weights=weights.count), results


def _draw(directory: Path, original: Original, results: list[Result], quiet: bool) -> None:
    """Draw the plot, or say which package it needs; the rest of the demo works without it."""
    if installed("matplotlib"):
        from .plot import draw_plot

        _say(quiet, "drawing the plot")
        draw_plot(original, results, directory / PLOT)
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


def _tell(directory: Path, original: Original, results: list[Result]) -> None:
    from rich.console import Console

    from .table import results_table

    console = Console(highlight=False, soft_wrap=True)
    console.print(results_table(original, results))
    example = package_name("4bit-groups")
    plot = f"  {PLOT:24}quality against size, as a picture\n" if (directory / PLOT).exists() else ""
    console.print(
        f"{format_count(original.weights)} weights. Bits: per weight, tables and scales included. SNR: of all\n"
        "compressed weights; worst: of the weight that lost most. Time: end to end.\n\n"
        f"In {directory}:\n"
        f"{plot}"
        f"  {ORIGINAL:24}the model, float16\n"
        f"  {'UNet-*.mlpackage':24}the compressed models\n"
        f"  {RESULTS:24}the numbers of this table, for programs\n\n"
        f"Try next:\n"
        f"  corepress inspect {directory / example}\n"
        f"  corepress palettize {directory / ORIGINAL} -o UNet-3bit.mlpackage --nbits 3\n"
        f"  corepress palettize YourModel.mlpackage -o YourModel-4bit.mlpackage --nbits 4",
        markup=False,
    )
