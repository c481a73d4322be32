"""Fuzz what reads packages: manifest, program, weight file. See CONTRIBUTING.md."""

import contextlib

with contextlib.suppress(ImportError):
    import atheris

    atheris.instrument_imports(include=["corepress"]).__enter__()

from driver import main
from properties import check_reader
from targets import packages

if __name__ == "__main__":
    main(packages(lambda parts, folder, choice, sound: check_reader(parts, folder)))
