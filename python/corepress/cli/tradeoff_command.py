"""The command that measures recipes for a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..allocation.tradeoff_recipes import DEFAULT_BITS, PRESETS
from ..allocation.tradeoff_table import SUFFIXES
from ..config import TARGETS
from ..config.candidates import CANDIDATE_SETS
from .networks import is_network
from .options import (
    candidates_option,
    display_options,
    inputs_option,
    metric_names,
    offers,
    runtime_options,
    source_argument,
    thread_option,
)
from .running import require_outputs
from .targets import parsed_candidates

if TYPE_CHECKING:
    from ..allocation.tradeoff import TradeoffProgress


class _Bits(click.ParamType):  # type: ignore[type-arg, unused-ignore]  # generic from click 8.3 on
    """Numbers with commas between them."""

    name = "bits"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return tuple(float(each) for each in value.split(","))
        except ValueError:
            return self.fail(f"{value!r} is not like 2.5,3,4", param, ctx)


def _require_table(context: click.Context, parameter: click.Parameter, value: Path | None) -> Path | None:
    if value is None:
        return None
    if value.suffix.lower() not in SUFFIXES:
        raise click.BadParameter(f"{value.name} must end with {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")
    if value.suffix.lower() not in (".md", ".json"):
        from ..extras import require

        require("tradeoff", "matplotlib")
    if not value.absolute().parent.is_dir():
        raise click.BadParameter(f"the folder {value.parent} does not exist")
    return value


@click.command()
@source_argument
@inputs_option(
    "Samples to run the models on: an .npz file, or a folder of .npz files or images. Every fourth is for the "
    "test; calibration sees the others.",
    required=True,
)
@click.option(
    "-o",
    "--output",
    "output_file",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_require_table,
    help="Also write the table to FILE.md, FILE.json, FILE.html, FILE.png or FILE.svg. An interrupted run continues "
    "when it is started again.",
)
@click.option(
    "--bits",
    type=_Bits(),
    default=",".join(f"{each:g}" for each in DEFAULT_BITS),
    show_default=True,
    metavar="LIST",
    help="Bits per weight, tables and scales included.",
)
@click.option("--preset", type=click.Choice(list(PRESETS)), help="Another table in place of --bits.")
@click.option(
    "--metric",
    metavar="METRIC",
    shell_complete=offers(metric_names),
    help="Also measure snr, psnr, cosine, max, top1, top5, kl, or FILE.py:function.",
)
@click.option(
    "--calibration",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="What `corepress calibrate` wrote; then all samples are for the test.",
)
@candidates_option(
    f"What allocations choose from: {', '.join(CANDIDATE_SETS)}, or a list; as for `corepress compress`.",
)
@click.option("--target", type=click.Choice(TARGETS), help="The system, the Neural Engine or the GPU it is for.")
@click.option(
    "--weight-threshold",
    metavar="N",
    type=click.IntRange(min=0),
    help="Leave weights of this many elements or fewer unchanged.",
)
@runtime_options
@thread_option
@display_options
def tradeoff(
    source: Path,
    inputs: Path,
    output_file: Path | None,
    candidates: str | None,
    verbose: bool,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Measure what recipes cost and what the outputs keep.

    One row for each recipe: bytes on disk and as downloaded, bits per weight, signal-to-noise ratio of the outputs and
    your metric, on samples that calibration did not see. Uniform palettes are compared with steps that are chosen for
    each weight, both without samples and with calibration.

    \b
    Examples:
      corepress tradeoff UNet.mlpackage --inputs samples/
      corepress tradeoff Classifier.mlpackage --inputs samples.npz --metric score.py:accuracy -o table.html
      corepress tradeoff Classifier.mlpackage --inputs samples.npz --preset demonstration -o table.md
    """
    from ..allocation.tradeoff import tradeoff as measure

    if is_network(source):
        raise click.UsageError("tradeoff is for ML programs (.mlpackage) and assets (.aimodel)")
    require_outputs()
    given = parsed_candidates(candidates)
    folder = None if output_file is None else output_file.with_name(f"{output_file.name}.unfinished")
    with _progress(quiet) as progress:
        table = measure(source, inputs, candidates=given, folder=folder, progress=progress, **options)
    if output_file is not None:
        table.save(output_file)
        from .. import system

        assert folder is not None
        system.current.remove_tree(folder)
    if as_json:
        click.echo(table.to_json())
    elif not quiet:
        click.echo(str(table))


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[TradeoffProgress], None] | None]:
    """The callback that shows a bar at a terminal."""
    from ..coreml import Progress
    from .progress import progress_bar

    with progress_bar("tradeoff", quiet, rates=False) as show:
        if show is None:
            yield None
            return

        def tell(progress: TradeoffProgress) -> None:
            show(Progress(progress.stage, progress.done, progress.total, 0, 0))

        yield tell
