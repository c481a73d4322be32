"""What the README tells people to type works."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from corepress import Config, coreml

README = (Path(__file__).parents[2] / "README.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, flags=re.DOTALL)
COMMAND_LINES = [line for _, block in BLOCKS for line in block.splitlines() if line.startswith("corepress ")]
(RECIPE,) = [block for language, block in BLOCKS if language == "yaml"]


def _tour(word: str) -> str:
    (block,) = [block for language, block in BLOCKS if language == "python" and word in block]
    return block


@pytest.fixture
def workplace(unet, network, tmp_path, monkeypatch):
    """A current folder with the files that the README takes for granted."""
    (tmp_path / "UNet.mlpackage").symlink_to(unet)
    network.rename(tmp_path / "DeepLab.mlmodel")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_two_lines_to_try_and_to_test_stand_alone():
    blocks = [block for _, block in BLOCKS]
    assert "pip install . && corepress demo\n" in blocks
    assert "pip install '.[test]' && pytest\n" in blocks


def test_command_lines_work_in_their_order(shell, workplace):
    for line in COMMAND_LINES:
        outcome = shell(*shlex.split(line)[1:])
        assert (outcome.status, outcome.err) == (0, ""), line
        assert outcome.out, line
    written = {path.name for path in workplace.iterdir() if "-" in path.name}
    assert written == {name for line in COMMAND_LINES for name in re.findall(r"-o (\S+)", line)}


def test_every_rule_of_the_config_means_a_weight(workplace):
    plan = coreml.plan("UNet.mlpackage", Config.load("recipe.yaml"), strict=True)
    methods = {weight.method for weight in plan.weights}
    assert {"palettize 4 bits", "palettize 8 bits", "prune 50%, then palettize 6 bits", None} <= methods
    assert any("int8" in method for method in methods if method)


def test_the_tour_of_models_runs(workplace, capsys):
    names: dict[str, object] = {}
    exec(_tour("coreml.compress"), names)
    assert coreml.verify("UNet.mlpackage", "UNet-4bit.mlpackage").ok
    assert names["report"].bytes_after < names["report"].bytes_before / 3
    assert (workplace / "report.json").exists()


def test_the_tour_of_arrays_runs():
    names: dict[str, object] = {}
    exec(_tour("import numpy as np").replace("(320, 320, 3, 3)", "(128, 32, 3, 3)"), names)
    assert names["sparse"].sparsity == pytest.approx(0.5, abs=0.01)
    assert names["vectors"].bits_per_weight == pytest.approx(2, abs=0.1)
    assert names["both"].nbytes < names["sparse"].nbytes / 2
    assert names["table"].nbytes < names["palettized"].nbytes
    assert len(names["many"]) == 2
