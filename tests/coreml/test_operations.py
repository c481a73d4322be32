"""Lowering and lifting without any file: what each operation stores, and what it must not."""

import re

import numpy as np
import pytest

from corepress import FormatError
from corepress.compression import apply, apply_steps
from corepress.coreml.format.data_types import DATA_TYPES
from corepress.coreml.format.package import Package
from corepress.coreml.format.values import Tensor, ValueReader, inline_value
from corepress.coreml.operations import (
    UnsupportedForm,
    check,
    check_steps,
    constant,
    describe,
    lift,
    lift_output,
    lower,
)
from corepress.specs import Palettize, Prune, Quantize

WEIGHT = np.random.default_rng(1).standard_normal((12, 8, 3)).astype(np.float32)
BOTH_FORMS = [
    Palettize(nbits=1),
    Palettize(nbits=4),
    Palettize(nbits=8),
    Quantize(),
    Quantize(channel_axis=1),
    Quantize(dtype="uint8"),
    Quantize(mode="linear", channel_axis=2),
    Quantize(dtype="uint8", mode="linear", granularity="per_tensor"),
    Prune(target_sparsity=0.0),
    Prune(target_sparsity=0.7),
    Prune(target_sparsity=1.0),
]
IOS18_ONLY = [
    Palettize(nbits=3),
    Palettize(nbits=2, granularity="per_grouped_channel", group_size=4),
    Palettize(nbits=4, cluster_dim=2),
    Palettize(nbits=3, cluster_dim=4, channel_axis=1),
    Palettize(nbits=1, cluster_dim=2, granularity="per_grouped_channel", group_size=4),
    Quantize(dtype="int4"),
    Quantize(dtype="int4", mode="linear", channel_axis=1),
    Quantize(dtype="uint4", mode="linear", granularity="per_tensor"),
    Quantize(dtype="uint4", granularity="per_block", block_size=4),
    Quantize(mode="linear", granularity="per_block", block_size=2, channel_axis=1),
    Quantize(dtype="int4", mode="linear", granularity="per_block", block_size=(3, 2, 0)),
]


SPARSE_SCALE = "constexpr_sparse_blockwise_shift_scale"


def _name(spec):
    return spec.description.replace(" ", "_")


def _same(first, second):
    assert type(first) is type(second)
    for name, value in vars(first).items():
        other = getattr(second, name)
        if isinstance(value, np.ndarray):
            assert (value.dtype, value.shape, value.tobytes()) == (other.dtype, other.shape, other.tobytes()), name
        else:
            assert value == other, name


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize(
    ("spec", "version"),
    [(spec, version) for spec in BOTH_FORMS for version in (7, 8, 9, 10)] + [(spec, 9) for spec in IOS18_ONLY],
    ids=lambda value: _name(value) if not isinstance(value, int) else str(value),
)
def test_lift_is_the_inverse_of_lower(spec, version, dtype):
    check(spec, version)
    tensor = apply(WEIGHT.astype(dtype), spec)
    form = lower(tensor, version)
    is_old = version < 9
    assert form.in_inputs != is_old
    assert ("shape" in form.parameters or "axis" in form.parameters) == is_old
    lifted = lift(form.type, form.parameters)
    assert lifted.dense().tobytes() == tensor.dense().tobytes()
    if not (isinstance(spec, Quantize) and tensor.zero_point is not None and not tensor.zero_point.any()):
        _same(lifted, tensor)


@pytest.mark.parametrize("spec", IOS18_ONLY, ids=_name)
def test_old_forms_refuse_what_they_cannot_hold(spec):
    with pytest.raises(ValueError, match="needs specification version 9"):
        check(spec, 8)
    if getattr(spec, "nbits", 0) != 3:
        with pytest.raises(ValueError, match=r"needs? specification version 9"):
            lower(apply(WEIGHT, spec), 8)


def test_five_to_eight_distinct_values_take_four_bits_in_the_old_form():
    """coremltools chooses three bits, which that form does not have, and fails."""
    weight = (np.arange(35).reshape(5, 7) % 6).astype(np.float16)
    tensor = apply(weight, Palettize(mode="unique"))
    assert tensor.nbits == 3
    lifted = lift("constexpr_lut_to_dense", lower(tensor, 8).parameters)
    assert lifted.nbits == 4
    assert lifted.lut.reshape(-1).tolist() == [0, 1, 2, 3, 4, 5] + [5] * 10
    assert lifted.dense().tobytes() == weight.tobytes()


