"""Flags become the arguments of `corepress.coreml`, and every field of a spec has its flag."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click
import pytest

from corepress.cli.commands import COMMANDS
from corepress.cli.group import corepress
from corepress.cli.options import flag, flag_fields
from corepress.specs import SPECS, Palettize, Prune, Quantize

BY_NAME = {command.name: command for command in COMMANDS}
SMALLEST = {"palettize": ["--nbits", "4"], "quantize": [], "prune": ["--target-sparsity", "0.5"]}


@pytest.mark.parametrize("verb", SPECS)
def test_every_field_of_a_spec_is_a_flag_with_its_default_and_a_help_text(verb):
    options = {option.name: option for option in BY_NAME[verb].params}
    for field in flag_fields(SPECS[verb]):
        option = options[field.name]
        assert option.opts == [flag(field.name)]
        assert option.help
        assert option.required == (field.default is dataclasses.MISSING)
        if not option.required:
            assert option.default == field.default


def test_functions_have_no_flag(shell):
    assert {field.name for field in dataclasses.fields(Palettize)} - {
        field.name for field in flag_fields(Palettize)
    } == {"lut_function"}
    outcome = shell("palettize", "a", "-o", "b", "--mode", "custom")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert "mode 'custom' needs lut_function" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "spec"),
    [
        (["palettize", "--nbits", "6"], Palettize(nbits=6)),
        (
            ["palettize", "--nbits", "4", "--granularity", "per_grouped_channel", "--group-size", "16"],
            Palettize(nbits=4, granularity="per_grouped_channel", group_size=16),
        ),
        (["palettize", "--nbits", "1", "--channel-axis", "1"], Palettize(nbits=1, channel_axis=1)),
        (["quantize"], Quantize()),
        (
            ["quantize", "--dtype", "uint8", "--mode", "linear", "--granularity", "per_tensor"],
            Quantize(dtype="uint8", mode="linear", granularity="per_tensor"),
        ),
        (
            ["quantize", "--dtype", "int4", "--granularity", "per_block", "--block-size", "16"],
            Quantize(dtype="int4", granularity="per_block", block_size=16),
        ),
        (["quantize", "--scale-search", "mse"], Quantize(scale_search="mse")),
        (
            ["quantize", "--dtype", "float4_e2m1fn", "--scale-dtype", "float8_e8m0fnu"],
            Quantize(dtype="float4_e2m1fn", scale_dtype="float8_e8m0fnu"),
        ),
        (["palettize", "--nbits", "4", "--lut-dtype", "float8_e5m2"], Palettize(nbits=4, lut_dtype="float8_e5m2")),
        (["prune", "--target-sparsity", "0.75"], Prune(target_sparsity=0.75)),
        (["prune", "--threshold", "1e-3"], Prune(threshold=1e-3)),
        (["prune", "--n-m-ratio", "2:4"], Prune(n_m_ratio=(2, 4))),
        (["prune", "--n-m-ratio", "3:8", "--dim", "0"], Prune(n_m_ratio=(3, 8), dim=0)),
        (
            ["prune", "--target-sparsity", "0.5", "--block-size", "4", "--dim", "1"],
            Prune(target_sparsity=0.5, block_size=4, dim=1),
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_flags_become_a_spec(shell, call, arguments, spec):
    assert shell(*arguments, "in.mlpackage", "-o", "out.mlpackage").status == 0
    assert call.arguments == (Path("in.mlpackage"), Path("out.mlpackage"), spec)


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("palettize UNet.mlpackage --nbits 4", "UNet-4bit.mlpackage"),
        ("palettize UNet.mlpackage --mode unique", "UNet-unique.mlpackage"),
        ("quantize UNet.mlpackage --dtype uint4", "UNet-uint4.mlpackage"),
        ("prune UNet.mlpackage --threshold 0", "UNet-sparse.mlpackage"),
    ],
)
def test_a_missing_output_is_asked_for_with_a_name_that_fits(shell, line, name):
    outcome = shell(*line.split())
    assert outcome.status == 2
    assert f"-o {name}" in outcome.err


@pytest.mark.parametrize("verb", SPECS)
def test_shared_options_reach_compress(shell, call, verb, tmp_path, monkeypatch):
    assert shell(verb, "a", "-o", "b", *SMALLEST[verb]).status == 0
    assert call.options == {
        "progress": None,
        "overwrite": False,
        "strict": False,
        "weight_threshold": None,
        "joint_compression": None,
        "keep_position_tables": None,
        "target": None,
        "calibration": None,
        "calibration_use": "error_feedback",
        "dampening": 0.01,
        "num_threads": None,
    }
    shared = ["--overwrite", "--strict", "--weight-threshold", "10", "--num-threads", "3", "--target", "ane"]
    shared += ["--joint-compression", "--calibration", "c", "--calibration-use", "fisher", "--dampening", "0.1"]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c").touch()
    assert shell(verb, "a", "-o", "b", *SMALLEST[verb], *shared).status == 0
    assert call.options == {
        "progress": None,
        "overwrite": True,
        "strict": True,
        "weight_threshold": 10,
        "joint_compression": True,
        "keep_position_tables": None,
        "target": "ane",
        "calibration": Path("c"),
        "calibration_use": "fisher",
        "dampening": 0.1,
        "num_threads": 3,
    }


def test_decompress_takes_no_options_of_compression(shell, call):
    assert shell("decompress", "a", "-o", "b", "--overwrite", "--num-threads", "2").status == 0
    assert call.arguments == (Path("a"), Path("b"))
    assert call.options == {"progress": None, "overwrite": True, "num_threads": 2}


def test_summary_names_what_was_kept_and_what_lost_most(shell, call):
    outcome = shell("palettize", "a", "-o", "b", "--nbits", "4")
    assert outcome.err == ""
    for text in (
        "24.6 kB -> 12.4 kB",
        "1.99 times smaller",
        "11.2 dB (worst_weight)",
        "group_size 16 does not divide",
        "odd_weight",
    ):
        assert text in outcome.out
    assert "good_weight" not in outcome.out


def test_verbose_prints_every_weight(shell, call):
    out = shell("palettize", "a", "-o", "b", "--nbits", "4", "--verbose").out
    assert all(name in out for name in ("good_weight", "worst_weight", "odd_weight"))


def test_quiet_prints_nothing(shell, call):
    outcome = shell("quantize", "a", "-o", "b", "--quiet")
    assert (outcome.status, outcome.out, outcome.err) == (0, "", "")


@pytest.mark.parametrize("more", [[], ["--quiet"], ["--verbose"]])
def test_json_is_one_document_and_nothing_else(shell, call, more):
    outcome = shell("quantize", "a", "-o", "b", "--json", *more)
    assert len(json.loads(outcome.out)["weights"]) == 3
    assert outcome.err == ""


def test_report_is_saved(shell, call, tmp_path):
    path = tmp_path / "report.json"
    assert shell("prune", "a", "-o", "b", "--threshold", "0", "--report", path, "--quiet").status == 0
    assert json.loads(path.read_text())["weights"][1]["name"] == "worst_weight"


def test_help_lists_every_command_in_the_order_of_work(shell):
    out = shell().out
    assert shell("--help").out == shell("-h").out == out
    places = [out.index(f"\n  {name} ") for name in BY_NAME]
    assert places == sorted(places)
    assert "..." not in out.partition("Commands:")[2], "a summary does not fit"


@pytest.mark.parametrize("name", BY_NAME)
def test_help_of_each_command_has_an_example_and_explains_every_option(shell, name):
    outcome = shell(name, "--help")
    assert outcome.status == 0
    assert f"\n    corepress {name}" in outcome.out
    for parameter in BY_NAME[name].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name
            assert parameter.opts[-1] in outcome.out


@pytest.mark.parametrize("name", BY_NAME)
def test_no_command_has_two_options_of_one_name(name):
    context = click.Context(BY_NAME[name], parent=click.Context(corepress))
    flags = [text for parameter in BY_NAME[name].get_params(context) for text in parameter.opts]
    assert len(flags) == len(set(flags))


def test_version_is_the_packages(shell):
    from importlib.metadata import version

    assert shell("--version").out == f"corepress {version('corepress')}\n"
