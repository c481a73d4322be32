"""What trained packages lack: every kind of consumer, nested blocks, sharing, odd constants, later versions."""

import dataclasses
import shutil

import numpy as np
import pytest
from coreml_helpers import (
    assert_same_bits,
    constants,
    digest,
    model_file,
    operation_types,
    operations_of,
    other_operations,
    quiet,
    read_spec,
    weight_file,
)

from corepress import coreml
from corepress.compression import apply
from corepress.coreml.format.package import Package
from corepress.coreml.program.program import Program
from corepress.coreml.program.weights import weights_of
from corepress.specs import Palettize, Prune, Quantize

AXES = {
    "conv_weight_0": 0,
    "up_weight_0": 1,
    "shared": 0,
    "product_y_0": 1,
    "transposed_y_0": 0,
    "left_x_0": 0,
    "left_transposed_x_0": 1,
    "table_x_0": 0,
    "then_weight_0": 0,
    "otherwise_weight_0": 0,
    "uneven_weight_0": 0,
    "infinite_x_0": 0,
    "single_weight_0": 0,
    "small_x_0": 0,
    "integers_x_0": 0,
    "also_returned": 0,
}
KEPT = {
    "infinite_x_0": "contains infinite or NaN values",
    "small_x_0": "small: at most 2048 elements",
    "integers_x_0": "int32 is not float16 or float32",
    "returned": "no operation uses it",
    "also_returned": "block output, which Core ML does not take from a compressed weight",
    "linear_0_bias_0": "vector, such as a bias or a norm",
    "linear_1_bias_0": "vector, such as a bias or a norm",
    "then_bias_0": "vector, such as a bias or a norm",
    "otherwise_bias_0": "vector, such as a bias or a norm",
    "uneven_bias_0": "vector, such as a bias or a norm",
    "single_bias_0": "vector, such as a bias or a norm",
}
UNEVEN = {"uneven_weight_0": "group_size 16 does not divide axis 0 of length 50"}
IOS18_SPECS = [
    Palettize(nbits=1),
    Palettize(nbits=3),
    Palettize(nbits=8),
    Palettize(nbits=4, granularity="per_grouped_channel", group_size=16),
    Palettize(nbits=6, granularity="per_grouped_channel", group_size=16),
    Palettize(nbits=4, cluster_dim=2),
    Palettize(nbits=2, cluster_dim=4, granularity="per_grouped_channel", group_size=16, indivisible="per_tensor"),
    Quantize(),
    Quantize(dtype="uint8", mode="linear"),
    Quantize(mode="linear", granularity="per_tensor"),
    Quantize(dtype="int4"),
    Quantize(dtype="uint4", granularity="per_block", block_size=8),
    Quantize(dtype="int4", mode="linear", granularity="per_block", block_size=8),
    Prune(target_sparsity=0.5),
]
IOS16_SPECS = [Palettize(nbits=4), Quantize(mode="linear"), Prune(threshold=0.1)]
IOS18_OPERATIONS = {
    Palettize: "constexpr_lut_to_dense",
    Quantize: "constexpr_blockwise_shift_scale",
    Prune: "constexpr_sparse_to_dense",
}
IOS16_OPERATIONS = {**IOS18_OPERATIONS, Quantize: "constexpr_affine_dequantize"}


def _check(source, destination, spec, operations):
    before = digest(source)
    report = coreml.compress(source, destination, spec)
    assert digest(source) == before
    records = {record.name: record for record in report.weights}
    originals, decoded, types = constants(source), constants(destination), operation_types(destination)
    reasons = KEPT | (UNEVEN if getattr(spec, "granularity", "") == "per_grouped_channel" else {})
    if getattr(spec, "cluster_dim", 1) > 2:
        reasons["uneven_weight_0"] = "cluster_dim 4 does not divide axis 0 of length 50"
    assert {name: record.reason for name, record in records.items() if record.status == "kept"} == reasons
    for name, record in records.items():
        if record.status == "kept":
            assert types[name] == "const"
            assert_same_bits(decoded[name], originals[name], name)
            continue
        assert types[name] == operations[type(spec)]
        resolved = dataclasses.replace(spec, channel_axis=AXES[name]) if hasattr(spec, "channel_axis") else spec
        assert_same_bits(decoded[name], apply(originals[name], resolved).dense(), name)
    assert report.compressed == len(records) - len(reasons)
    assert other_operations(destination) == other_operations(source)
    assert [list(block.outputs) for block in _blocks(destination)] == [list(block.outputs) for block in _blocks(source)]


