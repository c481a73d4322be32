"""Whole packages, damaged at random: read, or refused with a FormatError or ValueError that says why."""

import random
import shutil

import numpy as np
import pytest
from coreml_helpers import digest, model_file, operations_of, read_spec, weight_file
from hypothesis import given, settings
from hypothesis import strategies as st

from corepress import FormatError, coreml


def _const(spec):
    return next(each for each in operations_of(spec) if each.outputs[0].name == "model_conv3_weight_to_fp16")


def _dimension(spec, index=0):
    return _const(spec).attributes["val"].type.tensorType.dimensions[index].constant


def _grow_both(spec, *sizes):
    for message in (_const(spec).attributes["val"].type.tensorType, _const(spec).outputs[0].type.tensorType):
        for dimension, size in zip(message.dimensions, sizes, strict=True):
            dimension.constant.size = size


def _function(spec):
    return spec.mlProgram.functions["main"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda spec: spec.ClearField("mlProgram"), "is a model of another kind"),
        (lambda spec: spec.neuralNetwork.layers.add(), "is a neural network, not an ML program"),
        (lambda spec: spec.neuralNetworkClassifier.layers.add(), "is a neural network, not an ML program"),
        (lambda spec: spec.pipeline.names.append("a"), "is a pipeline, not an ML program"),
        (
            lambda spec: spec.treeEnsembleClassifier.SetInParent(),
            r"is a classifier by trees \(treeEnsembleClassifier\)",
        ),
        (lambda spec: setattr(spec.mlProgram, "version", 2), "version must be 1, not 2"),
        (lambda spec: setattr(_function(spec), "opset", "CoreML9"), "no block for opset 'CoreML9'"),
        (lambda spec: setattr(_dimension(spec), "size", 17), "value is of another type than its output"),
        (lambda spec: setattr(_const(spec).attributes["val"].type.tensorType, "dataType", 11), "of another type"),
        (lambda spec: _const(spec).attributes.pop("val"), "has an attribute val"),
        (lambda spec: _const(spec).inputs["x"].arguments.add(), "neither inputs"),
        (lambda spec: _const(spec).ClearField("outputs"), "without an output"),
        (lambda spec: _grow_both(spec, 16, 16, 64, 2), r"needs 32768 elements, but 16384 are stored"),
        (lambda spec: _grow_both(spec, 2**62, 2**62, 2, 2), "is too large"),
        (lambda spec: _grow_both(spec, 2**64 - 1, 1, 1, 1), "is too large"),
        (lambda spec: setattr(_const(spec).attributes["val"].blobFileValue, "offset", 63), "is not inside"),
        (lambda spec: setattr(_const(spec).attributes["val"].blobFileValue, "fileName", "@model_path/../x"), "inside"),
        (lambda spec: setattr(_const(spec).attributes["val"].blobFileValue, "fileName", "/etc/passwd"), "start with"),
    ],
)
def test_damaged_programs_are_named(package, tmp_path, change, message):
    spec = read_spec(package)
    change(spec)
    model_file(package).write_bytes(spec.SerializeToString())
    for run in (
        lambda: coreml.compress(package, tmp_path / "compressed.mlpackage", {"quantize": {}}),
        lambda: coreml.inspect(package),
    ):
        with pytest.raises(ValueError, match=message):
            run()
    assert [path.name for path in tmp_path.iterdir()] == ["source.mlpackage"]


@pytest.mark.parametrize("length", [0, 63, 64, 100, 128, 5000, -1, -1000])
def test_truncated_weight_files_are_found(package, tmp_path, length):
    data = weight_file(package).read_bytes()
    weight_file(package).write_bytes(data[:length])
    with pytest.raises(FormatError, match=r"weight\.bin"):
        coreml.compress(package, tmp_path / "compressed.mlpackage", {"quantize": {}})
    assert [path.name for path in tmp_path.iterdir()] == ["source.mlpackage"]


def _flip(data: bytes, positions: list[tuple[int, int]]) -> bytes:
    changed = bytearray(data)
    for position, value in positions:
        changed[position % len(changed)] ^= value
    return bytes(changed)


flips = st.lists(st.tuples(st.integers(0, 2**31), st.integers(1, 255)), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def seeds(build, tmp_path_factory):
    """A plain and a compressed package, small enough to damage hundreds of times."""
    weight = np.random.default_rng(3).standard_normal((16, 12)).astype(np.float32)

    def body(mb, x):
        first = mb.linear(x=x, weight=weight, name="first")
        return mb.matmul(x=mb.linear(x=first, weight=weight.T.copy(), name="second"), y=weight, transpose_y=True)

    folder = tmp_path_factory.mktemp("seeds")
    plain = build(body, {"x": ((2, 12), np.float32)}, 9)
    found = [plain]
    configs = ({"palettize": {"nbits": 3}}, {"quantize": {"mode": "linear"}}, {"prune": {"target_sparsity": 0.5}})
    for index, config in enumerate(configs):
        coreml.compress(plain, folder / f"{index}.mlpackage", config, weight_threshold=0)
        found.append(folder / f"{index}.mlpackage")
    return found


def _is_refused(run, path):
    try:
        run(path)
    except ValueError as error:
        return str(error)
    return ""


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 3),
    model=st.one_of(st.just([]), flips),
    weights=st.one_of(st.just([]), flips),
    cut=st.one_of(st.none(), st.integers(0, 4000)),
)
def test_damaged_packages_are_read_or_refused(seeds, tmp_path_factory, seed, model, weights, cut):
    folder = tmp_path_factory.mktemp("damaged")
    package = shutil.copytree(seeds[seed], folder / "source.mlpackage")
    model_file(package).write_bytes(_flip(model_file(package).read_bytes(), model)[: cut if seed % 2 else None])
    weight_file(package).write_bytes(_flip(weight_file(package).read_bytes(), weights)[: None if seed % 2 else cut])
    before = digest(package)
    config = random.Random(repr((model, weights))).choice(
        [{"palettize": {"nbits": 2}}, {"quantize": {}}, {"prune": {"target_sparsity": 0.5}}]
    )
    for name, run in (
        ("compressed.mlpackage", lambda path: coreml.compress(package, path, config, weight_threshold=0)),
        ("dense.mlpackage", lambda path: coreml.decompress(package, path)),
        ("", lambda path: coreml.inspect(package)),
    ):
        if _is_refused(run, folder / name):
            assert not name or not (folder / name).exists()
    assert digest(package) == before
    assert {path.name for path in folder.iterdir()} <= {"source.mlpackage", "compressed.mlpackage", "dense.mlpackage"}
    shutil.rmtree(folder)
