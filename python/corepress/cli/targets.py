"""`corepress compress` with a target: its options, and a run that chooses first and compresses then."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from ..config.candidates import CANDIDATE_SETS, parse_candidates
from ..config.files import FILE_SUFFIXES, parse_json, read_config_file
from .kinds import compressor_of, format_of
from .options import candidates_option, flag, together
from .running import require_output, run, tell_plan

if TYPE_CHECKING:
    from ..config import Config
    from ..coreml import Plan, Progress, Report

TARGETS = ("target_size", "target_bits", "target_snr")
_FLAGS = ", ".join(map(flag, TARGETS))
_BITS = re.compile(r"[\d\s,]+")
# What choosing takes of the options of a run.
_SHARED = ("weight_threshold", "target", "joint_compression", "keep_position_tables", "strict", "num_threads")


def _require_config_file(context: click.Context, parameter: click.Parameter, value: Path | None) -> Path | None:
    if value is not None and value.suffix.lower() not in FILE_SUFFIXES:
        raise click.BadParameter(f"{value.name} must end with {', '.join(FILE_SUFFIXES[:-1])} or {FILE_SUFFIXES[-1]}")
    if value is not None and not value.absolute().parent.is_dir():
        raise click.BadParameter(f"the folder {value.parent} does not exist")
    return value


target_options = together(
    click.option(
        "--target-size",
        metavar="SIZE",
        help="Choose the steps of each weight so that the package has at most this size: 500MB, 1.4GB, 300MiB.",
    ),
    click.option(
        "--target-bits",
        metavar="BITS",
        type=float,
        help="The same for stored bits per weight, tables and scales included.",
    ),
    click.option(
        "--target-snr",
        metavar="DB",
        type=float,
        help="As few bytes as possible for this signal-to-noise ratio: of every weight, or with calibration of the "
        "outputs.",
    ),
    candidates_option(
        f"What to choose from: {', '.join(CANDIDATE_SETS)}; bits of palettes, 2,4,6 (16: unchanged); or a list of "
        "steps as inline JSON or in a file.",
    ),
    click.option(
        "--save-config",
        metavar="FILE",
        type=click.Path(dir_okay=False, path_type=Path),
        callback=_require_config_file,
        shell_complete=lambda context, parameter, incomplete: [CompletionItem(incomplete, type="file")],
        help="Save what was chosen as a config: FILE.yaml or FILE.json.",
    ),
)


def take_targets(values: dict[str, Any]) -> dict[str, Any]:
    """Take the targets out of a command's options; those that were given."""
    targets = {name: values.pop(name) for name in TARGETS}
    given = {name: value for name, value in targets.items() if value is not None}
    if len(given) > 1:
        raise click.UsageError(f"{' and '.join(map(flag, given))} are different targets; give one")
    for name in () if given else ("candidates", "save_config"):
        if values.get(name) is not None:
            raise click.UsageError(f"{flag(name)} is for a target; give {_FLAGS}")
    return given


def compress_for_target(
    source: Path,
    output: Path | None,
    config: Config | None,
    targets: dict[str, Any],
    *,
    candidates: str | None,
    save_config: Path | None,
    dry_run: bool,
    **options: Any,
) -> None:
    """Choose the steps for each weight, and compress the package or show what that would do."""
    given = parsed_candidates(candidates)
    destination = None if dry_run else require_output(source, output, "compressed")

    def choose(progress: Callable[[Progress], None] | None, rest: dict[str, Any]) -> Any:
        shared = {name: rest[name] for name in _SHARED}
        shared |= {"config": config, "candidates": given, "calibration": rest["calibration"]}
        found = format_of(source).allocate(source, **targets, progress=progress, **shared)
        if save_config is not None:
            found.save(save_config)
        return found

    def compress(progress: Callable[[Progress], None] | None, **rest: Any) -> Report:
        from ..engine.facade import statistics_of
        from ..engine.request import Choice, Request

        assert destination is not None
        compressor = compressor_of(source)
        overwrite = rest.pop("overwrite")
        compressor.require_destination(source, destination, overwrite=overwrite)
        rest["calibration"] = statistics_of("compress", format_of(source), rest["calibration"])
        found = choose(progress, rest)
        chosen = Choice(found.config, found.predicted, found.notes, found.made)
        request = Request("compress", progress=progress, **rest)
        report: Report = compressor.compress_as_chosen(source, destination, request, chosen, overwrite=overwrite)
        return report

    if not dry_run:
        run("compress", compress, **options)
        return

    def plan(overwrite: bool, **rest: Any) -> Plan:
        from .progress import progress_bar

        with progress_bar("compress", options["quiet"]) as progress:
            found = choose(progress, rest)
        planned: Plan = format_of(source).plan(source, found, expect_snr=True, **rest)
        return planned

    tell_plan(plan, **options)


# What a neural network takes of the options of `corepress compress`.
_OF_NETWORKS = ("num_threads", "report_file", "plot_file", "verbose", "as_json", "quiet")


def compress_network_for_target(
    source: Path,
    output: Path | None,
    targets: dict[str, Any],
    config: str | None,
    *,
    candidates: str | None,
    dry_run: bool,
    overwrite: bool,
    **options: Any,
) -> None:
    """The same for a neural network."""
    refused = {"config": config, **{name: value for name, value in options.items() if name not in _OF_NETWORKS}}
    given = [name for name in refused if _is_given(name)]
    if given:
        raise click.UsageError(f"{flag(given[0])} is for packages; a neural network takes targets and --candidates")
    options = {name: value for name, value in options.items() if name in _OF_NETWORKS}
    if candidates is not None and not _BITS.fullmatch(candidates):
        raise click.UsageError("--candidates: for a neural network give bits, such as 2,4,8,16")
    chosen = targets if candidates is None else {**targets, "bits": _bits_of(candidates)}

    def compress(progress: Callable[[Progress], None] | None, **rest: Any) -> Report:
        from .. import neural_network

        destination = require_output(source, output, "compressed")
        return neural_network.compress(source, destination, overwrite=overwrite, progress=progress, **chosen, **rest)

    def plan(**rest: Any) -> Plan:
        from ..allocation.networks import plan_network

        return plan_network(source, **chosen, **rest)

    if dry_run:
        tell_plan(plan, **options)
    else:
        run("compress", compress, **options)


def _is_given(name: str) -> bool:
    """Whether an option was written on the command line."""
    context = click.get_current_context()
    parameter = "config_text" if name == "config" else name
    return context.get_parameter_source(parameter) is ParameterSource.COMMANDLINE


def _bits_of(text: str) -> list[int]:
    return [int(each) for each in text.replace(",", " ").split()]


def parsed_candidates(text: str | None) -> Any:
    """What a user wrote for ``--candidates``."""
    if text is None:
        return None
    try:
        given: Any = text
        if text.lstrip()[:1] in ("[", "{"):
            given = parse_json(text)
        elif text.lower().endswith(FILE_SUFFIXES):
            given = read_config_file(Path(text))
        elif _BITS.fullmatch(text):
            given = _bits_of(text)
        parse_candidates(given)
    except FileNotFoundError as error:
        raise click.UsageError(str(error)) from error
    except (ValueError, TypeError) as error:
        raise click.UsageError(f"--{str(error).replace('candidates must', 'candidates: must')}") from error
    return given