def _blocks(package):
    from coreml_helpers import blocks_of

    return blocks_of(read_spec(package))


@pytest.mark.parametrize("spec", IOS18_SPECS, ids=lambda spec: spec.description.replace(" ", "_"))
def test_ios18_forms(built_package, tmp_path, spec):
    _check(built_package, tmp_path / "compressed.mlpackage", spec, IOS18_OPERATIONS)


@pytest.mark.parametrize("spec", IOS16_SPECS, ids=lambda spec: spec.description.replace(" ", "_"))
def test_ios16_forms(ios16_package, tmp_path, spec):
    _check(ios16_package, tmp_path / "compressed.mlpackage", spec, IOS16_OPERATIONS)


def test_ios18_parameters_are_typed_inputs(ios18_package, tmp_path):
    destination = tmp_path / "compressed.mlpackage"
    coreml.compress(ios18_package, destination, {"palettize": {"nbits": 3}})
    operation = next(each for each in operations_of(read_spec(destination)) if each.outputs[0].name == "shared")
    assert set(operation.attributes) == {"name"}
    assert set(operation.inputs) == {"indices", "lut"}
    indices = operation.inputs["indices"].arguments[0].value
    assert indices.type.tensorType.dataType == 39
    assert [dimension.constant.size for dimension in indices.type.tensorType.dimensions] == [64, 64]
    assert operation.inputs["lut"].arguments[0].value.WhichOneof("value") == "immediateValue"


def test_axes_follow_the_consumers(ios18_package):
    weights = {weight.first.name: weight for weight in weights_of(Program(Package.open(ios18_package)))}
    assert {name: weights[name].axes for name in AXES} == {name: {axis} for name, axis in AXES.items()}
    assert weights["then_weight_0"].consumer_types == ("linear",)


@pytest.mark.parametrize("version", [9, 10])
def test_blocks_are_along_the_input_axis_of_the_consumer(build, tmp_path, version):
    rng = np.random.default_rng(3)
    table = {
        "batch": rng.standard_normal((3, 32, 40)).astype(np.float16),
        "batch_transposed": rng.standard_normal((3, 64, 40)).astype(np.float16),
        "odd": rng.standard_normal((70, 64)).astype(np.float16),
    }

    def body(mb, x):
        x = mb.matmul(x=mb.cast(x=x, dtype="fp16"), y=table["batch"], name="batch")
        x = mb.matmul(x=x, y=table["batch_transposed"], transpose_y=True, name="batch_transposed")
        return mb.linear(x=x, weight=table["odd"], name="odd")

    source = build(body, {"x": ((3, 2, 32), np.float32)}, version)
    spec = Quantize(dtype="int4", granularity="per_block", block_size=32)
    destination = tmp_path / "compressed.mlpackage"
    report = coreml.compress(source, destination, spec)
    records = {record.name: record for record in report.weights}
    assert records["batch_transposed_y_0"].reason == "block_size 32 does not divide axis 2 of length 40"
    assert records["batch_y_0"].method == "quantize int4 blocks of 32"
    eight = tmp_path / "eight.mlpackage"
    coreml.compress(source, eight, dataclasses.replace(spec, block_size=8))
    for package, name, sizes in [
        (destination, "batch_y_0", (0, 32, 1)),
        (destination, "odd_weight_0", (1, 32)),
        (eight, "batch_transposed_y_0", (0, 1, 8)),
    ]:
        weight = table[name.rsplit("_", 2)[0]]
        expected = apply(weight, dataclasses.replace(spec, block_size=sizes))
        assert_same_bits(constants(package)[name], expected.dense(), name)
    with pytest.raises(ValueError, match="batch_transposed_y_0"):
        coreml.compress(source, tmp_path / "strict.mlpackage", spec, strict=True)
    given = coreml.compress(source, tmp_path / "given.mlpackage", dataclasses.replace(spec, block_size=(2, 4)))
    reasons = {record.name: record.reason for record in given.weights}
    assert reasons["batch_y_0"] == "block_size (2, 4) does not have one entry for each axis of shape (3, 32, 40)"
    assert not reasons["odd_weight_0"]


