"""Vector palettes in packages: written by us and read by coremltools, and the other way round."""

from __future__ import annotations

import numpy as np
import pytest
from coreml_helpers import assert_same_bits, constants, float_constants, operations_of, quiet, read_spec

import corepress as cp
from corepress import FormatError, coreml
from corepress.compression import apply
from corepress.coreml.format.values import Tensor
from corepress.coreml.operations import lift, lower
from corepress.specs import Palettize, in_bits

RNG = np.random.default_rng(21)
FIRST = (0.1 * RNG.standard_normal((64, 96))).astype(np.float16)
SECOND = (0.1 * RNG.standard_normal((48, 64))).astype(np.float16)
DEPTHWISE = (0.1 * RNG.standard_normal((96, 4, 3, 3))).astype(np.float16)


@pytest.fixture(scope="module")
def models(build):
    def body(mb, x):
        x = mb.cast(x=x, dtype="fp16")
        return mb.linear(x=mb.linear(x=x, weight=FIRST, name="first"), weight=SECOND, name="second")

    return {version: build(body, {"x": ((2, 96), np.float32)}, version, save=False) for version in (9, 10)}


@pytest.fixture(scope="module")
def grouped_convolution(build):
    def body(mb, x):
        return mb.conv(x=mb.cast(x=x, dtype="fp16"), weight=DEPTHWISE, groups=16, pad_type="same", name="conv")

    return build(body, {"x": ((1, 64, 8, 8), np.float32)}, 9)


@pytest.mark.parametrize("version", [9, 10])
@pytest.mark.parametrize(("nbits", "cluster_dim"), [(4, 2), (2, 4), (1, 8)])
def test_packages_of_coremltools_are_read(ct, models, tmp_path, version, nbits, cluster_dim):
    theirs, plain = tmp_path / "theirs.mlpackage", tmp_path / "plain.mlpackage"
    cto = ct.optimize.coreml
    config = cto.OpPalettizerConfig(nbits=nbits, cluster_dim=cluster_dim, weight_threshold=0)
    with quiet():
        model = cto.palettize_weights(models[version], cto.OptimizationConfig(global_config=config))
        model.save(str(theirs))
    stored = {weight.shape: weight.storage for weight in coreml.inspect(theirs).weights}
    assert stored[FIRST.shape] == f"palettized {in_bits(nbits)}, vectors of {cluster_dim}"
    report = coreml.decompress(theirs, plain)
    assert report.decompressed == 2
    decoded, expected = float_constants(plain), float_constants(theirs)
    for name, value in expected.items():
        assert_same_bits(decoded[name], value, name)


def test_what_is_stored_is_described(ios18_package, tmp_path):
    destination = tmp_path / "small.mlpackage"
    report = coreml.compress(ios18_package, destination, {"palettize": {"nbits": 4, "cluster_dim": 2}})
    record = next(record for record in report.weights if record.name == "conv_weight_0")
    assert record.method == "palettize 4 bits, vectors of 2"
    assert 2 < record.bits_per_weight < 2.1
    stored = {weight.name: weight.storage for weight in coreml.inspect(destination).weights}
    assert stored["conv_weight_0"] == "palettized 4 bits, vectors of 2"
    plain = tmp_path / "plain.mlpackage"
    coreml.decompress(destination, plain)
    expected = float_constants(destination)
    for name, value in float_constants(plain).items():
        assert_same_bits(value, expected[name], name)


def test_only_vectors_carry_a_vector_axis(ios18_package, tmp_path):
    destination = tmp_path / "small.mlpackage"
    coreml.compress(ios18_package, destination, {"palettize": {"nbits": 4}})
    assert not any("vector_axis" in operation.inputs for operation in operations_of(read_spec(destination)))


@pytest.mark.parametrize(("cluster_dim", "kept"), [(2, False), (3, False), (4, True)])
def test_vectors_do_not_join_the_groups_of_a_convolution(grouped_convolution, tmp_path, cluster_dim, kept):
    """96 output channels in 16 groups are six each."""
    destination = tmp_path / "small.mlpackage"
    report = coreml.compress(grouped_convolution, destination, {"palettize": {"nbits": 4, "cluster_dim": cluster_dim}})
    record = next(record for record in report.weights if record.shape == DEPTHWISE.shape)
    if kept:
        assert record.reason == "cluster_dim 4 does not divide axis 0 of length 96 in 16 groups"
        return
    expected = cp.palettize(DEPTHWISE, nbits=4, cluster_dim=cluster_dim).dense()
    assert_same_bits(constants(destination)[record.name], expected)


