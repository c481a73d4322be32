"""What commands print: one prefix, flags for parameters, tables that fit, and the same options everywhere."""

import dataclasses
import json
import os
import re
import sys

import numpy as np
import pytest

from corepress import coreml
from corepress.cli import plots
from corepress.cli.group import corepress
from corepress.cli.shell_words import flags_of, in_shell_words, without_function
from corepress.reporting.documents import SCHEMA, from_json, to_json
from corepress.reporting.wording import shorten, shorten_alike
from corepress.specs import Palettize

INTERRUPTED_WHILE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
class Interrupts:
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            sys.meta_path.remove(self)
            signal.raise_signal(signal.{signal})
sys.meta_path.insert(0, Interrupts())
from corepress.cli.main import main
sys.exit(main())
"""


@pytest.fixture(scope="module")
def palettized(unet, tmp_path_factory):
    path = tmp_path_factory.mktemp("palettized") / "UNet-4bit.mlpackage"
    coreml.compress(unet, path, Palettize(nbits=4))
    return path


# Words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "destination b exists; pass overwrite=True to replace it",
            "destination b exists; pass --overwrite to replace it",
        ),
        ("use granularity='per_tensor' or group_size=8", "use --granularity per_tensor or --group-size 8"),
        ("group_size 16 does not divide axis 0", "--group-size 16 does not divide axis 0"),
        ("quantization_mode 'x' is unknown", "--mode 'x' is unknown"),
        ("the target is strict about mode", "the target is strict about mode"),
        ("my_group_size stays", "my_group_size stays"),
        ("model_group_size_weight stays", "model_group_size_weight stays"),
    ],
)
def test_parameters_become_flags(text, expected):
    flags = flags_of(corepress.commands["palettize"])
    assert in_shell_words(text, flags) == expected


@pytest.mark.parametrize("prefix", ["palettize: ", "config: ", "WeightSelector: ", "quantize_weights: "])
def test_names_of_functions_go(prefix):
    assert without_function(f"{prefix}weight a: too long") == "weight a: too long"
    assert without_function("UNet.mlpackage: no such file") == "UNet.mlpackage: no such file"
    assert without_function("shared: 1 of 2 values are NaN") == "shared: 1 of 2 values are NaN"


def test_messages_have_one_prefix(shell, unet, tmp_path):
    lines = [
        shell("compress", unet, "-o", tmp_path / "o.mlpackage", "--strict", "--config", '{"weights": {"none*": null}}'),
        shell("palettize", unet, "-o", tmp_path / "o.mlpackage", "--nbits", "4", "--group-size", "0"),
        shell("quantize", unet, "-o", unet, "--overwrite"),
    ]
    for outcome in lines:
        assert outcome.status
        assert re.match(r"corepress \w+: (?!\w+: )", outcome.err), outcome.err
        assert not re.search(r"\b(palettize|config|compress|quantize): ", outcome.err.partition(": ")[2])
        assert not re.search(r"=True|\bNone\b", outcome.err)


def test_names_are_shortened_where_they_are_alike():
    names = [f"model_layers_{layer}_attention_output_weight_to_fp16" for layer in range(12)]
    short = shorten_alike(names, 24)
    assert len(set(short)) == 12
    assert max(map(len, short)) <= 24
    assert shorten_alike(["a", "b"], 24) == ["a", "b"]
    assert shorten_alike(["alone_weight"], 24) == ["alone_weight"]
    assert shorten("abcdefghij", 5) == "ab…ij"
    assert shorten("abcde", 5) == "abcde"


# The same options everywhere


def test_all_commands_share_the_options_of_display():
    for name, command in corepress.commands.items():
        flags = {flag for option in command.params for flag in option.opts}
        assert {"--quiet", "--verbose", "--json", "--debug"} <= flags, name


def test_every_document_has_its_schema(shell, unet, palettized, network, tmp_path):
    commands = [
        ["palettize", unet, "-o", tmp_path / "a.mlpackage", "--nbits", "4"],
        ["palettize", unet, "--nbits", "4", "--dry-run"],
        ["quantize", network, "--nbits", "8", "--dry-run"],
        ["inspect", unet],
        ["inspect", network],
        ["verify", unet, palettized],
        ["compare", unet, palettized],
        ["inspect", tmp_path / "missing.mlpackage"],
        ["inspect", "--no-such-flag"],
    ]
    for command in commands:
        assert json.loads(shell(*command, "--json").out)["schema"] == SCHEMA, command


def test_documents_of_another_schema_are_refused():
    assert from_json(to_json({"a": 1})) == {"a": 1}
    for text in ('{"schema": 2}', "{}", "[]"):
        with pytest.raises(ValueError, match="this document has schema"):
            from_json(text)
    with pytest.raises(ValueError, match="JSON"):
        to_json({"a": float("nan")})


def test_inspect_can_be_silent_and_complete(shell, unet):
    assert shell("inspect", unet, "--quiet").out == ""
    folded, whole = shell("inspect", unet).out, shell("inspect", unet, "--verbose").out
    assert "small constants (--verbose lists them)" in folded
    assert "conv_in_bias" in whole
    assert "conv_in_bias" not in folded
    assert folded.splitlines()[-1] == whole.splitlines()[-1]


# Dry runs


def test_a_dry_run_folds_what_is_unchanged_and_expects_a_loss(shell, unet, palettized, tmp_path):
    outcome = shell("palettize", unet, "--nbits", "4", "--dry-run")
    assert "vector, such as a bias or a norm" in outcome.out
    assert "conv_in_bias" not in outcome.out
    assert re.search(r"and \d+ smaller weights, .* \(--verbose lists them\)", outcome.out)
    assert len(outcome.out.splitlines()) < 40
    assert "conv_in_bias" in shell("palettize", unet, "--nbits", "4", "--dry-run", "--verbose").out
    plan = coreml.plan(unet, Palettize(nbits=4), expect_snr=True)
    measured = {weight.name: weight.snr_db for weight in coreml.compare(unet, palettized).different}
    expected = {weight.name: weight.expected_snr_db for weight in plan.weights if weight.expected_snr_db is not None}
    assert expected.keys() == measured.keys()
    assert max(abs(expected[name] - measured[name]) for name in measured) < 1.5
    assert all(weight.expected_snr_db is None for weight in coreml.plan(unet, Palettize(nbits=4)).weights)
    assert json.loads(plan.to_json())["weights"][0].keys() >= {"expected_snr_db"}


SPECS_OF_ROWS = [
    {"palettize": {"nbits": 4, "granularity": "per_grouped_channel", "group_size": 16}},
    {"palettize": {"nbits": 4, "cluster_dim": 2}},
    {"palettize": {"nbits": 6, "enable_per_channel_scale": True}},
    {"quantize": {"dtype": "int4", "granularity": "per_block", "block_size": 16}},
    {"quantize": {"granularity": "per_tensor"}},
    {"prune": {"n_m_ratio": [2, 4], "dim": 1}},
    {"prune": {"target_sparsity": 0.5, "block_size": 4}},
    [{"prune": {"target_sparsity": 0.5}}, {"palettize": {"nbits": 4}}],
]


@pytest.mark.parametrize("config", SPECS_OF_ROWS, ids=str)
def test_rows_lose_what_the_whole_loses(unet, tmp_path, config):
    plan = coreml.plan(unet, config, expect_snr=True, weight_threshold=100_000)
    report = coreml.compress(unet, tmp_path / "o.mlpackage", config, weight_threshold=100_000)
    measured = {record.name: record.snr_db for record in report.weights if record.snr_db is not None}
    expected = {weight.name: weight.expected_snr_db for weight in plan.weights if weight.expected_snr_db is not None}
    assert expected.keys() == measured.keys()
    assert np.median([abs(expected[name] - measured[name]) for name in measured]) < 1


def test_a_table_fits_the_terminal(unet):
    pty = pytest.importorskip("pty", exc_type=ImportError, reason="no terminals to play with")
    leader, follower = pty.openpty()
    with os.fdopen(leader, "rb", closefd=True) as terminal:
        code = "import sys; from corepress.cli.main import main; sys.exit(main())"
        child = os.posix_spawn(
            sys.executable,
            [sys.executable, "-c", code, "palettize", str(unet), "--nbits", "4", "--dry-run"],
            {**os.environ, "COLUMNS": "80"},
            file_actions=[(os.POSIX_SPAWN_DUP2, follower, 1)],
        )
        os.close(follower)
        output = b""
        while True:
            try:
                part = terminal.read1()
            except OSError:  # the other side is closed
                break
            if not part:
                break
            output += part
        assert os.waitpid(child, 0)[1] == 0
    lines = output.decode().splitlines()
    assert "SNR dB" in lines[0]
    assert max(len(line) for line in lines if "palettize" in line) <= 80


# What to do next


def test_nothing_done_is_said_and_how_to(shell, palettized, tmp_path):
    for more in (["-o", tmp_path / "o.mlpackage"], ["--dry-run"]):
        outcome = shell("quantize", palettized, *more)
        assert outcome.status == 0
        assert "nothing to do: the weights are already compressed; --joint-compression compresses them" in outcome.out


@pytest.mark.parametrize(("options", "advised"), [([], True), (["--mode", "kmeans_lut"], False)])
def test_few_bits_of_networks_are_advised_a_palette(shell, network, tmp_path, options, advised):
    outcome = shell("quantize", network, "-o", tmp_path / "o.mlmodel", "--nbits", "4", *options)
    assert ("--mode kmeans_lut loses less" in outcome.out) == advised
    eight = shell("quantize", network, "-o", tmp_path / "8.mlmodel", "--nbits", "8", *options)
    assert "loses less" not in eight.out


# Signals and pictures


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(("signal", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
@pytest.mark.parametrize("module", ["click", "numpy"])
def test_an_early_signal_ends_with_one_line(process, module, signal, status):
    outcome = process("inspect", "a.mlpackage", code=INTERRUPTED_WHILE.format(module=module, signal=signal))
    assert (outcome.status, outcome.out) == (status, "")
    assert "Traceback" not in outcome.err
    assert outcome.err == ("corepress: interrupted\n" if signal == "SIGINT" else "")


@pytest.fixture
def drawn(monkeypatch):
    """The figures that would be saved."""
    figures = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: figures.append(figure))
    return figures


def _ticks(axis):
    axis.figure.canvas.draw()
    return [label.get_text() for label in axis.get_ticklabels()], axis.get_major_formatter().get_offset()


def test_pictures_have_readable_axes(unet, palettized, tmp_path, drawn):
    report = coreml.compress(unet, tmp_path / "o.mlpackage", Palettize(nbits=4))
    plots.plot_report(report, tmp_path / "report.png")
    plots.plot_comparison(coreml.compare(unet, palettized), tmp_path / "comparison.png")
    plots.plot_plan(coreml.plan(unet, Palettize(nbits=4)), tmp_path / "plan.png")
    for axes in (axes for figure in drawn for axes in figure.axes):
        for axis in (axes.xaxis, axes.yaxis):
            if axis.get_visible() and axis.get_scale() == "linear":
                assert _ticks(axis)[1] == ""


def test_equal_weights_are_drawn_without_false_differences(unet, palettized, tmp_path, drawn):
    comparison = coreml.compare(unet, palettized)
    alike = tuple(
        dataclasses.replace(weight, snr_db=20.0 + index * 1e-6) for index, weight in enumerate(comparison.different)
    )
    plots.plot_comparison(dataclasses.replace(comparison, weights=alike), tmp_path / "a.png")
    low, high = drawn[0].axes[0].get_ylim()
    assert high - low >= plots.LEAST_DECIBELS
    plots.plot_comparison(dataclasses.replace(comparison, weights=()), tmp_path / "b.png")
    assert drawn[1].axes[0].get_title(loc="left") == "No weight differs"


@pytest.mark.parametrize(("variable", "value"), [("COREPRESS_SIMD", "sse9"), ("COREPRESS_NUM_THREADS", "many")])
def test_a_wrong_variable_is_one_line(process, unet, tmp_path, variable, value):
    line = ["palettize", unet, "-o", tmp_path / "o.mlpackage", "--nbits", "4"]
    outcome = process(*line, **{variable: value})
    assert (outcome.status, outcome.out) == (1, "")
    assert re.fullmatch(rf"corepress[\w ]*: {variable} must be .*, not '{value}'\n", outcome.err)
