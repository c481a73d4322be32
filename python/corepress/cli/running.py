"""Shared run loop of commands that write packages."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..outputs import output_obstacle, write_output
from .kinds import format_of
from .shell_words import flags_of

if TYPE_CHECKING:
    from ..config import ConfigLike
    from ..coreml import Plan, Report


def require_output(source: Path, output: Path | None, suffix: str) -> Path:
    """The output path, which is required."""
    if output is None:
        kind = source.suffix if source.suffix in (".mlmodel", ".aimodel") else ".mlpackage"
        raise click.UsageError(f"give an output path, for example -o {source.stem}-{suffix}{kind}")
    return output


@contextmanager
def _quiet_log(quiet: bool) -> Iterator[None]:
    log = logging.getLogger("corepress")
    level = log.level
    if quiet:
        log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def require_outputs() -> None:
    """Refuse, before work starts, output files that the running command must not write."""
    given = click.get_current_context().params
    result = None if given.get("dry_run") else given.get("output")
    sources = [given[name] for name in ("source", "other", "inputs") if given.get(name) is not None]
    named: dict[Path, str] = {}
    for option, name in (
        ("--report", "report_file"),
        ("--plot", "plot_file"),
        ("--output", "output_file"),
        ("--save-config", "save_config"),
    ):
        path = given.get(name)
        if path is None:
            continue
        obstacle = output_obstacle(path, sources, result)
        other = named.setdefault(Path(os.path.realpath(path)), option)
        if other != option:
            obstacle = f"is also written by {other}"
        if obstacle is not None:
            raise click.UsageError(f"{option} {path} {obstacle}; name another file")


def run(
    title: str,
    work: Callable[..., Report],
    *,
    report_file: Path | None,
    plot_file: Path | None = None,
    verbose: bool,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Run with a progress bar, and print or save the report as requested."""
    from .progress import progress_bar
    from .summary import summarize

    require_outputs()
    with _quiet_log(quiet), progress_bar(title, quiet) as progress:
        report = work(progress, **options)
    if report_file is not None:
        report.save(report_file)
    if plot_file is not None:
        from .plots import plot_report

        plot_report(report, plot_file)
    if as_json:
        click.echo(report.to_json())
    elif not quiet:
        click.echo(str(report) if verbose else summarize(report, flags_of(click.get_current_context().command)))


def run_compression(
    title: str, source: Path, output: Path | None, suffix: str, config: ConfigLike, *, dry_run: bool, **options: Any
) -> None:
    """Compress a package, or show what compressing it would do."""
    if dry_run:
        _tell_plan_of_package(source, config, **options)
        return
    destination = require_output(source, output, suffix)

    def compress(progress: Callable[..., None] | None, **rest: Any) -> Report:
        report: Report = format_of(source).compress(source, destination, config, progress=progress, **rest)
        return report

    run(title, compress, **options)


def _tell_plan_of_package(source: Path, config: ConfigLike, *, overwrite: bool, **options: Any) -> None:
    def plan(**rest: Any) -> Plan:
        found: Plan = format_of(source).plan(source, config, expect_snr=True, **rest)
        return found

    tell_plan(plan, **options)


def tell_plan(
    make: Callable[..., Plan],
    *,
    report_file: Path | None,
    plot_file: Path | None,
    verbose: bool,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Plan, and show the plan as requested."""
    from .summary import summarize_plan

    require_outputs()
    plan = make(**options)
    if report_file is not None:
        write_output(report_file, plan.to_json() + "\n")
    if plot_file is not None:
        from .plots import plot_plan

        plot_plan(plan, plot_file)
    if as_json:
        click.echo(plan.to_json())
    elif not quiet:
        click.echo(str(plan) if verbose else summarize_plan(plan, flags_of(click.get_current_context().command)))