def test_strict_names_the_weight_that_vectors_do_not_divide(ios18_package, tmp_path):
    spec = Palettize(nbits=4, cluster_dim=4)
    with pytest.raises(ValueError, match=r"uneven_weight_0.*cluster_dim 4 does not divide axis 0 of length 50"):
        coreml.compress(ios18_package, tmp_path / "small.mlpackage", spec, strict=True)


def test_older_versions_are_refused_before_work_starts(ios16_package, tmp_path):
    with pytest.raises(ValueError, match=r"palettize: cluster_dim 2 needs specification version 9"):
        coreml.compress(ios16_package, tmp_path / "small.mlpackage", {"palettize": {"nbits": 4, "cluster_dim": 2}})
    assert not (tmp_path / "small.mlpackage").exists()


def test_an_axis_counted_from_the_end_is_read():
    weight = RNG.standard_normal((5, 12)).astype(np.float32)
    tensor = apply(weight, Palettize(nbits=2, cluster_dim=3, channel_axis=1))
    form = lower(tensor, 9)
    parameters = form.parameters | {"vector_axis": Tensor.of(np.array(-1, np.int32))}
    assert lift(form.type, parameters).dense().tobytes() == tensor.dense().tobytes()


@pytest.mark.parametrize(
    ("vector_axis", "rule"),
    [
        (None, "has no parameter vector_axis"),
        (np.array(2, np.int32), "its vector_axis 2 is out of range for rank 2"),
        (np.array(-3, np.int32), "its vector_axis -3 is out of range for rank 2"),
        (np.array(0, np.uint8), "its vector_axis must be int32, not uint8"),
    ],
)
def test_damaged_axes_are_refused(vector_axis, rule):
    tensor = apply(RNG.standard_normal((6, 12)).astype(np.float32), Palettize(nbits=2, cluster_dim=3))
    form = lower(tensor, 9)
    parameters = {name: value for name, value in form.parameters.items() if name != "vector_axis"}
    if vector_axis is not None:
        parameters["vector_axis"] = Tensor.of(vector_axis)
    with pytest.raises(FormatError, match=rule):
        lift(form.type, parameters)


@pytest.mark.parametrize("cluster_dim", [1, 2])
def test_tables_for_blocks_along_several_axes_are_read_as_coremltools_reads_them(build, tmp_path, cluster_dim):
    indices = RNG.integers(0, 4, (8, 12)).astype(np.uint8)
    lut = RNG.standard_normal((2, 3, 4, cluster_dim)).astype(np.float16)

    def body(mb, x):
        from coremltools.converters.mil.mil import types

        options = {"vector_axis": 0} if cluster_dim > 1 else {}
        narrow = indices.astype(types.nptype_from_builtin(types.string_to_builtin("uint2")))
        weight = mb.constexpr_lut_to_dense(indices=narrow, lut=lut, name="blocks", **options)
        return mb.linear(x=mb.cast(x=x, dtype="fp16"), weight=weight, name="linear")

    package, plain = build(body, {"x": ((2, 12), np.float32)}, 9), tmp_path / "plain.mlpackage"
    coreml.decompress(package, plain)
    assert_same_bits(constants(plain)["blocks"], constants(package)["blocks"])


def test_vectors_span_no_groups_of_a_transposed_convolution(build, tmp_path):
    """Its groups divide axis 0, the input channels: 48 in 2 groups have 24 each, which vectors of 16 do not divide."""
    weight = np.random.default_rng(0).standard_normal((48, 8, 4, 4)).astype(np.float32)

    def body(mb, image):
        return mb.conv_transpose(x=image, weight=weight, groups=2, name="up")

    package = build(body, {"image": ((1, 48, 4, 4), np.float32)})
    for cluster_dim, reason in [(16, "cluster_dim 16 does not divide axis 0 of length 48 in 2 groups"), (8, None)]:
        plan = coreml.plan(package, Palettize(nbits=1, cluster_dim=cluster_dim, channel_axis=0))
        assert [each.reason for each in plan.weights if each.shape == weight.shape] == [reason]