@pytest.mark.parametrize("spec", [*BOTH_FORMS, *IOS18_ONLY], ids=_name)
def test_what_cannot_be_raised_has_no_compression(spec):
    with pytest.raises(ValueError, match=r"need specification version 7 \(iOS 16\), but this package has 5; convert"):
        check(spec, 5)


@pytest.mark.parametrize("version", [5, 6, 8, 9, 10])
@pytest.mark.parametrize(
    ("spec", "rule"),
    [
        (Quantize(dtype="int2"), "dtype 'int2' is for Core AI (.aimodel); use 'int8', 'uint8', 'int4', 'uint4'"),
        (Quantize(dtype="float8_e4m3fn"), "dtype 'float8_e4m3fn' is for Core AI"),
        (Quantize(scale_dtype="float8_e8m0fnu"), "scale_dtype 'float8_e8m0fnu' is for Core AI"),
        (Palettize(nbits=4, lut_dtype="float8_e5m2"), "lut_dtype 'float8_e5m2' is for Core AI"),
    ],
    ids=lambda value: "" if isinstance(value, str) else _name(value),
)
def test_types_of_core_ai_are_refused(spec, rule, version):
    weight = np.random.default_rng(0).normal(0, 0.1, (8, 16)).astype(np.float16)
    if version > 5:
        with pytest.raises(ValueError, match=re.escape(rule)):
            check(spec, version)
    with pytest.raises(ValueError, match=r"for Core AI \(\.aimodel\); Core ML has"):
        lower(apply(weight, spec), version)


def test_a_table_of_integers_is_a_joint_form():
    weight = np.random.default_rng(0).normal(0, 0.1, (8, 16)).astype(np.float16)
    spec = Palettize(nbits=4, lut_dtype="int8")
    check(spec, 9)
    with pytest.raises(ValueError, match=r"lut_dtype 'int8' needs specification version 9 .*; leave it out, or"):
        check(spec, 8)
    with pytest.raises(ValueError, match="lut_dtype quantizes the table already"):
        check_steps([spec, Quantize()], 9)
    tensor = apply(weight, spec)
    assert tensor == apply_steps(weight, [Palettize(nbits=4), Quantize(granularity="per_tensor")])
    for version in (9, 10):
        assert len(lower(tensor, version).chain()) == 2


@pytest.mark.parametrize("spec", BOTH_FORMS, ids=_name)
def test_ios15_is_taken_for_ios16(spec):
    check(spec, 6)


@pytest.mark.parametrize("spec", IOS18_ONLY, ids=_name)
@pytest.mark.parametrize("version", [6, 7, 8])
def test_messages_name_the_version_and_the_way(spec, version):
    with pytest.raises(ValueError, match=r"needs? specification version 9 \(iOS 18\), but") as refused:
        check(spec, version)
    assert f"but this package has {version}; " in str(refused.value)
    assert str(refused.value).endswith("convert again with minimum_deployment_target=ct.target.iOS18")
    with pytest.raises(ValueError, match=r"needs? specification version 9") as refused:
        check(spec, version, 9)
    said = f"the operations of this package are those of {version} (opset CoreML{version - 1}), although its "
    assert f"but {said}specification version is 9; " in str(refused.value)


def test_a_constant_is_a_const():
    form = constant(WEIGHT)
    assert (form.type, form.in_inputs, list(form.parameters)) == ("const", False, ["val"])
    assert form.parameters["val"].shape == WEIGHT.shape


DATA = Tensor.of(np.arange(-6, 6, dtype=np.int8).reshape(3, 4))


def _affine(scale, zero_point, axis):
    parameters = {"quantized_data": DATA, "scale": scale, "zero_point": zero_point, "axis": np.int32(axis)}
    return {
        name: value if isinstance(value, Tensor) else Tensor.of(np.asarray(value)) for name, value in parameters.items()
    }


@pytest.mark.parametrize(
    ("scale", "zero_point", "axis"),
    [
        (np.float32(0.5), np.int8(3), 0),
        (np.float32([1, 2, 3]), np.int8(-1), 0),
        (np.float32(2), np.int8([1, 2, 3, 4]), -1),
        (np.float32([1, 2, 3]), np.int8([1, 2, 3]), -2),
        (np.float32([1, 2, 3]), np.float32([1, 2, -3]), 0),
        (np.float16([1, 2, 3, 4]), np.int8([0, 0, 0, 0]), 1),
    ],
)
def test_affine_forms_of_other_tools(scale, zero_point, axis):
    lifted = lift("constexpr_affine_dequantize", _affine(scale, zero_point, axis))
    shape = [1, 1]
    shape[axis] = -1
    scale, zero_point = scale.reshape(shape), zero_point.reshape(shape).astype(np.float32)
    expected = (scale * (DATA.data - zero_point)).astype(scale.dtype)
    np.testing.assert_array_equal(lifted.dense(), expected)
    assert lifted.dense().dtype == scale.dtype


