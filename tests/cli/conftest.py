from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corepress import coreml
from corepress.cli.main import main
from corepress.demo.model import build_unet
from corepress.neural_network.schema import Model
from helpers.processes import TIMEOUT

RUN_MAIN = "import sys; from corepress.cli.main import main; sys.exit(main())"


@dataclass
class Call:
    """What a command passed to `corepress.coreml`."""

    arguments: tuple[Any, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)


def record(name: str, status: str, snr_db: float | None = None, reason: str | None = None) -> coreml.WeightRecord:
    return coreml.WeightRecord(
        name=name,
        function="main",
        consumers=("conv",),
        shape=(64, 64),
        dtype="float16",
        status=status,
        method="palettize 4 bits" if status == "compressed" else None,
        reason=reason,
        planned=False,
        bits_per_weight=4.0 if status == "compressed" else 16.0,
        bytes_before=8192,
        bytes_after=2080 if status == "compressed" else 8192,
        snr_db=snr_db,
    )


def make_report(source: Path, destination: Path) -> coreml.Report:
    return coreml.Report(
        source=str(source),
        destination=str(destination),
        weights=(
            record("good_weight", "compressed", snr_db=22.5),
            record("worst_weight", "compressed", snr_db=11.25),
            record("odd_weight", "kept", reason="group_size 16 does not divide 4 channels"),
        ),
        bytes_before=24576,
        bytes_after=12352,
        seconds=0.5,
        peak_memory_bytes=50_000_000,
    )


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Call:
    """Replaces the work by a report of three weights, and remembers how it was asked for."""
    made = Call()

    def work(source: Path, destination: Path, *arguments: Any, **options: Any) -> coreml.Report:
        made.arguments, made.options = (source, destination, *arguments), options
        return make_report(source, destination)

    monkeypatch.setattr(coreml, "compress", work)
    monkeypatch.setattr(coreml, "decompress", work)
    return made


@dataclass
class Outcome:
    status: int
    out: str
    err: str


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Runs the command line in this process."""

    def run(*arguments: str | Path) -> Outcome:
        status = main([str(argument) for argument in arguments])
        return Outcome(status, *capsys.readouterr())

    return run


def run_process(
    *arguments: str | Path,
    code: str = RUN_MAIN,
    cwd: Path | None = None,
    stderr: int = subprocess.PIPE,
    **variables: str,
) -> Outcome:
    """Runs the command line in a process of its own, with its output piped."""
    finished = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        cwd=cwd,
        env={**os.environ, **variables},
        timeout=TIMEOUT,
        check=False,
    )
    return Outcome(finished.returncode, finished.stdout, finished.stderr or "")


@pytest.fixture
def process() -> Callable[..., Outcome]:
    return run_process


@dataclass
class Demo:
    """A finished run of `corepress demo`."""

    directory: Path
    outcome: Outcome


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    folder = tmp_path_factory.mktemp("demo")
    return Demo(folder / "corepress-demo", run_process("demo", cwd=folder))


@pytest.fixture(scope="session")
def unet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real package: the demo's."""
    package = tmp_path_factory.mktemp("unet") / "UNet.mlpackage"
    build_unet(package)
    return package


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """Two layers, of which the first has a value beyond half precision."""
    message, rng = Model(specificationVersion=1), np.random.default_rng(0)
    for name, factor in (("fc1", 1e6), ("fc2", 1)):
        layer = message.neuralNetwork.layers.add(name=name)
        layer.innerProduct.inputChannels, layer.innerProduct.outputChannels = 60, 40
        weights = (rng.standard_normal((40, 60)) * factor).astype("<f4")
        layer.innerProduct.weights.floatValue.append(weights.tobytes())
    path = tmp_path / "Net.mlmodel"
    path.write_bytes(message.SerializeToString())
    return path
