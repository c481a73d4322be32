"""The dry run tells what compressing does, to the byte."""

import dataclasses
import json
import math
import shutil

import numpy as np
import pytest
from coreml_helpers import digest
from hypothesis import assume, given
from hypothesis import strategies as st

from corepress import Config, coreml
from corepress.compression import apply
from corepress.coreml.format.package import directory_size
from corepress.coreml.operations import lower, lower_to
from corepress.coreml.sizes import stand_in
from corepress.engine.meta_tensors import meta_tensor
from corepress.specs import Palettize, Prune, Quantize

GROUPS = {"granularity": "per_grouped_channel", "group_size": 16}
IOS16_JOBS = [
    Palettize(nbits=1),
    Palettize(nbits=8, mode="uniform"),
    Quantize(),
    Quantize(dtype="uint8", mode="linear", granularity="per_tensor"),
    Prune(target_sparsity=1),
]
IOS18_JOBS = [
    *IOS16_JOBS,
    Palettize(nbits=3),
    Palettize(nbits=6, **GROUPS),
    Palettize(nbits=4, **GROUPS, indivisible="nearest_divisor"),
    Palettize(nbits=2, **GROUPS, indivisible="per_tensor", channel_axis=-1),
    Palettize(nbits=4, cluster_dim=2),
    Palettize(nbits=3, cluster_dim=4, channel_axis=-1),
    Palettize(nbits=2, cluster_dim=4, **GROUPS),
    Quantize(dtype="int4"),
    Quantize(dtype="uint4", granularity="per_block", block_size=16),
    Quantize(dtype="int4", mode="linear", granularity="per_block", block_size=(0, 8)),
    Config(
        global_config=Palettize(nbits=4),
        op_types={"conv": Quantize(dtype="int4", granularity="per_block", block_size=8), "gather": None},
        weights={"*_x_0": Palettize(nbits=6), "re:left_t.*": Prune(target_sparsity=1)},
        weight_threshold=100,
    ),
]
ESTIMATED = [Prune(target_sparsity=0.5), Prune(threshold=0.1), Prune(n_m_ratio=(1, 4)), Palettize(mode="unique")]


def _name(job):
    return getattr(job, "description", "rules").replace(" ", "_")


def _compare(package, tmp_path, job):
    """The plan, and the report of carrying it out; they agree in everything but estimated sizes."""
    before = digest(package)
    plan = coreml.plan(package, job)
    assert digest(package) == before
    report = coreml.compress(package, tmp_path / "compressed.mlpackage", job)
    assert [weight.name for weight in plan.weights] == [record.name for record in report.weights]
    assert (plan.bytes_before, plan.unmatched_rules) == (report.bytes_before, report.unmatched_rules)
    return plan, report


def _assert_exact(plan, report, runtime_reasons=()):
    assert plan.exact
    for weight, record in zip(plan.weights, report.weights, strict=True):
        if record.reason in runtime_reasons:
            continue
        assert (weight.method, weight.reason, weight.planned) == (record.method, record.reason, record.planned)
        assert (weight.bytes_before, weight.bytes_after) == (record.bytes_before, record.bytes_after), weight.name
        assert weight.exact


@pytest.mark.parametrize("job", IOS16_JOBS, ids=_name)
def test_exact_for_trained_packages(trained_package, tmp_path, job):
    plan, report = _compare(trained_package, tmp_path, job)
    _assert_exact(plan, report)
    assert plan.bytes_after == report.bytes_after == directory_size(tmp_path / "compressed.mlpackage")
    assert plan.bits_per_weight == report.bits_per_weight


@pytest.mark.parametrize("job", IOS18_JOBS, ids=_name)
def test_exact_for_every_use_of_a_constant(finite_package, tmp_path, job):
    plan, report = _compare(finite_package, tmp_path, job)
    _assert_exact(plan, report)
    assert plan.bytes_after == report.bytes_after == directory_size(tmp_path / "compressed.mlpackage")


@pytest.mark.parametrize("job", ESTIMATED, ids=_name)
def test_what_depends_on_the_values_is_an_estimate_and_says_so(finite_package, tmp_path, job):
    plan, report = _compare(finite_package, tmp_path, job)
    assert not plan.exact
    assert "~" in str(plan)
    assert "estimated" in plan.totals
    for weight, record in zip(plan.weights, report.weights, strict=True):
        assert weight.exact == (weight.status == "keep")
        if record.status == "compressed" and job.verb == "prune" and job.threshold is None:
            assert weight.bytes_after == pytest.approx(record.bytes_after, rel=0.02)
        elif record.status == "compressed":
            assert weight.bytes_after >= record.bytes_after


def test_infinite_values_are_found_only_when_they_are_read(ios18_package, tmp_path):
    plan, report = _compare(ios18_package, tmp_path, Quantize())
    _assert_exact(plan, report, {"contains infinite or NaN values"})
    assert plan.compressed == report.compressed + 1


def test_refusals_are_those_of_compress(trained_package, ios18_package):
    with pytest.raises(ValueError, match="nbits 3 needs specification version 9"):
        coreml.plan(trained_package, Palettize(nbits=3))
    with pytest.raises(ValueError, match=r"uneven_weight_0 .*group_size 16 does not divide"):
        coreml.plan(ios18_package, Palettize(nbits=4, **GROUPS), strict=True)
    with pytest.raises(ValueError, match="no weight matches weights 'nothing'"):
        coreml.plan(ios18_package, {"weights": {"nothing": None}}, strict=True)


