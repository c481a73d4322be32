"""Options that commands share, and options made from the fields of the specs."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from dataclasses import MISSING, Field, fields
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

import click

from ..config import DEFAULT_WEIGHT_THRESHOLD, TARGETS
from ..config.candidates import CANDIDATE_SETS
from ..extras import require
from ..reporting.charts import SUFFIXES
from ..specs import Spec
from .session import Session
from .shell_words import flags_of

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def together(*decorators: Decorator) -> Decorator:
    """One decorator for several options, listed by ``--help`` in the given order."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


def _remember_debug(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    session = context.ensure_object(Session)
    session.command, session.debug, session.flags = context.command_path, value, flags_of(context.command)


def _require_folder(context: click.Context, parameter: click.Parameter, value: Path | None) -> Path | None:
    if value is not None and not value.absolute().parent.is_dir():
        raise click.BadParameter(f"the folder {value.parent} does not exist")
    return value


def _require_picture(context: click.Context, parameter: click.Parameter, value: Path | None) -> Path | None:
    if value is not None and value.suffix.lower() not in SUFFIXES:
        raise click.BadParameter(f"{value.name} must end with {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")
    if value is not None:
        require("--plot", "matplotlib")
    return _require_folder(context, parameter, value)


source_argument = click.argument("source", type=click.Path(path_type=Path))

output_options = together(
    click.option(
        "-o",
        "--output",
        type=click.Path(path_type=Path),
        help="Output path, with the suffix of the input: .mlpackage, .mlmodel or .aimodel.",
    ),
    click.option("--overwrite", is_flag=True, help="Replace OUTPUT if it exists."),
)
thread_option = click.option(
    "--num-threads",
    metavar="N",
    type=click.IntRange(min=1),
    help="Threads to use; default: all CPUs, or COREPRESS_NUM_THREADS. The result does not depend on it.",
)
dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Show what would be done and the resulting size without writing anything."
)
compress_options = together(
    click.option(
        "--weight-threshold",
        metavar="N",
        type=click.IntRange(min=0),
        help=f"Leave weights of this many elements or fewer unchanged. [default: {DEFAULT_WEIGHT_THRESHOLD}]",
    ),
    click.option(
        "--joint-compression",
        is_flag=True,
        default=None,
        help="Compress already compressed weights further instead of leaving them unchanged.",
    ),
    click.option(
        "--keep-position-tables",
        is_flag=True,
        default=None,
        help="Leave rotary tables (cos, sin) and other position tables unchanged.",
    ),
    click.option(
        "--target",
        type=click.Choice(TARGETS),
        help="Warn of encodings known to be refused or slow on a system, the Neural Engine or the GPU.",
    ),
    click.option(
        "--strict",
        is_flag=True,
        help="Fail if a weight can't be compressed as requested instead of leaving it unchanged.",
    ),
    dry_run_option,
)
# What is known of the weights of a package.
calibration_options = together(
    click.option(
        "--calibration",
        metavar="FILE",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="What 'corepress calibrate' wrote for this model: far less error of the outputs for the same size.",
    ),
    click.option(
        "--calibration-use",
        type=click.Choice(("error_feedback", "diagonal", "fisher")),
        default="error_feedback",
        show_default=True,
        help="Make up for errors by the weights still to be stored, or only weigh squared errors by what an element "
        "is multiplied with or by its gradient.",
    ),
    click.option(
        "--dampening",
        metavar="SHARE",
        type=click.FloatRange(min=0),
        default=0.01,
        show_default=True,
        help="For error feedback: how far the samples are trusted less; 0.1 where they are few.",
    ),
)
report_option = click.option(
    "--report",
    "report_file",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_require_folder,
    help="Save the report, one record per weight, as JSON.",
)
plot_option = click.option(
    "--plot",
    "plot_file",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_require_picture,
    help="Plot the result to FILE.png, FILE.svg or FILE.html.",
)
device_option = click.option(
    "--device", metavar="NAME", default="cpu", show_default=True, help="Device of PyTorch, such as cuda or mps."
)


def function_option(use: str) -> Decorator:
    """The option for the function of a model that a command uses in some way, such as "run"."""
    return click.option("--function-name", metavar="NAME", help=f"The function to {use}, for a model with several.")


def inputs_option(text: str, *, required: bool = False) -> Decorator:
    """The option for samples; the help says what they are for."""
    return click.option("--inputs", metavar="PATH", required=required, type=click.Path(path_type=Path), help=text)


def candidates_option(text: str) -> Decorator:
    """The option for what is chosen from, which `parsed_candidates` reads; the help lists it."""
    return click.option("--candidates", metavar="LIST", shell_complete=offers(lambda: CANDIDATE_SETS), help=text)


# How a model is run.
runtime_options = together(
    click.option(
        "--precision",
        type=click.Choice(("float16", "float32")),
        default="float16",
        show_default=True,
        help="Round results to float16 where the program says so, as devices do, or compute in float32.",
    ),
    function_option("run"),
    click.option(
        "--backend",
        type=click.Choice(("auto", "torch", "coreml")),
        default="auto",
        show_default=True,
        help="PyTorch, or on macOS Core ML itself.",
    ),
    click.option(
        "--device",
        metavar="NAME",
        default="cpu",
        show_default=True,
        help="Device of PyTorch, such as cuda or mps; for Core ML cpu, gpu, ane or all.",
    ),
)
# What every command has.
display_options = together(
    click.option("-v", "--verbose", is_flag=True, help="Print one line per weight."),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text."),
    click.option("-q", "--quiet", is_flag=True, help="Print only errors (and the JSON, if requested)."),
    click.option(
        "--debug",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_remember_debug,
        help="Show the traceback of an error.",
    ),
)


