"""Constants in all forms that the format allows: as a program uses them, and by definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from corepress import FormatError
from corepress.coreml.format.data_types import BY_NAME
from corepress.coreml.format.package import Package
from corepress.coreml.format.schema import read_model, serialize_model
from corepress.coreml.format.values import ValueReader
from corepress.coreml.program.program import Program
from corepress.errors import UnsupportedOperationError
from corepress.runtime.torch.constants import Constants
from corepress.runtime.torch.constexpr import OPERATIONS, Constant, evaluate

X = {"x": ((2, 3), "float32")}
MASK = np.array([[1, 0, 1, 1], [0, 0, 1, 0]])  # four ones


@pytest.fixture(scope="session")
def narrow(mb):
    """Arrays of coremltools' types that are smaller than a byte."""
    from coremltools.converters.mil.mil import types

    def narrow(values, name):
        return np.asarray(values).astype(types.nptype_from_builtin(types.string_to_builtin(name)))

    return narrow


@pytest.fixture
def constants(mb, save):
    """Save constants, and yield the arrays that a run gets for them by name."""
    opened = []

    def constants(build, change=None, version=9):
        made = []

        def body(x):
            found = build()
            made.extend(found if isinstance(found, tuple | list) else [found])
            return mb.relu(x=x, name="y")

        package = Package.open(save(body, inputs=X, version=version))
        if change:
            model = read_model(package.model_path)
            change(next(iter(model.mlProgram.functions["main"].block_specializations.values())))
            package.model_path.write_bytes(serialize_model(model))
        program = Program(package, read_model(package.model_path))
        opened.append(Constants(package, program))
        values = {
            value.name: value for graph in program.graphs[""] for op in graph.operations() for value in op.outputs
        }
        return [opened[-1].tensor(values[each.name]) for each in made]

    yield constants
    for each in opened:
        each.close()


def both_ways(path, name):
    """A constant as the runtime decompresses it, and by definition."""
    package = Package.open(path)
    program = Program(package, read_model(package.model_path))
    (definition,) = (each for each in program.definitions if each.output_name == name)
    constants = Constants(package, program)
    value = next(
        value
        for graph in program.graphs[""]
        for operation in graph.operations()
        for value in operation.outputs
        if value.name == name
    )
    with ValueReader(package) as values:
        (by_definition,) = evaluate(definition, values)
    weight = constants.weight(value)
    constants.close()
    return weight.numpy(), by_definition.array


def edit(operation_type, edit_operation):
    def change(block):
        for operation in block.operations:
            if operation.type == operation_type:
                edit_operation(operation)

    return change


def test_plain_values_are_scaled_in_blocks(mb, constants):
    def build():
        return mb.constexpr_blockwise_shift_scale(
            data=np.arange(8, dtype=np.float32).reshape(2, 4),
            scale=np.array([[1, 2], [3, 4]], np.float32),
            offset=np.array([[0, 1], [0, 1]], np.float32),
        )

    (found,) = constants(build)
    assert found.tolist() == [[0, 1, 2, 4], [12, 15, 20, 24]]


@pytest.mark.parametrize("kind", ["int4", "uint4"])
def test_sparse_integers_of_four_bits(mb, narrow, constants, kind):
    def build():
        return mb.constexpr_sparse_to_dense(
            nonzero_data=narrow([7, 3, 1, 2] if kind == "uint4" else [7, -3, 1, -8], kind), mask=narrow(MASK, "uint1")
        )

    (found,) = constants(build)
    expected = [[7, 0, 3, 1], [0, 0, 2, 0]] if kind == "uint4" else [[7, 0, -3, 1], [0, 0, -8, 0]]
    assert found.tolist() == expected


@pytest.mark.parametrize("axis", [0, -1])
def test_sparse_vectors(mb, narrow, constants, axis):
    lut = np.arange(12, dtype=np.float16).reshape(2, 1, 2, 3)  # a table for each row
    built = []

    def build():
        built[:] = mb.constexpr_lut_to_sparse(
            indices_mask=narrow(MASK, "uint1"),
            indices_nonzero_data=narrow([1, 0, 1, 1], "uint1"),
            lut=lut,
            vector_axis=np.int32(axis),
        )
        return *built, mb.constexpr_sparse_to_dense(nonzero_data=built[1], mask=built[0])

    mask, values, dense = constants(build)
    expected = np.zeros((6, 4) if axis == 0 else (2, 12))
    for (row, column), code in zip(np.argwhere(MASK), [1, 0, 1, 1], strict=True):
        vector = lut[row, 0, code]
        if axis == 0:
            expected[3 * row : 3 * row + 3, column] = vector
        else:
            expected[row, 3 * column : 3 * column + 3] = vector
    np.testing.assert_array_equal(dense, expected)
    np.testing.assert_array_equal(mask, np.repeat(MASK, 3, axis))
    np.testing.assert_array_equal(values, expected[np.repeat(MASK, 3, axis) == 1])
    for found, oracle in zip((mask, values), built[0].op.materialized_val_inference(), strict=True):
        np.testing.assert_array_equal(found, oracle.astype(np.float32))


