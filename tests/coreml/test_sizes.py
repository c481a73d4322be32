"""The size of one weight is what the plan says, and what compressing gives."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from coreml_helpers import weight_file
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from corepress import Config, coreml
from corepress.coreml.compressor import stored_values
from corepress.coreml.format.package import Package
from corepress.coreml.format.values import ValueReader
from corepress.coreml.operations import MOST_WEIGHTS_PER_BYTE, check_steps, lower_to
from corepress.coreml.program.program import Program
from corepress.coreml.program.weights import visible_weights
from corepress.coreml.sizes import stored_size
from corepress.engine.resolution import resolve_all
from corepress.engine.steps import compress_stored
from corepress.errors import FormatError, Skip
from corepress.specs import Palettize, Prune, Quantize

GROUPS = {"granularity": "per_grouped_channel", "group_size": 16}
JOBS = [
    Palettize(nbits=1),
    Palettize(nbits=3, **GROUPS, indivisible="nearest_divisor"),
    Palettize(nbits=4, cluster_dim=2),
    Palettize(nbits=6, enable_per_channel_scale=True),
    Quantize(dtype="uint8", mode="linear"),
    Quantize(dtype="int4", granularity="per_block", block_size=8),
    Prune(target_sparsity=1),
    [Palettize(nbits=4), Quantize(granularity="per_tensor")],
    Palettize(nbits=4, lut_dtype="int8"),
    Palettize(nbits=3, lut_dtype="uint8", enable_per_channel_scale=True),
]


def steps_of(job):
    return job if isinstance(job, list) else [job]


@pytest.mark.parametrize("job", JOBS, ids=str)
def test_sizes_are_those_of_the_plan_and_of_the_file(finite_package, tmp_path, job):
    config = Config(global_config=job, weight_threshold=100)
    plan = coreml.plan(finite_package, config)
    report = coreml.compress(finite_package, tmp_path / "compressed.mlpackage", config)
    weights = visible_weights(Program(Package.open(finite_package)))
    expected = weight_file(finite_package).stat().st_size
    for weight, planned, record in zip(weights, plan.weights, report.weights, strict=True):
        if record.status != "compressed":
            continue
        size = stored_size(weight, resolve_all(steps_of(job), weight))
        assert size.exact
        assert size.nbytes == planned.bytes_after == record.bytes_after
        # A footprint is a record, and the data up to the next one.
        expected += size.file_bytes - (64 + -(-weight.stored_bytes // 64) * 64)
    assert report.compressed
    assert 0 <= expected - weight_file(tmp_path / "compressed.mlpackage").stat().st_size < 64


specs = st.one_of(
    st.builds(
        Palettize,
        nbits=st.sampled_from([1, 2, 3, 4, 6, 8]),
        granularity=st.sampled_from(["per_tensor", "per_grouped_channel"]),
        group_size=st.sampled_from([1, 4, 16, 48]),
        cluster_dim=st.just(1),
        indivisible=st.sampled_from(["skip", "nearest_divisor", "per_tensor"]),
        channel_axis=st.sampled_from([None, 0, 1, -1, 3]),
        enable_per_channel_scale=st.booleans(),
    ),
    st.builds(Palettize, nbits=st.sampled_from([1, 2, 3]), cluster_dim=st.sampled_from([2, 3, 4])),
    st.builds(
        Quantize,
        dtype=st.sampled_from(["int8", "uint8", "int4", "uint4"]),
        mode=st.sampled_from(["linear", "linear_symmetric"]),
        granularity=st.sampled_from(["per_tensor", "per_channel", "per_block"]),
        block_size=st.sampled_from([1, 5, 8, 32]),
        channel_axis=st.sampled_from([None, 0, 1]),
    ),
    st.builds(Prune, target_sparsity=st.sampled_from([0.0, 0.3, 1.0])),
    st.builds(Prune, n_m_ratio=st.sampled_from([(1, 3), (2, 4), (5, 7)])),
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(specs, st.integers(0, 100), st.sampled_from([9, 10]))
def test_sizes_are_those_of_the_real_forms(finite_package, spec, index, version):
    """Exact where it says so; else the most that it can be."""
    package = Package.open(finite_package)
    weights = [each for each in visible_weights(Program(package)) if each.consumers and len(each.first.shape) > 1]
    weight = weights[index % len(weights)]
    assume(weight.first.data_type.dtype is not None and weight.first.data_type.name.startswith("float"))
    check_steps([spec], version)
    with ValueReader(package) as values:
        try:
            steps = resolve_all([spec], weight)
            size = stored_size(weight, steps, version)
        except Skip as reason:
            assume(reason is None)  # nothing to compare
        form, _ = compress_stored(stored_values(weight, values), steps, lower_to(version), 1)
    assert size.nbytes == form.nbytes if size.exact else size.nbytes >= form.nbytes
    assert [(each.data_type, each.shape) for each in size.form.tensors()] == [
        (each.data_type, each.shape) for each in form.tensors()
    ] or not size.exact


def test_forms_too_large_for_a_version_are_refused(finite_package):
    (weight,) = (each for each in visible_weights(Program(Package.open(finite_package))) if each.first.name == "shared")
    scaled = resolve_all([Palettize(nbits=8, enable_per_channel_scale=True)], weight)
    assert stored_size(weight, scaled, 10).nbytes < weight.stored_bytes
    with pytest.raises(Skip, match="its tables would be larger than the weight at this specification version"):
        stored_size(weight, scaled, 9)
    with pytest.raises(ValueError, match="groups need specification version 9"):
        stored_size(weight, resolve_all([Palettize(nbits=4, **GROUPS)], weight), 8)


def test_sizes_of_what_is_compressed_further_are_estimates(finite_package, tmp_path):
    half = tmp_path / "half.mlpackage"
    coreml.compress(finite_package, half, Prune(target_sparsity=0.5))
    plan = coreml.plan(half, Quantize(), joint_compression=True)
    chosen = [each for each in plan.weights if each.status == "compress"]
    compressed = {each.first.name for each in visible_weights(Program(Package.open(half))) if each.is_compressed}
    assert compressed & {each.name for each in chosen}
    assert all(each.exact == (each.name not in compressed) for each in chosen)
    assert not plan.exact


@pytest.mark.parametrize(
    "job",
    [
        Quantize(dtype="float8_e4m3fn"),
        Quantize(scale_dtype="float8_e8m0fnu"),
        Palettize(nbits=4, lut_dtype="float8_e5m2"),
    ],
    ids=str,
)
def test_types_of_core_ai_are_refused_for_packages(finite_package, tmp_path, job):
    with pytest.raises(ValueError, match=r"is for Core AI \(\.aimodel\); "):
        coreml.plan(finite_package, Config(global_config=job))
    with pytest.raises(ValueError, match=r"is for Core AI \(\.aimodel\); "):
        coreml.compress(finite_package, tmp_path / "compressed.mlpackage", Config(global_config=job))
    assert not (tmp_path / "compressed.mlpackage").exists()


@pytest.mark.parametrize("more", [0, 1])
def test_a_shape_has_at_most_what_stored_bytes_decode_to(more):
    """Without this the sizes of a shape that a damaged file declares would be made up."""
    shape = (MOST_WEIGHTS_PER_BYTE * 16 + more, 1)
    kinds = {"data_type": SimpleNamespace(dtype=np.dtype("float16")), "operation": SimpleNamespace(type="const")}
    first = SimpleNamespace(shape=shape, where="w", version=9, **kinds)
    weight = SimpleNamespace(first=first, stored_bytes=16)
    if more:
        with pytest.raises(FormatError, match=r"w: shape \(\d+, 1\) is more than 16 stored bytes decode to"):
            stored_size(weight, [Palettize(nbits=4)])
    else:
        assert stored_size(weight, [Palettize(nbits=4)]).nbytes == shape[0] // 2 + 16 * 2
