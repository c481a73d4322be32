"""What holds for all tests."""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from importlib.util import find_spec

import pytest
from hypothesis import settings

# How long an example takes tells of the machine's other work, not of ours.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


class SkipWithoutCoremltools(MetaPathFinder):
    """Skips the test, the fixture or the file that imports coremltools, which is not offered for every platform."""

    def find_spec(self, name: str, path: object, target: object = None) -> None:
        if name == "coremltools":
            pytest.skip("coremltools is not installed", allow_module_level=True)


if find_spec("coremltools") is None:
    sys.meta_path.append(SkipWithoutCoremltools())
