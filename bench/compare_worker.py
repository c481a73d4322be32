"""Does rows of one revision for compare.py: names come in by line, seconds and a digest of the result go out.

    compare_worker.py BENCH THREADS QUICK CLOCK

BENCH is the revision's folder of benchmarks; where COREPRESS_SITE is set, its installation is there.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np


def only_from(site: str) -> None:
    """Take corepress from `site`, whatever is installed for development."""
    sys.meta_path[:] = [
        finder for finder in sys.meta_path if isinstance(finder, type) or finder.find_spec("corepress", None) is None
    ]
    import corepress

    if not str(corepress.__file__).startswith(site):
        raise SystemExit(f"corepress came from {corepress.__file__}, not from {site}")


def _arrays(value: Any) -> Iterator[bytes]:
    """The bytes of all arrays and numbers of a result."""
    if isinstance(value, np.ndarray):
        yield repr((value.shape, value.dtype.name)).encode() + np.ascontiguousarray(value).tobytes()
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _arrays(getattr(value, field.name))
    elif isinstance(value, tuple | list):
        for each in value:
            yield from _arrays(each)
    else:
        yield repr(value).encode()


def digest(result: Any) -> str:
    return hashlib.sha256(b"\0".join(_arrays(result))).hexdigest()


def main() -> None:
    bench, threads, quick = sys.argv[1], int(sys.argv[2]) or None, sys.argv[3] == "1"
    now = {"wall": time.perf_counter, "cpu": time.process_time}[sys.argv[4]]
    sys.path[0] = bench
    if site := os.environ.get("COREPRESS_SITE"):
        only_from(site)
    answers, sys.stdout = sys.stdout, sys.stderr
    from rows import ROWS, unsupported

    def answer(value: Any) -> None:
        print(json.dumps(value), file=answers, flush=True)

    answer([name for name, row in ROWS.items() if unsupported(row) is None])
    known, data = None, None
    for line in sys.stdin:
        name = line.rstrip("\n")
        row, first = ROWS[name], name != known
        if first:
            data = None
            known, data = name, row.make(quick)
        start = now()
        result = row.run(data, threads)
        seconds = now() - start
        answer((seconds, digest(result) if first else ""))


if __name__ == "__main__":
    main()
