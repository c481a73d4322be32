"""Packages made to harm: what they name, declare or claim is refused before it costs memory, time or other files."""

import os
import shutil
import struct
import sys

import numpy as np
import pytest
from coreml_helpers import model_file, weight_file
from properties import limits
from seeds import make_seeds

from corepress import FormatError, coreml
from corepress.coreml.format import schema
from corepress.coreml.format.values import Tensor, inline_value, type_message
from corepress.coreml.format.weight_file import WeightFileReader

OPTIONS = {"weight_threshold": 0}


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seeds")
    make_seeds(folder)
    return folder


@pytest.fixture
def copy(seeds, tmp_path):
    return lambda name: shutil.copytree(seeds / f"{name}.mlpackage", tmp_path / "source.mlpackage")


def _edit(package, change):
    model = schema.read_model(model_file(package))
    change(model)
    model_file(package).write_bytes(schema.serialize_model(model))


def _block(model, function="main"):
    (block,) = model.mlProgram.functions[function].block_specializations.values()
    return block


def _operation(model, name, function="main"):
    return next(each for each in _block(model, function).operations if each.outputs[0].name == name)


def _runs(package, config=None, **options):
    config, options, folder = config or {"quantize": {}}, OPTIONS | options, package.parent
    return (
        lambda: coreml.inspect(package),
        lambda: coreml.plan(package, config, **options),
        lambda: coreml.compress(package, folder / "compressed.mlpackage", config, **options),
        lambda: coreml.decompress(package, folder / "dense.mlpackage"),
    )


def _assert_refused(package, message, runs=None):
    for run in runs or _runs(package):
        with limits(), pytest.raises(FormatError, match=message):
            run()
    assert [path.name for path in package.parent.iterdir()] == [package.name]


def test_a_constant_that_no_run_touches_is_checked(copy):
    package = copy("9")
    with WeightFileReader(weight_file(package)) as reader:
        (ids,) = (record for record in reader if record.data_type.name == "int32")
    data = bytearray(weight_file(package).read_bytes())
    struct.pack_into("<I", data, ids.offset + 4, 2)  # float32
    weight_file(package).write_bytes(data)
    _assert_refused(package, "is int32, but its blob holds float32")


def _chain(model, length, operands):
    block, before = _block(model), "matrix"
    kind = next(each for each in block.operations if each.outputs[0].name == "matrix").outputs[0].type
    for index in range(length):
        operation = block.operations.add(type="constexpr_blockwise_shift_scale")
        for operand in operands:
            operation.inputs[operand].arguments.add().name = before
        before = f"chain{index}"
        operation.outputs.add(name=before).type.CopyFrom(kind)
    block.outputs.append(before)


def test_a_chain_of_many_paths_takes_no_time(copy):
    package = copy("9")
    _edit(package, lambda model: _chain(model, 60, ("data", "scale")))
    with limits():
        for run in _runs(package):
            run()
        assert not coreml.verify(package, package).all_problems  # a form that is not known, but the same in both


def test_a_chain_of_many_steps_is_refused(copy):
    package = copy("9")
    _edit(package, lambda model: _chain(model, 300, ("data",)))
    _assert_refused(package, "is made of more than 256 constants")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_a_manifest_that_is_a_pipe_is_not_waited_for(copy):
    package = copy("9")
    (package / "Manifest.json").unlink()
    os.mkfifo(package / "Manifest.json")
    _assert_refused(package, "neither a file nor a directory")


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need a privilege")
@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="no devices on this system")
@pytest.mark.parametrize("name", ["Manifest.json", "Data/com.apple.CoreML/weights/weight.bin"])
def test_links_to_what_is_no_file_of_a_disk_are_not_followed(copy, name):
    package = copy("9")
    for target in ("/dev/zero", "/proc/self/environ"):
        (package / name).unlink()
        (package / name).symlink_to(target)
        if os.path.exists(target):
            _assert_refused(package, "neither a file nor a directory")


def test_a_huge_manifest_is_not_read(copy):
    package = copy("9")
    os.truncate(package / "Manifest.json", 1 << 33)
    _assert_refused(package, "8589934592 bytes, but a manifest has at most")


