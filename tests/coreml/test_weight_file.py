"""Weight files: golden bytes, coremltools as counterpart in both directions, and damage."""

import contextlib
import os
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corepress import kernels
from corepress.coreml.format.data_types import BY_BLOB_NUMBER, BY_NAME, DataType
from corepress.coreml.format.weight_file import WeightFileReader, WeightFileWriter
from corepress.errors import FormatError, SourceChangedError

# coremltools' names for writing and reading; float16 travels as uint16.
PACKED = ("int4", "uint1", "uint2", "uint3", "uint4", "uint6")
WHOLE = ("uint8", "int8", "int16", "uint16", "int32", "uint32")
METHODS = {"float16": "fp16", "float32": "float", **{name: name for name in (*PACKED, *WHOLE)}}
STORAGE = {"float16": np.uint16, "int4": np.int8, **dict.fromkeys(PACKED[1:], np.uint8)}


def _values(name: str, count: int) -> np.ndarray:
    rng = np.random.default_rng(count)
    data_type = BY_NAME[name]
    if name == "float32":
        return rng.standard_normal(count).astype(np.float32)
    low = -(2 ** (data_type.nbits - 1)) if name[0] == "i" else 0
    high = low + 2**data_type.nbits
    return rng.integers(low, high, count).astype(STORAGE.get(name, data_type.dtype))


def _codes(values: np.ndarray, data_type: DataType) -> np.ndarray:
    return values.astype(np.uint8) & (2**data_type.nbits - 1)


def _append(writer: WeightFileWriter, name: str, values: np.ndarray) -> int:
    data_type = BY_NAME[name]
    data = values if data_type.dtype else kernels.pack_bits(_codes(values, data_type), data_type.nbits)
    return writer.append(data_type, values.size, data)


@pytest.fixture
def blob_storage(ct):
    from coremltools import libmilstoragepython

    return libmilstoragepython


def test_golden_bytes(tmp_path):
    path = tmp_path / "weight.bin"
    with WeightFileWriter(path) as writer:
        assert writer.append(BY_NAME["float16"], 3, np.array([1, -2, 0.5], np.float16)) == 64
        assert writer.append(BY_NAME["uint3"], 5, np.frombuffer(b"\xd1\x58", np.uint8)) == 192
    expected = b"\x02\0\0\0\x02\0\0\0" + bytes(56)
    expected += b"\xef\xbe\xad\xde" + struct.pack("<IQQQ", 1, 6, 128, 0) + bytes(32)
    expected += b"\x00\x3c\x00\xc0\x00\x38" + bytes(58)
    expected += b"\xef\xbe\xad\xde" + struct.pack("<IQQQ", 12, 2, 256, 1) + bytes(32)
    expected += b"\xd1\x58"
    assert path.read_bytes() == expected


def test_same_bytes_as_coremltools(blob_storage, tmp_path):
    ours, theirs = tmp_path / "ours.bin", tmp_path / "theirs.bin"
    reference = blob_storage._BlobStorageWriter(str(theirs))
    with WeightFileWriter(ours) as writer:
        for count in (1, 2, 3, 7, 8, 11, 64, 1001):
            for name, method in METHODS.items():
                values = _values(name, count)
                offset = getattr(reference, f"write_{method}_data")(values)
                assert _append(writer, name, values) == offset, name
    del reference
    assert ours.read_bytes() == theirs.read_bytes()


def test_coremltools_reads_what_we_write(blob_storage, tmp_path):
    path = tmp_path / "weight.bin"
    contents = {name: _values(name, 101) for name in METHODS}
    with WeightFileWriter(path) as writer:
        offsets = {name: _append(writer, name, values) for name, values in contents.items()}
    reader = blob_storage._BlobStorageReader(str(path))
    for name, values in contents.items():
        stored = np.array(getattr(reader, f"read_{METHODS[name]}_data")(offsets[name]))
        assert stored.tobytes() == values.tobytes(), name


