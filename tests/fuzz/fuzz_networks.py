"""Fuzz whole runs on neural networks: quantize, plan, verify, decompress, inspect, compare. See CONTRIBUTING.md."""

import contextlib

with contextlib.suppress(ImportError):
    import atheris

    atheris.instrument_imports(include=["corepress"]).__enter__()

from driver import main
from targets import NETWORKS

if __name__ == "__main__":
    main(NETWORKS)
