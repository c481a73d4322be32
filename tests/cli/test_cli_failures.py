"""Exit codes, and errors as one line that says what to do."""

from __future__ import annotations

import json
import signal
import sys

import pytest

from corepress import coreml
from corepress.errors import FormatError

WRONG = {
    "no source": (["palettize", "-o", "b", "--nbits", "4"], "'SOURCE'"),
    "no output": (["palettize", "UNet.mlpackage", "--nbits", "4"], "-o UNet-4bit.mlpackage"),
    "no output of quantize": (["quantize", "UNet.mlpackage"], "-o UNet-int8.mlpackage"),
    "no output of prune": (["prune", "UNet.mlpackage", "--threshold", "0"], "-o UNet-sparse.mlpackage"),
    "no output of decompress": (["decompress", "UNet.mlpackage"], "-o UNet-dense.mlpackage"),
    "no nbits": (["palettize", "a", "-o", "b"], "needs --nbits"),
    "unknown nbits": (["palettize", "a", "-o", "b", "--nbits", "5"], "--nbits must be 1, 2, 3, 4, 6, 8, not 5"),
    "word for a number": (["palettize", "a", "-o", "b", "--nbits", "four"], "'four' is not a valid integer"),
    "group size": (
        ["palettize", "a", "-o", "b", "--nbits", "4", "--group-size", "0"],
        "--group-size must be at least",
    ),
    "granularity": (["quantize", "a", "-o", "b", "--granularity", "per_row"], "--granularity must be"),
    "dtype": (["quantize", "a", "-o", "b", "--dtype", "int5"], "--dtype must be"),
    "neither of two": (["prune", "a", "-o", "b"], "exactly one of --target-sparsity, --threshold and --n-m-ratio"),
    "both of two": (["prune", "a", "-o", "b", "--threshold", "1", "--target-sparsity", "0.5"], "exactly one of"),
    "sparsity": (["prune", "a", "-o", "b", "--target-sparsity", "50"], "--target-sparsity must be between 0 and 1"),
    "ratio": (["prune", "a", "-o", "b", "--n-m-ratio", "2,4"], "'2,4' is not like 2:4"),
    "ratio the wrong way": (["prune", "a", "-o", "b", "--n-m-ratio", "4:2"], "--n-m-ratio must be two whole numbers"),
    "blocks of what": (
        ["prune", "a", "-o", "b", "--threshold", "1", "--block-size", "4"],
        "--block-size needs --target",
    ),
    "axis of what": (
        ["prune", "a", "-o", "b", "--threshold", "1", "--dim", "0"],
        "--dim needs --n-m-ratio or --block-",
    ),
    "axis": (["prune", "a", "-o", "b", "--n-m-ratio", "2:4", "--dim", "2"], "--dim must be 0, 1, not 2"),
    "threads": (["prune", "a", "-o", "b", "--threshold", "1", "--num-threads", "0"], "'--num-threads'"),
    "weight threshold": (["quantize", "a", "-o", "b", "--weight-threshold", "-1"], "'--weight-threshold'"),
    "unknown command": (["squeeze", "a"], "No such command 'squeeze'"),
    "unknown flag": (["inspect", "a", "--nbits", "4"], "--nbits"),
    "folder of the report": (["quantize", "a", "-o", "b", "--report", "no/such/r.json"], "no/such does not exist"),
    "spare argument": (["inspect", "a", "b"], "unexpected extra argument"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_usage_is_2_and_one_line(shell, call, name):
    command_line, message = WRONG[name]
    outcome = shell(*command_line)
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err.count("\n") == 1
    assert message in outcome.err
    assert "--help'" in outcome.err
    assert call.arguments == (), "work began before the command line was understood"


def fail_with(error):
    def work(*arguments, **options):
        raise error

    return work


FAILURES = {
    "value": (ValueError("compress: specification version 6 has no palettes; convert for iOS 16 or newer"), "iOS 16"),
    "damaged": (FormatError("weight.bin: record at 64 has sentinel 0x0, not 0xDEADBEEF"), "sentinel"),
    "missing": (FileNotFoundError(2, "No such file or directory", "UNet.mlpackage"), "UNet.mlpackage: no such file"),
    "disk": (OSError(28, "No space left on device", "b.mlpackage"), "b.mlpackage: no space left on device"),
    "exists": (FileExistsError(17, "File exists", "b.mlpackage"), "pass --overwrite"),
    "exists in python's words": (FileExistsError("b exists; pass overwrite=True to replace it"), "pass --overwrite to"),
    "type": (TypeError("quantize: dtype int64 is not a float"), "int64"),
    "memory": (MemoryError(), "not enough memory"),
    "many lines": (ValueError("first\n  second\nthird"), "first second third"),
    "bug": (KeyError("lost"), "unexpected KeyError: 'lost'; --debug shows the traceback to report"),
}


@pytest.mark.parametrize("name", FAILURES)
@pytest.mark.parametrize("more", [[], ["--json"], ["--quiet"]], ids=["plain", "json", "quiet"])
def test_failure_is_1_and_one_line(shell, monkeypatch, name, more):
    error, message = FAILURES[name]
    monkeypatch.setattr(coreml, "compress", fail_with(error))
    outcome = shell("quantize", "a", "-o", "b", *more)
    assert outcome.status == 1
    if "--json" in more:
        document = json.loads(outcome.out)
        assert document["schema"] == 1
        assert document["error"].keys() == {"type", "message", "next_step"}
        assert document["error"]["type"] == type(error).__name__
        said = "; ".join(filter(None, (document["error"]["message"], document["error"]["next_step"])))
        assert outcome.err == f"corepress quantize: {said}\n"
    else:
        assert outcome.out == ""
    assert outcome.err.count("\n") == 1
    assert outcome.err.startswith("corepress quantize: ")
    assert message in outcome.err


def test_debug_shows_the_traceback(shell, monkeypatch):
    monkeypatch.setattr(coreml, "inspect", fail_with(ValueError("broken")))
    assert "Traceback" not in shell("inspect", "a").err
    error = shell("inspect", "a", "--debug").err
    assert "Traceback (most recent call last)" in error
    assert error.endswith("corepress inspect: broken\n")


def test_interrupt_is_130(shell, monkeypatch):
    monkeypatch.setattr(coreml, "compress", fail_with(KeyboardInterrupt()))
    outcome = shell("quantize", "a", "-o", "b")
    assert (outcome.status, outcome.out) == (130, "")
    assert "corepress quantize: interrupted" in outcome.err


def _lose(number):
    class Node:
        def __set_name__(self, owner, name):
            signal.raise_signal(number)

    try:
        type("Owner", (), {"node": Node()})
    except (KeyboardInterrupt, SystemExit) as error:  # since Python 3.12
        raise RuntimeError("Error calling __set_name__") from error


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_that_became_another_exception(shell, monkeypatch, number):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(coreml, "compress", lambda *arguments, **options: _lose(number))
    try:
        outcome = shell("quantize", "a", "-o", "b")
        assert signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (outcome.status, outcome.out) == (128 + number, "")
    assert outcome.err == "corepress quantize: interrupted\n"


@pytest.mark.parametrize("command", ["palettize", "decompress", "inspect"])
def test_a_source_that_does_not_exist(shell, tmp_path, command):
    options = {"palettize": ["--nbits", "4", "-o", tmp_path / "b"], "decompress": ["-o", tmp_path / "b"], "inspect": []}
    outcome = shell(command, tmp_path / "missing.mlpackage", *options[command])
    assert (outcome.status, outcome.out) == (1, "")
    assert "missing.mlpackage" in outcome.err
    assert outcome.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
