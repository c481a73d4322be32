"""The commands that read packages without writing any."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from .kinds import format_of
from .networks import is_network
from .options import (
    display_options,
    inputs_option,
    metric_names,
    offers,
    plot_option,
    runtime_options,
    source_argument,
    thread_option,
)
from .running import require_outputs

WORST_SHOWN = 10
LAYERS_SHOWN = 40


_other_argument = click.argument("other", metavar="OTHER", type=click.Path(path_type=Path))


@click.command()
@source_argument
@display_options
def inspect(source: Path, verbose: bool, as_json: bool, quiet: bool) -> None:
    """Show how the weights of a model are stored.

    Vectors and other small constants are counted; --verbose lists them too.

    \b
    Examples:
      corepress inspect UNet.mlpackage
      corepress inspect DeepLab.mlmodel
      corepress inspect Decoder.aimodel
    """
    from .. import neural_network

    inspection = neural_network.inspect(source) if is_network(source) else format_of(source).inspect(source)
    if as_json:
        click.echo(inspection.to_json())
    elif not quiet:
        from .summary import summarize_inspection

        click.echo(str(inspection) if verbose else summarize_inspection(inspection))


@click.command()
@source_argument
@_other_argument
@click.option("--min-snr-db", metavar="DB", type=float, help="Fail if a weight's signal-to-noise ratio is lower.")
@thread_option
@display_options
def verify(
    source: Path,
    other: Path,
    min_snr_db: float | None,
    num_threads: int | None,
    verbose: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Check that only weights changed and decode correctly.

    OTHER is the result of compressing SOURCE. Everything is read again: the programs must be the same, each weight must
    be bit for bit that of the source or decode to finite values, and every record of the weight files must be valid. In
    neural networks (.mlmodel) everything but the weights must be the same, and compressed weights must have the nearest
    codes. Otherwise lists the problems and exits with code 1.

    \b
    Examples:
      corepress verify UNet.mlpackage UNet-4bit.mlpackage
      corepress verify UNet.mlpackage UNet-4bit.mlpackage --min-snr-db 15
      corepress verify DeepLab.mlmodel DeepLab-8bit.mlmodel
    """
    from .. import neural_network

    check = neural_network.verify if is_network(source) else format_of(source).verify
    verification = check(source, other, min_snr_db=min_snr_db, num_threads=num_threads)
    if as_json:
        click.echo(verification.to_json())
    elif not quiet:
        click.echo(str(verification) if verbose else verification.totals)
    return 0 if verification.ok else 1


@click.command()
@source_argument
@_other_argument
@click.option("--predict", is_flag=True, help="Also run both models and compare their outputs.")
@inputs_option(
    "Samples to run them on: an .npz file, or a folder of .npz files or images. Implies --predict, which draws "
    "inputs otherwise."
)
@click.option(
    "--draw", metavar="N", type=click.IntRange(min=1), default=4, show_default=True, help="Number of drawn inputs."
)
@click.option(
    "--metric",
    metavar="METRIC",
    shell_complete=offers(metric_names),
    help="Also measure snr, psnr, cosine, max, top1, top5, kl, or FILE.py:function. Implies --predict.",
)
@click.option("--layers", is_flag=True, help="Also compare the result of every operation. Implies --predict.")
@runtime_options
@plot_option
@thread_option
@display_options
def compare(
    source: Path,
    other: Path,
    predict: bool,
    inputs: Path | None,
    plot_file: Path | None,
    verbose: bool,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Compare two models by weights and by outputs.

    Reports the signal-to-noise ratio and the cosine of each weight of OTHER relative to SOURCE; both may be compressed.
    With --inputs or --predict runs both models on this machine, and with --layers shows where their results part.

    \b
    Examples:
      corepress compare UNet.mlpackage UNet-4bit.mlpackage
      corepress compare UNet.mlpackage UNet-4bit.mlpackage --inputs samples/ --metric psnr
      corepress compare UNet-8bit.mlpackage UNet-4bit.mlpackage --predict --layers --plot layers.png
    """
    from .. import neural_network
    from .progress import sample_progress

    require_outputs()
    with sample_progress("compare", quiet) as progress:
        if is_network(source):
            if options.pop("function_name") is not None:
                raise click.UsageError("--function-name is for ML programs; a neural network has one function")
            comparison = neural_network.compare_models(
                source, other, inputs, predictions=predict, progress=progress, **options
            )
        else:
            compare = format_of(source).compare
            comparison = compare(source, other, predictions=predict, inputs=inputs, progress=progress, **options)
    if plot_file is not None:
        from .plots import plot_comparison, plot_layers

        (plot_layers if comparison.layers else plot_comparison)(comparison, plot_file)
    if as_json:
        click.echo(comparison.to_json())
    elif not quiet:
        click.echo(str(comparison) if verbose else _worst(comparison))


def _worst(comparison: Any) -> str:
    measured = [(weight.snr_db, weight.name) for weight in comparison.different if weight.snr_db is not None]
    lines = [comparison.totals]
    if measured:
        lines.append(f"furthest apart, in dB{'' if len(measured) <= WORST_SHOWN else ' (--verbose shows all)'}:")
        lines += [f"  {snr:7.1f}  {name}" for snr, name in sorted(measured)[:WORST_SHOWN]]
    lines += [f"  {weight.name}: {weight.problem}" for weight in comparison.weights if weight.problem]
    if comparison.layers:
        lines += ["", _layers(comparison)]
    return "\n".join(lines)


def _layers(comparison: Any) -> str:
    """The results of operations as a table: of many, only those furthest apart, in the order of computation."""
    if len(comparison.layers) <= LAYERS_SHOWN:
        return str(comparison.layer_table)
    lowest = sorted(comparison.layers, key=lambda layer: layer.snr_db)[: LAYERS_SHOWN // 2]
    kept = {id(layer) for layer in (*lowest, *comparison.layers[: LAYERS_SHOWN // 2])}
    shown = tuple(layer for layer in comparison.layers if id(layer) in kept)
    table = dataclasses.replace(comparison, layers=shown).layer_table
    return f"{table}\nthe first and the furthest apart of {len(comparison.layers)} (--verbose shows all)"
