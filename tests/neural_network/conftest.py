from __future__ import annotations

import contextlib
import io
import warnings

import pytest


@pytest.fixture(scope="session", autouse=True)
def ct():
    """coremltools, which writes about what is missing on this system when it is imported."""
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import coremltools
    return coremltools
