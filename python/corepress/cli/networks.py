"""Neural networks in the shell: how they are recognized, their options, and `corepress fp16`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from .options import (
    display_options,
    dry_run_option,
    offers,
    output_options,
    plot_option,
    report_option,
    source_argument,
    thread_option,
    together,
)
from .running import require_output, run, tell_plan

if TYPE_CHECKING:
    from ..coreml import Plan, Progress, Report

SUFFIX = ".mlmodel"
DEFAULT_MODE = "linear"

_strict_option = click.option(
    "--strict", is_flag=True, help="Fail if a weight can't be stored as requested instead of leaving it unchanged."
)


def _known_layer_types() -> list[str]:
    from ..neural_network.layers import QUANTIZABLE_LAYER_TYPES

    return sorted(QUANTIZABLE_LAYER_TYPES)


_layer_types = offers(_known_layer_types)
selector_options = together(
    click.option(
        "--layer-type",
        "layer_types",
        metavar="TYPE",
        multiple=True,
        shell_complete=_layer_types,
        help="For .mlmodel: only layers of this type (convolution, innerProduct, ...). Can be repeated.",
    ),
    click.option(
        "--skip-layer-type",
        "skip_layer_types",
        metavar="TYPE",
        multiple=True,
        shell_complete=_layer_types,
        help="For .mlmodel: leave layers of this type unchanged. Can be repeated.",
    ),
    click.option(
        "--name",
        "names",
        metavar="PATTERN",
        multiple=True,
        help="For .mlmodel: only layers, or weights (conv1.bias), whose name matches this glob. Can be repeated.",
    ),
    click.option(
        "--skip-name",
        "skip_names",
        metavar="PATTERN",
        multiple=True,
        help="For .mlmodel: leave layers or weights whose name matches this glob unchanged. Can be repeated.",
    ),
)
network_options = together(
    click.option(
        "--nbits",
        metavar="N",
        type=int,
        help="For .mlmodel (required): bits per weight, 1 to 8, or 16 for half precision.",
    ),
    selector_options,
)
_SELECTOR_FIELDS = ("layer_types", "skip_layer_types", "names", "skip_names")
_QUANTIZE_ONLY_NETWORKS = ("nbits", *_SELECTOR_FIELDS)
# Options of `corepress quantize` for both kinds; all others are for packages only.
_QUANTIZE_SHARED = (
    *("source", "output", "overwrite", "mode", "weight_threshold", "strict", "num_threads", "report_file", "verbose"),
    *("plot_file", "as_json", "quiet", "dry_run"),
)


def is_network(source: Path) -> bool:
    """Whether a source is a neural network, in a file or a package; FormatError if it is neither one nor a package."""
    from ..coreml.format.kinds import refuse_foreign
    from .kinds import is_asset

    if is_asset(source):
        return False
    refuse_foreign(source)
    if source.is_dir():
        from ..neural_network.model_io import holds_network

        return holds_network(source)
    return source.is_file() or source.suffix == SUFFIX


def require_package(source: Path, instead: str) -> None:
    """Refuse neural networks; `instead` is the advice for one."""
    if is_network(source):
        raise click.UsageError(f"{source} holds a neural network, not an ML program; {instead}")


def instead_of(verb: str, source: Path, nbits: int | None = None) -> str:
    """The command to use for a network instead of one for packages."""
    if verb == "palettize":
        return f"use 'corepress quantize {source} --nbits {nbits or 4} --mode kmeans_lut'"
    if verb == "prune":
        return f"networks have no sparse form; use 'corepress quantize {source} --nbits 8'"
    return f"use 'corepress quantize {source} --nbits 8'"


def _require_program(source: Path) -> None:
    """Raise the error for a package that no command can read, before giving advice about one that can be read."""
    from ..coreml.format.package import Package
    from ..coreml.program.program import Program

    Program(Package.open(source))


def without_network_options(context: click.Context, source: Path, values: dict[str, Any]) -> dict[str, Any]:
    """The values without options that do not apply to packages, which must not have been given."""
    given = _given(context, lambda name: name in _QUANTIZE_ONLY_NETWORKS)
    if given:
        _require_program(source)
        rule = "a package takes --dtype, or 'corepress palettize --nbits'"
        raise click.UsageError(f"{given} is for {SUFFIX} files; {rule}")
    return {name: value for name, value in values.items() if name not in _QUANTIZE_ONLY_NETWORKS}


def _given(context: click.Context, which: Callable[[str], bool]) -> str | None:
    """The flag of an option that was given and is one of these."""
    for option in context.command.params:
        name = option.name or ""
        if which(name) and context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            return option.opts[0]
    return None


def quantize_network(context: click.Context, source: Path, output: Path | None, **values: Any) -> None:
    """`corepress quantize` of a neural network."""
    given = _given(context, lambda name: name not in (*_QUANTIZE_ONLY_NETWORKS, *_QUANTIZE_SHARED))
    if given:
        raise click.UsageError(f"{given} is for packages; {source.name} takes --nbits and --mode")
    values = {name: value for name, value in values.items() if name in (*_QUANTIZE_ONLY_NETWORKS, *_QUANTIZE_SHARED)}
    nbits, mode = values.pop("nbits"), values.pop("mode")
    if _given(context, lambda name: name == "mode") is None:
        mode = DEFAULT_MODE
    if nbits is None:
        raise click.UsageError(f"{source.name} needs --nbits, 1 to 8, or 16 for half precision")
    _check(nbits, mode)
    strict, overwrite, dry_run = (values.pop(name) for name in ("strict", "overwrite", "dry_run"))
    selector = _selector(values)
    if dry_run:
        _tell_plan(source, nbits, mode, selector=selector, strict=strict, **values)
        return
    destination = require_output(source, output, f"{nbits}bit")

    def quantize(progress: Callable[[Progress], None] | None, **rest: Any) -> Report:
        from .. import neural_network

        return neural_network.quantize_weights(
            source,
            nbits,
            mode,
            selector=selector,
            destination=destination,
            overwrite=overwrite,
            strict=strict,
            progress=progress,
            **rest,
        )

    run("quantize", quantize, **values)


def _tell_plan(
    source: Path, nbits: int, mode: str, *, selector: Any, strict: bool, num_threads: int | None, **options: Any
) -> None:
    def plan() -> Plan:
        from .. import neural_network

        return neural_network.plan(source, nbits, mode, selector=selector, strict=strict, num_threads=num_threads)

    tell_plan(plan, **options)


def _check(nbits: int, mode: str) -> None:
    from ..neural_network.modes import DEQUANTIZATION, QUANTIZATION_MODES, Quantization, require_mode

    try:
        if mode == "custom_lut":
            raise ValueError("quantization_mode 'custom_lut' needs a function, and so works from Python only")
        if mode == DEQUANTIZATION:
            raise ValueError(f"quantization_mode {mode!r} is 'corepress decompress'")
        require_mode(mode, [each for each in QUANTIZATION_MODES if each not in ("custom_lut", DEQUANTIZATION)])
        Quantization(nbits, mode)
    except ValueError as error:
        text = str(error).removeprefix("quantize_weights: ")
        raise click.UsageError(text.replace("quantization_mode", "--mode").replace("nbits", "--nbits")) from error


def _selector(values: dict[str, Any]) -> Any:
    """Build the selector and remove its options from `values`."""
    from ..neural_network import WeightSelector

    fields = {name: values.pop(name) for name in _SELECTOR_FIELDS}
    try:
        return WeightSelector(
            layer_types=fields["layer_types"] or None,
            skip_layer_types=fields["skip_layer_types"],
            names=fields["names"] or None,
            skip_names=fields["skip_names"],
            weight_threshold=values.pop("weight_threshold", None) or 0,
        )
    except ValueError as error:
        raise click.UsageError(str(error).removeprefix("WeightSelector: ")) from error


@click.command()
@source_argument
@output_options
@selector_options
@_strict_option
@dry_run_option
@plot_option
@thread_option
@report_option
@display_options
def fp16(source: Path, output: Path | None, overwrite: bool, strict: bool, dry_run: bool, **values: Any) -> None:
    """Store a neural network (.mlmodel) in half precision.

    Halves the size, usually with no visible difference. A layer with a value beyond 65504 is left unchanged and listed
    in the report.

    \b
    Example:
      corepress fp16 DeepLab.mlmodel -o DeepLab-fp16.mlmodel
    """
    if not is_network(source):
        _require_program(source)
        rule = "ML programs get their precision when they are converted; 'corepress quantize' makes them smaller"
        raise click.UsageError(f"{source} holds no neural network, and fp16 is only for these; {rule}")
    selector = _selector(values)
    if dry_run:
        _tell_plan(source, 16, DEFAULT_MODE, selector=selector, strict=strict, **values)
        return
    destination = require_output(source, output, "fp16")

    def convert(progress: Callable[[Progress], None] | None, **rest: Any) -> Report:
        from .. import neural_network

        report: Report = neural_network.convert_to_fp16(
            source,
            destination=destination,
            selector=selector,
            overwrite=overwrite,
            strict=strict,
            progress=progress,
            **rest,
        )
        return report

    run("fp16", convert, **values)
