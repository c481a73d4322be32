"""Files: they appear whole or not at all, and memory stays small."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from network_helpers import network_with, new_spec

from corepress.neural_network import (
    compare_models,
    convert_to_fp16,
    decompress,
    inspect,
    quantize_weights,
    quantizer,
    transform,
)
from corepress.neural_network.model_io import open_writer
from corepress.neural_network.schema import Model
from helpers.processes import TIMEOUT


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "model.mlmodel"
    path.write_bytes(network_with("convolution", "gru").SerializeToString())
    return path


def test_the_source_is_never_touched_and_nothing_else_is_left(path):
    before = path.read_bytes()
    quantize_weights(path, 8, destination=path.parent / "out.mlmodel")
    assert path.read_bytes() == before
    assert sorted(os.listdir(path.parent)) == ["model.mlmodel", "out.mlmodel"]


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("out.mlpackage", ValueError, r"must end in \.mlmodel"),
        ("missing/out.mlmodel", FileNotFoundError, "no directory"),
        ("model.mlmodel", ValueError, "must not be the source"),
        ("link.mlmodel", ValueError, "must not be the source"),
        ("old.mlmodel", FileExistsError, "overwrite=True"),
        ("folder.mlmodel", ValueError, "is a directory"),
    ],
)
def test_destinations_that_cannot_be_are_refused_before_any_work(path, name, error, message, monkeypatch):
    (path.parent / "link.mlmodel").symlink_to(path)
    (path.parent / "old.mlmodel").write_bytes(b"old")
    (path.parent / "folder.mlmodel").mkdir()
    monkeypatch.setattr(quantizer, "Transformation", None)
    with pytest.raises(error, match=message):
        quantize_weights(path, 8, destination=path.parent / name, overwrite=name != "old.mlmodel")


def test_a_path_needs_a_destination(path):
    with pytest.raises(ValueError, match=r"convert_to_fp16: .* needs a destination"):
        convert_to_fp16(path)


def test_what_exists_is_replaced_if_asked_for(path):
    out = path.parent / "out.mlmodel"
    out.write_bytes(b"old")
    quantize_weights(path, 8, destination=out, overwrite=True)
    assert len(out.read_bytes()) > 3


@pytest.mark.parametrize("stage", ["work", "sync", "rename"])
def test_an_interruption_leaves_what_was_there(path, stage, monkeypatch):
    out = path.parent / "out.mlmodel"
    out.write_bytes(b"old")

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    places = {
        "work": "corepress.neural_network.modes.Quantization.encode",
        "sync": "os.fsync",
        "rename": "os.replace",
    }
    monkeypatch.setattr(places[stage], interrupt)
    with pytest.raises(KeyboardInterrupt):
        quantize_weights(path, 8, destination=out, overwrite=True)
    monkeypatch.undo()
    assert out.read_bytes() == b"old"
    assert sorted(os.listdir(path.parent)) == ["model.mlmodel", "out.mlmodel"]


@pytest.fixture
def package(path):
    """A package that holds the network, as newer tools write them."""
    folder = path.parent / "Net.mlpackage"
    (folder / "Data/com.apple.CoreML").mkdir(parents=True)
    shutil.copy(path, folder / "Data/com.apple.CoreML/model.mlmodel")
    (folder / "Data/com.apple.CoreML/notes.txt").write_text("kept")
    item = {"path": "com.apple.CoreML/model.mlmodel", "name": "model.mlmodel", "author": "", "description": ""}
    manifest = {"fileFormatVersion": "1.0.0", "itemInfoEntries": {"1": item}, "rootModelIdentifier": "1"}
    (folder / "Manifest.json").write_text(json.dumps(manifest))
    return folder


def test_networks_in_packages_stay_in_packages(path, package):
    out, other = package.with_name("out.mlpackage"), package.with_name("out.mlmodel")
    report = quantize_weights(package, 4, destination=out)
    assert report.bytes_after == sum(each.stat().st_size for each in out.rglob("*") if each.is_file())
    quantize_weights(path, 4, destination=other)
    assert (out / "Data/com.apple.CoreML/model.mlmodel").read_bytes() == other.read_bytes()
    assert (out / "Data/com.apple.CoreML/notes.txt").read_text() == "kept"
    assert (out / "Manifest.json").read_bytes() == (package / "Manifest.json").read_bytes()
    assert inspect(out).weights == inspect(other).weights
    assert inspect(out).package_bytes == report.bytes_after
    assert compare_models(other, out).different == ()
    with pytest.raises(ValueError, match=r"must end in \.mlpackage"):
        quantize_weights(package, 4, destination=package.with_name("a.mlmodel"))
    with pytest.raises(FileExistsError, match="overwrite=True"):
        decompress(out, package)


def test_packages_of_ml_programs_are_refused_with_what_to_call(package, tmp_path):
    (package / "Data/com.apple.CoreML/model.mlmodel").write_bytes(new_spec("mlProgram").SerializeToString())
    with pytest.raises(ValueError, match=r"holds an ML program; use corepress\.coreml\.compress"):
        quantize_weights(package, 8, destination=tmp_path / "out.mlpackage")
    with pytest.raises(FileNotFoundError, match="no such file"):
        quantize_weights(tmp_path / "none.mlmodel", 8, destination=tmp_path / "out.mlmodel")


def test_a_file_of_2_gib_is_refused_at_once(tmp_path):
    path = tmp_path / "huge.mlmodel"
    with open(path, "wb") as file:
        file.truncate(2**31)
    with pytest.raises(ValueError, match="smaller than 2147483648"):
        quantize_weights(path, 8, destination=tmp_path / "out.mlmodel")


def test_decompressing_to_2_gib_is_refused_before_any_work(path, tmp_path, monkeypatch):
    small = tmp_path / "small.mlmodel"
    quantize_weights(path, 1, destination=small)
    monkeypatch.setattr("corepress.neural_network.schema.MESSAGE_LIMIT", small.stat().st_size * 2)
    monkeypatch.setattr(transform.Transformation, "_settle_layer", None)
    with pytest.raises(ValueError, match=r"decompress: the model with float32 weights takes \d+ bytes, .* below"):
        decompress(small, tmp_path / "out.mlmodel")


def test_progress_tells_weights_and_ends_at_the_total(path):
    seen = []
    quantize_weights(path, 8, destination=path.parent / "out.mlmodel", progress=seen.append)
    assert (seen[0].done_weights, seen[0].name) == (0, "")
    assert seen[-1].done_weights == seen[-1].total_weights > 0
    assert seen[-1].done_bytes == seen[-1].total_bytes == 4 * seen[-1].total_weights
    assert [each.done_weights for each in seen] == sorted(each.done_weights for each in seen)


def _large(path, layers: int, size: int) -> None:
    model = Model(specificationVersion=1)
    rng = np.random.default_rng(0)
    for index in range(layers):
        layer = model.neuralNetwork.layers.add(name=f"fc{index}")
        layer.innerProduct.inputChannels = layer.innerProduct.outputChannels = size
        layer.innerProduct.weights.floatValue.append(rng.standard_normal((size, size), np.float32).tobytes())
    path.write_bytes(model.SerializeToString())


# Linux counts the memory of the process that started this one as its own, but not in VmHWM.
_CHILD = """
import re, resource, sys
from corepress import neural_network
def peak():
    try:
        return 1024 * int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
