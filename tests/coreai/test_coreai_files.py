"""Assets on the disk: damage of every kind, and what is written."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("coreai")

from coreai_helpers import constant_asset, replace_all, run

import corepress as cp
from corepress.coreai.format.asset import HASH, METADATA, PROGRAM, Asset
from corepress.coreai.format.asset_writer import AssetWriter
from corepress.coreai.format.bytecode import Bytecode
from corepress.coreai.program.program import Program
from corepress.errors import FormatError, SourceChangedError

SHAPE = (40, 48)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("original")
    source = constant_asset(folder / "splat.aimodel", SHAPE, "float32")
    weight = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    return replace_all(source, folder / "original.aimodel", weight)


@pytest.fixture
def copy(original, tmp_path):
    return shutil.copytree(original, tmp_path / "copy.aimodel")


def test_weights_are_mapped(original):
    program = Program(original)
    values = program.weights[0].read()
    assert values.shape == SHAPE
    assert not values.flags.owndata
    assert not values.flags.writeable
    blob = program.constants.bytecode.blobs
    assert [each.size for each in blob.values()] == [values.nbytes]
    before = values.copy()
    program.weights[0].release()
    assert np.array_equal(values, before)


@pytest.mark.parametrize("left", [0, 3, 10, 60, 0.3, 0.6, 0.99])
def test_programs_that_are_cut_off(left, copy):
    data = (copy / PROGRAM).read_bytes()
    (copy / PROGRAM).write_bytes(data[: left if isinstance(left, int) else int(len(data) * left)])
    with pytest.raises(FormatError, match=PROGRAM):
        Program(copy)


@pytest.mark.parametrize("section", ["Dialect", "AttrType", "AttrTypeOffset", "IR", "Properties", "ResourceOffset"])
def test_programs_with_garbage_in_a_section(section, copy):
    place = Bytecode(copy / PROGRAM).sections[section]
    data = bytearray((copy / PROGRAM).read_bytes())
    data[place.offset : place.offset + place.size] = b"\x93" * place.size
    (copy / PROGRAM).write_bytes(data)
    with pytest.raises(FormatError, match=PROGRAM):
        Program(copy)


def test_pointers_of_git_lfs(copy):
    (copy / PROGRAM).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 100\n")
    with pytest.raises(FormatError, match="git lfs pull"):
        Program(copy)


@pytest.mark.parametrize("content", [b"", b"MLIR", b"\x00" * 100, b"ML\xefR", b"ML\xefR\x0dMLIR\x00", b"text " * 50])
def test_files_that_are_no_programs(content, copy):
    (copy / PROGRAM).write_bytes(content)
    with pytest.raises(FormatError, match=PROGRAM):
        Program(copy)


def test_data_that_is_shorter_than_its_type(copy):
    data = bytearray((copy / PROGRAM).read_bytes())
    code = Bytecode(copy / PROGRAM)
    ((key, blob),) = code.blobs.items()
    # The size of the data is the number before the padding: halve it, and the resource's size with it.
    place, half = code.sections["ResourceOffset"], blob.size // 2
    entry = blob.offset + blob.size - code.sections["Resource"].offset
    data[place.offset : place.offset + place.size] = data[place.offset : place.offset + place.size].replace(
        _varint(entry), _varint(entry - half)
    )
    start = code.sections["Resource"].offset
    head = data[start : blob.offset].replace(_varint(blob.size), _varint(half))
    data[start : blob.offset] = head
    (copy / PROGRAM).write_bytes(data)
    assert Bytecode(copy / PROGRAM).blobs[key].size == half
    with pytest.raises(FormatError, match=f"has {half} bytes, its type asks for {blob.size}"):
        Program(copy)


def _varint(value):
    count = next(count for count in range(1, 9) if value < 1 << (7 * count))
    return (((value << 1) | 1) << (count - 1)).to_bytes(count, "little")


def test_metadata(copy):
    (copy / METADATA).write_text(json.dumps({"assetVersion": "3.0"}))
    with pytest.raises(FormatError, match=r"assetVersion must be '2\.0', not '3\.0'"):
        Asset.open(copy)
    for text in ("", "[]", "{", '{"producer": "me"}', "\ud800".encode("utf-8", "surrogatepass").decode("latin-1")):
        (copy / METADATA).write_text(text, encoding="latin-1")
        with pytest.raises(FormatError, match=METADATA):
            Asset.open(copy)
    (copy / METADATA).unlink()
    assert Asset.open(copy).metadata == {}


def test_other_paths(copy, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such asset"):
        Asset.open(tmp_path / "none.aimodel")
    with pytest.raises(FormatError, match="a single file"):
        Asset.open(copy / PROGRAM)
    (copy / PROGRAM).unlink()
    with pytest.raises(FormatError, match=f"has no file {PROGRAM}"):
        Asset.open(copy)
    (copy / PROGRAM).mkdir()
    with pytest.raises(FormatError, match="is not a file"):
        Asset.open(copy)


@pytest.mark.parametrize("content", [None, b"", b"0" * 32])
def test_hashes_need_not_be_right(content, copy):
    (copy / HASH).unlink()
    if content is not None:
        (copy / HASH).write_bytes(content)
    assert len(Program(copy).weights) == 1


def test_saving_without_changes_gives_the_same_bytes(original, tmp_path):
    result = replace_all_with_nothing(original, tmp_path / "result.aimodel")
    for name in (PROGRAM, HASH, METADATA):
        assert (result / name).read_bytes() == (original / name).read_bytes()


MEASURED = """
import sys
from corepress.coreai.format.asset import Asset
from corepress.coreai.format.asset_writer import AssetWriter
from corepress.coreai.program.program import Program

