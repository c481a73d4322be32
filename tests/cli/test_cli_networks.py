"""Neural networks in the shell."""

from __future__ import annotations

import json

import pytest

from corepress import neural_network
from corepress.coreml.format.schema import Model


@pytest.mark.parametrize(
    ("line", "arguments"),
    [
        ("--nbits 8", (8, "linear")),
        ("--nbits 4 --mode kmeans_lut", (4, "kmeans_lut")),
        ("--nbits 5 --mode kmeans", (5, "kmeans_lut")),
        ("--nbits 3 --mode linear_symmetric", (3, "linear_symmetric")),
    ],
)
def test_quantize(shell, network, line, arguments):
    out, other = network.with_name("out.mlmodel"), network.with_name("other.mlmodel")
    outcome = shell("quantize", network, "-o", out, *line.split())
    assert (outcome.status, outcome.err) == (0, "")
    assert "2 compressed, 0 unchanged" in outcome.out
    neural_network.quantize_weights(network, *arguments, destination=other)
    assert out.read_bytes() == other.read_bytes()


def test_quantize_selects_by_name_type_and_size(shell, network):
    for line, count in (("--name fc1", 1), ("--skip-name fc1 --skip-name fc2", 0), ("--weight-threshold 2400", 0)):
        out = network.with_name("out.mlmodel")
        outcome = shell("quantize", network, "-o", out, "--nbits", "8", "--overwrite", "--json", *line.split())
        assert json.loads(outcome.out)["compressed"] == count
    for flag, count in (("--layer-type", 2), ("--skip-layer-type", 0)):
        outcome = shell("quantize", network, "-o", out, "--nbits", "8", "--overwrite", "--json", flag, "innerProduct")
        assert json.loads(outcome.out)["compressed"] == count


@pytest.mark.parametrize("line", ["quantize --nbits 4", "quantize --nbits 6 --mode kmeans --name fc2", "fp16"])
def test_dry_runs(shell, network, line):
    command, *options = line.split()
    out, plan_file = network.with_name("out.mlmodel"), network.with_name("plan.json")
    outcome = shell(
        command, network, *options, "--dry-run", "--report", plan_file, "--plot", network.with_name("a.png")
    )
    assert (outcome.status, outcome.err, out.exists()) == (0, "", False)
    assert network.with_name("a.png").exists()
    plan = json.loads(plan_file.read_text())
    assert f"exactly {plan['bytes_after']:,} bytes" in outcome.out
    assert json.loads(shell(command, network, *options, "--dry-run", "--json").out)["weights"] == plan["weights"]
    assert shell(command, network, *options, "-o", out).status == 0
    assert plan["bytes_after"] == out.stat().st_size


def test_strict_dry_runs_fail_as_the_run_would(shell, network):
    outcome = shell("fp16", network, "--dry-run", "--strict")
    assert (outcome.status, outcome.out) == (1, "")
    assert "fc1.weights: has values beyond the range" in outcome.err


def test_fp16_names_what_stays(shell, network):
    out = network.with_name("out.mlmodel")
    outcome = shell("fp16", network, "-o", out)
    assert outcome.status == 0
    assert "1 compressed, 1 unchanged" in outcome.out
    assert "fc1.weights" in outcome.out
    outcome = shell("fp16", network, "-o", out, "--overwrite", "--strict")
    assert (outcome.status, outcome.err.count("\n")) == (1, 1)
    assert "fc1.weights: has values beyond the range" in outcome.err


def test_decompress_inspect_and_compare(shell, network):
    small, full = network.with_name("small.mlmodel"), network.with_name("full.mlmodel")
    report = network.with_name("report.json")
    assert shell("quantize", network, "-o", small, "--nbits", "6", "--quiet", "--report", report).out == ""
    assert json.loads(report.read_text())["compressed"] == 2
    assert shell("decompress", small, "-o", full).status == 0
    stored = {path: json.loads(shell("inspect", path, "--json").out)["weights"] for path in (small, full)}
    assert [weight["storage"] for weight in stored[small]] == ["6 bits, linear, 40 scales"] * 2
    assert [weight["storage"] for weight in stored[full]] == ["float32"] * 2
    assert "2 equal, 0 different" in shell("compare", small, full).out
    comparison = json.loads(shell("compare", network, small, "--json").out)
    assert 25 < comparison["snr_db"] < 45


def test_verify(shell, network):
    small, other = network.with_name("small.mlmodel"), network.with_name("other.mlmodel")
    shell("quantize", network, "-o", small, "--nbits", "8")
    outcome = shell("verify", network, small)
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out.startswith("ok: constants: 2 compressed; ")
    assert json.loads(shell("verify", network, small, "--json").out)["ok"]
    assert "fc1.weights" in shell("verify", network, small, "--verbose").out
    outcome = shell("verify", network, small, "--min-snr-db", "90")
    assert (outcome.status, outcome.out.count("less than 90 dB")) == (1, 2)
    other.write_bytes(small.read_bytes().replace(b"fc2", b"fc3"))
    outcome = shell("verify", network, other)
    assert outcome.status == 1
    assert "wrong: layer fc2: it has other weights" in outcome.out
    outcome = shell("verify", network, network.with_name("none.mlmodel"))
    assert (outcome.status, outcome.err.count("\n")) == (1, 1)
    assert "no such file" in outcome.err


