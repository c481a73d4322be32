"""What verification accepts, and each kind of damage that it finds."""

import json
import math
import os
import shutil
import struct

import numpy as np
import pytest
from coreml_helpers import model_file, operations_of, quiet, read_spec, weight_file

from corepress import coreml
from corepress.compression.metrics import Error
from corepress.coreml.format import schema
from corepress.coreml.format.weight_file import WeightFileReader
from corepress.engine.checking import Wrong, changed_files, require_snr
from corepress.specs import Palettize, Prune, Quantize

SPECS = [
    Palettize(nbits=4),
    Palettize(nbits=3, granularity="per_grouped_channel", group_size=16),
    Quantize(dtype="int4", mode="linear", granularity="per_block", block_size=8),
    Prune(target_sparsity=0.5),
]


@pytest.fixture
def pair(ios18_package, tmp_path):
    """A source, and a sound result that a test may damage; both float16 weights and kept constants."""
    compressed = tmp_path / "compressed.mlpackage"
    coreml.compress(ios18_package, compressed, Quantize())
    return ios18_package, compressed


def _edit(package, change):
    """Change the model of a package."""
    spec = read_spec(package)
    change(spec, {output.name: each for each in operations_of(spec) for output in each.outputs})
    model_file(package).write_bytes(spec.SerializeToString())


def _blob(operation, parameter):
    for values in (operation.attributes, operation.inputs):
        if parameter in values:
            value = values[parameter]
            value = value.arguments[0].value if values is operation.inputs else value
            return value.blobFileValue.offset
    raise AssertionError(parameter)


def _overwrite(package, name, parameter, data):
    """Replace the first bytes of a blob."""
    operation = next(each for each in operations_of(read_spec(package)) if each.outputs[0].name == name)
    with WeightFileReader(weight_file(package)) as reader:
        start = reader.record(_blob(operation, parameter)).data_offset
    with weight_file(package).open("r+b") as file:
        file.seek(start)
        file.write(data)


def _problems(pair):
    verification = coreml.verify(*pair)
    assert not verification.ok
    assert verification.totals.splitlines()[-1].startswith("FAILED")
    return verification.all_problems


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.description.replace(" ", "_"))
def test_a_sound_result(built_package, tmp_path, spec):
    compressed = tmp_path / "compressed.mlpackage"
    report = coreml.compress(built_package, compressed, spec)
    verification = coreml.verify(built_package, compressed)
    assert verification.ok, verification.totals
    assert verification.all_problems == ()
    statuses = {weight.name: weight.status for weight in verification.weights}
    ratios = {weight.name: weight.snr_db for weight in verification.weights}
    for record in report.weights:
        assert statuses[record.name] == ("compressed" if record.status == "compressed" else "identical")
        if record.snr_db is None:
            assert ratios[record.name] is None
        else:
            assert ratios[record.name] == pytest.approx(record.snr_db, rel=1e-12)
    assert verification.bytes_after == report.bytes_after


def test_decompressing_is_sound_and_so_is_a_copy(ios18_package, tmp_path):
    small, dense = tmp_path / "small.mlpackage", tmp_path / "dense.mlpackage"
    coreml.compress(ios18_package, small, Palettize(nbits=2))
    coreml.decompress(small, dense)
    verification = coreml.verify(small, dense)
    assert verification.ok, verification.totals
    assert "decompressed" in {weight.status for weight in verification.weights}
    copied = coreml.verify(small, shutil.copytree(small, tmp_path / "copy.mlpackage"))
    assert copied.ok
    assert {weight.status for weight in copied.weights} == {"identical"}


def test_a_package_that_coremltools_has_opened_is_the_same(ct, trained_package, tmp_path):
    copy = shutil.copytree(trained_package, tmp_path / "copy.mlpackage")
    manifest = copy / "Manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()), indent=7))
    assert coreml.verify(trained_package, copy).ok


def test_the_order_of_metadata_means_nothing(pair, tmp_path):
    source = shutil.copytree(pair[0], tmp_path / "source.mlpackage")
    for package, keys in ((source, "abc"), (pair[1], "cba")):
        model = type(read_spec(package))
        parts = [model() for _ in keys]  # messages one after another are read as one
        for part, key in zip(parts, keys, strict=True):
            part.description.metadata.userDefined[key] = key
        with model_file(package).open("ab") as file:
            file.write(b"".join(part.SerializeToString() for part in parts))
    assert coreml.verify(source, pair[1]).ok
    _edit(pair[1], lambda spec, operations: spec.description.metadata.userDefined.update({"a": "b"}))
    assert _problems((source, pair[1])) == (
        "the model: its description, metadata or another field outside of the programs",
    )


