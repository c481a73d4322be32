"""`corepress calibrate`, and the commands that use what it wrote."""

from __future__ import annotations

import json

import numpy as np
import pytest
from coreml_helpers import quiet

from corepress import coreml

pytest.importorskip("torch")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model of two products and an embedding, its samples, and what calibration found."""
    pytest.importorskip("coremltools")
    folder = tmp_path_factory.mktemp("calibrate")
    rng = np.random.default_rng(0)
    first, second, table = (rng.standard_normal(shape).astype(np.float32) for shape in ((60, 40), (50, 60), (70, 40)))
    with quiet():
        import coremltools as ct
        from coremltools.converters.mil import Builder as mb
        from coremltools.converters.mil.mil import types

        specs = [mb.TensorSpec((6,), dtype=types.int32)]

        @mb.program(input_specs=specs, opset_version=ct.target.iOS18)
        def model(ids):
            x = mb.gather(x=mb.const(val=table, name="table"), indices=ids, axis=0)
            hidden = mb.relu(x=mb.linear(x=x, weight=mb.const(val=first, name="first")))
            return mb.linear(x=hidden, weight=mb.const(val=second, name="second"), name="y")

        options = {"minimum_deployment_target": ct.target.iOS18, "skip_model_load": True}
        ct.convert(model, pass_pipeline=ct.PassPipeline.EMPTY, **options).save(str(folder / "Model.mlpackage"))
    np.savez(folder / "samples.npz", ids=rng.integers(0, 70, (12, 6)).astype(np.int32))
    return folder


@pytest.fixture(scope="module")
def calibration(place):
    path = place / "model.calibration"
    coreml.calibrate(place / "Model.mlpackage", place / "samples.npz", path, importance=True, weight_threshold=0)
    return path


def test_a_summary_is_printed(shell, place, tmp_path):
    outcome = shell(
        *("calibrate", place / "Model.mlpackage", "--inputs", place / "samples.npz", "-o", tmp_path / "m.calibration"),
        *("--probes", "4", "--candidates", "2,4", "-v"),
    )
    assert outcome.status == 0, outcome.err
    assert "samples          12, 3 of them kept for choices" in outcome.out
    assert "weights          2 with second moments, 1 without" in outcome.out
    assert "its rows are looked up by gather: table" in outcome.out
    assert "2 candidates, 12 gradients, standard error" in outcome.out
    assert "palettize 4 bits" in outcome.out
    assert coreml.Statistics.load(tmp_path / "m.calibration").reached == ("first", "second")


def test_json(shell, place, tmp_path):
    outcome = shell(
        *("calibrate", place / "Model.mlpackage", "--inputs", place / "samples.npz", "-o", tmp_path / "m.calibration"),
        *("--candidates", "none", "--json"),
    )
    found = json.loads(outcome.out)
    assert found["sample_count"] == 12
    assert found["weights"]["table"]["reason"] == "its rows are looked up by gather"
    assert found["weights"]["first"]["sensitivities"] == {}
    assert len(found["weights"]["first"]["digest"]) == 64


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--candidates", "magic"], "no set 'magic'"),
        (["--memory-limit", "many"], "'many' is not a size such as 2GB"),
        (["--function-name", "other"], "--function-name is 'other', but the model has only one function, main"),
        (["-o", "folder"], "File 'folder' is a directory"),
    ],
)
def test_wrong_options(shell, place, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    outcome = shell(
        *("calibrate", place / "Model.mlpackage", "--inputs", place / "samples.npz", "-o", "m.calibration", *options)
    )
    assert outcome.status != 0
    assert message in outcome.err


def test_outputs_are_not_replaced_unasked(shell, place, calibration):
    given = ["calibrate", place / "Model.mlpackage", "--inputs", place / "samples.npz", "-o", calibration]
    before = calibration.read_bytes()
    outcome = shell(*given, "--candidates", "none")
    assert outcome.status == 1
    assert "--overwrite" in outcome.err
    assert calibration.read_bytes() == before
    inside = shell(*given[:-1], place / "Model.mlpackage" / "new")
    assert inside.status != 0
    assert "which is only read" in inside.err


def snr_of(shell, place, *command):
    outcome = shell(*command, "-o", place / "Out.mlpackage", "--overwrite", "--weight-threshold", "0")
    assert outcome.status == 0, outcome.err
    compared = shell(
        "compare", place / "Model.mlpackage", place / "Out.mlpackage", "--inputs", place / "samples.npz", "--json"
    )
    (output,) = json.loads(compared.out)["outputs"]
    return output["snr_db"], outcome.out


COMMANDS = {
    "palettize": ["palettize", "--nbits", "3"],
    "quantize": ["quantize", "--dtype", "int4", "--granularity", "per_channel"],
    "prune": ["prune", "--target-sparsity", "0.4"],
    "compress": ["compress", "--config", '{"palettize": {"nbits": 3}}'],
}


@pytest.mark.parametrize("verb", COMMANDS)
def test_outputs_are_closer_with_calibration(shell, place, calibration, verb):
    name, *options = COMMANDS[verb]
    keep = ["--target", "ios18"]
    before, _ = snr_of(shell, place, name, place / "Model.mlpackage", *options, *keep)
    after, text = snr_of(shell, place, name, place / "Model.mlpackage", *options, *keep, "--calibration", calibration)
    assert "compressed without calibration: 1 weight, table: its rows are looked up by gather" in text
    assert after > before


def test_importance_is_a_choice(shell, place, calibration):
    given = ["palettize", place / "Model.mlpackage", "--nbits", "2", "--calibration", calibration]
    found = {snr_of(shell, place, *given, "--calibration-use", each)[0] for each in ("diagonal", "fisher")}
    assert len(found) == 2


def test_a_plan_takes_calibration_too(shell, place, calibration):
    outcome = shell(
        *("palettize", place / "Model.mlpackage", "--nbits", "3", "--calibration", calibration, "--dry-run"),
        *("--weight-threshold", "0"),
    )
    assert outcome.status == 0, outcome.err
    assert "compressed without calibration" in outcome.out


def test_files_that_are_none(shell, place, tmp_path):
    (tmp_path / "text").write_text("no calibration", encoding="utf-8")
    for path, message in ((tmp_path / "text", "not a safetensors file"), (tmp_path / "none", "does not exist")):
        outcome = shell(
            *("palettize", place / "Model.mlpackage", "-o", tmp_path / "o.mlpackage", "--nbits", "3"),
            *("--calibration", path),
        )
        assert outcome.status != 0
        assert message in outcome.err
