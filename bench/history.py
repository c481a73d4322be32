"""Keeps how fast each version is, row by row: every version is compared with the first one, pair by pair.

    python bench/history.py 0.1.0=81b3d77 0.2.0=HEAD [--rows WORD ...] [--threads N] [--pairs 21] [--seconds 4]
                            [--quick] [--clock cpu] [--json bench/results/history.json]

A version is NAME=REVISION. What FILE has of other versions is kept, as long as it was compared with the same first one,
so that a release adds itself: ratios of times in one run hardly depend on the machine. See compare.py for how pairs are
measured, and charts.py for the chart.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

import documents
from compare import Compared, Worker, add_options, measure, print_table


def version(text: str) -> tuple[str, str]:
    """The name and the revision of a version."""
    name, equals, revision = text.partition("=")
    if not (name and equals and revision):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=REVISION")
    return name, revision


def kept(path: Path | None, base: str, measured: Sequence[str]) -> list[dict[str, Any]]:
    """What was measured of other versions, compared with the same base.

    Raises
    ------
    SystemExit
        If the file has comparisons with another base.
    """
    if path is None or not path.exists():
        return []
    document = json.loads(path.read_text(encoding="utf-8"))
    if document["settings"]["base"] != base:
        raise SystemExit(f"{path} compares with {document['settings']['base']}, not with {base}; choose another file")
    return [each for each in document["results"] if each["version"] not in measured]


def measure_version(name: str, revision: str, base: Worker, options: argparse.Namespace) -> list[Compared]:
    """All rows that a version and the base have."""
    console = Console(width=130)
    with Worker(revision, options.threads, options.quick, options.clock) as worker:
        rows = [row for row in worker.rows if row in base.rows]
        results = []
        for row in rows:
            if not options.rows or any(word in row for word in options.rows):
                with console.status(row):
                    results.append(measure(row, base, worker, options.pairs, options.seconds))
    print_table(results, f"{options.versions[0][0]} and {name}", console)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="+", type=version, metavar="NAME=REVISION", help="the first is the base")
    add_options(parser)
    documents.add_options(parser)
    options = parser.parse_args()
    (base, revision), *others = options.versions
    if not others:
        parser.error("name a version to compare with the first one")
    results = kept(options.json, base, [name for name, _ in others])
    with Worker(revision, options.threads, options.quick, options.clock) as worker:
        for name, other in others:
            results += [{"version": name, **asdict(result)} for result in measure_version(name, other, worker, options)]
    settings = {"base": base, "clock": options.clock, "threads": options.threads, "quick": options.quick}
    documents.save(options, settings, results)


if __name__ == "__main__":
    main()
