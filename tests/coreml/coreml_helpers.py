"""Reading packages with coremltools, the independent reference of these tests."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import io
import warnings
from pathlib import Path

import numpy as np

from corepress.coreml.format import schema
from corepress.coreml.format.values import Tensor, blob_value
from corepress.coreml.format.weight_file import WeightFileWriter


@contextlib.contextmanager
def quiet():
    """coremltools warns and prints while it is imported and while it works."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def model_file(package: Path) -> Path:
    return package / "Data/com.apple.CoreML/model.mlmodel"


def weight_file(package: Path) -> Path:
    return package / "Data/com.apple.CoreML/weights/weight.bin"


def read_spec(package: Path):
    """The model as coremltools' own message, read without coremltools touching the package."""
    from coremltools.proto import Model_pb2

    spec = Model_pb2.Model()
    spec.ParseFromString(model_file(package).read_bytes())
    return spec


def blocks_of(spec):
    pending = [
        block
        for _, function in sorted(spec.mlProgram.functions.items())
        for _, block in sorted(function.block_specializations.items())
    ]
    while pending:
        block = pending.pop(0)
        yield block
        pending.extend(nested for operation in block.operations for nested in operation.blocks)


def operations_of(spec):
    return [operation for block in blocks_of(spec) for operation in block.operations]


def operation_types(package: Path) -> dict[str, str]:
    """Operation type by output name."""
    return {output.name: each.type for each in operations_of(read_spec(package)) for output in each.outputs}


def constants(package: Path, function: str = "main") -> dict[str, np.ndarray]:
    """All constants by output name, decompressed by coremltools."""
    with quiet():
        from coremltools.converters.mil.frontend.milproto.load import load

        spec = read_spec(package)
        program = load(spec, spec.specificationVersion, str(weight_file(package).parent))
        found = {}
        pending = [program.functions[function]]
        while pending:
            for operation in pending.pop().operations:
                if operation.op_type == "const":
                    found[operation.outputs[0].name] = operation.outputs[0].val
                elif operation.op_type.startswith("constexpr_"):
                    value = materialized(operation)
                    if not isinstance(value, tuple):
                        found[operation.outputs[0].name] = value
                pending.extend(operation.blocks)
    # The parameters of compressed weights are constants to coremltools, but not in the program.
    written = operation_types(package)
    return {name: value for name, value in found.items() if name in written}


def materialized(operation):
    """What a constant operation yields. coremltools itself fails where a table is computed by another operation."""
    decompress = getattr(type(operation), "decompress", None)
    names = inspect.signature(decompress).parameters if decompress else ()
    given = {name: operation.inputs.get(name) for name in names}
    computed = {name for name, var in given.items() if var is not None and var.val is None and var.op is not None}
    if not computed:
        return operation.materialized_val_inference()
    arguments = []
    for name, var in given.items():
        value = var.val if var is not None and name not in computed else None
        if name in computed:
            value = materialized(var.op)
            value = value[var.op.outputs.index(var)] if isinstance(value, tuple) else value
        arguments.append(value)
    return decompress(*arguments)


def float_constants(package: Path) -> dict[str, np.ndarray]:
    return {
        name: value
        for name, value in constants(package).items()
        if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.ndim
    }


def assert_same_bits(actual: np.ndarray, expected: np.ndarray, name: str = "") -> None:
    assert actual.dtype == expected.dtype, name
    assert actual.shape == expected.shape, name
    assert actual.tobytes() == expected.tobytes(), name


def replace_weights(package: Path, weights: list[np.ndarray]) -> None:
    """Make the program of a package one of linear layers with these weights, called weight0 and so on."""
    model = schema.read_model(model_file(package))
    block = model.mlProgram.functions["main"].block_specializations["CoreML6"]
    del block.operations[:], block.outputs[:]
    weight_file(package).unlink()
    with WeightFileWriter(weight_file(package)) as writer:
        for index, weight in enumerate(weights):
            tensor = Tensor.of(weight)
            offset = writer.append(tensor.data_type, tensor.count, weight)
            value = blob_value(tensor, "@model_path/weights/weight.bin", offset)
            const = block.operations.add(type="const")
            const.attributes["val"].CopyFrom(value)
            const.outputs.add(name=f"weight{index}").type.CopyFrom(value.type)
            consumer = block.operations.add(type="linear")
            consumer.inputs["weight"].arguments.add().name = f"weight{index}"
    model_file(package).write_bytes(schema.serialize_model(model))


def digest(package: Path) -> dict[str, str]:
    """Hash of every file of a package, by relative path."""
    return {
        path.relative_to(package).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(package.rglob("*"))
        if path.is_file()
    }


def other_operations(package: Path) -> list[str]:
    """Everything in the program but constants, as text with stable order."""
    return [
        f"{each.type} {sorted((name, str(argument)) for name, argument in each.inputs.items())} {list(each.outputs)}"
        for each in operations_of(read_spec(package))
        if each.type != "const" and not each.type.startswith("constexpr_")
    ]