def test_networks_in_packages(shell, network):
    package = network.with_name("Net.mlpackage")
    (package / "Data").mkdir(parents=True)
    network.rename(package / "Data/model.mlmodel")
    item = {"path": "model.mlmodel", "name": "model.mlmodel", "author": "", "description": ""}
    manifest = {"fileFormatVersion": "1.0.0", "itemInfoEntries": {"1": item}, "rootModelIdentifier": "1"}
    (package / "Manifest.json").write_text(json.dumps(manifest))
    out = package.with_name("out.mlpackage")
    assert "2 compressed, 0 unchanged" in shell("quantize", package, "-o", out, "--nbits", "4").out
    assert "4 bits, linear, 40 scales" in shell("inspect", out).out
    assert shell("decompress", out, "-o", package.with_name("full.mlpackage")).status == 0
    assert "-o Net-8bit.mlpackage" in shell("quantize", package, "--nbits", "8").err
    outcome = shell("palettize", package, "-o", out, "--nbits", "4")
    assert outcome.status == 2
    assert "holds a neural network, not an ML program; use 'corepress quantize" in outcome.err


_WRONG = {
    "no nbits": ("quantize {net} -o out.mlmodel", "Net.mlmodel needs --nbits, 1 to 8, or 16"),
    "nbits": ("quantize {net} -o out.mlmodel --nbits 9", "--nbits must be 1 to 8, or 16, not 9"),
    "mode": ("quantize {net} -o out.mlmodel --nbits 4 --mode kmens", "did you mean 'kmeans_lut'"),
    "a function": ("quantize {net} -o out.mlmodel --nbits 4 --mode custom_lut", "from Python only"),
    "output": ("quantize {net} --nbits 4", "-o Net-4bit.mlmodel"),
    "output of fp16": ("fp16 {net}", "-o Net-fp16.mlmodel"),
    "output of decompress": ("decompress {net}", "-o Net-dense.mlmodel"),
    "dtype": (
        "quantize {net} -o o.mlmodel --nbits 4 --dtype int8",
        "--dtype is for packages; Net.mlmodel takes --nbits",
    ),
    "target": ("quantize {net} -o o.mlmodel --nbits 4 --target ane", "--target is for packages"),
    "no mode": (
        "quantize {net} -o o.mlmodel --nbits 4 --mode linea_lut",
        "--mode must be 'linear', 'linear_symmetric', 'linear_lut', 'kmeans_lut', not 'linea_lut'",
    ),
    "dequantization": ("quantize {net} -o o.mlmodel --nbits 4 --mode dequantization", "is 'corepress decompress'"),
    "layer type": ("quantize {net} -o o.mlmodel --nbits 4 --layer-type conv", "no layer type 'conv'"),
    "palettize": ("palettize {net} -o o --nbits 6", "corepress quantize {net} --nbits 6 --mode kmeans_lut"),
    "prune": ("prune {net} -o o --threshold 0", "no sparse form; use 'corepress quantize {net} --nbits 8'"),
    "compress": ("compress {net} -o o --config [{{}}]", "use 'corepress quantize {net} --nbits 8'"),
    "function": ("compare {net} {net} --function-name f", "--function-name is for ML programs"),
    "fp16 of a package": ("fp16 {folder} -o o.mlmodel", "holds no neural network, and fp16 is only for these"),
    "nbits of a package": ("quantize {folder} -o o.mlpackage --nbits 8", "--nbits is for .mlmodel files; a package"),
    "layers of a package": ("quantize {folder} -o o.mlpackage --name a", "--name is for .mlmodel files; a package"),
}


@pytest.mark.parametrize("name", _WRONG)
def test_the_wrong_kind_is_refused_with_the_right_command(shell, network, name):
    folder = network.with_name("UNet.mlpackage")
    folder.mkdir()
    item = {"path": "model.mlmodel", "name": "", "author": "", "description": ""}
    manifest = {"fileFormatVersion": "1.0.0", "itemInfoEntries": {"1": item}, "rootModelIdentifier": "1"}
    (folder / "Manifest.json").write_text(json.dumps(manifest))
    (folder / "Data").mkdir()
    program = Model(specificationVersion=7)
    program.mlProgram.version = 1
    (folder / "Data/model.mlmodel").write_bytes(program.SerializeToString())
    line, message = (text.format(net=network, folder=folder) for text in _WRONG[name])
    outcome = shell(*line.split())
    assert (outcome.status, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert message in outcome.err


def test_failures_are_one_line(shell, network):
    out = network.with_name("out.mlmodel")
    out.write_bytes(b"old")
    for line, message in (
        (("quantize", network, "-o", out, "--nbits", "8"), "pass --overwrite"),
        (("quantize", network, "-o", network, "--nbits", "8", "--overwrite"), "must not be the source"),
        (("inspect", out), "is text, not a model"),
        (("quantize", network.with_name("none.mlmodel"), "-o", out, "--nbits", "8"), "no such file"),
        (("quantize", network, "-o", network.with_name("a.bin"), "--nbits", "8"), "must end in .mlmodel"),
    ):
        outcome = shell(*line)
        assert (outcome.status, outcome.out, outcome.err.count("\n")) == (1, "", 1)
        assert message in outcome.err
    assert out.read_bytes() == b"old"