def test_what_coremltools_compressed_is_checked_too(ct, trained_package, tmp_path):
    cto = ct.optimize.coreml
    with quiet():
        model = ct.models.MLModel(str(trained_package), skip_model_load=True)
        config = cto.OptimizationConfig(global_config=cto.OpLinearQuantizerConfig())
        cto.linear_quantize_weights(model, config).save(str(tmp_path / "theirs.mlpackage"))
    verification = coreml.verify(trained_package, tmp_path / "theirs.mlpackage")
    # Constants are followed to their new names, but that coremltools also rebuilds the program is reported.
    assert not verification.ok
    assert not any("is missing" in problem or "was added" in problem for problem in verification.all_problems)
    assert any("operation" in problem or "the model:" in problem for problem in verification.all_problems)


def test_a_kept_constant_that_changed(pair):
    _overwrite(pair[1], "returned", "val", b"\x01")
    (problem,) = _problems(pair)
    assert problem == "returned: its values changed, although it is not compressed"


def test_a_scale_that_became_nan(pair):
    _overwrite(pair[1], "conv_weight_0", "scale", struct.pack("<e", float("nan")))
    (problem,) = _problems(pair)
    assert problem == "conv_weight_0: 144 of 9216 values decode to NaN or infinity"


def test_a_wrong_shape(pair):
    def change(spec, operations):
        operation = operations["conv_weight_0"]
        for message in (operation.outputs[0].type, operation.inputs["data"].arguments[0].value.type):
            message.tensorType.dimensions[0].constant.size = 32

    _edit(pair[1], change)
    assert "conv_weight_0: was float16 (64, 16, 3, 3), but is float16 (32, 16, 3, 3)" in _problems(pair)


def test_a_blob_of_another_type(pair):
    def change(spec, operations):
        operations["conv_weight_0"].inputs["data"].arguments[0].value.blobFileValue.offset = _blob(
            operations["conv_weight_0"], "scale"
        )

    _edit(pair[1], change)
    (problem,) = _problems(pair)
    assert "is int8, but its blob holds float16" in problem


def test_a_weight_file_cut_short(pair):
    data = weight_file(pair[1]).read_bytes()
    weight_file(pair[1]).write_bytes(data[:-100])
    assert any("the file has" in problem for problem in _problems(pair))
    weight_file(pair[1]).write_bytes(data[:30])
    assert any("30 bytes" in problem for problem in _problems(pair))


def test_a_weight_file_that_counts_too_many_blobs(pair):
    with weight_file(pair[1]).open("r+b") as file:
        count = struct.unpack("<I", file.read(4))[0]
        file.seek(0)
        file.write(struct.pack("<I", count + 1))
    assert any(f"the header counts {count + 1} blobs" in problem for problem in _problems(pair))


def test_a_missing_weight_file_or_manifest(pair):
    weight_file(pair[1]).unlink()
    (problem,) = _problems(pair)
    assert "which does not exist" in problem
    (pair[1] / "Manifest.json").unlink()
    (problem,) = _problems(pair)
    assert "Manifest.json" in problem


def test_other_files(pair):
    (pair[1] / "extra.txt").write_text("new")
    assert _problems(pair) == ("file extra.txt was added",)
    (pair[1] / "extra.txt").unlink()
    manifest = json.loads((pair[1] / "Manifest.json").read_text())
    manifest["other"] = 1
    (pair[1] / "Manifest.json").write_text(json.dumps(manifest))
    assert _problems(pair) == ("file Manifest.json differs",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda spec, _: spec.description.metadata.userDefined.update({"a": "b"}), "the model: its description"),
        (lambda spec, _: setattr(spec, "specificationVersion", 10), "the model: its description"),
        (lambda spec, _: spec.mlProgram.functions["other"].CopyFrom(spec.mlProgram.functions["main"]), "was added"),
        (lambda spec, _: spec.mlProgram.functions["main"].inputs.pop(), "function main: its inputs"),
        (lambda spec, ops: setattr(ops["conv"], "type", "conv_transpose"), "operation conv conv"),
        (lambda spec, ops: ops["conv"].inputs["x"].arguments[0].__setattr__("name", "image"), "operation conv conv"),
        (lambda spec, ops: ops["conv_weight_0"].outputs[0].__setattr__("name", "w"), "conv_weight_0 is missing"),
    ],
    ids=["metadata", "version", "function", "inputs", "type", "operand", "name"],
)  # fmt: skip
def test_a_program_that_changed(pair, change, message):
    _edit(pair[1], change)
    assert any(message in problem for problem in _problems(pair))


