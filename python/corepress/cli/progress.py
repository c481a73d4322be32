"""A progress bar in weights per second on standard error, shown only at a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..coreml import Progress


@contextmanager
def progress_bar(title: str, quiet: bool, *, rates: bool = True) -> Iterator[Callable[[Progress], None] | None]:
    """The callback for `coreml.compress`, or None if no bar is wanted; `rates` shows weights per second."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar
    from rich.table import Column

    from ..reporting.wording import format_count

    one_line = Column(no_wrap=True)
    rest_of_the_line = Column(no_wrap=True, overflow="ellipsis", ratio=1)
    columns = (
        TextColumn("{task.description}", table_column=one_line),
        BarColumn(bar_width=20),
        TextColumn("{task.percentage:>3.0f} %", table_column=one_line),
        TextColumn("{task.fields[rate]}", table_column=Column(no_wrap=True, min_width=18)),
        TimeRemainingColumn(table_column=Column(no_wrap=True, min_width=7)),
        TextColumn("{task.fields[weight]}", style="dim", markup=False, table_column=rest_of_the_line),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True, expand=True) as bar:
        task = bar.add_task(title, total=None, rate="", weight="")

        def show(progress: Progress) -> None:
            elapsed = bar.tasks[0].elapsed or 0.0
            rate = f"{format_count(progress.done_weights / elapsed)} weights/s" if rates and elapsed > 0.2 else ""
            bar.update(
                task,
                total=progress.total_weights or None,
                completed=progress.done_weights,
                rate=rate,
                weight=progress.name,
            )

        yield show


@contextmanager
def sample_progress(title: str, quiet: bool) -> Iterator[Callable[[int, int | None], None] | None]:
    """The callback for what runs models on samples, or None if no bar is wanted."""
    from ..coreml import Progress

    with progress_bar(title, quiet, rates=False) as show:
        if show is None:
            yield None
            return

        def tell(done: int, total: int | None) -> None:
            show(Progress(f"sample {done + 1}" if done != total else "", done, total or 0, 0, 0))

        yield tell