def private():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssAnon"))

asset = Asset.open(sys.argv[1])
program = Program(asset)
before = private()
for weight in program.weights:
    assert weight.read().any()
    weight.release()
with AssetWriter(asset, sys.argv[2]) as writer:
    program.save(writer)
    writer.finish()
print(private() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_weights_are_not_copied_to_memory(tmp_path):
    source = constant_asset(tmp_path / "splat.aimodel", (4096, 2048), "float32")
    weight = np.random.default_rng(0).standard_normal((4096, 2048), np.float32)
    source = replace_all(source, tmp_path / "source.aimodel", weight)
    command = [sys.executable, "-c", MEASURED, source, tmp_path / "result.aimodel"]
    grown = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert grown < 4 << 10  # KiB, of a file of 32 MiB
    assert (tmp_path / "result.aimodel" / PROGRAM).read_bytes() == (source / PROGRAM).read_bytes()


def replace_all_with_nothing(source, destination):
    asset = Asset.open(source)
    with AssetWriter(asset, destination) as writer:
        Program(asset).save(writer)
        writer.finish()
        assert writer.built_size == asset.size
    return destination


def test_equal_inputs_give_equal_bytes(original, tmp_path):
    tensor = cp.palettize(Program(original).weights[0].read(), nbits=4)
    first = replace_all(original, tmp_path / "first.aimodel", tensor)
    second = replace_all(original, tmp_path / "second.aimodel", cp.palettize(tensor.dense(), nbits=4))
    for name in (PROGRAM, HASH, METADATA):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    assert (first / PROGRAM).stat().st_size < (original / PROGRAM).stat().st_size / 3


def test_a_program_can_be_edited_twice(original, tmp_path):
    asset = Asset.open(original)
    program = Program(asset)
    (weight,) = program.weights
    values = weight.read()
    weight.replace(cp.quantize(values))
    assert weight.storage == "quantized int8, 40 scales"
    weight.replace(cp.palettize(values, nbits=2))
    assert weight.read() == cp.palettize(values, nbits=2)
    weight.replace(np.ones(SHAPE, np.float64))
    assert not weight.is_compressed
    with AssetWriter(asset, tmp_path / "result.aimodel") as writer:
        program.save(writer)
        writer.finish()
    assert np.array_equal(run(tmp_path / "result.aimodel")["w"], np.ones(SHAPE, np.float32))
    assert len(Bytecode(tmp_path / "result.aimodel" / PROGRAM).blobs) == 1


def test_tensors_of_another_shape_are_refused(original):
    (weight,) = Program(original).weights
    with pytest.raises(ValueError, match=r"is of shape \(40, 48\)"):
        weight.replace(np.zeros((48, 40), np.float32))


def test_destinations(original, tmp_path):
    asset = Asset.open(original)
    with pytest.raises(ValueError, match=r"must end in \.aimodel"):
        AssetWriter(asset, tmp_path / "result.mlpackage")
    with pytest.raises(ValueError, match="inside the source"):
        AssetWriter(asset, original / "inner.aimodel")
    with pytest.raises(FileNotFoundError, match="no directory"):
        AssetWriter(asset, tmp_path / "none" / "result.aimodel")
    (tmp_path / "other.aimodel").mkdir()
    (tmp_path / "other.aimodel" / "file").touch()
    with pytest.raises(FileExistsError, match="overwrite=True"):
        AssetWriter(asset, tmp_path / "other.aimodel")
    with pytest.raises(ValueError, match="not an asset"):
        AssetWriter(asset, tmp_path / "other.aimodel", overwrite=True)


def test_nothing_is_left_of_what_is_not_finished(original, tmp_path):
    asset = Asset.open(original)
    with AssetWriter(asset, tmp_path / "result.aimodel") as writer:
        Program(asset).save(writer)
    assert not list(tmp_path.iterdir())


def test_sources_that_change(copy, tmp_path):
    asset = Asset.open(copy)
    with AssetWriter(asset, tmp_path / "result.aimodel") as writer:
        Program(asset).save(writer)
        (copy / METADATA).write_text('{"assetVersion": "2.0"}')
        with pytest.raises(SourceChangedError, match=METADATA):
            writer.finish()
    assert not (tmp_path / "result.aimodel").exists()


def test_other_files_are_kept(copy, tmp_path):
    (copy / "notes").mkdir()
    (copy / "notes" / "readme.txt").write_text("kept")
    result = replace_all_with_nothing(copy, tmp_path / "result.aimodel")
    assert (result / "notes" / "readme.txt").read_text() == "kept"


def test_one_value_for_all_elements_is_left_as_it_is(tmp_path):
    source = constant_asset(tmp_path / "source.aimodel", (1 << 20, 1 << 10), "float32")
    (weight,) = Program(source).weights
    assert weight.obstacle == "is one value, stored once"
    assert (weight.stored_bytes, weight.storage) == (4, "plain values")
    small = Program(constant_asset(tmp_path / "small.aimodel", (64, 8), "float32")).weights[0]
    assert np.array_equal(small.read(), np.full((64, 8), 0.5, np.float32))