@pytest.mark.parametrize("name", ["model.mlmodel", "../../Manifest.json"])
def test_other_files_are_no_weight_files(copy, name):
    package = copy("9")

    def change(model):
        _operation(model, "matrix").attributes["val"].blobFileValue.fileName = f"@model_path/{name}"

    _edit(package, change)
    _assert_refused(package, "is not that of a weight file" if name == "model.mlmodel" else "stay inside the package")


def test_data_before_its_record_is_refused(copy):
    package = copy("9")
    data = bytearray(weight_file(package).read_bytes())
    with WeightFileReader(weight_file(package)) as reader:
        last = list(reader)[-1]
    struct.pack_into("<QQ", data, last.offset + 8, last.data_offset - 64 - 128, 128)
    weight_file(package).write_bytes(data)
    with WeightFileReader(weight_file(package)) as reader, pytest.raises(FormatError, match="does not follow it"):
        list(reader)
    assert not coreml.verify(package, package).ok


def test_records_within_the_data_of_others_are_refused(copy):
    """Each would be copied with all that it names: a file of n bytes could ask for n * n."""
    package = copy("9")
    with WeightFileReader(weight_file(package)) as reader:
        kernel = next(iter(reader))
        assert kernel.size == 256
    data = bytearray(weight_file(package).read_bytes())
    data[kernel.data_offset : kernel.data_offset + 64] = struct.pack(
        "<IIQQQ32x", 0xDEADBEEF, 1, 192, kernel.data_offset + 64, 0
    )
    weight_file(package).write_bytes(data)

    def change(model):
        for function in ("main", "other"):
            value = _operation(model, "matrix", function).attributes["val"]
            value.blobFileValue.offset = kernel.data_offset

    _edit(package, change)
    _assert_refused(package, "overlaps the blob whose record is at offset 64", _runs(package)[1:3])


def test_long_vectors_are_kept(copy):
    """One-bit codes of very long vectors would let a small file ask for all memory."""
    package = copy("9")
    count, length = 1 << 12, 1 << 18

    def change(model):
        for function in ("main", "other"):
            operation = _operation(model, "matrix", function)
            operation.type = "constexpr_lut_to_dense"
            operation.attributes.clear()
            values = {
                "indices": Tensor.packed("uint1", (count, 1), np.zeros(count // 8, np.uint8)),
                "lut": Tensor.of(np.zeros((1, 1, 2, length), np.float16)),
                "vector_axis": Tensor.of(np.int32(0)),
            }
            for name, tensor in values.items():
                operation.inputs[name].arguments.add().value.CopyFrom(inline_value(tensor))
            kind = type_message(values["lut"].data_type, (count * length, 1))
            operation.outputs[0].type.CopyFrom(kind)

    _edit(package, change)
    with limits():
        report = coreml.decompress(package, package.parent / "dense.mlpackage")
        record = next(each for each in report.weights if each.name == "matrix")
        assert record.reason == f"vectors of {length} elements is not supported by this version"
        assert not coreml.verify(package, package.parent / "dense.mlpackage").all_problems


def test_a_plan_does_not_believe_the_declared_shape(copy):
    package = copy("groups")

    def change(model):
        for function in ("main", "other"):
            _operation(model, "matrix", function).outputs[0].type.tensorType.dimensions[0].constant.size = 2**50

    _edit(package, change)
    runs = _runs(package, {"prune": {"target_sparsity": 0.5}}, joint_compression=True)
    _assert_refused(package, "stored bytes decode to|is declared float16", runs[1:])


def test_verify_reports_a_result_that_is_no_program(copy, seeds):
    package = copy("9")
    _edit(package, lambda model: model.neuralNetwork.SetInParent())
    verification = coreml.verify(seeds / "9.mlpackage", package)
    assert not verification.ok
    assert "is a neural network" in verification.problems[0]


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need a privilege")
def test_a_link_to_the_manifest_is_no_weight_file(copy):
    package = copy("9")
    weights = package / "Data/com.apple.CoreML/weights/weight.bin"
    weights.unlink()
    weights.symlink_to(package / "Manifest.json")
    _assert_refused(package, "is not that of a weight file")