def test_we_read_what_coremltools_writes(blob_storage, tmp_path):
    path = tmp_path / "weight.bin"
    contents = {name: _values(name, 101) for name in METHODS}
    writer = blob_storage._BlobStorageWriter(str(path))
    offsets = [getattr(writer, f"write_{METHODS[name]}_data")(values) for name, values in contents.items()]
    del writer
    with WeightFileReader(path) as reader:
        records = list(reader)
        assert [record.offset for record in records] == offsets
        for record, (name, values) in zip(records, contents.items(), strict=True):
            assert record == reader.record(record.offset)
            assert record.data_type.name == name
            assert record.count == 101
            data = reader.array(record)
            if not record.data_type.dtype:
                data = kernels.unpack_bits(data, record.data_type.nbits, 101)
                values = _codes(values, record.data_type)
            assert data.tobytes() == values.tobytes(), name
            assert not reader.array(record).flags.writeable
            reader.release(record)


def test_copy_keeps_blobs_and_an_array_outlives_the_reader(tmp_path):
    source, target = tmp_path / "source.bin", tmp_path / "target.bin"
    values = _values("float32", 5000)
    with WeightFileWriter(source) as writer:
        for name in METHODS:
            _append(writer, name, _values(name, 77))
        _append(writer, "float32", values)
        writer.append(BY_NAME["float16"], 0, np.empty(0, np.float16))
    with WeightFileReader(source) as reader, WeightFileWriter(target) as writer:
        for record in reader:
            assert writer.copy(reader, record) == record.offset
        array = reader.array(list(reader)[-2])
    assert target.read_bytes() == source.read_bytes()
    assert array.tobytes() == values.tobytes()


def test_copy_without_help_from_the_kernel(tmp_path, monkeypatch):
    source, target = tmp_path / "source.bin", tmp_path / "target.bin"
    with WeightFileWriter(source) as writer:
        _append(writer, "float32", _values("float32", 5000))

    def refuse(*arguments):
        raise OSError("not on this file system")

    monkeypatch.setattr(os, "copy_file_range", refuse, raising=False)
    with WeightFileReader(source) as reader, WeightFileWriter(target) as writer:
        writer.copy(reader, reader.record(64))
    assert target.read_bytes() == source.read_bytes()


def test_strided_arrays_are_written_in_order(tmp_path):
    path = tmp_path / "weight.bin"
    values = np.arange(24, dtype=np.float32).reshape(4, 6)
    with WeightFileWriter(path) as writer:
        writer.append(BY_NAME["float32"], 12, values[:, ::2])
    with WeightFileReader(path) as reader:
        np.testing.assert_array_equal(reader.array(reader.record(64)), values[:, ::2].reshape(-1))


def test_unfinished_file_is_not_valid(tmp_path):
    path = tmp_path / "weight.bin"
    with contextlib.suppress(RuntimeError), WeightFileWriter(path) as writer:
        _append(writer, "float32", _values("float32", 50))
        raise RuntimeError
    with pytest.raises(FormatError, match="version at offset 4 is 0"):
        WeightFileReader(path)


def test_an_existing_file_is_not_overwritten(tmp_path):
    path = tmp_path / "weight.bin"
    path.write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        WeightFileWriter(path)


def test_count_and_data_must_agree(tmp_path):
    with (
        WeightFileWriter(tmp_path / "weight.bin") as writer,
        pytest.raises(ValueError, match="3 float16 elements are 6"),
    ):
        writer.append(BY_NAME["float16"], 3, np.zeros(4, np.float16))


