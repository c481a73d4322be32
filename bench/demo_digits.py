"""What `corepress demo` finds on the network that reads digits, and what three commands print about it.

    python bench/demo_digits.py --json bench/results/demo/digits.json

The README shows both. The commands run in the demo's folder; they are those of `COMMANDS`.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import documents
from corepress.demo.reading import read_digits

COMMANDS = (
    "corepress tradeoff Digits.mlpackage --inputs digits.npz --bits 2 --metric score.py:accuracy "
    "--calibration digits.calibration",
    "corepress compress Digits.mlpackage -o Digits-small.mlpackage --target-size 70kB --calibration digits.calibration",
    "corepress compare Digits.mlpackage Digits-small.mlpackage --inputs digits.npz --metric score.py:accuracy",
)


def printed(command: str, folder: Path) -> str:
    """What a command prints that runs in a folder."""
    words = [sys.executable, "-m", *shlex.split(command)]
    # Piped, tables are as wide as they need to be.
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    documents.add_options(parser)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        readings = read_digits(folder, print, lambda *_: None)
        told = {command: printed(command, folder) for command in COMMANDS}
    documents.save(options, {}, {"readings": readings.to_dict(), "commands": told})
    for command, text in told.items():
        print(f"$ {command}\n{text}")


if __name__ == "__main__":
    main()
