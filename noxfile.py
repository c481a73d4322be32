"""What CONTRIBUTING describes, a session each: `nox -l` lists them, `nox -s quick` runs one.

Sessions have environments of their own, in .nox, which are kept. `nox --no-venv -s quick` uses the current one instead,
and installs nothing. What follows `--` is passed on: `nox -s tests -- tests/coreml -k plan`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nox

nox.needs_version = ">=2024.4.15"
nox.options.sessions = ["lint", "types", "quick"]
nox.options.reuse_existing_virtualenvs = True

BUILD_REQUIRES = nox.project.load_toml("pyproject.toml")["build-system"]["requires"]
# .ci/run and .pre-commit-config.yaml have the same commands; tests/release/test_habits.py compares them.
LINT = (
    "ruff check .",
    "ruff format --check .",
    "codespell csrc python tests bench docs examples README.md CONTRIBUTING.md CHANGELOG.md SECURITY.md",
)
CPP = ("csrc/*.cpp", "csrc/*.h", "tests/native/*.cpp", "tests/native/*.h", "examples/*.c")  # for git: at any depth


def install(session: nox.Session, *extras: str, editable: bool = True) -> None:
    """Install corepress with some extras, unless the current environment is used."""
    if session.venv_backend == "none":
        return
    session.install(*BUILD_REQUIRES)
    target = f".[{','.join(extras)}]" if extras else "."
    session.install("--no-build-isolation", *(["-e"] if editable else []), target)


@nox.session(venv_backend="none")
def dev(session: nox.Session) -> None:
    """Set up .venv to work in: an editable install with all that tests and documentation need."""
    folder = Path(".venv")
    if not folder.exists():
        session.run(sys.executable, "-m", "venv", str(folder))
    python = str(folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python"))
    session.run(python, "-m", "pip", "install", *BUILD_REQUIRES, "nox", "pre-commit")
    session.run(python, "-m", "pip", "install", "--no-build-isolation", "-e", ".[test,docs]")
    session.run(python, "-m", "pre_commit", "install")


@nox.session
def quick(session: nox.Session) -> None:
    """A first look at every part, in about two minutes."""
    install(session, "test")
    session.run("pytest", "-m", "quick", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """All tests but the long ones."""
    install(session, "test", "docs")
    session.run("pytest", *session.posargs)


@nox.session(name="long")
def long_tests(session: nox.Session) -> None:
    """The cases of long tests that `tests` leaves out."""
    install(session, "test", "docs")
    session.run("pytest", "-m", "long", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style of all sources, and spelling."""
    if session.venv_backend != "none":
        session.install("ruff", "codespell", *_requirements("clang-format"))
    for command in LINT:
        session.run(*command.split())
    files = session.run("git", "ls-files", *CPP, external=True, silent=True)
    session.run("clang-format", "--dry-run", "--Werror", *str(files).split())


@nox.session
def types(session: nox.Session) -> None:
    """The types of the package."""
    install(session, "test")
    session.run("mypy", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """The site; warnings are errors. `nox -s docs -- serve` shows it."""
    install(session, "docs")
    session.run("mkdocs", *(session.posargs or ["build", "--strict"]), env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session
def sanitize(session: nox.Session) -> None:
    """The kernels' tests with sanitizers, which build a module of their own; `-- thread` for races."""
    install(session, "test", editable=False)
    session.run("tests/native/sanitize.sh", *(session.posargs or ["address,undefined"]), external=True)


@nox.session
def coverage(session: nox.Session) -> None:
    """Which lines the tests reach, in Python and in C++; `-- tests/kernels` for some of them."""
    install(session, "test", "coverage", editable=False)
    session.run("tests/coverage.sh", *session.posargs, external=True)


@nox.session
def platforms(session: nox.Session) -> None:
    """Everything but the Python module compiled by Clang for other systems, and run by the emulators that are found."""
    if session.venv_backend != "none":
        session.install(*_requirements(extra="platforms"))
    session.run("python", "tests/platforms/cross_compile.py", *session.posargs)


@nox.session(venv_backend="none")
def arm64(session: nox.Session) -> None:
    """The kernels compiled by GCC for 64-bit Arm, in an emulator."""
    session.run("tests/native/arm64.sh", *session.posargs, external=True)


@nox.session(venv_backend="none")
def windows(session: nox.Session) -> None:
    """The tests under Windows' Python, by Wine."""
    session.run("tests/wine/run.sh", *session.posargs, external=True)


@nox.session
def peers(session: nox.Session) -> None:
    """coremltools' own tests, with corepress in place of the code that they test."""
    install(session, "test")
    if session.venv_backend != "none":
        session.install("torch", "parameterized", "pytest-mock")
    for way in session.posargs or ["optimize", "accelerate", "torch"]:
        session.run("python", "tests/peers/run.py", "--way", way)


@nox.session
def mutants(session: nox.Session) -> None:
    """Mutants of a file, and whether the tests of its topic notice: `-- python/corepress/coreml/sizes.py`."""
    install(session, "test")
    session.run("python", "tests/mutants.py", *session.posargs)


@nox.session
def release(session: nox.Session) -> None:
    """The source archive, checked as PyPI does; COREPRESS_REPOSITORY is the repository's address."""
    if session.venv_backend != "none":
        session.install("build", "twine")
    session.run("python", "tests/release/source_archive.py", *session.posargs)
    session.run("twine", "check", "--strict", *map(str, sorted(Path("dist").glob("*.tar.gz"))))


def _requirements(*names: str, extra: str = "test") -> list[str]:
    """Requirements of an extra as pyproject.toml has them, all or those of some names."""
    found = nox.project.load_toml("pyproject.toml")["project"]["optional-dependencies"][extra]
    return [each for each in found if not names or each.startswith(names)]