def test_operations_in_nested_blocks(pair):
    _edit(pair[1], lambda spec, operations: setattr(operations["then"], "type", "matmul"))
    assert any("operation linear then" in problem for problem in _problems(pair))


def test_a_floor_for_the_ratio(pair):
    assert coreml.verify(*pair, min_snr_db=30).ok
    verification = coreml.verify(*pair, min_snr_db=60)
    assert not verification.ok
    assert "is 4" in verification.all_problems[0]
    assert "less than 60 dB" in verification.all_problems[0]


def test_json_is_strict_and_complete(pair):
    values = json.loads(coreml.verify(*pair).to_json())
    assert values["ok"] is True
    assert {weight["status"] for weight in values["weights"]} == {"identical", "compressed"}
    assert all(np.isfinite(weight["snr_db"]) for weight in values["weights"] if weight["status"] == "compressed")


def test_a_damaged_source_is_an_error(pair, tmp_path):
    source = shutil.copytree(pair[0], tmp_path / "damaged.mlpackage")
    model_file(source).write_bytes(b"\xff")
    with pytest.raises(coreml.FormatError, match="not a serialized Core ML model"):
        coreml.verify(source, pair[1])


def test_every_block_specialization_is_looked_at(ios18_package, tmp_path):
    source, compressed = tmp_path / "source.mlpackage", tmp_path / "compressed.mlpackage"
    shutil.copytree(ios18_package, source)

    def specialize(spec, operations):
        function = spec.mlProgram.functions["main"]
        function.block_specializations["CoreML9"].CopyFrom(function.block_specializations["CoreML8"])

    _edit(source, specialize)
    coreml.compress(source, compressed, Quantize())
    verification = coreml.verify(source, compressed)
    assert verification.ok, verification.totals
    # Shared weights are compared and listed once.
    assert len({weight.name for weight in verification.weights}) == len(verification.weights)

    def change(spec, operations):
        block = spec.mlProgram.functions["main"].block_specializations["CoreML9"]
        next(each for each in block.operations if each.type == "conv").type = "conv_transpose"

    _edit(compressed, change)
    (problem,) = coreml.verify(source, compressed).all_problems
    assert problem == "block main/CoreML9: operation conv conv"


def test_operands_of_joint_forms_are_compared(ios18_package, tmp_path):
    """Another use of the same parameters is another weight, even if all that is stored is the same."""
    joint, swapped = tmp_path / "joint.mlpackage", tmp_path / "swapped.mlpackage"
    coreml.compress(ios18_package, joint, [Prune(target_sparsity=0.5), Palettize(nbits=4)])
    assert {each.status for each in coreml.verify(joint, joint).weights} == {"identical"}
    shutil.copytree(joint, swapped)
    model = schema.read_model(model_file(swapped))
    (block,) = model.mlProgram.functions["main"].block_specializations.values()
    name, inputs = next(
        (each.outputs[0].name, each.inputs) for each in block.operations if each.type == "constexpr_sparse_to_dense"
    )
    mask, values = (inputs[key].arguments[0].name for key in ("mask", "nonzero_data"))
    inputs["mask"].arguments[0].name, inputs["nonzero_data"].arguments[0].name = values, mask
    model_file(swapped).write_bytes(schema.serialize_model(model))
    records = {each.name: each for each in coreml.verify(joint, swapped).weights}
    assert records[name].problem is not None
    assert [each.name for each in records.values() if each.problem] == [name]


def test_the_lowest_ratio_is_right():
    error = Error(1.0, 1.0, 20.0, 1.0, 1.0)
    for least in (None, 20.0, math.nextafter(20.0, 0)):
        require_snr(error, least)
    with pytest.raises(Wrong, match=r"its signal-to-noise ratio is 20\.0 dB, less than 20 dB"):
        require_snr(error, math.nextafter(20.0, 30))


def test_files_of_one_size_and_time_are_compared(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for path, text in ((first, "a"), (second, "b")):
        path.write_text(text)
        os.utime(path, (0, 0))
    assert list(changed_files({"x": first}, {"x": second})) == ["file x differs"]
    assert list(changed_files({"x": first, "y": first}, {"x": first, "z": first})) == [
        "file y is missing",
        "file z was added",
    ]
