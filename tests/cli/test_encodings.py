"""Output whose encoding has not every character, as files and pipes have it under Windows."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest
from changing_sources import build

from corepress import coreml
from corepress.cli import console

NAME = "Gewicht-重み.mlpackage"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return build(tmp_path_factory.mktemp("encodings") / NAME, side=64, layers=3)


@pytest.fixture(scope="module")
def small(source):
    coreml.compress(source, source.with_name("small.mlpackage"), {"palettize": {"nbits": 4}})
    return source.with_name("small.mlpackage")


@pytest.mark.parametrize("encoding", ["cp1252", "cp437"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["palettize", "--help"],
        ["palettize", "SOURCE", "-o", "OUT", "--nbits", "4"],
        ["palettize", "SOURCE", "-o", "OUT", "--nbits", "4", "--verbose"],
        ["quantize", "SOURCE", "--dry-run", "--verbose"],
        ["inspect", "SOURCE"],
        ["inspect", "SOURCE", "--verbose"],
        ["verify", "SOURCE", "SMALL", "--verbose"],
        ["compare", "SOURCE", "SMALL", "--verbose"],
        ["decompress", "SMALL", "-o", "OUT", "--verbose"],
    ],
    ids=" ".join,
)
def test_commands_write_what_can_be_written(source, small, tmp_path, encoding, arguments):
    places = {"SOURCE": str(source), "SMALL": str(small), "OUT": str(tmp_path / NAME)}
    command = [sys.executable, "-m", "corepress", *(places.get(each, each) for each in arguments)]
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode(encoding)
    names_a_package = arguments[0] == "inspect" or ("OUT" in arguments and "--verbose" not in arguments)
    assert names_a_package == (r"Gewicht-\u91cd\u307f.mlpackage" in text)


def test_messages_are_written_too(source, tmp_path):
    command = [sys.executable, "-m", "corepress", "inspect", str(source.with_name("無い.mlpackage"))]
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252:strict", "PYTHONUTF8": "0"}
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert done.returncode == 1
    assert rb"\u7121\u3044.mlpackage" in done.stderr


@pytest.mark.parametrize("errors", ["strict", "surrogateescape", "backslashreplace"])
def test_characters_that_an_encoding_lacks(monkeypatch, errors):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii", errors=errors))
    console.write_plainly()
    print("a → b… ─── é 重 \udcff\ud800", end="", flush=True)
    assert written.getvalue() == rb"a -> b... --- \xe9 \u91cd " + b"\xff" + rb"\ud800"


def test_streams_that_know_better_are_left_alone(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="ignore")
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    console.write_plainly()
    assert stream.errors == "ignore"
