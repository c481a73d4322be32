"""Results as JSON: what was measured, when, and on what; every script that measures writes this form."""

from __future__ import annotations

import argparse
import datetime
import json
import os
from pathlib import Path
from typing import Any

import peers
from corepress.benchmark.machine import describe_machine
from corepress.outputs import write_output


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of a script that can save its results."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="save the results")
    parser.add_argument("--date", help="of the results, as in 2026-11-27 (today)")


def save(options: argparse.Namespace, settings: dict[str, Any], results: Any) -> None:
    """Write results if that was asked for, with the date, the machine and the versions of all tools."""
    if options.json is None:
        return
    document = {
        "date": options.date or datetime.date.today().isoformat(),
        "machine": describe_machine(peers.index_names()),
        "load_averages": os.getloadavg() if hasattr(os, "getloadavg") else None,  # of 1, 5 and 15 minutes
        "settings": settings,
        "results": results,
    }
    write_output(options.json, json.dumps(document, indent=1) + "\n")
