"""The command on real packages, in processes of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.processes import TIMEOUT

HEAVY = ("coremltools", "matplotlib", "torch", "sklearn", "rich")

NAME_HEAVY_MODULES = f"""
import sys
from corepress.cli.main import main
status = main()
print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)
sys.exit(status)
"""

PAUSE_AFTER_THE_FIRST_WEIGHT = """
import signal, sys, time
from corepress import coreml
from corepress.cli.main import main

real = coreml.compress

def compress(*arguments, **options):
    def pause(progress):
        if progress.done_weights:
            print("paused", flush=True)
            for _ in range(6000):  # a signal just before one long sleep would wait for its end
                time.sleep(0.01)
    return real(*arguments, **{**options, "progress": pause})

coreml.compress = compress
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job starts with it ignored
sys.exit(main())
"""


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def package_bytes(package: Path) -> dict[str, bytes]:
    return {str(path.relative_to(package)): path.read_bytes() for path in package.rglob("*") if path.is_file()}


@pytest.mark.parametrize("arguments", [["--help"], ["palettize", "--help"], []], ids=["help", "command help", "work"])
def test_start_is_light(process, unet, tmp_path, arguments):
    work = ["palettize", unet, "-o", tmp_path / "out.mlpackage", "--nbits", "4", "--quiet"]
    outcome = process(*(arguments or work), code=NAME_HEAVY_MODULES)
    assert (outcome.status, outcome.err) == (0, "[]\n")


def test_palettize_decompress_and_inspect(process, unet, tmp_path):
    small, dense = tmp_path / "small.mlpackage", tmp_path / "dense.mlpackage"
    before = package_bytes(unet)
    written = process("palettize", unet, "-o", small, "--nbits", "4", "--report", tmp_path / "report.json")
    assert (written.status, written.err) == (0, "")
    assert str(small) in written.out
    assert sum(map(len, package_bytes(small).values())) < 0.3 * sum(map(len, before.values()))
    assert package_bytes(unet) == before

    back = process("decompress", small, "-o", dense, "--json")
    assert (back.status, back.err) == (0, "")
    statuses = [weight["status"] for weight in json.loads(back.out)["weights"]]
    report = json.loads((tmp_path / "report.json").read_text())
    compressed = [weight["name"] for weight in report["weights"] if weight["status"] == "compressed"]
    assert "conv_in" not in process("decompress", small, "-o", dense, "--overwrite").out
    assert statuses.count("decompressed") == len(compressed) > 60

    shown = process("inspect", small)
    assert (shown.status, shown.err) == (0, "")
    assert "conv_in_weight" in shown.out
    assert isinstance(json.loads(process("inspect", small, "--json").out), dict)


def test_weights_kept_against_the_plan_are_named_and_strict_refuses_them(process, unet, tmp_path):
    grouped = ["--nbits", "4", "--granularity", "per_grouped_channel", "--group-size", "16"]
    outcome = process("palettize", unet, "-o", tmp_path / "a.mlpackage", *grouped)
    assert outcome.status == 0
    assert "conv_out_weight" in outcome.out, "4 channels do not divide by 16"
    assert "norm1" not in outcome.out, "small weights are kept as planned: their number is enough"

    outcome = process("palettize", unet, "-o", tmp_path / "b.mlpackage", *grouped, "--strict")
    assert (outcome.status, outcome.out) == (1, "")
    assert "conv_out_weight" in outcome.err
    assert outcome.err.count("\n") == 1
    assert files_in(tmp_path) == ["a.mlpackage"]


def test_a_run_that_changes_nothing_says_so(process, unet, tmp_path):
    outcome = process("decompress", unet, "-o", tmp_path / "same.mlpackage")
    assert outcome.status == 0
    assert "the same" in outcome.out
    assert "none changed" in outcome.out


def test_an_existing_output_needs_overwrite(process, unet, tmp_path):
    command = ["quantize", unet, "-o", tmp_path / "out.mlpackage", "--json"]
    assert process(*command).status == 0
    before = package_bytes(tmp_path / "out.mlpackage")
    refused = process(*command)
    assert refused.status == 1
    assert json.loads(refused.out)["error"]["next_step"] == "pass --overwrite to replace it"
    assert "--overwrite" in refused.err
    assert package_bytes(tmp_path / "out.mlpackage") == before
    assert process(*command, "--overwrite").status == 0
    assert files_in(tmp_path) == ["out.mlpackage"]


def test_piped_output_has_no_escape_codes(process, unet, tmp_path):
    for more in ([], ["--verbose"]):
        outcome = process("prune", unet, "-o", tmp_path / "o.mlpackage", "--threshold", "0", "--overwrite", *more)
        assert outcome.status == 0
        assert "\x1b" not in outcome.out
        assert outcome.err == ""


@pytest.mark.parametrize(("more", "shown"), [([], True), (["--quiet"], False)], ids=["bar", "quiet"])
def test_progress_is_for_terminals(process, unet, tmp_path, more, shown):
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    command = ["quantize", unet, "-o", tmp_path / "o.mlpackage", "--json", *more]
    outcome = process(*command, stderr=theirs, TERM="xterm", COLUMNS="100")
    os.set_blocking(ours, False)
    try:
        terminal = os.read(ours, 1 << 16)
    except BlockingIOError:
        terminal = b""
    finally:
        os.close(ours)
        os.close(theirs)
    assert outcome.status == 0
    assert json.loads(outcome.out)
    assert (b"quantize" in terminal) == shown
    assert shown or terminal == b""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("exists", [False, True], ids=["new", "overwrite"])
def test_an_interrupted_run_leaves_nothing_behind(process, unet, tmp_path, number, status, exists):
    destination = tmp_path / "out.mlpackage"
    if exists:
        assert process("quantize", unet, "-o", destination).status == 0
    before = package_bytes(tmp_path)
    command = ["palettize", str(unet), "-o", str(destination), "--nbits", "4", "--overwrite"]
    with subprocess.Popen(
        [sys.executable, "-c", PAUSE_AFTER_THE_FIRST_WEIGHT, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout.readline() == "paused\n"
        assert package_bytes(tmp_path) != before, "nothing had been written yet: the test tests nothing"
        running.send_signal(number)
        out, err = running.communicate(timeout=TIMEOUT)
    assert (running.returncode, out) == (status, "")
    assert "Traceback" not in err
    assert package_bytes(tmp_path) == before
    assert files_in(tmp_path) == (["out.mlpackage"] if exists else [])
