"""Fuzz whole runs on packages: compress, decompress, inspect, plan, verify, compare. See CONTRIBUTING.md."""

import contextlib

with contextlib.suppress(ImportError):
    import atheris

    atheris.instrument_imports(include=["corepress"]).__enter__()

from driver import main
from properties import check_compress
from targets import packages

if __name__ == "__main__":
    main(packages(check_compress))