@pytest.mark.parametrize("kind", ["int8", "int4", "float32"])
def test_both_outputs_of_sparse_scaled_values(mb, narrow, constants, kind):
    data = np.array([1, -2, 3, 4])

    def build():
        return mb.constexpr_sparse_blockwise_shift_scale(
            data_mask=narrow(MASK, "uint1"),
            nonzero_data=narrow(data, kind) if kind == "int4" else data.astype(kind),
            scale=np.array([[1, 10]], np.float32),
            offset=np.array([[0, 1]], np.float32),
        )

    mask, values = constants(build)
    np.testing.assert_array_equal(mask, MASK)
    assert values.tolist() == [1, -30, 20, 30]
    assert values.dtype is torch.float32


def test_both_outputs_of_a_sparse_table(mb, narrow, constants):
    def build():
        return mb.constexpr_lut_to_sparse(
            indices_mask=narrow(MASK, "uint1"),
            indices_nonzero_data=narrow([3, 0, 1, 2], "uint2"),
            lut=np.array([5, 6, 7, 8], np.int8).reshape(1, 1, 4, 1),
        )

    mask, values = constants(build)
    np.testing.assert_array_equal(mask, MASK)
    assert values.tolist() == [8, 5, 6, 7]
    assert values.dtype is torch.int8


def test_a_run_uses_and_returns_second_outputs(mb, narrow, save, load):
    def body(x):
        _, values = mb.constexpr_sparse_blockwise_shift_scale(
            data_mask=narrow(np.ones((2, 3)), "uint1"),
            nonzero_data=np.arange(6, dtype=np.int8),
            scale=np.array([[1, 2, 3]], np.float32),
        )
        _, looked_up = mb.constexpr_lut_to_sparse(
            indices_mask=narrow(np.ones((4, 3)), "uint1"),
            indices_nonzero_data=narrow(np.arange(12) % 2, "uint1"),
            lut=np.array([5, 6], np.float32).reshape(1, 1, 2, 1),
        )
        return mb.add(x=x, y=mb.reshape(x=values, shape=[2, 3]), name="y"), mb.identity(x=looked_up, name="z")

    x = np.ones((2, 3), np.float32)
    found = load(save(body, inputs=X)).predict({"x": x})
    assert found["y"].tolist() == [[1, 3, 7], [4, 9, 16]]
    assert found["z"].tolist() == [5, 6] * 6


def test_a_sparse_convolution_of_vectors(mb, narrow, save, load, rng):
    mask, codes = narrow(rng.integers(0, 2, (4, 3, 1, 1)), "uint1"), rng.integers(0, 16, 12)
    lut = rng.standard_normal((1, 1, 1, 1, 16, 2)).astype(np.float32)
    weight = []

    def body(x):
        ones, values = mb.constexpr_lut_to_sparse(
            indices_mask=mask,
            indices_nonzero_data=narrow(codes[: np.count_nonzero(mask)], "uint4"),
            lut=lut,
            vector_axis=np.int32(0),
        )
        dense = mb.constexpr_sparse_to_dense(nonzero_data=values, mask=ones)
        weight.append(dense.op.materialized_val_inference())
        return mb.conv(x=x, weight=dense, name="y")

    x = rng.standard_normal((1, 3, 5, 5)).astype(np.float32)
    model = load(save(body, inputs={"x": (x.shape, "float32")}))
    expected = np.einsum("bchw,oc->bohw", x, weight[0][:, :, 0, 0])
    np.testing.assert_allclose(model.predict({"x": x})["y"], expected, rtol=1e-5, atol=1e-6)


