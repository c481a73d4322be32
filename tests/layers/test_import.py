"""Importing corepress is quick: it loads NumPy and itself."""

from __future__ import annotations

import subprocess
import sys

from helpers.processes import TIMEOUT

HEAVY = ("torch", "sklearn", "scipy", "coremltools", "matplotlib", "click", "rich", "google.protobuf", "yaml", "json")


def test_nothing_heavy_is_loaded():
    code = f"import sys, corepress; print([name for name in {HEAVY} if name in sys.modules])"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=TIMEOUT)
    assert finished.stdout.strip() == "[]"


def test_the_public_names_are_there():
    import corepress

    assert all(hasattr(corepress, name) for name in corepress.__all__)
    assert all(hasattr(corepress.kernels, name) for name in corepress.kernels.__all__)
    assert corepress.__version__.count(".") == 2


def test_a_subinterpreter_is_refused():
    code = (
        "import sys\n"
        f"sys.path[:0] = {sys.path!r}\n"
        "try:\n"
        "    from corepress import _core\n"
        "except ImportError as error:\n"
        "    print(error, flush=True)\n"
    )
    run = (
        "import sys\n"
        "try:\n"
        "    import _interpreters as interpreters\n"
        "    run = interpreters.exec\n"
        "except ImportError:\n"
        "    import _xxsubinterpreters as interpreters\n"
        "    run = interpreters.run_string\n"
        f"print(run(interpreters.create(), {code!r}) or '')\n"
    )
    finished = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True, check=True, timeout=TIMEOUT)
    assert "subinterpreter" in finished.stdout
