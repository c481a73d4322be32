"""Trained weights, compressed in every way the package's version allows, and read back by coremltools."""

import dataclasses
import json

import numpy as np
import pytest
from coreml_helpers import (
    assert_same_bits,
    constants,
    digest,
    float_constants,
    operation_types,
    other_operations,
    quiet,
    read_spec,
    replace_weights,
    weight_file,
)

import corepress
from corepress import coreml, kernels
from corepress.compression import apply
from corepress.specs import Palettize, Prune, Quantize

SPECS = [
    Palettize(nbits=8),
    Palettize(nbits=6),
    Palettize(nbits=4),
    Palettize(nbits=2),
    Palettize(nbits=1),
    Quantize(),
    Quantize(dtype="uint8"),
    Quantize(mode="linear"),
    Quantize(dtype="uint8", mode="linear", granularity="per_tensor"),
    Prune(target_sparsity=0.5),
    Prune(threshold=5e-2),
]
OPERATIONS = {
    Palettize: "constexpr_lut_to_dense",
    Quantize: "constexpr_affine_dequantize",
    Prune: "constexpr_sparse_to_dense",
}


@pytest.fixture(scope="module")
def originals(trained_package):
    return float_constants(trained_package)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.description.replace(" ", "_"))
def test_every_weight_decodes_to_what_the_kernels_say(trained_package, originals, tmp_path, spec):
    source_before = digest(trained_package)
    destination = tmp_path / "compressed.mlpackage"
    report = coreml.compress(trained_package, destination, spec)
    assert digest(trained_package) == source_before

    records = {record.name: record for record in report.weights}
    types, decoded = operation_types(destination), constants(destination)
    assert (report.compressed, report.kept) == (7, 31)
    for name, original in originals.items():
        if name in records and records[name].status == "compressed":
            assert types[name] == OPERATIONS[type(spec)]
            axis = dataclasses.replace(spec, channel_axis=0) if hasattr(spec, "channel_axis") else spec
            tensor = apply(original, axis)
            assert_same_bits(decoded[name], tensor.dense(), name)
            assert records[name].bits_per_weight == pytest.approx(8 * records[name].bytes_after / original.size)
            snr_db = corepress.error(original, tensor).snr_db
            assert records[name].snr_db == pytest.approx(snr_db, rel=1e-12)
        else:
            assert types[name] == "const"
            assert_same_bits(decoded[name], original, name)
            assert original.ndim < 2
    assert other_operations(destination) == other_operations(trained_package)
    assert read_spec(destination).description == read_spec(trained_package).description
    assert (destination / "Manifest.json").read_bytes() == (trained_package / "Manifest.json").read_bytes()
    assert report.bytes_after == sum(path.stat().st_size for path in destination.rglob("*") if path.is_file())


def test_coremltools_decompresses_it(ct, trained_package, tmp_path):
    destination, dense = tmp_path / "compressed.mlpackage", tmp_path / "dense.mlpackage"
    coreml.compress(trained_package, destination, {"palettize": {"nbits": 4}})
    ours = float_constants(destination)
    with quiet():
        model = ct.models.MLModel(str(destination), skip_model_load=True)
        ct.optimize.coreml.decompress_weights(model).save(str(dense))
    theirs = {array.tobytes() for array in float_constants(dense).values()}
    assert {array.tobytes() for array in ours.values() if array.ndim > 1} <= theirs


def test_large_package_against_a_decoder_of_our_own(large_trained_package, tmp_path):
    """coremltools needs elements times entries of memory for a palette, so the bytes are decoded here."""
    destination = tmp_path / "compressed.mlpackage"
    report = coreml.compress(large_trained_package, destination, {"palettize": {"nbits": 6}})
    assert report.compressed == 7
    originals = float_constants(large_trained_package)
    data = weight_file(destination).read_bytes()
    found = 0
    for function in read_spec(destination).mlProgram.functions.values():
        for operation in function.block_specializations[function.opset].operations:
            if operation.type != "constexpr_lut_to_dense":
                continue
            parts = {}
            for name, dtype in (("indices", np.uint8), ("lut", np.float16)):
                offset = operation.attributes[name].blobFileValue.offset
                size, start = np.frombuffer(data, "<u8", 2, offset + 8)
                parts[name] = np.frombuffer(data[int(start) : int(start) + int(size)], dtype)
            original = originals[operation.outputs[0].name]
            codes = kernels.unpack_bits(parts["indices"], 6, original.size)
            decoded = parts["lut"][codes].reshape(original.shape)
            assert_same_bits(decoded, apply(original, Palettize(nbits=6)).dense())
            found += 1
    assert found == 7


