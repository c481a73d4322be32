"""`corepress compress` for a target."""

from __future__ import annotations

import json

import pytest
from test_completion import completions

from corepress import Config, coreml
from corepress.config.candidates import CANDIDATE_SETS


def test_a_package_of_a_size(shell, unet, tmp_path):
    outcome = shell(
        *("compress", unet, "-o", tmp_path / "o.mlpackage", "--target-size", "5MB"),
        *("--save-config", tmp_path / "found.yaml", "--json"),
    )
    assert (outcome.status, outcome.err) == (0, "")
    report = json.loads(outcome.out)
    predicted = report["predicted"]
    assert 0.995 * 5e6 <= report["bytes_after"] == predicted["recipe"]["bytes"] <= 5e6
    assert sum(predicted["counts"].values()) == report["compressed"]
    assert predicted["uniform"]["snr_db"] < predicted["recipe"]["snr_db"]
    assert 0 <= predicted["gap_db"] < 0.1
    found = Config.load(tmp_path / "found.yaml")
    assert coreml.plan(unet, found).bytes_after == report["bytes_after"]


def test_a_dry_run_shows_what_was_chosen_and_writes_nothing(shell, unet, tmp_path):
    outcome = shell("compress", unet, "--target-bits", "4", "--candidates", "2,4,6", "--dry-run")
    assert (outcome.status, outcome.err) == (0, "")
    for text in ("chosen for       target_bits 4", "recipe  ", "uniform  ", "next larger ", "dB above the dual bound"):
        assert text in outcome.out
    assert "palettize 4 bits" in outcome.out
    assert "palettize 3 bits" not in outcome.out
    assert list(tmp_path.iterdir()) == []


def test_a_quality_and_verbose(shell, unet, tmp_path):
    outcome = shell("compress", unet, "-o", tmp_path / "o.mlpackage", "--target-snr", "30", "--verbose")
    assert outcome.status == 0
    assert "chosen for target_snr 30 dB" in outcome.out


def test_rules_of_a_config_are_kept(shell, unet, tmp_path):
    config = '{"weights": {"conv_in*": null}}'
    arguments = ["compress", unet, "--config", config, "--target-bits", "4", "--dry-run", "--json"]
    plan = json.loads(shell(*arguments).out)
    methods = {weight["name"]: weight["method"] for weight in plan["weights"]}
    assert methods["conv_in_weight"] is None
    assert methods["conv_out_weight"] is not None
    assert "conv_in_weight" not in plan["predicted"]


@pytest.mark.parametrize(
    ("candidates", "method"),
    [
        ("gpu", "quantize"),
        ('[{"quantize": {"dtype": "int8"}}, {"quantize": {"dtype": "int4"}}]', "quantize"),
        ("4 6 8", "palettize"),
    ],
)
def test_candidates_in_all_their_forms(shell, unet, tmp_path, candidates, method):
    arguments = ("compress", unet, "--target-bits", "5.5", "--dry-run", "--json")
    outcome = shell(*arguments, "--candidates", candidates)
    assert outcome.status == 0, outcome.err
    assert all(method in name or name == "unchanged" for name in json.loads(outcome.out)["predicted"]["counts"])
    if candidates.startswith("["):
        (tmp_path / "candidates.json").write_text(candidates)
        again = json.loads(shell(*arguments, "--candidates", tmp_path / "candidates.json").out)
        assert again["predicted"]["counts"] == json.loads(outcome.out)["predicted"]["counts"]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ((), 2, "nothing to do; give --config, or a target: --target-size, --target-bits, --target-snr"),
        (("--target-bits", "4", "--target-size", "5MB"), 2, "--target-size and --target-bits are different targets"),
        (("--config", "{}", "--candidates", "gpu"), 2, "--candidates is for a target"),
        (("--config", '{"quantize": {}}', "--save-config", "a.yaml"), 2, "--save-config is for a target"),
        (("--target-bits", "4", "--candidates", "5"), 2, "--candidates: bits must be"),
        (("--target-bits", "4", "--candidates", "nope"), 2, "--candidates: no set 'nope'; there are default"),
        (("--target-bits", "4", "--candidates", "no.yaml"), 2, "no.yaml: no such config file"),
        (("--target-bits", "4", "--recipe", "4.5"), 2, "--recipe is one of those in a file; give --config too"),
        (("--target-bits", "4", "--save-config", "found.txt"), 2, "must end with .yaml, .yml or .json"),
        (("--target-bits", "1"), 1, "--target-bits 1 is out of reach; with these candidates its weights can have"),
        (("--target-size", "5 parsecs"), 1, "unit 'parsecs' of '5 parsecs' is not known; use B, kB"),
    ],
)
def test_what_is_wrong_is_said_in_words_of_the_shell(shell, unet, tmp_path, arguments, status, message):
    outcome = shell("compress", unet, "-o", tmp_path / "o.mlpackage", *arguments)
    assert outcome.status == status, outcome.err
    assert message in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_an_existing_destination_is_refused_first(shell, unet, tmp_path):
    (tmp_path / "o.mlpackage").mkdir()
    outcome = shell("compress", unet, "-o", tmp_path / "o.mlpackage", "--target-bits", "4")
    assert outcome.status == 1
    assert "pass --overwrite" in outcome.err


def test_the_config_is_not_written_over_a_source(shell, unet, tmp_path):
    (tmp_path / "c.yaml").write_text("weights: {conv_in*: null}")
    path = tmp_path / "o.mlpackage"
    outcome = shell("compress", unet, "-o", path, "--target-bits", "4", "--save-config", path / "c.yaml")
    assert outcome.status == 2


def test_a_neural_network_of_a_size(shell, network, tmp_path):
    arguments = ("compress", network, "--target-bits", "5.5")
    outcome = shell(*arguments, "-o", tmp_path / "out.mlmodel", "--json", "--candidates", "4,5,6,7")
    assert (outcome.status, outcome.err) == (0, "")
    report = json.loads(outcome.out)
    assert report["bytes_after"] == report["predicted"]["recipe"]["bytes"] == (tmp_path / "out.mlmodel").stat().st_size
    assert report["predicted"]["recipe"]["bits_per_weight"] <= 5.5
    outcome = shell(*arguments, "--dry-run", "--candidates", "4 5 6 7")
    assert "chosen for       target_bits 5.5" in outcome.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--config", "{}"), "--config is for packages; a neural network takes targets and --candidates"),
        (("--joint-compression",), "--joint-compression is for packages"),
        (("--candidates", "gpu"), "for a neural network give bits, such as 2,4,8,16"),
        (("--candidates", "9"), "bits must be from 1 to 8, or 16"),
    ],
)
def test_what_neural_networks_do_not_take(shell, network, tmp_path, arguments, message):
    outcome = shell("compress", network, "-o", tmp_path / "out.mlmodel", "--target-bits", "5", *arguments)
    assert outcome.status in (1, 2)
    assert message in outcome.err
    assert not (tmp_path / "out.mlmodel").exists()


def test_values_are_completed():
    assert completions("compress", "--candidates", "") == list(CANDIDATE_SETS)
    assert completions("compress", "--target-s") == ["--target-size", "--target-snr"]