def offers(values: Callable[[], Iterable[str]]) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Completions for an option whose values are checked elsewhere."""
    return lambda context, parameter, incomplete: [value for value in values() if value.startswith(incomplete)]


def metric_names() -> list[str]:
    """The metrics that have a name; what runs models is imported when they are asked for."""
    from ..runtime.metrics import BUILT_IN

    return list(BUILT_IN)


def flag(name: str) -> str:
    """The flag of a parameter: its name with dashes."""
    return "--" + name.replace("_", "-")


_CHANNEL_AXIS = "Axis of the channels; default: the output channels of the operation that uses the weight."
SHELL_HELP = {
    "palettize": {
        "nbits": "Bits per index: the palette has 2**NBITS entries. Required for all modes except unique.",
        "mode": "How the palette is found. kmeans gives the smallest possible squared error, uniform evenly spaced "
        "values from the smallest to the largest weight, unique the distinct values, at most 256. custom needs a "
        "function, so it works only from Python.",
        "channel_axis": _CHANNEL_AXIS,
    },
    "quantize": {
        "mode": "Symmetric around zero, or over the range of the values. For .mlmodel: linear (the default there), "
        "linear_symmetric, linear_lut, or kmeans_lut, the optimal lookup table.",
        "block_size": "For per_block: number of input channels that share a scale, within each output channel.",
        "channel_axis": _CHANNEL_AXIS,
    },
    "prune": {
        "target_sparsity": "Fraction of the weights to set to zero, smallest first: 0.5 for half of them.",
        "threshold": "Set weights of this magnitude and below to zero.",
        "n_m_ratio": "2:4 sets the 2 smallest of every 4 weights along --dim to zero.",
        "block_size": "With --target-sparsity: zero blocks of this many weights along --dim, smallest norm first.",
        "dim": "Axis of --n-m-ratio (default: 1, input channels) or --block-size (default: 0, output channels).",
    },
}


MORE_VALUES = {("quantize", "mode"): ("linear_lut", "kmeans_lut")}  # for .mlmodel files


class _Ratio(click.ParamType):  # type: ignore[type-arg, unused-ignore]  # generic from click 8.3 on
    """Two whole numbers with a colon between them."""

    name = "n:m"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        match = re.fullmatch(r"(\d+):(\d+)", value)
        return (int(match[1]), int(match[2])) if match else self.fail(f"{value!r} is not like 2:4", param, ctx)


def flag_fields(spec: type[Spec]) -> list[Field[Any]]:
    """The fields of a spec that have a flag: all except those that opt out, such as functions."""
    return [each for each in fields(spec) if each.metadata.get("flag", True)]


def spec_options(spec: type[Spec]) -> Decorator:
    """One option for each field of a spec, with the field's type and default.

    The help is that of `SHELL_HELP` where the docstring of the spec, written for Python, would be confusing.
    """
    hints = get_type_hints(spec)
    documented = _documented_parameters(spec)
    of_two_words = [name for name in hints if "_" in name]
    options = []
    for each in flag_fields(spec):
        type_text, text = documented[each.name]
        text = SHELL_HELP[spec.verb].get(each.name, _with_flags(text, of_two_words))
        more = MORE_VALUES.get((spec.verb, each.name), ())
        options.append(_field_option(each, hints[each.name], type_text, text, more))
    return together(*options)


def build_spec(spec: type[Spec], values: dict[str, Any]) -> Spec:
    """Take a spec's fields out of `values`; a value that the spec refuses is a usage error."""
    names = [each.name for each in flag_fields(spec)]
    try:
        return spec(**{name: values.pop(name) for name in names})
    except ValueError as error:
        rule = str(error).removeprefix(f"{spec.verb}: ")
        raise click.UsageError(_with_flags(rule, names)) from error


def _with_flags(text: str, names: list[str]) -> str:
    return re.sub(rf"\b({'|'.join(names)})\b", lambda match: flag(match[0]), text)


def _field_option(option: Field[Any], hint: Any, type_text: str, text: str, more: Iterable[str]) -> Decorator:
    kinds = [part for part in get_args(hint) or (hint,) if part is not NoneType]
    # A parameter that also takes a tuple is a single value in the shell.
    kind = next((part for part in kinds if get_origin(part) is not tuple), kinds[0])
    attributes: dict[str, Any] = {"help": text}
    if kind is bool:
        attributes["is_flag"] = True
    else:
        attributes["type"] = _Ratio() if get_origin(kind) is tuple else kind
    if option.default is MISSING:
        attributes["required"] = True
    else:
        attributes["default"] = option.default
        attributes["show_default"] = option.default is not None and kind is not bool
    if choices := re.search(r"\{(.*)\}", type_text):
        values = re.sub(r'[\s"]', "", choices[1]).split(",")
        attributes["metavar"] = f"[{'|'.join(values)}]"
        attributes["shell_complete"] = offers(lambda: [*values, *more])
    return click.option(flag(option.name), option.name, **attributes)


def _documented_parameters(spec: type[Spec]) -> dict[str, tuple[str, str]]:
    """Type and description of each field, out of the Parameters section of the docstring."""
    found = {each.name: ("", "") for each in fields(spec)}
    name = ""
    for line in (inspect.getdoc(spec) or "").splitlines():
        if (heading := re.fullmatch(r"(\w+) : (.+)", line)) and heading[1] in found:
            name = heading[1]
            found[name] = (heading[2], "")
        elif name and line.startswith("    "):
            type_text, text = found[name]
            found[name] = (type_text, f"{text} {line.strip()}".strip().replace("`", "").replace('"', ""))
    return found
