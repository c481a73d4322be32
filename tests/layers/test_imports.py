"""Imports run downward, in the package and in the kernels; private names stay in their package."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "python" / "corepress"

# The rooms, lowest first. A module may import what is in lower lines; of its own line only its own room, and those that
# SIBLINGS names.
ROOMS = (
    "_core errors suggestions interrupts intake paths",
    "system specs sources extras",
    "outputs overlap native arrays mapped_files",
    "tensors",
    "compression kernels",
    "config reporting",
    "engine",
    "coreml neural_network coreai",
    "runtime",
    "calibration",
    "allocation",
    "training",
    "acceleration optimize benchmark reference",
    "demo",
    "cli",
    "__init__ __main__",
)
COREAI_ROOMS = ("format", "operations", "program", "")
COREML_ROOMS = ("format", "operations", "program", "rewrite", "")  # the last: its functions for users
SIBLINGS = {("kernels", "compression"), ("neural_network", "coreml")}
# Packages that not all installations have, and the rooms that may import them.
EXTRAS = {
    "coremltools": {"acceleration", "optimize", "benchmark", "runtime/coreml_backend"},
    "coreai_opt": {"acceleration"},
    "torchao": {"acceleration"},
    "coreai": {"coreai", "runtime/coreai_worker", "acceleration"},
    "matplotlib": {"reporting/charts", "demo/plot"},
    "torch": {
        "runtime/torch",
        "training",
        "optimize/torch",
        *(f"acceleration/{name}" for name in ("coreai_models", "torch_optimizers", "torch_tables")),
        *(
            f"calibration/{name}"
            for name in ("moments", "observers", "probes", "rows", "run", "second_moments", "sensitivities", "threads")
        ),
    },
}
# What users see of a format: these alone may name what is above them, such as the comparison that runs models.
FACADES = (("coreml", "__init__"), ("neural_network", "__init__"), ("coreai", "__init__"))
CSRC = ("core", "kernels", "dispatch", "algo", "bindings c_api")
ALGO = ("common", "affine calibrate palettize soft_kmeans vectors", "prune")


def level_of(room: str, rooms: tuple[str, ...]) -> int:
    return next(level for level, line in enumerate(rooms) if room in line.split(" "))


def name_of(path: Path) -> tuple[str, ...]:
    return path.relative_to(PACKAGE).with_suffix("").parts


def imports_of(path: Path) -> Iterator[tuple[tuple[str, ...], str, int]]:
    """What a module imports: modules of the package by their path, other packages as one name; the name; the line."""
    package = name_of(path)[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield ("/", alias.name.partition(".")[0]), "", node.lineno
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield ("/", (node.module or "").partition(".")[0]), "", node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] + tuple(
                (node.module or "").split(".") if node.module else ()
            )
            for alias in node.names:
                module = PACKAGE.joinpath(*base, alias.name)
                is_module = module.is_dir() or module.with_suffix(".py").exists() or alias.name == "_core"
                yield (*base, alias.name) if is_module else base, "" if is_module else alias.name, node.lineno


MODULES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: "/".join(name_of(path)))
def test_imports_run_downward(path):
    own = name_of(path)
    wrong = []
    for imported, _, line in imports_of(path):
        if imported[0] == "/":
            continue
        here, there = own[0], imported[0]
        lower = level_of(there, ROOMS) < level_of(here, ROOMS)
        if here == there and here in ("coreml", "coreai"):
            rooms = COREML_ROOMS if here == "coreml" else COREAI_ROOMS
            here, there = (part[1] if len(part) > 1 and part[1] in rooms else "" for part in (own, imported))
            lower = rooms.index(there) <= rooms.index(here)
        if not (lower or here == there or (here, there) in SIBLINGS):
            wrong.append(f"line {line}: {'.'.join(imported)}")
    assert own in FACADES or not wrong


@pytest.mark.parametrize("path", MODULES, ids=lambda path: "/".join(name_of(path)))
def test_private_names_stay_in_their_package(path):
    own = name_of(path)
    names = [
        f"line {line}: {name} of {'.'.join(imported)}"
        for imported, name, line in imports_of(path)
        if imported[0] != "/" and name.startswith("_") and not name.startswith("__") and imported[:-1] != own[:-1]
    ]
    assert not [name for name in names if not name.endswith(" of _core")]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: "/".join(name_of(path)))
def test_extras_are_imported_in_few_rooms(path):
    own = "/".join(name_of(path))
    for imported, _, line in imports_of(path):
        if imported[0] == "/" and imported[1] in EXTRAS:
            assert any(own == room or own.startswith(f"{room}/") for room in EXTRAS[imported[1]]), (imported[1], line)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "csrc").rglob("*.[hc]*")), ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_includes_run_downward(path):
    own = path.relative_to(ROOT / "csrc").as_posix()
    included = re.findall(r'^#include "([^"]+)"', path.read_text(encoding="utf-8"), re.MULTILINE)
    wrong = [name for name in included if not is_below(name, own)]
    assert not wrong


def is_below(included: str, own: str) -> bool:
    here, there = own.split("/"), included.split("/")
    rooms = CSRC
    if here[0] == there[0] == "algo":
        rooms, here, there = ALGO, here[1:], there[1:]
    here_room, there_room = (part[0].partition(".")[0] for part in (here, there))
    return here_room == there_room or level_of(there_room, rooms) < level_of(here_room, rooms)