@pytest.mark.parametrize("zero_point", [np.float32(0.5), np.float32(200), np.float32(np.nan), np.uint8(200)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_zero_points_beyond_the_data_type_are_floats(zero_point, dtype):
    scale = np.array([0.3, 1, -2], dtype).reshape(3, 1)
    lifted = lift("constexpr_affine_dequantize", _affine(scale.reshape(-1), zero_point, 0))
    expected = (scale.astype(np.float32) * (DATA.data - np.float32(zero_point))).astype(dtype)
    np.testing.assert_array_equal(lifted.dense(), expected)
    assert lifted.dense().dtype == dtype


def test_float_offsets_are_subtracted_in_their_own_precision():
    """As coremltools decompresses: with halves, the difference is rounded to a half too."""
    scale, offset = np.float16([[0.3], [1.7], [1]]), np.float16([[0.013], [100.06], [0]])
    tensors = {"data": DATA, "scale": Tensor.of(scale), "offset": Tensor.of(offset)}
    lifted = lift("constexpr_blockwise_shift_scale", tensors)
    expected = scale * (DATA.data.astype(np.float16) - offset)
    assert lifted.dense().tobytes() == expected.tobytes()
    stored = lower(lifted, 9).parameters["offset"]
    assert (stored.data_type.name, stored.data.tobytes()) == ("float16", offset.tobytes())


@pytest.mark.parametrize(
    ("operation", "parameters", "reason"),
    [
        ("constexpr_cast", {}, "operation constexpr_cast"),
        ("constexpr_sparse_blockwise_shift_scale",
         {"data_mask": Tensor.packed("uint1", (3,), np.uint8([1])), "nonzero_data": np.float32([1]),
          "scale": np.float32([1])}, "scaled values of float32"),
        ("constexpr_sparse_to_dense",
         {"nonzero_data": Tensor.packed("int4", (1,), np.uint8([7])),
          "mask": Tensor.packed("uint1", (3,), np.uint8([1]))}, "values of int4"),
    ],
)  # fmt: skip
def test_forms_without_a_tensor(operation, parameters, reason):
    tensors = {name: each if isinstance(each, Tensor) else Tensor.of(each) for name, each in parameters.items()}
    with pytest.raises(UnsupportedForm, match=reason):
        lift(operation, tensors)


@pytest.mark.parametrize(
    ("operation", "parameters"),
    [
        ("constexpr_blockwise_shift_scale", {"data": DATA}),
        ("constexpr_blockwise_shift_scale", {"data": DATA, "scale": np.ones((2, 4), np.float32)}),
        ("constexpr_blockwise_shift_scale", {"data": DATA, "scale": np.ones(3, np.float32)}),
        ("constexpr_blockwise_shift_scale",
         {"data": DATA, "scale": np.ones((3, 1), np.float32), "offset": np.ones((1, 4), np.int8)}),
        ("constexpr_lut_to_dense", {"indices": DATA, "lut": np.ones((1, 1, 256, 1), np.float32)}),
        ("constexpr_lut_to_dense", {"indices": np.uint8([1, 2]), "lut": np.ones((1, 16, 1), np.float32)}),
        ("constexpr_lut_to_dense", {"indices": np.uint8([1, 2]), "lut": np.ones((0, 256, 1), np.float32)}),
        ("constexpr_lut_to_dense", {"indices": np.uint8([1]), "lut": np.ones(5, np.float32), "shape": np.uint32([2])}),
        ("constexpr_sparse_to_dense",
         {"nonzero_data": np.float32([1]), "mask": np.uint8([3]), "shape": np.uint32([2])}),
        ("constexpr_sparse_to_dense", {"nonzero_data": np.float32([1]), "mask": np.uint8([1, 0])}),
        ("constexpr_affine_dequantize", {"quantized_data": DATA, "scale": np.ones(3, np.float32)}),
        ("constexpr_lut_to_sparse", {}),
        ("constexpr_lut_to_sparse",
         {"indices_mask": Tensor.packed("uint1", (1, 3), np.uint8([5])),
          "indices_nonzero_data": Tensor.packed("uint1", (1,), np.uint8([1])),
          "lut": np.ones((1, 1, 2, 1), np.float32)}),
        ("constexpr_sparse_blockwise_shift_scale",
         {"data_mask": Tensor.packed("uint1", (1, 3), np.uint8([1])), "nonzero_data": np.int8([1]),
          "scale": np.ones((1, 2), np.float32)}),
    ],
)  # fmt: skip
def test_contradictions_are_damage(operation, parameters):
    tensors = {name: each if isinstance(each, Tensor) else Tensor.of(each) for name, each in parameters.items()}
    with pytest.raises(FormatError):
        lift(operation, tensors)


def test_steps_of_a_chain_that_contradict_each_other_are_damage():
    weight = np.arange(12, dtype=np.float16).reshape(3, 4)
    sparse = apply(apply(weight, Prune(threshold=3)), Palettize(nbits=4))
    other = Tensor.packed("uint1", (3, 4), np.ascontiguousarray(sparse.mask[::-1]))
    with pytest.raises(FormatError, match="as their support"):
        lift("constexpr_sparse_to_dense", {"nonzero_data": sparse.values, "mask": other})
    dense = apply(weight, Palettize(nbits=4))
    with pytest.raises(FormatError, match="its nonzero_data is a dense tensor"):
        lift("constexpr_sparse_to_dense", {"nonzero_data": dense, "mask": other})
    scale = Tensor.of(np.ones((1, 1), np.float16))
    with pytest.raises(FormatError, match="is not the mask of its nonzero_data"):
        lift(SPARSE_SCALE, {"nonzero_data": sparse.values, "data_mask": other, "scale": scale})
    with pytest.raises(FormatError, match="takes output 1 of constexpr_lut_to_dense"):
        lift_output("constexpr_lut_to_dense", dense, 1)
    with pytest.raises(UnsupportedForm, match="a computed indices"):
        lift("constexpr_lut_to_dense", {"indices": dense, "lut": Tensor.of(dense.lut)})


def test_values_scaled_after_a_look_up_are_read():
    """lut_to_sparse, then sparse_blockwise_shift_scale: the operations allow it, though nobody is known to write it."""
    weight = np.arange(12, dtype=np.float16).reshape(3, 4)
    sparse = apply(apply(weight, Prune(threshold=3)), Palettize(nbits=4))
    mask, scale = Tensor.packed("uint1", (3, 4), sparse.mask), np.float16([[2], [3], [0.5]])
    parameters = {"nonzero_data": sparse.values, "data_mask": mask, "scale": Tensor.of(scale)}
    lifted = lift(SPARSE_SCALE, parameters)
    np.testing.assert_array_equal(lifted.dense(), sparse.dense() * scale)


@pytest.fixture
def values(trained_package):
    with ValueReader(Package.open(trained_package)) as reader:
        yield reader


@pytest.mark.parametrize("data_type", [each for each in DATA_TYPES if each.inline_field and each.nbits])
def test_inline_values_of_every_type(values, data_type):
    if data_type.packed:
        tensor = Tensor(data_type, (3, 5), np.arange(data_type.byte_count(15), dtype=np.uint8))
    else:
        tensor = Tensor.of(np.arange(15).reshape(3, 5).astype(data_type.dtype))
    value = inline_value(tensor)
    read = values.read(value, "here")
    assert (read.data_type, read.shape, read.data.tobytes()) == (data_type, (3, 5), tensor.data.tobytes())
    value.type.tensorType.dimensions[1].constant.size = 2
    with pytest.raises(FormatError, match=r"here: shape \(3, 2\) needs"):
        values.read(value, "here")


@pytest.mark.parametrize("shape", [(2**63,), (2**32, 2**32), (0, 2**60), (2**64 - 1, 0)])
def test_shapes_beyond_memory(values, shape):
    value = inline_value(Tensor.of(np.zeros(1, np.float16)))
    del value.type.tensorType.dimensions[:]
    value.type.tensorType.rank = len(shape)
    for size in shape:
        value.type.tensorType.dimensions.add().constant.size = size
    with pytest.raises(FormatError, match="is too large"):
        values.read(value, "here")


def test_descriptions():
    palettes = {spec: lower(apply(WEIGHT, spec), 9) for spec in IOS18_ONLY}
    texts = [
        describe(each.type, {name: (part.data_type, part.shape) for name, part in each.parameters.items()})
        for each in palettes.values()
    ]
    assert texts[:3] == ["palettized 3 bits", "palettized 2 bits, 3 groups", "palettized 4 bits, vectors of 2"]
    assert texts[4:6] == ["palettized 1 bit, 3 groups, vectors of 2", "quantized int4, 12 scales"]
    assert describe("constexpr_of_the_future", {}) == "constexpr_of_the_future"
