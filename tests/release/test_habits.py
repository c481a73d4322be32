"""The commands of a contributor are the same wherever they are written."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from helpers.processes import TIMEOUT

ROOT = Path(__file__).resolve().parents[2]


pytestmark = pytest.mark.skipif(not (ROOT / ".ci").is_dir(), reason="not a checkout")


@pytest.fixture(scope="module")
def noxfile():
    return ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8"))


def lint_commands(noxfile) -> tuple[str, ...]:
    (value,) = (
        node.value for node in noxfile.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "LINT"
    )
    return ast.literal_eval(value)


def test_lint_is_the_same_everywhere(noxfile):
    commands = lint_commands(noxfile)
    assert len(commands) == 3
    continuous = (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()
    assert set(commands) <= set(continuous)
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    entries = {hook["entry"] for hook in repository["hooks"]}
    assert entries == {*commands, "mypy", "clang-format --dry-run --Werror"}
    assert all(hook["language"] == "system" for hook in repository["hooks"])


def test_clang_format_sees_the_same_files(noxfile):
    (hook,) = (
        hook
        for hook in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
        if hook["id"] == "clang-format"
    )
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a checkout")
    hooked = {name for name in listed.stdout.splitlines() if re.search(hook["files"], name)}
    (line,) = (line for line in (ROOT / ".ci/run").read_text("utf-8").splitlines() if line.startswith("clang-format"))
    patterns = [word for word in line.split() if "*" in word]
    assert hooked == {path.relative_to(ROOT).as_posix() for pattern in patterns for path in ROOT.glob(pattern)}
    (value,) = (
        node.value for node in noxfile.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "CPP"
    )
    command = ["git", "ls-files", *ast.literal_eval(value)]
    by_nox = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert hooked == set(by_nox.stdout.split())


def test_sessions_run_what_is_there(noxfile):
    strings = [
        node.value for node in ast.walk(noxfile) if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    scripts = [each for each in strings if re.fullmatch(r"tests/[\w/]+\.(py|sh)", each)]
    assert len(scripts) == 8
    assert all((ROOT / each).is_file() for each in scripts)
    sessions = {node.name for node in noxfile.body if isinstance(node, ast.FunctionDef) and node.decorator_list}
    guide = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert {"dev", "quick", "tests", "lint", "types", "docs", "sanitize", "platforms", "peers", "release"} <= sessions
    assert set(re.findall(r"nox -s (\w+)", guide)) <= sessions


def test_presets_set_options_that_exist(tmp_path):
    presets = json.loads((ROOT / "CMakePresets.json").read_text(encoding="utf-8"))
    options = re.findall(r"^(?:option|set)\((COREPRESS_\w+)", (ROOT / "CMakeLists.txt").read_text("utf-8"), re.M)
    names = [preset["name"] for preset in presets["configurePresets"]]
    assert names == [preset["configurePreset"] for preset in presets["buildPresets"]]
    for preset in presets["configurePresets"]:
        for name in preset["cacheVariables"]:
            assert name in options or name.startswith("CMAKE_")
    if shutil.which("cmake"):
        listed = subprocess.run(
            ["cmake", "--list-presets"], cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT, check=True
        )
        assert all(f'"{name}"' in listed.stdout for name in names)
