"""`corepress compress`: applies the steps of the other commands weight by weight, as a config says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from ..config import Config
from .networks import instead_of, is_network, require_package
from .options import (
    calibration_options,
    compress_options,
    display_options,
    flag,
    output_options,
    plot_option,
    report_option,
    source_argument,
    thread_option,
)
from .running import run_compression
from .targets import TARGETS, compress_for_target, compress_network_for_target, take_targets, target_options


@click.command()
@source_argument
@output_options
@click.option(
    "--config",
    "config_text",
    metavar="FILE",
    shell_complete=lambda context, parameter, incomplete: [CompletionItem(incomplete, type="file")],
    help="The config: a YAML or JSON file, or inline JSON. With a target, its rules are for the weights they match.",
)
@click.option(
    "--recipe",
    metavar="KEY",
    help="The recipe to use from a mixed-bit recipe file with several: its key, or its bits per weight.",
)
@target_options
@calibration_options
@compress_options
@thread_option
@report_option
@plot_option
@display_options
def compress(
    source: Path,
    output: Path | None,
    config_text: str | None,
    recipe: str | None,
    **values: Any,
) -> None:
    """Compress weights by a config, or to reach a target.

    A config is one step, a list of steps in order, or rules by operation type and by name; later rules win, and null
    leaves weights unchanged:

    \b
      global: {palettize: {nbits: 4}}
      op_types:
        conv: {palettize: {nbits: 6}}
      weights:
        "*time_emb*": {quantize: {dtype: int8}}
        "re:.*conv_(in|out).*": null
      weight_threshold: 2048

    coremltools configs (with config_type) and mixed-bit recipes (weight name: bits) are accepted too. Rules that match
    no weight are reported.

    With --target-size, --target-bits or --target-snr the steps of every weight are chosen so that the least is lost.
    Sizes are those of the whole package, 1 MB is 10^6 bytes. A target is reached from below, and refused before work
    begins if it cannot be.

    \b
    Examples:
      corepress compress UNet.mlpackage -o UNet-500MB.mlpackage --target-size 500MB --save-config found.yaml
      corepress compress UNet.mlpackage --target-bits 3.5 --candidates ane --dry-run
      corepress compress UNet.mlpackage --config recipe.yaml --dry-run
      corepress compress UNet.mlpackage -o UNet-mixed.mlpackage --config recipe.yaml --target ane
      corepress compress UNet.mlpackage -o UNet-4.5bit.mlpackage \\
          --config sdxl_palettization_recipe.json --recipe recipe_4.50_bit_mixedpalette
    """
    targets = take_targets(values)
    if targets and is_network(source):
        compress_network_for_target(source, output, targets, config_text, **values)
        return
    require_package(source, instead_of("compress", source))
    if config_text is None and not targets:
        raise click.UsageError(f"nothing to do; give --config, or a target: {', '.join(map(flag, TARGETS))}")
    if recipe is not None and config_text is None:
        raise click.UsageError("--recipe is one of those in a file; give --config too")
    config = None if config_text is None else _read(config_text, recipe)
    if targets:
        compress_for_target(source, output, config, targets, **values)
        return
    del values["candidates"], values["save_config"]  # which are None
    run_compression("compress", source, output, "compressed", config, **values)


def _read(text: str, recipe: str | None) -> Config:
    try:
        if text.lstrip()[:1] in ("{", "["):
            return Config.from_json(text)
        return Config.load(text, recipe=recipe)
    except FileNotFoundError as error:
        raise click.UsageError(str(error)) from error
    except ValueError as error:
        raise click.UsageError(str(error).removeprefix("config: ")) from error
