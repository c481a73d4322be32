"""Programs of many parts take time in proportion to these, and those nested too deep are refused, by any protobuf."""

import contextlib
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from coreml_helpers import model_file
from google.protobuf.message import DecodeError

from corepress import FormatError, coreml
from corepress.coreml.format import schema
from corepress.coreml.format.messages import DEPTH_LIMIT, _is_too_deep, message_classes
from helpers.processes import TIMEOUT

PALETTIZE = {"palettize": {"nbits": 2}}
WEIGHT = np.random.default_rng(5).standard_normal((64, 64)).astype(np.float32)


@pytest.fixture(scope="module")
def small_package(build):
    return build(lambda mb, x: mb.linear(x=x, weight=WEIGHT, name="dense"), {"x": ((1, 64), np.float32)}, name="small")


def edited(package, path, change):
    """A copy of a package, with its main block changed."""
    shutil.copytree(package, path, dirs_exist_ok=True)
    model = schema.read_model(model_file(path))
    function = model.mlProgram.functions["main"]
    change(model, function.block_specializations[function.opset])
    model_file(path).write_bytes(schema.serialize_model(model))
    return path


def relu(block, name):
    operation = block.operations.add(type="relu")
    operation.inputs["x"].arguments.add().name = "x"
    operation.outputs.add(name=name)
    return operation


def blocks(model, block, count):
    for index in range(count):
        operation = block.operations.add(type="cond")
        operation.outputs.add(name=f"cond_{index}")
        nested = operation.blocks.add()
        relu(nested, f"relu_{index}")
        nested.outputs.append(f"relu_{index}")


def consumers(model, block, count):
    weight = next(each for each in block.operations if each.type == "linear").inputs["weight"]
    for index in range(count):
        operation = relu(block, f"linear_{index}")
        operation.type = "linear"
        operation.inputs["weight"].CopyFrom(weight)


def outputs(model, block, count):
    """One operation with many outputs, each the operand of another one."""
    kind = block.operations[0].outputs[0].type
    many = block.operations.add(type="constexpr_thing")
    for index in range(count):
        many.outputs.add(name=f"output_{index}").type.CopyFrom(kind)
    for index in range(count):
        cast = block.operations.add(type="constexpr_cast")
        cast.inputs["source_val"].arguments.add().name = f"output_{index}"
        cast.outputs.add(name=f"cast_{index}").type.CopyFrom(kind)


