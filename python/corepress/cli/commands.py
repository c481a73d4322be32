"""The commands that write packages, and `COMMANDS`, the list of all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..specs import Palettize, Prune, Quantize, Spec
from .activations import activation_options, quantize_both, take_activation_options
from .bench_command import bench
from .calibrate_command import calibrate
from .check_commands import compare, inspect, verify
from .config_command import compress
from .kinds import format_of, refuse_asset
from .networks import (
    fp16,
    instead_of,
    is_network,
    network_options,
    quantize_network,
    require_package,
    without_network_options,
)
from .options import (
    Decorator,
    build_spec,
    calibration_options,
    compress_options,
    display_options,
    output_options,
    plot_option,
    report_option,
    source_argument,
    spec_options,
    thread_option,
    together,
)
from .predict_command import predict
from .running import require_output, run, run_compression
from .tradeoff_command import tradeoff

if TYPE_CHECKING:
    from ..coreml import Progress, Report

_NO_OPTIONS = together()
run_options = together(thread_option, report_option, display_options)


def _spec_command(
    spec: type[Spec],
    suffix: Callable[[Any], str],
    text: str,
    *,
    for_networks: Callable[..., None] | None = None,
    more_options: Decorator = _NO_OPTIONS,
) -> click.Command:
    """The command that applies one spec to every weight of a package; `for_networks` handles neural networks."""

    @click.command(spec.verb, help=text)
    @source_argument
    @output_options
    @spec_options(spec)
    @more_options
    @calibration_options
    @compress_options
    @plot_option
    @run_options
    @click.pass_context
    def command(context: click.Context, /, source: Path, output: Path | None, **values: Any) -> None:
        if for_networks is not None and is_network(source):
            for_networks(context, source, output, **values)
            return
        require_package(source, instead_of(spec.verb, source, values.get("nbits")))
        if for_networks is not None:
            values = without_network_options(context, source, values)
        chosen = take_activation_options(context, values)
        config = build_spec(spec, values)
        if chosen is not None:
            refuse_asset(source, "--activations")
            quantize_both(source, output, config, chosen, **values)
            return
        run_compression(spec.verb, source, output, suffix(config), config, **values)

    return command


palettize = _spec_command(
    Palettize,
    lambda spec: f"{spec.nbits}bit" if spec.nbits else spec.mode,
    """Store each weight as an index into a small palette of values.

    The palette (lookup table, LUT) is optimal: exact k-means, the smallest possible squared error. 8 and 6 bits are
    usually hard to tell from the original; 4 bits are a quarter of float16's size. More palettes (--granularity
    per_grouped_channel) regain quality for a little space. With --cluster-dim one index encodes several weights: 2
    bits per weight in the last example. More palettes, 3 bits, scales and --cluster-dim need iOS 18 packages.

    \b
    Examples:
      corepress palettize UNet.mlpackage -o UNet-6bit.mlpackage --nbits 6
      corepress palettize UNet.mlpackage -o UNet-4bit.mlpackage --nbits 4 \\
          --granularity per_grouped_channel --group-size 16
      corepress palettize UNet.mlpackage -o UNet-2bit.mlpackage --nbits 4 --cluster-dim 2
    """,
)

quantize = _spec_command(
    Quantize,
    lambda spec: str(spec.dtype),
    """Store each weight as a small integer with a scale.

    int8 with a scale per channel is half of float16's size and loses little: the safe first choice. int4 with a scale
    per block is little more than a quarter and needs an iOS 18 package; --scale-search mse reduces its error. For
    neural networks (.mlmodel) use --nbits instead of --dtype. With --activations int8, what the model computes is
    quantized too (W8A8), with ranges from --calibration or --inputs.

    \b
    Examples:
      corepress quantize UNet.mlpackage -o UNet-int8.mlpackage --dtype int8
      corepress quantize UNet.mlpackage -o UNet-int4.mlpackage --dtype int4 \\
          --granularity per_block --block-size 32 --scale-search mse
      corepress quantize Detector.mlpackage -o Detector-w8a8.mlpackage --activations int8 --inputs samples/
      corepress quantize DeepLab.mlmodel -o DeepLab-8bit.mlmodel --nbits 8
      corepress quantize DeepLab.mlmodel -o DeepLab-4bit.mlmodel --nbits 4 --mode kmeans_lut
    """,
    for_networks=quantize_network,
    more_options=together(network_options, activation_options),
)

prune = _spec_command(
    Prune,
    lambda spec: "sparse",
    """Set the smallest weights to zero and store only the others.

    Give exactly one of --target-sparsity, --threshold and --n-m-ratio.

    \b
    Examples:
      corepress prune UNet.mlpackage -o UNet-sparse.mlpackage --target-sparsity 0.5
      corepress prune UNet.mlpackage -o UNet-sparse.mlpackage --n-m-ratio 2:4
    """,
)


@click.command()
@source_argument
@output_options
@run_options
def decompress(source: Path, output: Path | None, **values: Any) -> None:
    """Decompress the weights of a model.

    The weights get the values that the compressed model encodes; precision lost in compression does not come back.

    \b
    Examples:
      corepress decompress UNet-4bit.mlpackage -o UNet-dense.mlpackage
      corepress decompress DeepLab-8bit.mlmodel -o DeepLab.mlmodel
    """
    destination = require_output(source, output, "dense")

    def expand(progress: Callable[[Progress], None] | None, **options: Any) -> Report:
        from .. import neural_network

        room = neural_network if is_network(source) else format_of(source)
        report: Report = room.decompress(source, destination, progress=progress, **options)
        return report

    run("decompress", expand, **values)


@click.command()
@click.option(
    "-o",
    "--output",
    metavar="FOLDER",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("corepress-demo"),
    show_default=True,
    help="Folder to write to.",
)
@click.option("--overwrite", is_flag=True, help="Write into FOLDER even if another program made it.")
@display_options
def demo(output: Path, overwrite: bool, verbose: bool, as_json: bool, quiet: bool) -> None:
    """Compress two small models in many ways, and show the cost.

    A diffusion UNet with drawn weights shows sizes, times and errors of the weights. A trained network that reads
    handwritten digits is also run, before and after, with PyTorch: it shows how many it still reads, and what samples
    are worth. Takes less than a minute and needs no network. Writes the packages, two plots and results.json to FOLDER.

    \b
    Example:
      corepress demo
    """
    from ..demo.run import run_demo

    run_demo(output, overwrite=overwrite, verbose=verbose, as_json=as_json, quiet=quiet)


COMMANDS = (
    demo,
    palettize,
    quantize,
    prune,
    fp16,
    compress,
    calibrate,
    decompress,
    inspect,
    verify,
    compare,
    predict,
    tradeoff,
    bench,
)
