"""Importing corepress is quick: it loads NumPy and itself."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("torch", "sklearn", "scipy", "coremltools", "matplotlib", "click", "rich", "google.protobuf", "yaml", "json")


def test_nothing_heavy_is_loaded():
    code = f"import sys, corepress; print([name for name in {HEAVY} if name in sys.modules])"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert finished.stdout.strip() == "[]"


def test_the_public_names_are_there():
    import corepress

    assert all(hasattr(corepress, name) for name in corepress.__all__)
    assert all(hasattr(corepress.kernels, name) for name in corepress.kernels.__all__)
    assert corepress.__version__.count(".") == 2
