"""`corepress compress`: applies the steps of the other commands weight by weight, as a config says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from ..config import Config
from .networks import instead_of, require_package
from .options import (
    compress_options,
    display_options,
    output_options,
    plot_option,
    report_option,
    source_argument,
    thread_option,
)
from .running import run_compression


@click.command()
@source_argument
@output_options
@click.option(
    "--config",
    "config_text",
    metavar="FILE",
    required=True,
    shell_complete=lambda context, parameter, incomplete: [CompletionItem(incomplete, type="file")],
    help="The config: a YAML or JSON file, or inline JSON.",
)
@click.option(
    "--recipe",
    metavar="KEY",
    help="The recipe to use from a mixed-bit recipe file with several: its key, or its bits per weight.",
)
@compress_options
@thread_option
@report_option
@plot_option
@display_options
def compress(source: Path, output: Path | None, config_text: str, recipe: str | None, **values: Any) -> None:
    """Compress each weight as specified by a config.

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

    \b
    Examples:
      corepress compress UNet.mlpackage --config recipe.yaml --dry-run
      corepress compress UNet.mlpackage -o UNet-mixed.mlpackage --config recipe.yaml --target ane
      corepress compress UNet.mlpackage -o UNet-4.5bit.mlpackage \\
          --config sdxl_palettization_recipe.json --recipe recipe_4.50_bit_mixedpalette
    """
    require_package(source, instead_of("compress", source))
    run_compression("compress", source, output, "compressed", _read(config_text, recipe), **values)


def _read(text: str, recipe: str | None) -> Config:
    try:
        if text.lstrip()[:1] in ("{", "["):
            return Config.from_json(text)
        return Config.load(text, recipe=recipe)
    except FileNotFoundError as error:
        raise click.UsageError(str(error)) from error
    except ValueError as error:
        raise click.UsageError(str(error).removeprefix("config: ")) from error