def test_names_are_looked_up_as_scopes_say(ios18_package, tmp_path):
    """A block's input hides a constant of the same name, and so does a function's."""
    package = shutil.copytree(ios18_package, tmp_path / "source.mlpackage")
    spec = read_spec(package)
    function = spec.mlProgram.functions["main"]
    block = function.block_specializations[function.opset]
    nested = next(each for each in block.operations if each.type == "cond").blocks[0]
    nested.inputs.add().CopyFrom(nested.operations[0].outputs[0])
    nested.inputs[0].name = "shared"
    reader = nested.operations.add(type="gather")
    reader.inputs["x"].arguments.add().name = "shared"
    reader.inputs["indices"].arguments.add().name = "ids"
    model_file(package).write_bytes(spec.SerializeToString())
    weights = {weight.first.name: weight for weight in weights_of(Program(Package.open(package)))}
    assert weights["shared"].consumer_types == ("linear",)
    del nested.inputs[:]
    model_file(package).write_bytes(spec.SerializeToString())
    weights = {weight.first.name: weight for weight in weights_of(Program(Package.open(package)))}
    assert weights["shared"].consumer_types == ("linear", "gather")


def test_opsets_that_need_different_forms(ios18_package, tmp_path):
    package = shutil.copytree(ios18_package, tmp_path / "source.mlpackage")
    spec = read_spec(package)
    function = spec.mlProgram.functions["main"]
    function.block_specializations["CoreML7"].CopyFrom(function.block_specializations["CoreML8"])
    model_file(package).write_bytes(spec.SerializeToString())
    with pytest.raises(ValueError, match="opsets CoreML7, CoreML8 in one program"):
        coreml.compress(package, tmp_path / "compressed.mlpackage", {"quantize": {}})
    function.block_specializations["CoreML9"].CopyFrom(function.block_specializations["CoreML8"])
    del function.block_specializations["CoreML7"]
    model_file(package).write_bytes(spec.SerializeToString())
    coreml.compress(package, tmp_path / "compressed.mlpackage", {"quantize": {}})
    blocks = read_spec(tmp_path / "compressed.mlpackage").mlProgram.functions["main"].block_specializations
    assert blocks["CoreML8"] == blocks["CoreML9"]
    assert "constexpr_blockwise_shift_scale" in {operation.type for operation in blocks["CoreML9"].operations}


def test_an_axis_may_be_chosen(ios18_package, tmp_path):
    coreml.compress(ios18_package, tmp_path / "compressed.mlpackage", {"quantize": {"channel_axis": -1}})
    decoded, originals = constants(tmp_path / "compressed.mlpackage"), constants(ios18_package)
    expected = apply(originals["shared"], Quantize(channel_axis=1)).dense()
    assert_same_bits(decoded["shared"], expected)


