"""`corepress quantize --activations`: options, and the run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import function_option, inputs_option, together
from .running import require_output, run

if TYPE_CHECKING:
    from ..coreml import Report
    from ..specs import Spec

_FIELDS = (
    *("activations", "inputs", "activation_mode", "activation_range", "activation_snr", "operations"),
    "function_name",
)
_NOT_TOGETHER = {"dry_run": "--dry-run", "strict": "--strict"}
_OVERRIDES = ("weight_threshold", "target", "joint_compression", "keep_position_tables")

activation_options = together(
    click.option(
        "--activations",
        type=click.Choice(("int8",)),
        help="Also quantize what the model computes (W8A8); needs --calibration or --inputs. Raises the package to "
        "iOS 17 if it is older.",
    ),
    inputs_option(
        "With --activations: samples to take the ranges from, an .npz file, or a folder of .npz files or images."
    ),
    click.option(
        "--activation-mode",
        type=click.Choice(("linear", "linear_symmetric", "auto")),
        default="linear",
        show_default=True,
        help="Levels over the range of the values, symmetric around zero, or what is best on samples kept for that.",
    ),
    click.option(
        "--activation-range",
        type=click.Choice(("minmax", "mse", "auto")),
        default="minmax",
        show_default=True,
        help="All values within range, the least squared error, or what is best on samples kept for that.",
    ),
    click.option(
        "--operations",
        metavar="TYPES",
        default=None,
        help="Types of operations whose activations are quantized, with commas: conv, linear, avg_pool, max_pool and "
        "add (all of them: default), conv_transpose, matmul, scaled_dot_product_attention (the last two: attention). "
        "auto leaves out those that do the most harm, of the default or of types named with it. [default: default]",
    ),
    click.option(
        "--activation-snr",
        metavar="DB",
        type=float,
        help="For --operations auto: the signal-to-noise ratio of the outputs to reach, on samples kept for that. "
        "[default: 20]",
    ),
    function_option("quantize"),
)


def take_activation_options(context: click.Context, values: dict[str, Any]) -> dict[str, Any] | None:
    """Take these options out of the values; None if activations are not to be quantized."""
    from click.core import ParameterSource

    taken = {name: values.pop(name) for name in _FIELDS if name in values}
    if taken.get("activations") is not None:
        return taken
    for option in context.command.params:
        given = context.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE
        if given and option.name in _FIELDS:
            raise click.UsageError(f"{option.opts[0]} is for --activations int8")
    return None


def quantize_both(source: Path, output: Path | None, weights: Spec, chosen: dict[str, Any], **values: Any) -> None:
    """Quantize activations and weights in one run."""
    for name, option in _NOT_TOGETHER.items():
        if values.pop(name):
            raise click.UsageError(f"{option} cannot be used with --activations")
    calibration = values.pop("calibration")
    way, dampening = values.pop("calibration_use"), values.pop("dampening")
    if (calibration is None) == (chosen["inputs"] is None):
        raise click.UsageError("--activations needs either --calibration FILE or --inputs PATH")
    types = chosen["operations"] or ""
    if chosen["activation_snr"] is not None and "auto" not in (each.strip() for each in types.split(",")):
        raise click.UsageError("--activation-snr is for --operations auto")
    overrides = {name: values.pop(name) for name in _OVERRIDES}
    destination = require_output(source, output, "w8a8")

    def work(progress: Callable[..., None] | None, **rest: Any) -> Report:
        from .. import coreml
        from ..config import as_config

        return coreml.quantize_activations(
            source,
            destination,
            calibration=calibration,
            samples=chosen["inputs"],
            mode=chosen["activation_mode"],
            range=chosen["activation_range"],
            operations=chosen["operations"],
            target_snr=chosen["activation_snr"],
            weights=as_config(weights, **overrides),
            calibration_use=way,
            dampening=dampening,
            function_name=chosen["function_name"],
            progress=progress,
            **rest,
        )

    run("quantize", work, **values)
