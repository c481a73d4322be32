"""`corepress.accelerate` and libraries that may be missing, of other versions, or imported later."""

from __future__ import annotations

import inspect
import warnings
from importlib import metadata

import pytest
from coreai_opt_helpers import run_python

import corepress
from corepress.acceleration import hosts
from corepress.acceleration.swaps import place_of

pytest.importorskip("coreai_opt")
pytest.importorskip("coreai_torch")


@pytest.fixture(scope="module")
def utils():
    import coreai_opt.coreai_utils

    return coreai_opt.coreai_utils


def internals():
    from corepress.acceleration import coreai_opt

    return coreai_opt.INTERNALS


def replaced():
    return [vars(owner)[name] for owner, name in map(place_of, internals())]


class TestInstalling:
    def test_a_block_leaves_coreai_opt_as_it_was(self, utils):
        before = replaced()
        with corepress.accelerate():
            inside = replaced()
        assert all(new is not old for new, old in zip(inside, before, strict=True))
        assert all(new is old for new, old in zip(replaced(), before, strict=True))

    def test_replacements_look_like_what_they_replace(self, utils):
        before = [inspect.signature(getattr(each, "__func__", each)) for each in replaced()]
        with corepress.accelerate():
            for each, expected in zip(replaced(), before, strict=True):
                assert inspect.signature(getattr(each, "__func__", each)) == expected

    def test_other_versions_are_left_alone(self, utils, monkeypatch):
        before, version = replaced(), metadata.version
        monkeypatch.setattr(metadata, "version", lambda name: "0.5.0" if name == "coreai-opt" else version(name))
        with pytest.warns(RuntimeWarning, match=r"of this coreai-opt are not known.* its version is 0.5.0"):
            corepress.accelerate.install()
        try:
            assert all(new is old for new, old in zip(replaced(), before, strict=True))
        finally:
            corepress.accelerate.uninstall()

    def test_internals_with_other_parameters_are_left_alone(self, utils, monkeypatch):
        from coreai_opt.coreai_utils._utils import sparse_utils

        def other(val, more):
            return None

        monkeypatch.setattr(sparse_utils, "_produce_sparse_param", other)
        with pytest.warns(RuntimeWarning, match="takes val, more instead of val"):
            corepress.accelerate.install()
        try:
            assert sparse_utils._produce_sparse_param is other
        finally:
            corepress.accelerate.uninstall()

    def test_it_needs_none_of_them_but_one(self, monkeypatch):
        monkeypatch.setattr(corepress.acceleration, "installed", lambda name: False)
        monkeypatch.setattr(hosts, "installed", lambda: [])
        from corepress.acceleration import internals as of_coremltools

        def missing(*_):
            raise corepress.errors.MissingExtraError("none")

        monkeypatch.setattr(of_coremltools, "load", missing)
        with pytest.raises(corepress.errors.MissingExtraError):
            corepress.accelerate.install()
        assert not corepress.accelerate.is_installed

    def test_no_warnings(self, utils):
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            with corepress.accelerate():
                pass


LATER = """
import sys
import corepress
with corepress.accelerate():
    assert "coreai_opt" not in sys.modules
    import coreai_opt.coreai_utils
    from coreai_opt.coreai_utils._utils import sparse_utils
    from coreai_opt.coreai_utils.passes import weight_sparsification as sparsification
    from coreai_opt.palettization.kmeans.kmeans_fake_palettize import _KMeansFakePalettize as fake
    inside = sparse_utils._compress_by_magnitude, sparsification._compress_by_magnitude, fake._cluster_weights_1d
    assert all(hasattr(each, "__wrapped__") for each in inside)
after = sparse_utils._compress_by_magnitude, sparsification._compress_by_magnitude, fake._cluster_weights_1d
assert not any(hasattr(each, "__wrapped__") for each in after), after
assert not any(type(each).__name__ == "ImportWatch" for each in sys.meta_path)
"""


def test_imports_in_a_block_are_accelerated_and_restored():
    run = run_python(LATER)
    assert run.returncode == 0, run.stderr[-2000:]