def test_an_axis_that_is_not_there(ios18_package, tmp_path):
    report = coreml.compress(ios18_package, tmp_path / "compressed.mlpackage", {"quantize": {"channel_axis": 3}})
    reasons = {record.name: record.reason for record in report.weights}
    assert reasons["shared"] == "rank 2 has no channel_axis 3"
    assert reasons["conv_weight_0"] is None


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        (Quantize(), r"infinite_x_0 \(shape \(48, 64\)\): contains infinite or NaN"),
        (Palettize(nbits=4, granularity="per_grouped_channel", group_size=16), "uneven_weight_0 .*does not divide"),
        (Quantize(channel_axis=2), "has no channel_axis 2"),
    ],
)
def test_strict_names_the_weight(ios18_package, tmp_path, spec, name):
    with pytest.raises(ValueError, match=name):
        coreml.compress(ios18_package, tmp_path / "compressed.mlpackage", spec, strict=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "spec",
    [Palettize(nbits=4, nonfinite="error"), Quantize(nonfinite="error"), Prune(threshold=0.0, nonfinite="error")],
)
def test_values_that_are_not_finite_fail_the_run_if_asked(ios18_package, tmp_path, spec):
    message = rf"infinite_x_0: {spec.verb}: 1 of 3072 values are NaN or infinite \(shape \(48, 64\)\)"
    with pytest.raises(ValueError, match=message):
        coreml.compress(ios18_package, tmp_path / "compressed.mlpackage", spec)
    assert list(tmp_path.iterdir()) == []


def test_infinities_get_entries_of_their_own_if_asked(ios18_package, tmp_path):
    destination = tmp_path / "compressed.mlpackage"
    spec = Palettize(nbits=3, nonfinite="table")
    report = coreml.compress(ios18_package, destination, spec)
    record = next(record for record in report.weights if record.name == "infinite_x_0")
    assert record.status == "compressed"
    assert record.snr_db > 10
    original, decoded = constants(ios18_package)["infinite_x_0"], constants(destination)["infinite_x_0"]
    np.testing.assert_array_equal(np.isinf(decoded), np.isinf(original))
    assert_same_bits(decoded, apply(original, spec).dense())


def _program(build, body, version=9, **inputs):
    return build(body, {name: (shape, np.float32) for name, shape in inputs.items()}, version)


RNG = np.random.default_rng(5)
SQUARE = RNG.standard_normal((64, 64)).astype(np.float32)


@pytest.fixture(scope="module")
def disputed_package(build):
    def body(mb, x):
        weight = mb.const(val=SQUARE, name="disputed")
        return mb.matmul(x=mb.linear(x=x, weight=weight), y=weight)

    return _program(build, body, x=(2, 64))


def test_consumers_that_disagree(disputed_package, tmp_path):
    report = coreml.compress(disputed_package, tmp_path / "a.mlpackage", {"quantize": {}})
    record = next(record for record in report.weights if record.name == "disputed")
    assert record.reason == "its consumers disagree on the output channel axis; give channel_axis"
    with pytest.raises(ValueError, match=r"disputed .*disagree"):
        coreml.compress(disputed_package, tmp_path / "b.mlpackage", {"quantize": {}}, strict=True)
    indifferent = ({"palettize": {"nbits": 4}}, {"prune": {"threshold": 0.5}}, {"quantize": {"channel_axis": 0}})
    for index, config in enumerate(indifferent):
        report = coreml.compress(disputed_package, tmp_path / f"c{index}.mlpackage", config, strict=True)
        assert report.compressed == 1


@pytest.mark.parametrize("version", [7, 9])
def test_consts_that_share_a_blob_share_the_compressed_one(build, tmp_path, version):
    def body(mb, x):
        first = mb.linear(x=x, weight=SQUARE, name="first")
        return mb.linear(x=first, weight=SQUARE + 1, name="second")

    package = _program(build, body, version, x=(2, 64))
    spec = read_spec(package)
    consts = {each.outputs[0].name: each for each in operations_of(spec) if each.type == "const"}
    shared, freed = consts["first_weight_0"], consts["second_weight_0"]
    freed.attributes["val"].CopyFrom(shared.attributes["val"])
    model_file(package).write_bytes(spec.SerializeToString())

    destination = tmp_path / "compressed.mlpackage"
    report = coreml.compress(package, destination, {"palettize": {"nbits": 4}})
    assert report.compressed == 1
    decoded = constants(destination)
    expected = apply(SQUARE, Palettize(nbits=4)).dense()
    assert_same_bits(decoded["first_weight_0"], expected)
    assert_same_bits(decoded["second_weight_0"], expected)
    assert coreml.inspect(destination).weights[0].shared_by == 2
    first, second = (each for each in operations_of(read_spec(destination)) if each.type.startswith("constexpr"))
    assert dict(first.inputs) == dict(second.inputs)
    # The blob that nothing refers to any more is not ours to drop.
    data = weight_file(destination).read_bytes()
    assert (SQUARE + 1).tobytes() in data
    assert SQUARE.tobytes() not in data