def functions(model, block, count):
    main = model.mlProgram.functions["main"]
    for index in range(count // 16):
        model.mlProgram.functions[f"function_{index}"].CopyFrom(main)


def gathers(model, block, count):
    """Operations that are raised, in an older program."""
    function = model.mlProgram.functions["main"]
    for index in range(count):
        relu(block, f"gather_{index}").type = "gather"
        block.operations[-1].attributes["name"].CopyFrom(block.operations[0].attributes["name"])
    function.block_specializations["CoreML5"].CopyFrom(block)
    del function.block_specializations[function.opset]
    function.opset = "CoreML5"
    model.specificationVersion = 6


def seconds(run):
    """Of this process, at best: others may use the machine."""
    times = []
    for _ in range(2):
        started = time.process_time()
        run()
        times.append(time.process_time() - started)
    return min(times)


@pytest.mark.parametrize("many", [blocks, consumers, outputs, functions, gathers], ids=lambda many: many.__name__)
def test_eight_times_as_many_parts_take_about_eight_times_as_long(small_package, tmp_path, many):
    result = tmp_path / "result.mlpackage"
    found = []
    for count in (250, 2000):
        source = edited(
            small_package, tmp_path / f"{count}.mlpackage", lambda *places, count=count: many(*places, count)
        )

        def compress(source=source):
            coreml.compress(source, result, PALETTIZE, overwrite=True)

        jobs = (
            lambda source=source: coreml.inspect(source),
            compress,
            lambda source=source: coreml.verify(source, result),
            lambda source=source: coreml.compare(source, result),
        )
        found.append([seconds(job) for job in jobs])
    ratios = [larger / smaller for smaller, larger in zip(*found, strict=True)]
    assert max(ratios) < 24, ratios  # in proportion to the square it would be 64


def nested(depth):
    """Moves the weight into so many blocks within each other."""

    def change(model, block):
        operations = [each.SerializeToString() for each in block.operations]
        name = block.outputs[0]
        del block.operations[:]
        for index in range(depth):
            operation = block.operations.add(type="cond")
            operation.outputs.add(name=f"cond_{index}")
            inner = operation.blocks.add()
            block = inner
        block.outputs.append(name)
        for each in operations:
            block.operations.add().MergeFromString(each)

    return change


def deepest(package, path):
    """The greatest depth of which a model can be read, found by trying."""

    def is_read(depth):
        with contextlib.suppress(FormatError):
            return coreml.inspect(edited(package, path, nested(depth))) is not None
        return False

    return next(depth - 1 for depth in range(30, 60) if not is_read(depth))


def test_a_result_that_could_not_be_read_back_never_appears(small_package, tmp_path):
    """iOS 18 forms stand deeper in messages than the constants that they replace."""
    path, result = tmp_path / "deep.mlpackage", tmp_path / "result.mlpackage"
    depth = deepest(small_package, path)
    shutil.rmtree(path)
    edited(small_package, path, nested(depth))
    message = r"could not be read back \(its blocks or models are nested too deep.*leave the weights of its innermost"
    for run in (coreml.plan, lambda source, config: coreml.compress(source, result, config)):
        with pytest.raises(ValueError, match=message):
            run(path, PALETTIZE)
    assert [each.name for each in tmp_path.iterdir()] == ["deep.mlpackage"]
    coreml.compress(path, result, {"op_types": {"matmul": PALETTIZE}})
    assert coreml.verify(path, result).ok
    coreml.compress(edited(small_package, path, nested(depth - 2)), result, PALETTIZE, overwrite=True)
    assert coreml.verify(path, result).ok


REFUSED = """
import sys
from google.protobuf.internal import api_implementation
from corepress import FormatError, coreml, neural_network
assert api_implementation.Type() == "python"
path, out = sys.argv[1:3]
config = {"palettize": {"nbits": 4}}
for run in (
    lambda: coreml.inspect(path),
    lambda: coreml.plan(path, config),
    lambda: coreml.compress(path, out, config),
    lambda: coreml.decompress(path, out),
    lambda: coreml.verify(path, path),
    lambda: coreml.compare(path, path),
):
    try:
        run()
    except FormatError as error:
        assert "nested too deep" in str(error), error
    else:
        raise AssertionError("was accepted")
try:
    neural_network.inspect(path)
except ValueError:
    pass
"""


def run_in_python(code, *arguments):
    """Run code where protobuf is implemented in Python."""
    environment = os.environ | {"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT)


def length_delimited(field, data):
    """A field of a message."""
    head = bytearray()
    for number in (field << 3 | 2, len(data)):
        while number > 127:
            head.append(number & 127 | 128)
            number >>= 7
        head.append(number)
    return bytes(head) + data


def deep_blocks(depth):
    """A serialized ML program, as no implementation of protobuf writes it."""
    block = b""
    for _ in range(depth):
        block = length_delimited(3, length_delimited(4, block))
    entry = length_delimited(1, b"CoreML8") + length_delimited(2, block)
    function = length_delimited(2, b"CoreML8") + length_delimited(3, entry)
    functions = length_delimited(1, b"main") + length_delimited(2, function)
    return b"\x08\x09" + length_delimited(502, b"\x08\x01" + length_delimited(2, functions))


def deep_pipelines(depth):
    """A serialized pipeline of pipelines of a program."""
    model = deep_blocks(0)
    for _ in range(depth):
        model = b"\x08\x09" + length_delimited(202, length_delimited(1, model))
    return model


@pytest.mark.parametrize("depth", [60, 400, 5000])
@pytest.mark.parametrize("make", [deep_blocks, deep_pipelines], ids=lambda make: make.__name__)
def test_messages_nested_too_deep_are_damage_to_every_protobuf(small_package, tmp_path, make, depth):
    path = shutil.copytree(small_package, tmp_path / "deep.mlpackage")
    model_file(path).write_bytes(make(depth))
    with pytest.raises(FormatError, match="nested too deep"):
        coreml.inspect(path)
    done = run_in_python(REFUSED, path, tmp_path / "out.mlpackage")
    assert done.returncode == 0, done.stderr


def test_depth_is_found_where_protobuf_does_not_say_it():
    """As before version 7, whose messages name no reason."""
    messages = message_classes({"Node": "Node node = 1"}, "nodes")

    def nodes(depth):
        data = b""
        for _ in range(depth):
            data = length_delimited(1, data)
        return data

    descriptor = messages["Node"].DESCRIPTOR
    assert not _is_too_deep(nodes(DEPTH_LIMIT), descriptor)
    messages["Node"].FromString(nodes(DEPTH_LIMIT))
    assert _is_too_deep(nodes(DEPTH_LIMIT + 1), descriptor)
    with pytest.raises(DecodeError):
        messages["Node"].FromString(nodes(DEPTH_LIMIT + 1))
    assert not _is_too_deep(length_delimited(2, nodes(200)), descriptor)  # a field unknown to it
    for damaged in (b"\x80" * 1000, b"\x0a\x7f", b"\x0b", b"\x09\x00"):
        assert not _is_too_deep(damaged, descriptor)


def test_the_implementation_in_python_does_the_same(small_package, tmp_path):
    """A weight in as many blocks as can be, compressed and verified there."""
    path = edited(
        small_package, tmp_path / "deep.mlpackage", nested(deepest(small_package, tmp_path / "try.mlpackage") - 2)
    )
    code = """
import sys
from corepress import coreml
source, destination = sys.argv[1:]
coreml.compress(source, destination, {"palettize": {"nbits": 2}})
assert coreml.verify(source, destination).ok
"""
    done = run_in_python(code, path, tmp_path / "python.mlpackage")
    assert done.returncode == 0, done.stderr
    coreml.compress(path, tmp_path / "default.mlpackage", PALETTIZE)
    first, second = (tmp_path / f"{name}.mlpackage" for name in ("python", "default"))
    assert model_file(first).read_bytes() == model_file(second).read_bytes()
