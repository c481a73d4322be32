"""A release can be made: one version, an archive with all that is needed, links that lead somewhere, true workflows."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import check_archives
import pytest
import source_archive
import yaml

import corepress as cp
from helpers.processes import TIMEOUT

ROOT = source_archive.ROOT
ADDRESS = "https://example.org/someone/corepress"
VERSION = source_archive.project_version((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
ACTIONS = {
    *("actions/checkout@v5", "actions/setup-python@v6", "actions/upload-artifact@v6", "actions/download-artifact@v7"),
    "pypa/gh-action-pypi-publish@release/v1",
}
needs_repository = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="a source archive has its address already")


# --- Version --------------------------------------------------------------------------------------------------------


def test_the_version_is_the_one_in_pyproject():
    assert cp.__version__ == VERSION
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## \[(.*)\]", changelog, re.MULTILINE)[1] == VERSION


def test_the_version_stands_nowhere_else():
    files = [ROOT / "CMakeLists.txt", ROOT / "README.md", ROOT / "mkdocs.yml"]
    for folder, kinds in {"csrc": "h cpp", "python": "py pyi", "docs": "md py", "examples": "py c txt"}.items():
        files += [file for kind in kinds.split() for file in (ROOT / folder).rglob(f"*.{kind}")]
    files.remove(ROOT / "docs" / "benchmarks.md")  # says what was measured
    assert not [
        file for file in files if re.search(rf"(?<![\d.]){re.escape(VERSION)}(?![\d.])", file.read_text("utf-8"))
    ]


# --- The repository's address ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address", ["", "corepress", "http://example.org/a/b", f"{ADDRESS}/", "https://example.org/a b"]
)
def test_a_release_needs_the_address_of_the_repository(address, monkeypatch):
    monkeypatch.setenv(source_archive.VARIABLE, address)
    with pytest.raises(SystemExit, match=r"COREPRESS_REPOSITORY=.*a release needs the repository's address"):
        source_archive.repository()


@needs_repository
def test_what_is_installed_from_the_source_has_no_address():
    assert "[project.urls]" not in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


@needs_repository
def test_the_readme_leads_to_files_of_this_version():
    page = source_archive.with_absolute_links((ROOT / "README.md").read_text(encoding="utf-8"), ADDRESS, VERSION)
    assert not source_archive.RELATIVE.search(page)
    links = re.findall(rf"\({re.escape(ADDRESS)}/(blob|raw)/v{re.escape(VERSION)}/([^)#]+)", page)
    assert [path for view, path in links if view == "raw"] == ["docs/images/reading.svg"]
    assert len(links) > 10
    assert not [path for _, path in links if not (ROOT / path).is_file()]


def test_addresses_and_places_on_the_page_stay():
    page = "[a](https://example.org) [b](#use-it) [c](mailto:x)"
    assert source_archive.with_absolute_links(page, ADDRESS, VERSION) == page


# --- Archives -------------------------------------------------------------------------------------------------------


@needs_repository
def test_the_source_archive_has_what_a_build_needs_and_nothing_else(tmp_path, monkeypatch):
    pytest.importorskip("build")
    monkeypatch.setenv(source_archive.VARIABLE, ADDRESS)
    script = ROOT / "tests" / "release" / "source_archive.py"
    finished = subprocess.run(
        [sys.executable, script, "--output", tmp_path], capture_output=True, text=True, timeout=TIMEOUT
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    (archive,) = tmp_path.iterdir()
    assert check_archives.problems_of(archive, VERSION, ADDRESS) == []
    names = {name.partition("/")[2] for name in check_archives.read(archive)[1]}
    listed = subprocess.run(["git", "ls-tree", "-r", "--name-only", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    tracked = {name for name in listed.stdout.splitlines() if not name.startswith((".ci/", ".github/"))}
    assert names == tracked | {"PKG-INFO"}
    needed = re.findall(r"\b(?:csrc|tests/native)/[\w./]+\.(?:cpp|h|txt)", (ROOT / "CMakeLists.txt").read_text())
    assert set(needed) <= names


def write_wheel(path: Path, *lines: str, names: tuple[str, ...] = ("_core.so", "lib/libcorepress.so")) -> None:
    """A wheel with metadata and files."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("corepress.dist-info/METADATA", "\n".join(["Name: corepress", *lines]))
        for name in (*names, "include/corepress.h", "LICENSE"):
            archive.writestr(f"corepress/{name}", "")


def test_wheels_are_checked(tmp_path):
    good, bad = tmp_path / "good.whl", tmp_path / "bad.whl"
    write_wheel(good, f"Version: {VERSION}", f"Project-URL: Repository, {ADDRESS}", "", f"[a]({ADDRESS}/blob/b)")
    assert check_archives.problems_of(good, VERSION, ADDRESS) == []
    write_wheel(bad, "Version: 0", "", "[a](docs/b.md)", names=("lib/libcorepress.so",))
    problems = check_archives.problems_of(bad, VERSION, ADDRESS)
    assert problems == [
        f"its version is 0, not {VERSION}",
        f"its project links are [], not such that begin with {ADDRESS}",
        "its page has the relative links ['docs/b.md']",
        "it has no corepress/_core*",
    ]


def test_a_release_is_whole(tmp_path):
    patterns = check_archives.expected(VERSION)
    assert len(patterns) == 1 + 6 * 7  # the Pythons and platforms of the product
    lines = (f"Version: {VERSION}", f"Project-URL: Repository, {ADDRESS}")
    for pattern in patterns[1:]:
        write_wheel(tmp_path / pattern.replace("*", "x."), *lines)
    write_wheel(tmp_path / "other-1-py3-none-any.whl", *lines)
    assert check_archives.problems_in(tmp_path, VERSION, ADDRESS) == [
        f"{patterns[0]} is missing",
        "other-1-py3-none-any.whl is none of a release's archives",
    ]


# --- Workflows ------------------------------------------------------------------------------------------------------


def steps_of(workflow: Path) -> list[dict]:
    """All steps of a workflow."""
    return [step for job in yaml.safe_load(workflow.read_text())["jobs"].values() for step in job["steps"]]


@needs_repository
def test_workflows_name_what_exists():
    assert [workflow.stem for workflow in WORKFLOWS] == ["release", "tests"]
    for workflow in WORKFLOWS:
        steps = steps_of(workflow)
        assert {step["uses"] for step in steps if "uses" in step} <= ACTIONS
        commands = " ".join(step.get("run", "") for step in steps)
        assert not [path for path in re.findall(r"(?:tests|\.ci)/[\w./]+", commands) if not (ROOT / path).is_file()]


@needs_repository
def test_the_release_workflow_gives_the_address_to_each_step_that_needs_it():
    steps = steps_of(ROOT / ".github" / "workflows" / "release.yml")
    needing = [step for step in steps if re.search("source_archive|check_archives", step.get("run", ""))]
    assert len(needing) == 2
    assert all(step["env"] == {"COREPRESS_REPOSITORY": "${{ vars.COREPRESS_REPOSITORY }}"} for step in needing)


def test_the_smoke_test_stands_alone():
    text = (ROOT / "tests" / "smoke" / "test_smoke.py").read_text(encoding="utf-8")
    imported = set(re.findall(r"^(?:import|from) (\w+)", text, re.MULTILINE))
    assert imported - set(sys.stdlib_module_names) == {"numpy", "pytest", "corepress"}