@pytest.mark.parametrize("version", [7, 9])
@pytest.mark.parametrize("with_file", [True, False])
def test_inline_weights(build, tmp_path, version, with_file):
    def body(mb, x):
        inline = mb.linear(x=x, weight=SQUARE, bias=np.zeros(64, np.float32), name="inline")
        return mb.linear(x=inline, weight=SQUARE.T + 2, bias=np.ones(64, np.float32), name="stored")

    package = _program(build, body, version, x=(2, 64))
    spec = read_spec(package)
    for operation in operations_of(spec):
        name = operation.outputs[0].name
        if operation.type == "const" and (name.startswith("inline") or not with_file):
            value = operation.attributes["val"]
            if value.WhichOneof("value") == "blobFileValue":
                data = constants(package)[name]
                value.immediateValue.tensor.floats.values.extend(data.reshape(-1).tolist())
    model_file(package).write_bytes(spec.SerializeToString())
    if not with_file:
        weight_file(package).unlink()
        weight_file(package).with_name("kept.txt").touch()

    originals = {"inline_weight_0": SQUARE, "stored_weight_0": SQUARE.T + 2}
    for index, spec in enumerate((Palettize(nbits=4), Quantize(mode="linear"), Prune(target_sparsity=0.5))):
        destination, dense = tmp_path / f"{index}.mlpackage", tmp_path / f"dense{index}.mlpackage"
        assert coreml.compress(package, destination, spec).compressed == 2
        coreml.decompress(destination, dense)
        assert weight_file(destination).exists() == with_file
        for name, original in originals.items():
            expected = apply(original, spec).dense()
            assert_same_bits(constants(destination)[name], expected, name)
            assert_same_bits(constants(dense)[name], expected, name)
        assert_same_bits(constants(destination)["inline_bias_0"], np.zeros(64, np.float32))


def test_several_weight_files(build, tmp_path):
    def body(mb, x):
        return mb.linear(x=mb.linear(x=x, weight=SQUARE, name="first"), weight=SQUARE + 1, name="second")

    package = _program(build, body, x=(2, 64))
    other = weight_file(package).with_name("other.bin")
    other.write_bytes(weight_file(package).read_bytes())
    unused = weight_file(package).with_name("unused.bin")
    unused.write_bytes(b"left alone")
    spec = read_spec(package)
    for operation in operations_of(spec):
        if operation.outputs[0].name.startswith("second") and operation.type == "const":
            operation.attributes["val"].blobFileValue.fileName = "@model_path/weights/other.bin"
    model_file(package).write_bytes(spec.SerializeToString())
    destination = tmp_path / "compressed.mlpackage"
    assert coreml.compress(package, destination, Quantize()).compressed == 2
    decoded = constants(destination)
    for name, original in {"first_weight_0": SQUARE, "second_weight_0": SQUARE + 1}.items():
        assert_same_bits(decoded[name], apply(original, Quantize()).dense(), name)
    assert weight_file(destination).with_name("unused.bin").read_bytes() == b"left alone"
    assert set(coreml.inspect(destination).weight_files) == {
        "@model_path/weights/other.bin",
        "@model_path/weights/weight.bin",
    }