def test_parameters_may_be_computed_by_any_constant_operation(mb, narrow, constants):
    def build():
        scale = mb.constexpr_blockwise_shift_scale(
            data=np.array([[1], [2]], np.int8), scale=np.array([[0.5]], np.float16)
        )
        lut = mb.constexpr_sparse_to_dense(
            nonzero_data=np.array([3, 4], np.int8), mask=narrow(np.array([0, 1, 1, 0]).reshape(1, 1, 4, 1), "uint1")
        )
        data = mb.constexpr_lut_to_dense(indices=narrow([[0, 1], [2, 3]], "uint2"), lut=lut)
        scaled = mb.constexpr_blockwise_shift_scale(data=data, scale=scale)
        return scaled, mb.constexpr_cast(source_val=scaled, output_dtype="fp32")

    for found in constants(build):
        assert found.tolist() == [[0, 1.5], [4, 0]]


def test_values_need_only_be_as_many_as_the_mask_has_ones(mb, narrow, constants):
    """Whatever yields them: another sparse operation, or a dense one."""

    def build():
        _, values = mb.constexpr_sparse_blockwise_shift_scale(
            data_mask=narrow(MASK, "uint1"),
            nonzero_data=np.array([1, 2, 3, 4], np.int8),
            scale=np.array([[10]], np.float32),
        )
        dense = mb.constexpr_lut_to_dense(
            indices=narrow([3, 2, 1, 0], "uint2"), lut=np.array([5, 6, 7, 8], np.float32).reshape(1, 4, 1)
        )
        other = narrow(MASK[::-1], "uint1")
        return [mb.constexpr_sparse_to_dense(nonzero_data=each, mask=other) for each in (values, dense)]

    of_sparse, of_dense = constants(build)
    assert of_sparse.tolist() == [[0, 0, 10, 0], [20, 0, 30, 40]]
    assert of_dense.tolist() == [[0, 0, 8, 0], [7, 0, 6, 5]]


def test_vectors_of_integers_and_long_ones(mb, narrow, constants):
    tables = {
        "integers": np.array([-1, 2, 3, 4], np.int8).reshape(1, 2, 2),
        "long": np.arange(600, dtype=np.float32).reshape(1, 2, 300),
    }

    def build():
        return [
            mb.constexpr_lut_to_dense(indices=narrow([1, 0, 1], "uint1"), lut=lut, vector_axis=np.int32(0))
            for lut in tables.values()
        ]

    integers, long = constants(build)
    assert integers.tolist() == [3, 4, -1, 2, 3, 4]
    assert integers.dtype is torch.int8
    np.testing.assert_array_equal(long, np.concatenate([np.arange(300, 600), np.arange(300), np.arange(300, 600)]))


@pytest.mark.parametrize("sparse", [True, False])
def test_a_small_file_cannot_ask_for_all_memory(sparse):
    ones, codes = (Constant(np.broadcast_to(np.uint8(each), (1 << 20,)), BY_NAME["uint1"]) for each in (1, 0))
    lut = Constant(np.broadcast_to(np.float32(0), (1, 2, 1 << 12)), BY_NAME["float32"])
    axis = Constant(np.int32(0), BY_NAME["int32"])
    given = {"indices_mask": ones, "indices_nonzero_data": codes} if sparse else {"indices": codes}
    look_up = OPERATIONS[f"constexpr_lut_to_{'sparse' if sparse else 'dense'}"]
    with pytest.raises(ValueError, match="the limit is"):
        look_up({**given, "lut": lut, "vector_axis": axis})


ORDINARY = {
    "affine": lambda mb, narrow, rng: mb.constexpr_affine_dequantize(
        quantized_data=rng.integers(0, 256, (6, 8)).astype(np.uint8),
        zero_point=rng.integers(0, 256, 8).astype(np.uint8),
        scale=rng.standard_normal(8).astype(np.float16),
        axis=np.int32(-1),
    ),
    "blockwise": lambda mb, narrow, rng: mb.constexpr_blockwise_shift_scale(
        data=narrow(rng.integers(-8, 8, (6, 8)), "int4"),
        scale=rng.standard_normal((3, 2)).astype(np.float16),
        offset=narrow(rng.integers(-8, 8, (3, 2)), "int4"),
    ),
    "groups": lambda mb, narrow, rng: mb.constexpr_lut_to_dense(
        indices=narrow(rng.integers(0, 8, (6, 8)), "uint3"), lut=rng.standard_normal((3, 2, 8, 1)).astype(np.float32)
    ),
    "vectors": lambda mb, narrow, rng: mb.constexpr_lut_to_dense(
        indices=narrow(rng.integers(0, 64, (6, 8)), "uint6"),
        lut=rng.standard_normal((2, 4, 64, 3)).astype(np.float16),
        vector_axis=np.int32(-2),
    ),
    "sparse": lambda mb, narrow, rng: mb.constexpr_sparse_to_dense(
        nonzero_data=rng.standard_normal(4).astype(np.float32), mask=narrow(np.pad(MASK, 1), "uint1")
    ),
}