def test_large_package_quantized(large_trained_package, tmp_path):
    destination = tmp_path / "compressed.mlpackage"
    coreml.compress(large_trained_package, destination, Quantize())
    decoded, originals = float_constants(destination), float_constants(large_trained_package)
    types = operation_types(destination)
    for name, original in originals.items():
        expected = apply(original, Quantize()).dense() if types[name] != "const" else original
        assert_same_bits(decoded[name], expected, name)


def test_the_result_does_not_depend_on_run_or_threads(trained_package, tmp_path):
    for config in ({"palettize": {"nbits": 4}}, {"quantize": {"mode": "linear"}}, {"prune": {"target_sparsity": 0.75}}):
        digests = []
        for run, num_threads in enumerate((1, 2, 3, None)):
            destination = tmp_path / f"{next(iter(config))}{run}.mlpackage"
            coreml.compress(trained_package, destination, config, num_threads=num_threads)
            digests.append(digest(destination))
        assert digests.count(digests[0]) == len(digests)


def test_nothing_to_do_copies_the_package(trained_package, tmp_path):
    destination = tmp_path / "same.mlpackage"
    report = coreml.compress(trained_package, destination, {"palettize": {"nbits": 4}}, weight_threshold=10**9)
    assert report.compressed == 0
    assert digest(destination) == digest(trained_package)


@pytest.mark.parametrize("threshold", [0, 32768, 32767])
def test_weight_threshold_is_strict(trained_package, tmp_path, threshold):
    destination = tmp_path / "compressed.mlpackage"
    report = coreml.compress(trained_package, destination, {"quantize": {}}, weight_threshold=threshold)
    sizes = [record.size for record in report.weights if len(record.shape) > 1]
    assert report.compressed == sum(size > threshold for size in sizes)


def test_compressing_twice_keeps_what_is_compressed(trained_package, tmp_path):
    once, twice = tmp_path / "once.mlpackage", tmp_path / "twice.mlpackage"
    coreml.compress(trained_package, once, {"palettize": {"nbits": 4}})
    report = coreml.compress(once, twice, {"quantize": {}}, strict=True)
    assert {record.reason for record in report.weights} == {"already compressed", "vector, such as a bias or a norm"}
    assert digest(twice) == digest(once)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"palettize": {"nbits": 3}}, r"nbits 3 needs specification version 9 \(iOS 18\), .* has 7; use nbits 4"),
        ({"palettize": {"nbits": 4, "granularity": "per_grouped_channel"}}, "'per_grouped_channel' needs .* version 9"),
        ([{"prune": {"threshold": 0.1}}, {"palettize": {"nbits": 4}}], "joint .* needs specification version 9"),
        ([], "0 steps"),
        ({"squeeze": {}}, "unknown step 'squeeze'"),
        ("palettize", "a step is a dict"),
        (None, "give a config, or one of target_size, target_bits, target_snr"),
    ],
)  # fmt: skip
def test_refusals_come_before_work(trained_package, tmp_path, config, message):
    with pytest.raises(ValueError, match=message):
        coreml.compress(trained_package, tmp_path / "compressed.mlpackage", config)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("config", [[{"palettize": {"nbits": 2}}], [Palettize(nbits=2)], Palettize(nbits=2)])
def test_forms_of_config(trained_package, tmp_path, config):
    report = coreml.compress(trained_package, tmp_path / "compressed.mlpackage", config)
    assert {record.method for record in report.weights} == {"palettize 2 bits", None}