def _file(
    tmp_path, *, count=1, version=2, sentinel=0xDEADBEEF, number=2, size=40, data_offset=128, padding=0, length=168
):
    data = struct.pack("<II56x", count, version) + struct.pack(
        "<IIQQQ32x", sentinel, number, size, data_offset, padding
    )
    path = tmp_path / "weight.bin"
    path.write_bytes((data + bytes(max(0, length - len(data))))[:length])
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 1}, "version at offset 4 is 1, but only version 2"),
        ({"sentinel": 0xDEADBEEE}, "offset 64: starts with 0xdeadbeee"),
        ({"number": 0}, "unknown data type 0"),
        ({"number": 99}, "unknown data type 99"),
        ({"size": 41}, "41 bytes of data at offset 128, but the file has 168"),
        ({"size": 2**64 - 100}, "18446744073709551516 bytes"),
        ({"data_offset": 2**64 - 8}, "offset 18446744073709551608"),
        ({"data_offset": 169, "size": 0}, "0 bytes of data at offset 169"),
        ({"size": 39}, "not a whole number of float32"),
        ({"number": 12, "size": 2, "padding": 8}, "8 bits of its last byte"),
        ({"number": 12, "size": 2, "padding": 2**64 - 1}, "bits of its last byte"),
        ({"number": 12, "size": 0, "padding": 1}, "1 bit of its last byte"),
        ({"number": 12, "size": 2, "padding": 2}, "not a whole number of uint3"),
        ({"number": 11, "size": 2, "padding": 3}, "not a whole number of uint4"),
        ({"count": 2}, "the header counts 2 blobs, but the file ends after 1"),
        ({"count": 2**32 - 1}, "the header counts 4294967295 blobs"),
        ({"data_offset": 0, "size": 4}, "does not follow it"),
    ],
)
def test_damage_is_named(tmp_path, change, message):
    path = _file(tmp_path, **change)
    with pytest.raises(FormatError, match=message) as caught, WeightFileReader(path) as reader:
        list(reader)
    assert str(path) in str(caught.value)


def test_undamaged_file_of_the_same_make(tmp_path):
    with WeightFileReader(_file(tmp_path)) as reader:
        assert [(record.count, record.data_type.name) for record in reader] == [(10, "float32")]


def test_junk_in_the_padding_of_whole_bytes_is_ignored(tmp_path):
    with WeightFileReader(_file(tmp_path, padding=77)) as reader:
        assert reader.record(64).count == 10


@pytest.mark.parametrize("length", range(0, 168, 7))
def test_every_truncation_is_found(tmp_path, length):
    with pytest.raises(FormatError), WeightFileReader(_file(tmp_path, length=length)) as reader:
        list(reader)


@pytest.mark.parametrize("offset", [0, 1, 63, 105, 168, 2**40, 2**64 - 1])
def test_records_outside_the_file(tmp_path, offset):
    with WeightFileReader(_file(tmp_path)) as reader, pytest.raises(FormatError, match=f"offset {offset}"):
        reader.record(offset)


def test_unaligned_records_and_data_are_read(tmp_path):
    path = tmp_path / "weight.bin"
    record = struct.pack("<IIQQQ32x", 0xDEADBEEF, 2, 8, 69 + 64, 0)
    path.write_bytes(struct.pack("<II56x", 1, 2) + b"12345" + record + np.float32([1, 2]).tobytes())
    with WeightFileReader(path) as reader:
        np.testing.assert_array_equal(reader.array(reader.record(69)), [1, 2])


numbers = st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 400), st.sampled_from(sorted(BY_BLOB_NUMBER)))


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([0xDEADBEEF, 0]), numbers, numbers, numbers, numbers), max_size=4),
    st.integers(0, 2**32 - 1),
    st.binary(max_size=100),
    st.integers(0, 500),
)
def test_any_bytes_are_read_or_refused(tmp_path_factory, records, count, tail, offset):
    data = struct.pack("<II56x", count, 2)
    for sentinel, number, size, data_offset, padding in records:
        data += struct.pack("<IIQQQ32x", sentinel, number % 2**32, size, data_offset, padding)
    path = tmp_path_factory.getbasetemp() / "any.bin"
    path.write_bytes(data + tail)
    with WeightFileReader(path) as reader:
        try:
            found = [*reader, reader.record(offset)]
        except FormatError:
            return
        for record in found:
            data_type = record.data_type
            assert reader.array(record).nbytes == record.size == data_type.byte_count(record.count)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_random_files_are_read_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "random.bin"
    path.write_bytes(data)
    try:
        with WeightFileReader(path) as reader:
            list(reader)
    except FormatError:
        pass


@pytest.mark.skipif(not hasattr(os, "pread"), reason="an open file can be made shorter")
def test_a_file_that_becomes_shorter_is_named(tmp_path):
    path = _file(tmp_path)
    message = "became shorter while it was read; nothing was written"
    with WeightFileReader(path) as reader:
        record = reader.record(64)
        os.truncate(path, 100)
        with pytest.raises(SourceChangedError, match=message):
            reader.record(64)
        with pytest.raises(SourceChangedError, match=message):
            reader.read_into(record, np.empty(record.size, np.uint8))
