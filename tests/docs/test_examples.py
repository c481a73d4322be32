"""The examples run as they are, and do what they say."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from code_blocks import ROOT
from safetensors import safe_open
from safetensors.numpy import save_file

import corepress as cp
from corepress import coreml
from corepress.coreml.format.package import Package
from corepress.coreml.format.values import ValueReader
from corepress.coreml.program.program import Program
from helpers.assets import require_coreai
from helpers.processes import TIMEOUT

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def run(name: str, *arguments: str) -> str:
    finished = subprocess.run(
        [sys.executable, ROOT / "examples" / name, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        timeout=TIMEOUT,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def read(path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    with safe_open(path, framework="numpy") as file:
        return file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def test_safetensors_are_compressed_as_documented(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    tensors = {
        "a.weight": rng.standard_normal((120, 64)).astype(ml_dtypes.bfloat16),
        "b.weight": rng.standard_normal((96, 16, 3, 3)).astype(np.float16),
        "c.weight": rng.standard_normal((64, 64)).astype(np.float32),
        "norm.weight": np.ones(64, np.float16),
        "ids": np.arange(4096).reshape(64, 64),
    }
    save_file(tensors, "model.safetensors", {"format": "pt"})
    run("compress_safetensors.py", "model.safetensors", "small.safetensors", "--nbits", "3")

    metadata, stored = read("small.safetensors")
    layouts = json.loads(metadata["corepress"])
    assert metadata["format"] == "pt"
    assert set(layouts) == {"a.weight", "b.weight", "c.weight"}
    assert layouts["a.weight"] == {"shape": [120, 64], "nbits": 3}
    expected = {}
    for name, tensor in tensors.items():
        if name not in layouts:
            np.testing.assert_array_equal(stored[name], tensor)
            expected[name] = tensor
            continue
        # Only what the script documents: the codes are a stream of bits, a group is rows / groups rows.
        codes = cp.kernels.unpack_bits(stored[f"{name}.indices"], 3, tensor.size)
        lut = stored[f"{name}.lut"].reshape(-1, 8)
        by_group = codes.reshape(len(lut), -1)
        expected[name] = np.take_along_axis(lut, by_group.astype(np.int64), axis=1).reshape(tensor.shape)
        assert cp.error(tensor, expected[name]).snr_db > 13

    run("compress_safetensors.py", "small.safetensors", "plain.safetensors", "--expand")
    metadata, plain = read("plain.safetensors")
    assert metadata == {"format": "pt"}
    assert plain.keys() == tensors.keys()
    for name, tensor in expected.items():
        assert plain[name].dtype == tensor.dtype
        np.testing.assert_array_equal(plain[name], tensor)


def test_a_recipe_is_found_for_a_size(workplace):
    run("mixed_recipe.py", "Encoder.mlpackage", "mixed.mlpackage", "--bits-per-weight", "3.5", "--recipe", "r.json")
    recipe = json.loads((workplace / "r.json").read_text())
    weights = [weight for weight in coreml.inspect("mixed.mlpackage").weights if weight.name in recipe]
    bits = 8 * sum(weight.bytes for weight in weights) / sum(weight.size for weight in weights)
    assert 3.3 < bits <= 3.5
    assert len(set(recipe.values())) > 1
    for nbits in (3, 4):
        coreml.compress("Encoder.mlpackage", f"{nbits}.mlpackage", {"palettize": {"nbits": nbits}})
    found = {name: coreml.compare("Encoder.mlpackage", f"{name}.mlpackage").snr_db for name in ("3", "mixed", "4")}
    assert found["3"] < found["mixed"] < found["4"]


def test_torch_models_are_converted_with_the_tables_found(tmp_path, monkeypatch):
    pytest.importorskip("torch", reason="torch is not installed")
    monkeypatch.chdir(tmp_path)
    told = run("palettize_torch_model.py", "net.mlpackage", "--nbits", "4", "--group-size", "8")
    stored = {
        weight.shape: weight.storage for weight in coreml.inspect("net.mlpackage").weights if len(weight.shape) > 1
    }
    assert stored == {
        (64, 3, 3, 3): "palettized 4 bits, 8 groups",
        (128, 64, 3, 3): "palettized 4 bits, 16 groups",
        (100, 128): "palettized 4 bits, 10 groups",
    }
    assert "dB apart" in told
    # coremltools found the indices of the very values that corepress had put into the layers.
    coreml.decompress("net.mlpackage", "plain.mlpackage")
    package = Package.open("plain.mlpackage")
    with ValueReader(package) as values:
        for definition in Program(package).definitions:
            if len(definition.shape) > 1:
                weight = values.read(definition.parameters["val"], definition.where).data
                groups = weight.reshape({64: 8, 128: 16, 100: 10}[weight.shape[0]], -1)
                assert max(len(np.unique(group)) for group in groups) == 16


def test_networks_keep_what_they_learn_if_they_are_compressed_while_they_train(tmp_path):
    pytest.importorskip("coremltools")
    pytest.importorskip("sklearn")
    lines = run("compress_while_training.py", "--epochs", "3", "--output", str(tmp_path)).splitlines()
    read = {line[:32].strip(): float(line.rsplit(maxsplit=1)[1].rstrip("%")) for line in lines[1:]}
    assert read["as trained"] > 97
    for how in ("1-bit palettes", "75% zeros"):
        assert read[f"{how}, while training"] > 90 > 40 > read[f"{how}, after training"]
    sizes = {line[:32].strip(): float(line[32:].split()[0]) for line in lines[1:]}
    assert sizes["1-bit palettes, while training"] * 10 < sizes["as trained"]
    assert len(list(tmp_path.glob("*.mlpackage"))) == 5


def test_assets_are_compressed_and_run_here(tmp_path):
    require_coreai()
    pytest.importorskip("sklearn")
    lines = run("core_ai.py", "--output", str(tmp_path)).splitlines()
    rows = {line[:40].strip(): line[40:].split() for line in lines[1:]}
    read = {name: float(row[-2]) for name, row in rows.items()}
    assert read["as trained"] > 90
    assert read["8 bits"] == pytest.approx(read["as trained"], abs=1)
    assert read["4 bits, groups of 8"] > read["as trained"] - 3
    size = {name: float(row[0]) for name, row in rows.items()}
    assert size["8 bits"] < size["as trained"] / 3
    assert size["2 bits"] < size["4 bits"] < size["8 bits"]
    ratio = {name: float(row[2]) for name, row in rows.items() if name != "as trained"}
    for name in ("4 bits", "2 bits"):
        assert ratio[f"{name}, calibrated"] > ratio[name] + 2
    assert len(list(tmp_path.glob("*.aimodel"))) == 11


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_help_tells_what_it_does(example):
    if "torch" in example.name:
        pytest.importorskip("torch", reason="torch is not installed")
    if example.name == "core_ai.py":
        require_coreai()
    assert "usage:" in run(example.name, "--help")
