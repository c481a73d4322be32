"""What commands that write a package do with their options, whatever they do to the package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .shell_words import flags_of

if TYPE_CHECKING:
    from ..config import ConfigLike
    from ..coreml import Plan, Report


def require_output(source: Path, output: Path | None, suffix: str) -> Path:
    """What to write, which must be given."""
    if output is None:
        kind = source.suffix if source.suffix == ".mlmodel" else ".mlpackage"
        raise click.UsageError(f"say where to write the result, for example -o {source.stem}-{suffix}{kind}")
    return output


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
    """Work with a progress bar, and tell of it as asked for."""
    from .progress import progress_bar
    from .summary import summarize

    with progress_bar(title, quiet) as progress:
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
    """Compress a package, or tell what compressing it would do."""
    if dry_run:
        _tell_plan_of_package(source, config, **options)
        return
    destination = require_output(source, output, suffix)

    def compress(progress: Callable[..., None] | None, **rest: Any) -> Report:
        from .. import coreml

        return coreml.compress(source, destination, config, progress=progress, **rest)

    run(title, compress, **options)


def _tell_plan_of_package(source: Path, config: ConfigLike, *, overwrite: bool, **options: Any) -> None:
    def plan(**rest: Any) -> Plan:
        from .. import coreml

        return coreml.plan(source, config, expect_snr=True, **rest)

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
    """Plan, and show it as asked for."""
    from .summary import summarize_plan

    plan = make(**options)
    if report_file is not None:
        report_file.write_text(plan.to_json() + "\n", encoding="utf-8")
    if plot_file is not None:
        from .plots import plot_plan

        plot_plan(plan, plot_file)
    if as_json:
        click.echo(plan.to_json())
    elif not quiet:
        click.echo(str(plan) if verbose else summarize_plan(plan, flags_of(click.get_current_context().command)))
