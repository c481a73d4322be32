"""Importing corepress is quick: it loads NumPy and itself."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "sklearn", "scipy", "coremltools", "matplotlib", "click", "rich", "google.protobuf", "yaml", "json")

SUBINTERPRETER = """
import sys
import {module} as interpreters
inside = '''
import sys
sys.path[:0] = {path!r}
try:
    from corepress import palettize
except ImportError as error:
    print(error, flush=True)
'''
interpreters.run_string(interpreters.create(), inside)
"""


def test_nothing_heavy_is_loaded():
    code = f"import sys, corepress; print([name for name in {HEAVY} if name in sys.modules])"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert finished.stdout.strip() == "[]"


def test_the_public_names_are_there():
    import corepress

    assert all(hasattr(corepress, name) for name in corepress.__all__)
    assert all(hasattr(corepress.kernels, name) for name in corepress.kernels.__all__)
    assert corepress.__version__.count(".") == 2


def test_a_subinterpreter_is_refused():
    module = pytest.importorskip("_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters").__name__
    code = SUBINTERPRETER.format(module=module, path=sys.path)
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert "in the main interpreter only" in finished.stdout, finished.stderr
