"""What is known against encodings on a target is told, with its source."""

import pytest

from corepress import coreml
from corepress.config import TARGETS
from corepress.coreml.target_rules import NEWEST_VERSION, RULES, PackageLint, version_target
from corepress.engine.targets import Encoding, TargetWarning
from corepress.specs import Palettize, Prune, Quantize

GROUPS = {"granularity": "per_grouped_channel", "group_size": 16}


def _messages(target, *steps, rank=4, output_axis=0):
    lint = PackageLint(target)
    lint.check("weight", Encoding(steps, rank, output_axis))
    return [warning.message for warning in lint.warnings(["weight"])]


CASES = [
    ("ane", Palettize(nbits=4), []),
    ("ane", Palettize(nbits=8), []),
    ("ane", Palettize(nbits=6), ["3 and 6 bits are read as 4 and 8"]),
    ("ane", Palettize(nbits=4, **GROUPS), ["several tables cost 20 to 47 %"]),
    ("ane", Palettize(nbits=4, **GROUPS, channel_axis=0), ["several tables cost"]),
    ("ane", Palettize(nbits=4, **GROUPS, channel_axis=-4), ["several tables cost"]),
    ("ane", Palettize(nbits=4, **GROUPS, channel_axis=1), ["groups and vectors along other axes", "several tables"]),
    ("ane", Palettize(mode="unique"), []),
    ("ane", Quantize(), []),
    ("ane", Quantize(dtype="int4", granularity="per_block"), ["scales per block suit the GPU"]),
    ("ane", Prune(target_sparsity=0.5), []),
    ("gpu", Quantize(dtype="int4", granularity="per_block"), []),
    ("gpu", Palettize(nbits=4), ["tables save memory on the GPU"]),
    ("gpu", Prune(target_sparsity=0.5), ["sparse weights gain speed on the Neural Engine"]),
    ("ios16", Quantize(), ["weights are decompressed to float16 before the model runs"]),
    ("ios17", Quantize(), []),
    ("ios26", Palettize(nbits=4, **GROUPS), []),
    (None, Palettize(nbits=6, **GROUPS), []),
]


@pytest.mark.parametrize(("target", "spec", "starts"), CASES, ids=lambda value: getattr(value, "description", None))
def test_what_is_told_of_an_encoding(target, spec, starts):
    messages = _messages(target, spec)
    assert len(messages) == len(starts)
    for message, start in zip(messages, starts, strict=True):
        assert message.startswith(start)


def test_vectors_and_scales():
    assert _messages("ane", Palettize(nbits=4, cluster_dim=16)) == []
    assert "more than 256 values" in _messages("ane", Palettize(nbits=8, cluster_dim=2))[0]
    vectors = Palettize(nbits=4, cluster_dim=2, **GROUPS)
    assert _messages("ane", vectors)[0].startswith("several tables of vectors fall back")
    vectors = Palettize(nbits=4, cluster_dim=2, channel_axis=1)
    assert _messages("ane", vectors)[0].startswith("groups and vectors along other")
    for target in ("ane", "ios26"):
        (message,) = _messages(target, Palettize(nbits=4, enable_per_channel_scale=True))
        assert message.startswith("a per-channel scale around a table fails to load")
    assert _messages("gpu", Palettize(nbits=4, enable_per_channel_scale=True))[0].startswith("tables save memory")


def test_every_step_is_looked_at():
    messages = _messages("gpu", Prune(target_sparsity=0.5), Palettize(nbits=4))
    assert len(messages) == 2


def test_every_rule_has_a_source_and_known_targets():
    for rule in RULES:
        assert rule.source
        assert set(rule.targets) <= {*TARGETS, *map(version_target, range(7, 11))}
    assert set(NEWEST_VERSION) <= set(TARGETS)


def test_the_version_of_the_package():
    for target, newest in NEWEST_VERSION.items():
        lint = PackageLint(target)
        lint.check_version(newest)
        assert lint.warnings([]) == ()
        lint.check_version(newest + 1)
        (warning,) = lint.warnings([])
        assert warning.weights == ()
        assert f"has specification version {newest + 1}, but {target} loads versions up to {newest}" in str(warning)
    lint = PackageLint("ane")
    lint.check_version(99)
    assert lint.warnings([]) == ()


def test_reports_warn_of_the_weights_that_were_compressed(ios18_package, tmp_path):
    spec = Palettize(nbits=6, **GROUPS)
    report = coreml.compress(ios18_package, tmp_path / "a.mlpackage", spec, target="ane")
    compressed = tuple(record.name for record in report.weights if record.status == "compressed")
    assert [warning.weights for warning in report.warnings] == [compressed, compressed]
    assert "infinite_x_0" not in compressed
    assert all(f"[{warning.source}]" in str(report) for warning in report.warnings)
    plan = coreml.plan(ios18_package, {"global": {"palettize": {"nbits": 6}}, "target": "ios17"})
    (warning,) = plan.warnings
    assert "has specification version 9, but ios17 loads versions up to 8" in warning.message
    assert coreml.compress(ios18_package, tmp_path / "b.mlpackage", spec).warnings == ()


def test_axes_that_groups_follow_by_themselves_are_no_concern(ios18_package):
    """The output channels of conv_transpose and of matmul's operands are on other axes than 0."""
    plan = coreml.plan(ios18_package, Palettize(nbits=4, **GROUPS), target="ane")
    assert [warning.message.split(";")[0] for warning in plan.warnings] == [
        "several tables cost 20 to 47 % of the time that one table takes"
    ]
    plan = coreml.plan(ios18_package, Palettize(nbits=4, **GROUPS, channel_axis=1), target="ane")
    across = next(warning for warning in plan.warnings if warning.message.startswith("groups and vectors along other"))
    assert "conv_weight_0" in across.weights
    assert "up_weight_0" not in across.weights


def test_warnings_come_back_from_dicts():
    warning = TargetWarning("ane", "message", "source", ("a", "b"))
    assert TargetWarning.from_dict(warning.to_dict()) == warning
    assert str(warning) == "ane: 2 weights: message [source]"