@pytest.mark.parametrize("form", ORDINARY)
def test_the_definition_gives_the_bits_that_decompression_gives(mb, narrow, save, rng, form):
    path = save(
        lambda x: (mb.relu(x=x, name="y"), mb.identity(x=ORDINARY[form](mb, narrow, rng), name="z"))[0], inputs=X
    )
    package = Package.open(path)
    (name,) = (
        each.output_name
        for each in Program(package, read_model(package.model_path)).definitions
        if each.operation.type.startswith("constexpr_")
    )
    decompressed, by_definition = both_ways(path, name)
    assert decompressed.dtype == by_definition.dtype
    np.testing.assert_array_equal(decompressed, by_definition)


OLD = {
    "table": (
        lambda mb: mb.constexpr_lut_to_dense(
            indices=np.array([0b11100100, 0b01], np.uint8),
            lut=np.array([1, 2, 3, 4], np.float16),
            shape=np.array([5], np.uint32),
        ),
        [1, 2, 3, 4, 2],
    ),
    "sparse": (
        lambda mb: mb.constexpr_sparse_to_dense(
            nonzero_data=np.array([5, 6, 7], np.float16),
            mask=np.array([0b00001101], np.uint8),
            shape=np.array([2, 3], np.uint32),
        ),
        [[5, 0, 6], [7, 0, 0]],
    ),
    "affine": (
        lambda mb: mb.constexpr_affine_dequantize(
            quantized_data=np.array([[1, 2], [3, 4]], np.int8),
            zero_point=np.float32(0.5),
            scale=np.array([1, 10], np.float16),
            axis=np.int32(0),
        ),
        [[0.5, 1.5], [25, 35]],
    ),
}


@pytest.mark.parametrize("form", OLD)
def test_forms_of_ios16_by_definition(mb, save, form):
    build, expected = OLD[form]
    path = save(lambda x: (mb.relu(x=x, name="y"), build(mb))[0], inputs=X, version=7)
    package = Package.open(path)
    program = Program(package, read_model(package.model_path))
    (definition,) = (each for each in program.definitions if each.operation.type.startswith("constexpr_"))
    with ValueReader(package) as values:
        (found,) = evaluate(definition, values)
    assert found.array.tolist() == expected
    assert found.array.dtype == np.float16


def sparse_vectors(mb, narrow):
    return mb.constexpr_lut_to_sparse(
        indices_mask=narrow(MASK, "uint1"),
        indices_nonzero_data=narrow([1, 0, 1, 1], "uint1"),
        lut=np.arange(4, dtype=np.float16).reshape(1, 1, 2, 2),
        vector_axis=np.int32(1),
    )


def set_axis(operation):
    operation.inputs["vector_axis"].arguments[0].value.immediateValue.tensor.ints.values[0] = 2


def clear_mask(operation):
    operation.inputs["indices_mask"].arguments[0].value.immediateValue.tensor.bytes.values = b"\x00"


def drop_table(operation):
    del operation.inputs["lut"]


def drop_output(operation):
    del operation.outputs[1]


def declare_other_type(operation):
    operation.outputs[1].type.tensorType.dataType = 11


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (set_axis, "its vector_axis 2 is out of range for rank 2"),
        (clear_mask, r"its indices_nonzero_data has shape \(4,\), for 0 ones"),
        (drop_table, "has no parameter lut"),
        (drop_output, "has 2 outputs, not 1"),
        (declare_other_type, r"is declared float32 \(8,\), but stores float16 \(8,\)"),
    ],
)
def test_damage_is_named(mb, narrow, constants, damage, message):
    with pytest.raises(FormatError, match=message):
        constants(lambda: sparse_vectors(mb, narrow)[0], change=edit("constexpr_lut_to_sparse", damage))


def test_an_unknown_constant_operation_is_refused(mb, constants):
    def rename(operation):
        operation.type = "constexpr_hyperbolic_fold"

    with pytest.raises(UnsupportedOperationError, match="constexpr_hyperbolic_fold"):
        constants(
            lambda: mb.constexpr_cast(source_val=np.ones(3, np.float16), output_dtype="fp32"),
            change=edit("constexpr_cast", rename),
        )