def test_functions_share_weights(ct, build, tmp_path):
    extra = {"a": SQUARE[:48], "b": SQUARE[:32] + 3}

    def body_of(name):
        def body(mb, x):
            return mb.linear(x=mb.linear(x=x, weight=SQUARE, name="base"), weight=extra[name], name=f"adapter_{name}")

        return body

    with quiet():
        descriptor = ct.utils.MultiFunctionDescriptor()
        for name in extra:
            descriptor.add_function(str(_program(build, body_of(name), x=(2, 64))), "main", name)
        descriptor.default_function_name = "a"
        package = tmp_path / "multi.mlpackage"
        ct.utils.save_multifunction(descriptor, str(package))
    destination, dense = tmp_path / "compressed.mlpackage", tmp_path / "dense.mlpackage"
    spec = Palettize(nbits=3)
    report = coreml.compress(package, destination, spec, weight_threshold=1000)
    assert report.compressed == 3
    inspection = coreml.inspect(destination)
    assert inspection.functions == ("a", "b")
    assert {each.name: each.shared_by for each in inspection.weights if len(each.shape) > 1} == {
        "base_weight_0": 2, "adapter_a_weight_0": 1, "adapter_b_weight_0": 1
    }  # fmt: skip
    coreml.decompress(destination, dense)
    for path in (destination, dense):
        for name, matrix in extra.items():
            decoded = constants(path, name)
            assert_same_bits(decoded["base_weight_0"], apply(SQUARE, spec).dense())
            assert_same_bits(decoded[f"adapter_{name}_weight_0"], apply(matrix, spec).dense())


def test_the_smallest_weights(build, tmp_path):
    """Parameters of fewer than ten elements stay in the program."""
    specs = (
        Palettize(nbits=1),
        Palettize(nbits=2),
        Quantize(mode="linear"),
        Prune(target_sparsity=0.5),
        Prune(target_sparsity=1),
    )
    small = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)

    def body(mb, x):
        return mb.linear(x=x, weight=small, name="small")

    for version in (7, 9):
        package = _program(build, body, version, x=(2, 4))
        for index, spec in enumerate(specs):
            destination = tmp_path / f"{version}{index}.mlpackage"
            report = coreml.compress(package, destination, spec, weight_threshold=0)
            assert report.compressed == 1
            expected = apply(small, spec).dense()
            dense = tmp_path / f"{version}{index}dense.mlpackage"
            coreml.decompress(destination, dense)
            assert_same_bits(constants(dense)["small_weight_0"], expected)
            assert_same_bits(constants(destination)["small_weight_0"], expected)


def test_unique_keeps_what_has_too_many_values(ios18_package, tmp_path):
    report = coreml.compress(ios18_package, tmp_path / "compressed.mlpackage", {"palettize": {"mode": "unique"}})
    reasons = {record.name: record.reason for record in report.weights}
    assert reasons["conv_weight_0"] == "more distinct values than a table holds"
    with pytest.raises(ValueError, match="more distinct values than a table holds"):
        coreml.compress(ios18_package, tmp_path / "strict.mlpackage", {"palettize": {"mode": "unique"}}, strict=True)


@pytest.mark.parametrize(
    ("indivisible", "method"),
    [("nearest_divisor", "palettize 4 bits, groups of 10"), ("per_tensor", "palettize 4 bits"), ("skip", None)],
)
def test_what_becomes_of_groups_that_do_not_divide(ios18_package, tmp_path, indivisible, method):
    spec = Palettize(nbits=4, granularity="per_grouped_channel", group_size=12, indivisible=indivisible)
    report = coreml.compress(ios18_package, tmp_path / "compressed.mlpackage", spec)
    methods = {record.name: record.method for record in report.weights}
    assert methods["uneven_weight_0"] == method
    originals, decoded = constants(ios18_package), constants(tmp_path / "compressed.mlpackage")
    if method:
        expected = apply(originals["uneven_weight_0"], spec).dense()
        assert_same_bits(decoded["uneven_weight_0"], expected)
    else:
        assert_same_bits(decoded["uneven_weight_0"], originals["uneven_weight_0"])


def test_groups_that_do_not_divide_may_be_an_error(ios18_package, tmp_path):
    spec = Palettize(nbits=4, granularity="per_grouped_channel", group_size=16, indivisible="error")
    with pytest.raises(ValueError, match=r"uneven_weight_0: palettize: axis 0 of length 50 is not a multiple"):
        coreml.compress(ios18_package, tmp_path / "compressed.mlpackage", spec)
    assert not list(tmp_path.iterdir())
