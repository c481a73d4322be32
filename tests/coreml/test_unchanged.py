"""Weights that would grow are left unchanged, and reports total what is left unchanged."""

import numpy as np
import pytest
from coreml_helpers import replace_weights

from corepress import coreml

REASON = "would not become smaller, with its scales or table"
SMALL, LARGE = (20, 16), (64, 64)


@pytest.fixture
def small_package(package):
    generator = np.random.default_rng(0)
    replace_weights(package, [generator.standard_normal(shape).astype(np.float16) for shape in (SMALL, LARGE)])
    return package


def test_what_would_grow_is_left_unchanged(small_package, tmp_path):
    config = {"palettize": {"nbits": 8}}
    plan = coreml.plan(small_package, config, weight_threshold=0, strict=True)
    report = coreml.compress(small_package, tmp_path / "out.mlpackage", config, weight_threshold=0, strict=True)
    assert [record.status for record in report.weights] == ["kept", "compressed"]
    assert [record.reason for record in report.weights] == [REASON, None]
    assert (plan.exact, plan.bytes_after) == (True, report.bytes_after)
    assert [record.reason for record in plan.weights] == [REASON, None]
    (total,) = report.unchanged
    assert (total.reason, total.weights, total.bytes) == (REASON, 1, 2 * SMALL[0] * SMALL[1])
    assert plan.unchanged == report.unchanged
    assert report.to_dict()["unchanged"] == [{"reason": REASON, "weights": 1, "bytes": total.bytes, "planned": True}]
    assert f"unchanged: 1 weight, 640 B: {REASON}" in str(report)


def test_a_mask_that_outweighs_the_zeros_is_not_stored(small_package, tmp_path):
    report = coreml.compress(small_package, tmp_path / "out.mlpackage", {"prune": {"target_sparsity": 0.02}})
    assert report.weights[1].reason == REASON
    assert report.weights[1].bytes_after == report.weights[1].bytes_before


def test_a_per_channel_scale_names_the_better_form(ios18_package):
    plan = coreml.plan(ios18_package, {"palettize": {"nbits": 4, "enable_per_channel_scale": True}})
    (warning,) = plan.warnings
    assert "group_size=1 takes the same number of bytes" in warning.message
    assert not coreml.plan(ios18_package, {"palettize": {"nbits": 4}}).warnings