def test_json_holds_everything(ios18_package):
    plan = coreml.plan(ios18_package, {"weights": {"conv*": {"palettize": {"nbits": 6}}, "xyz": None}}, target="ane")
    values = json.loads(plan.to_json())
    assert values["unmatched_rules"] == ["weights 'xyz'"]
    assert values["warnings"][0]["weights"] == ["conv_weight_0"]
    assert [weight["name"] for weight in values["weights"]] == [weight.name for weight in plan.weights]
    assert "no weight matches weights 'xyz'" in str(plan)


def test_no_weight_is_read(trained_package, tmp_path, monkeypatch):
    from corepress.coreml.format.weight_file import WeightFileReader

    package = shutil.copytree(trained_package, tmp_path / "copy.mlpackage")

    def fail(*_):
        raise AssertionError("the plan read a weight")

    for method in ("array", "prefetch", "release", "send"):
        monkeypatch.setattr(WeightFileReader, method, fail)
    assert coreml.plan(package, Quantize()).compressed


def test_steps_on_top_of_each_other_are_estimated():
    """What each step adds is counted, and the values as the last step leaves them."""
    count, half = 64 * 32, 64 * 32 // 2
    cases = [
        ([Prune(target_sparsity=0.5), Palettize(nbits=4)], count // 8 + half // 2 + 2 * 16),
        ([Prune(target_sparsity=0.5), Quantize(channel_axis=0)], count // 8 + half + 2 * 64),
        ([Quantize(channel_axis=0), Palettize(nbits=4)], count // 2 + 16 + 2 * 64),
    ]
    for steps, expected in cases:
        form, exact = meta_tensor(tuple(steps), (64, 32), np.dtype(np.float16), lower_to(9), stand_in)
        assert not exact
        assert sum(tensor.nbytes for tensor in form.parameters.values()) == pytest.approx(expected, abs=2)


@pytest.mark.parametrize("version", [9, 10])
@pytest.mark.parametrize(
    "steps",
    [
        [Palettize(nbits=4), Quantize(granularity="per_tensor")],
        [Palettize(nbits=4, granularity="per_grouped_channel", group_size=16), Quantize(dtype="uint8", mode="linear")],
        [Palettize(nbits=2, enable_per_channel_scale=True)],
    ],
)
def test_quantized_tables_and_scales_weigh_what_they_are_said_to(steps, version):
    form, exact = meta_tensor(tuple(steps), (64, 96), np.dtype(np.float16), lower_to(version), stand_in)
    tensor = np.random.default_rng(0).normal(0, 0.1, (64, 96)).astype(np.float16)
    for step in steps:
        tensor = apply(tensor, step)
    assert exact
    assert form.nbytes == lower(tensor, version).nbytes


@given(
    st.sampled_from([*IOS18_JOBS[:-1], Prune(n_m_ratio=(2, 4)), Prune(target_sparsity=0.3), Prune(threshold=0.0)]),
    st.lists(st.integers(1, 6), min_size=2, max_size=4),  # so that all magnitudes are distinct in float16
    st.sampled_from([np.float16, np.float32]),
    st.integers(0, 2**32 - 1),
)
def test_meta_tensors_weigh_what_real_tensors_weigh(spec, shape, dtype, seed):
    """For distinct magnitudes other than zero, sizes of pruned weights are certain too, thresholds aside."""
    size = math.prod(shape)
    weight = np.random.default_rng(seed).permutation(size).astype(dtype).reshape(shape) + dtype(1)
    if isinstance(spec, Palettize):
        assume(shape[0] % spec.cluster_dim == 0)
        spec = dataclasses.replace(spec, indivisible="per_tensor", channel_axis=None).fitted(tuple(shape), 0)
    if isinstance(spec, Quantize) and spec.granularity == "per_block":
        spec = dataclasses.replace(spec, block_size=(1, *(0 for _ in shape[1:])))
    assume(not isinstance(spec, Prune) or spec.n_m_ratio is None or shape[1] >= spec.n_m_ratio[1])
    real = lower(apply(weight, spec), 9)
    form, _ = meta_tensor((spec,), tuple(shape), np.dtype(dtype), lower_to(9), stand_in)
    assert form.type == real.type
    assert form.parameters.keys() == real.parameters.keys()
    for name, tensor in form.parameters.items():
        assert (tensor.data_type, tensor.shape) == (real.parameters[name].data_type, real.parameters[name].shape), name


@pytest.mark.parametrize(("n_m_ratio", "length"), [((5, 7), 13), ((5, 7), 10), ((1, 4), 7), ((3, 3), 5), ((6, 7), 9)])
def test_zeros_of_the_last_shorter_group_are_counted(n_m_ratio, length):
    """Fewer than m weights are left at the end; they are short of the weights that stay, not of zeros."""
    spec = Prune(n_m_ratio=n_m_ratio)
    weight = np.random.default_rng(0).permutation(4 * length).astype(np.float32).reshape(4, length) + 1
    form, _ = meta_tensor((spec,), weight.shape, weight.dtype, lower_to(9), stand_in)
    assert form.nbytes == lower(apply(weight, spec), 9).nbytes
