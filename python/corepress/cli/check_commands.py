"""The commands that read packages without writing any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .networks import is_network
from .options import display_options, plot_option, source_argument, thread_option
from .running import require_outputs

WORST_SHOWN = 10
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
    """
    from .. import coreml, neural_network

    inspection = neural_network.inspect(source) if is_network(source) else coreml.inspect(source)
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
    from .. import coreml, neural_network

    check = neural_network.verify if is_network(source) else coreml.verify
    verification = check(source, other, min_snr_db=min_snr_db, num_threads=num_threads)
    if as_json:
        click.echo(verification.to_json())
    elif not quiet:
        click.echo(str(verification) if verbose else verification.totals)
    return 0 if verification.ok else 1


@click.command()
@source_argument
@_other_argument
@click.option("--predict", is_flag=True, help="Also run both models and compare their outputs; needs macOS.")
@click.option(
    "--inputs",
    metavar="FILE.npz",
    type=click.Path(dir_okay=False, path_type=Path),
    help="With --predict: arrays by input name, instead of random ones.",
)
@click.option(
    "--samples", metavar="N", type=click.IntRange(min=1), default=4, show_default=True, help="Number of random inputs."
)
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
) -> int:
    """Compare two models, weight by weight.

    Reports the signal-to-noise ratio and the cosine of each weight of OTHER relative to SOURCE; both may be compressed.
    Predictions need macOS; on other systems only the weights are compared, and --predict makes the exit code 1.

    \b
    Examples:
      corepress compare UNet.mlpackage UNet-4bit.mlpackage
      corepress compare UNet-8bit.mlpackage UNet-4bit.mlpackage --plot distance.png
    """
    from .. import coreml, neural_network

    require_outputs()
    given = None if inputs is None else _arrays(inputs)
    if is_network(source):
        if predict and given is None:
            raise click.UsageError("--predict of .mlmodel files needs --inputs")
        samples = None if given is None else [given]
        comparison = neural_network.compare_models(source, other, samples, num_threads=options["num_threads"])
    else:
        comparison = coreml.compare(source, other, predictions=predict, inputs=given, **options)
    if plot_file is not None:
        from .plots import plot_comparison

        plot_comparison(comparison, plot_file)
    if as_json:
        click.echo(comparison.to_json())
    elif not quiet:
        click.echo(str(comparison) if verbose else _worst(comparison))
    return 1 if predict and comparison.note else 0


def _arrays(path: Path) -> dict[str, Any]:
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (ValueError, AttributeError) as error:
        raise click.UsageError(f"{path}: not an .npz file of arrays ({error})") from error


def _worst(comparison: Any) -> str:
    measured = [(weight.snr_db, weight.name) for weight in comparison.different if weight.snr_db is not None]
    lines = [comparison.totals]
    if measured:
        lines.append(f"furthest apart, in dB{'' if len(measured) <= WORST_SHOWN else ' (--verbose shows all)'}:")
        lines += [f"  {snr:7.1f}  {name}" for snr, name in sorted(measured)[:WORST_SHOWN]]
    lines += [f"  {weight.name}: {weight.problem}" for weight in comparison.weights if weight.problem]
    return "\n".join(lines)