def test_progress_counts_to_the_end(trained_package, tmp_path):
    steps = []
    report = coreml.compress(
        trained_package, tmp_path / "compressed.mlpackage", {"quantize": {}}, progress=steps.append
    )
    assert steps[0] == coreml.Progress("", 0, report.weight_count, 0, 2 * report.weight_count)
    assert [step.name for step in steps[1:]] == [each.name for each in report.weights if each.status == "compressed"]
    assert steps[-1].done_weights == steps[-1].total_weights
    assert steps[-1].done_bytes == steps[-1].total_bytes


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("existing", [False, True])
def test_an_interrupted_run_leaves_nothing_behind(trained_package, tmp_path, error, existing):
    destination = tmp_path / "compressed.mlpackage"
    if existing:
        coreml.compress(trained_package, destination, {"palettize": {"nbits": 1}})
    before, source_before = digest(tmp_path), digest(trained_package)

    def stop(progress):
        if progress.done_weights:
            raise error

    with pytest.raises(error):
        coreml.compress(trained_package, destination, {"quantize": {}}, progress=stop, overwrite=True)
    assert digest(tmp_path) == before
    assert digest(trained_package) == source_before


def test_report(trained_package, tmp_path):
    report = coreml.compress(trained_package, tmp_path / "compressed.mlpackage", {"palettize": {"nbits": 8}})
    assert report.weight_count == sum(record.size for record in report.weights if record.status == "compressed")
    assert 8 < report.bits_per_weight < 8.2
    assert report.weights_per_second > 0
    assert report.peak_memory_bytes is None or report.peak_memory_bytes > 10**6
    text = str(report)
    assert all(record.name in text for record in report.weights)
    assert "kept: vector, such as a bias or a norm" in text
    assert "7 changed, 31 unchanged" in repr(report)
    report.save(tmp_path / "report.json")
    saved = json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)
    assert saved == json.loads(report.to_json())
    assert saved["weights"][0]["shape"] == [128, 1, 512, 1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["compressed.mlpackage", "report.json"]


def test_lossless_is_valid_json(package, tmp_path):
    halves = np.tile(np.float16([0, 1]), (64, 64))
    replace_weights(package, [halves, halves[:2]])
    report = coreml.compress(package, tmp_path / "compressed.mlpackage", {"prune": {"target_sparsity": 0}})
    records = json.loads(report.to_json(), parse_constant=pytest.fail)["weights"]
    assert {(record["snr_db"], record["lossless"]) for record in records} == {(None, True), (None, False)}
    assert "exact" in str(report)


def test_saving_a_report_is_all_or_nothing(trained_package, tmp_path, monkeypatch):
    report = coreml.compress(trained_package, tmp_path / "compressed.mlpackage", {"prune": {"target_sparsity": 1}})
    (tmp_path / "report.json").write_text("old")
    monkeypatch.setattr("os.replace", lambda *paths: (_ for _ in ()).throw(OSError("no")))
    with pytest.raises(OSError, match="no"):
        report.save(tmp_path / "report.json")
    assert (tmp_path / "report.json").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2


def test_inspection(trained_package, tmp_path):
    destination = tmp_path / "compressed.mlpackage"
    coreml.compress(trained_package, destination, {"palettize": {"nbits": 4}})
    for path, storage, bits in ((trained_package, "plain values", 16.0), (destination, "palettized 4 bits", 4.0)):
        inspection = coreml.inspect(path)
        record = {each.name: each for each in inspection.weights}["model_conv2_weight_to_fp16"]
        assert (record.consumers, record.shape, record.dtype) == (("conv",), (16, 128, 64, 1), "float16")
        assert (record.storage, record.shared_by) == (storage, 1)
        assert record.bits_per_weight == pytest.approx(bits, abs=0.01)
        assert inspection.specification_version == 7
        assert inspection.functions == ("main",)
        assert inspection.weight_files == {"@model_path/weights/weight.bin": weight_file(path).stat().st_size}
        assert inspection.weight_count == 487096
        values = json.loads(inspection.to_json(), parse_constant=pytest.fail)
        assert values["weights"][0]["shape"] == [128, 1, 512, 1]
        assert values["bits_per_weight"] == inspection.bits_per_weight
        assert record.name in str(inspection)
        assert storage in str(inspection)