source, nbits, mode, out = sys.argv[1:]
neural_network.quantize_weights(source, int(nbits), mode, destination=out, progress=lambda _: None)
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no resource module")
@pytest.mark.parametrize(("nbits", "mode"), [(16, "linear"), (8, "linear"), (4, "kmeans_lut")])
def test_memory_is_less_than_the_file_takes(tmp_path, nbits, mode):
    path = tmp_path / "large.mlmodel"
    _large(path, layers=24, size=1024)  # 100 MB
    command = [sys.executable, "-c", _CHILD, str(path), str(nbits), mode, str(tmp_path / "out.mlmodel")]
    finished = subprocess.run(command, capture_output=True, text=True, check=True, timeout=TIMEOUT)
    assert (tmp_path / "out.mlmodel").stat().st_size < int(finished.stdout) < path.stat().st_size


_CHECK = """
import sys, threading
from corepress import neural_network
def anonymous():
    with open("/proc/self/status") as status:
        return next(1024 * int(line.split()[1]) for line in status if line.startswith("RssAnon"))
source, other = sys.argv[1:]
for run in (neural_network.verify, neural_network.compare_models):
    before, done = anonymous(), threading.Event()
    peaks = [before]
    def sample():
        while not done.wait(0.002):
            peaks.append(anonymous())
    sampler = threading.Thread(target=sample)
    sampler.start()
    assert getattr(run(source, other), "ok", True)
    done.set()
    sampler.join()
    print(max(peaks) - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("nbits", [None, 16, 8, 4])
def test_checking_leaves_large_weights_in_their_files(tmp_path, nbits):
    source = tmp_path / "large.mlmodel"
    _large(source, layers=1, size=6144)  # 151 MB
    other = source if nbits is None else tmp_path / "out.mlmodel"
    if nbits is not None:
        quantize_weights(source, nbits, "kmeans_lut" if nbits == 4 else "linear", destination=other)
    command = [sys.executable, "-c", _CHECK, str(source), str(other)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=TIMEOUT)
    for peak in map(int, done.stdout.split()):
        assert peak < 64 << 20


def test_what_appears_meanwhile_is_not_replaced(path):
    destination = path.parent / "out.mlmodel"
    writer = open_writer("quantize_weights", destination, path, overwrite=False)

    def pieces():
        yield b"the result"
        destination.write_bytes(b"of somebody else")

    with pytest.raises(FileExistsError, match="overwrite=True"):
        writer.write(pieces())
    assert destination.read_bytes() == b"of somebody else"
    assert sorted(each.name for each in path.parent.iterdir()) == ["model.mlmodel", "out.mlmodel"]
