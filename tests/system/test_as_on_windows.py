"""The main verbs where an open file keeps its name, folders cannot be opened and there are no locks on them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile

import numpy as np
import pytest
from coreml_helpers import digest, quiet, weight_file

from corepress import coreml, outputs, system
from corepress.cli.main import main
from corepress.coreml.format.package import Package
from corepress.coreml.format.package_writer import PackageWriter
from corepress.neural_network import quantize_weights
from corepress.neural_network.schema import Model

pytestmark = pytest.mark.usefixtures("played_windows")
needs_a_player = pytest.mark.skipif(sys.platform == "win32", reason="Windows does it itself")


@pytest.fixture
def call(capsys):
    def call(*arguments):
        status = main([str(each) for each in arguments])
        out, err = capsys.readouterr()
        assert status == 0, err
        return out

    return call


def test_commands_that_write_packages(package, tmp_path, call):
    small, plain = tmp_path / "small.mlpackage", tmp_path / "plain.mlpackage"
    report, picture = tmp_path / "report.json", tmp_path / "plot.svg"
    call("palettize", package, "-o", small, "--nbits", "4", "--report", report, "--plot", picture)
    call("quantize", package, "-o", small, "--overwrite", "--report", report, "--plot", picture)
    assert json.loads(report.read_text(encoding="utf-8"))["destination"] == str(small)
    call("verify", package, small)
    call("compare", package, small)
    call("inspect", small)
    call("decompress", small, "-o", plain)
    call("prune", small, "-o", plain, "--target-sparsity", "0.5", "--overwrite")
    assert sorted(os.listdir(tmp_path)) == [
        "plain.mlpackage", "plot.svg", "report.json", "small.mlpackage", "source.mlpackage",
    ]  # fmt: skip


@needs_a_player
def test_the_same_bytes_as_on_linux(package, tmp_path, played_windows, monkeypatch):
    coreml.compress(package, tmp_path / "windows.mlpackage", {"palettize": {"nbits": 4}})
    monkeypatch.undo()
    coreml.compress(package, tmp_path / "linux.mlpackage", {"palettize": {"nbits": 4}})
    assert digest(tmp_path / "windows.mlpackage") == digest(tmp_path / "linux.mlpackage")


def test_results_that_were_read_are_replaced(package, tmp_path):
    small = tmp_path / "small.mlpackage"
    for nbits in (4, 6):
        coreml.compress(package, small, {"palettize": {"nbits": nbits}}, overwrite=True)
        assert coreml.verify(package, small).ok
        coreml.compare(package, small)
        coreml.inspect(small)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_run_that_fails_leaves_nothing(package, tmp_path, monkeypatch, error):
    def fail(progress):
        if progress.done_weights:
            raise error("broken")

    with pytest.raises(error):
        coreml.compress(package, tmp_path / "small.mlpackage", {"palettize": {"nbits": 4}}, progress=fail)
    assert os.listdir(tmp_path) == ["source.mlpackage"]


def test_networks(tmp_path):
    path, small = tmp_path / "net.mlmodel", tmp_path / "small.mlmodel"
    model = Model(specificationVersion=4)
    layer = model.neuralNetwork.layers.add(name="dense")
    layer.innerProduct.inputChannels = layer.innerProduct.outputChannels = 64
    weights = np.random.default_rng(0).standard_normal(64 * 64).astype(np.float32)
    layer.innerProduct.weights.floatValue.append(weights.tobytes())
    path.write_bytes(model.SerializeToString())
    for nbits in (8, 4):
        quantize_weights(path, nbits, destination=small, overwrite=True)
    assert sorted(os.listdir(tmp_path)) == ["net.mlmodel", "small.mlmodel"]


def test_read_only_files_are_copied_and_replaced(package, tmp_path):
    small, report = tmp_path / "small.mlpackage", tmp_path / "report.json"
    weight_file(package).chmod(0o444)
    (package / "Manifest.json").chmod(0o444)
    report.write_text("old", encoding="utf-8")
    report.chmod(0o444)
    for nbits in (4, 6):
        coreml.compress(package, small, {"palettize": {"nbits": nbits}}, overwrite=True).save(report)
    assert not (small / "Manifest.json").stat().st_mode & 0o222
    assert not report.stat().st_mode & 0o222
    assert sorted(os.listdir(tmp_path)) == ["report.json", "small.mlpackage", "source.mlpackage"]


@needs_a_player
def test_links_become_copies_where_they_cannot_be_made(package, tmp_path, played_windows):
    (package / "notes.txt").write_text("kept", encoding="utf-8")
    played_windows.real["symlink"]("notes.txt", package / "link")
    coreml.compress(package, tmp_path / "small.mlpackage", {"palettize": {"nbits": 4}})
    assert (tmp_path / "small.mlpackage/link").read_text(encoding="utf-8") == "kept"
    assert not (tmp_path / "small.mlpackage/link").is_symlink()


def _killed_run(package, destination, moment):
    """What a run leaves that is killed before or between the two renames that replace a package."""
    with PackageWriter(Package.open(package), destination, overwrite=True) as writer:
        folder = writer.built.parent
        writer._copy_rest()
        if moment == "between the renames":
            os.rename(destination, folder / "replaced")
        left = folder.with_name(f".{destination.name}.{'0' * 16}.partial")
        shutil.copytree(folder, left)
        if moment == "between the renames":
            os.rename(folder / "replaced", destination)
    if moment == "between the renames":
        shutil.rmtree(destination)


@pytest.mark.parametrize("moment", ["before the renames", "between the renames"])
def test_what_a_killed_run_left(package, tmp_path, moment):
    destination = tmp_path / "small.mlpackage"
    coreml.compress(package, destination, {"palettize": {"nbits": 4}})
    before = digest(destination)
    _killed_run(package, destination, moment)
    assert len(os.listdir(tmp_path)) == 3 - (moment == "between the renames")
    outputs.remove_partials(destination)
    assert digest(destination) == before
    assert sorted(os.listdir(tmp_path)) == ["small.mlpackage", "source.mlpackage"]


def test_what_a_living_run_writes_is_left_alone(package, tmp_path):
    destination = tmp_path / "small.mlpackage"
    with outputs.partial_folder(destination) as folder:
        outputs.remove_partials(destination)
        assert folder.is_dir()
        coreml.compress(package, destination, {"palettize": {"nbits": 4}})
        assert folder.is_dir()
    assert sorted(os.listdir(tmp_path)) == ["small.mlpackage", "source.mlpackage"]


def test_scanners_that_hold_a_new_file_are_waited_for(tmp_path, monkeypatch):
    rename, calls = os.rename, []

    def held(source, target):
        calls.append(source)
        if len(calls) == 1:
            raise PermissionError("in use")
        rename(source, target)

    monkeypatch.setattr(os, "rename", held)
    (tmp_path / "a").mkdir()
    system.current.rename(tmp_path / "a", tmp_path / "b")
    assert len(calls) == 2
    assert os.listdir(tmp_path) == ["b"]


@needs_a_player
def test_an_open_file_is_noticed(package, tmp_path, played_windows):
    """The player itself: what is open or mapped cannot be renamed."""
    with open(package / "Manifest.json", "rb"), pytest.raises(PermissionError, match=r"while .*Manifest"):
        os.rename(package, tmp_path / "other")
    mapped = np.memmap(weight_file(package), mode="r")
    with pytest.raises(PermissionError, match=r"while .*weight"):
        shutil.rmtree(package)
    del mapped
    with pytest.raises(PermissionError):
        system.current.sync(package) or os.fsync(os.open(package, os.O_RDONLY))
    assert len(played_windows.refused) == 2
    played_windows.refused.clear()


def test_drop_ins(package, tmp_path, monkeypatch):
    with quiet():
        ct = pytest.importorskip("coremltools", exc_type=ImportError)
        import corepress.optimize.coreml as dropin
        from corepress.optimize.coreml import OpPalettizerConfig, OptimizationConfig

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    model = ct.models.MLModel(str(package), skip_model_load=True)
    small = dropin.palettize_weights(model, OptimizationConfig(OpPalettizerConfig(nbits=4)))
    small.save(str(tmp_path / "small.mlpackage"))
    assert coreml.verify(package, tmp_path / "small.mlpackage").ok
    dropin.decompress_weights(small).save(str(tmp_path / "plain.mlpackage"))
    assert {each.bits_per_weight for each in coreml.inspect(tmp_path / "plain.mlpackage").weights} == {16}


@needs_a_player
def test_windows_is_not_imported_elsewhere():
    code = "import sys, corepress.coreml, corepress.cli.main; sys.exit('corepress.system.windows' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
