"""Compiles the kernels, the C library and their tests for other systems, and the Python module's parts for macOS.

What was compiled runs here where an emulator is found.

    python tests/platforms/cross_compile.py                       # every target
    python tests/platforms/cross_compile.py aarch64-macos --json
    python tests/platforms/cross_compile.py --install-emulators   # wine and qemu, on Debian, then every target
    python tests/platforms/cross_compile.py --quick               # as CI does

Clang, out of PyPI's `ziglang`, compiles for all of them; `pip install '.[platforms]'` brings it. Warnings are errors.
The digest of the kernels must be the same everywhere. Everything stands in `build/platforms`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path

import pybind11

ROOT = Path(__file__).resolve().parents[2]
DIGEST = ROOT / "tests" / "native" / "digest.txt"
EMULATORS = ("qemu-user", "wine64", "wine")  # packages of Debian


@dataclass(frozen=True)
class Target:
    """What Zig calls it, CMake's words for it, and how to run its programs here, if at all."""

    triple: str
    system: str
    processor: str
    runners: tuple[str, ...] = ()  # the first that is found

    @property
    def name(self) -> str:
        return self.triple.split(".")[0]

    @property
    def has_headers(self) -> bool:
        """Whether the Python module's parts are compiled too, with Linux's headers: one target is enough."""
        return self.name == "aarch64-macos"

    @property
    def suffix(self) -> str:
        return ".exe" if self.system == "Windows" else ""

    @property
    def runs_here(self) -> bool:
        """Whether no emulator is needed: musl's programs are static."""
        return (self.system, self.processor) == (platform.system(), platform.machine())

    @property
    def runner(self) -> list[str] | None:
        """What stands before a program to run it; None where nothing can."""
        if self.runs_here:
            return []
        found = next(filter(None, map(shutil.which, self.runners)), None)
        return None if found is None else [found]


TARGETS = (
    Target("aarch64-macos.11.0", "Darwin", "arm64"),
    Target("x86_64-macos.11.0", "Darwin", "x86_64"),
    Target("aarch64-linux-musl", "Linux", "aarch64", ("qemu-aarch64", "qemu-aarch64-static")),
    Target("x86_64-linux-musl", "Linux", "x86_64"),
    Target("x86_64-windows-gnu", "Windows", "AMD64", ("wine64", "wine")),
)


def run(command: list[str], log: Path, **options: object) -> bool:
    """Run a command with its output added to a log, and return whether it succeeded."""
    with log.open("a", encoding="utf-8") as output:
        output.write(f"$ {' '.join(command)}\n")
        output.flush()
        return subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, **options).returncode == 0  # type: ignore[call-overload]


# To know a compiler, CMake links a program, or only compiles one where that fails.
_REFUSES_TO_LINK = """case " $* " in *" -c "* | *" -E "* | *" --version "*) ;; *) exit 1 ;; esac
"""


def write_tools(target: Target, folder: Path, *, links: bool) -> dict[str, str]:
    """Write the commands that compile for the target, as CMake wants each to be one word, and return its settings."""
    settings = {}
    words = {"CMAKE_CXX_COMPILER": f"c++ -target {target.triple}", "CMAKE_AR": "ar", "CMAKE_RANLIB": "ranlib"}
    for setting, command in words.items():
        script = folder / command.partition(" ")[0]
        check = _REFUSES_TO_LINK if setting == "CMAKE_CXX_COMPILER" and not links else ""
        script.write_text(f'#!/bin/sh\n{check}exec "{sys.executable}" -m ziglang {command} "$@"\n')
        script.chmod(0o755)
        settings[setting] = str(script)
    return settings


def objects(target: Target) -> list[str]:
    """What is compiled where nothing is linked, in Ninja's words; linking makes Zig compile the system's libraries."""
    suffix = "obj" if target.system == "Windows" else "o"
    sources = sorted((ROOT / "csrc" / "c_api").glob("*.cpp"))
    of_c = [f"CMakeFiles/corepress.dir/{path.relative_to(ROOT).as_posix()}.{suffix}" for path in sources]
    return ["corepress_library", *of_c, *(["bindings"] if target.has_headers else [])]


def configuration(target: Target, folder: Path, build_type: str, *, links: bool) -> list[str]:
    """Return CMake's command that prepares the build of a target."""
    settings = {
        "CMAKE_BUILD_TYPE": build_type,
        "CMAKE_SYSTEM_NAME": target.system,
        "CMAKE_SYSTEM_PROCESSOR": target.processor,
        **write_tools(target, folder, links=links),
        "COREPRESS_PYTHON": "OFF",
        "COREPRESS_TESTS": "ON",
        "COREPRESS_WARNINGS_AS_ERRORS": "ON",
    }
    if not links:
        settings["CMAKE_TRY_COMPILE_TARGET_TYPE"] = "STATIC_LIBRARY"
    if target.has_headers:
        settings["COREPRESS_HEADERS_FOR_PYTHON"] = f"{sysconfig.get_path('include')};{pybind11.get_include()}"
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    return ["cmake", "-S", str(ROOT), "-B", str(folder), *generator, *(f"-D{k}={v}" for k, v in settings.items())]


def try_target(target: Target, programs: dict[str, list[str]], quick: bool) -> dict[str, object]:
    """Compile for a target, run programs with their arguments if they can be run, and return what came of it."""
    folder = ROOT / "build" / "platforms" / target.name
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log.txt"
    log.unlink(missing_ok=True)
    begin = time.monotonic()
    links = not quick or target.runner is not None or not shutil.which("ninja")
    parts = ["--target", *(["digest", "corepress"] if links else objects(target))] if quick else []
    compiled = run(configuration(target, folder, "Release" if links else "Debug", links=links), log) and run(
        ["cmake", "--build", str(folder), "--parallel", str(os.cpu_count() or 1), *parts], log
    )
    result: dict[str, object] = {"target": target.name, "compiled": compiled}
    if compiled:
        result["compile_seconds"] = round(time.monotonic() - begin)
        for program, arguments in programs.items():
            if target.runner is None:
                result[program] = "not run: " + (
                    f"needs {' or '.join(target.runners)}" if target.runners else f"needs {target.system}"
                )
                continue
            command = [*target.runner, str(folder / (program + target.suffix)), *arguments]
            quiet = {**os.environ, "WINEDEBUG": "-all"}
            result[program] = "passed" if run(command, log, env=quiet) else "FAILED"
    if not compiled or "FAILED" in result.values():
        sys.stderr.write(log.read_text(encoding="utf-8", errors="replace")[-20_000:])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(each.name for each in TARGETS))
    parser.add_argument(
        "--quick", action="store_true", help="link and optimize only what is run; one run of the digest"
    )
    parser.add_argument("--install-emulators", action="store_true", help="with apt-get, as root")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    unknown = set(arguments.targets) - {each.name for each in TARGETS}
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(e.name for e in TARGETS)}")
    if arguments.install_emulators:
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        subprocess.run(["apt-get", "install", "-qq", "-y", "--no-install-recommends", *EMULATORS], check=True)
    programs = {"digest": [str(DIGEST)], "test_parallel": [], "changing_arrays": []}
    if arguments.quick:
        programs = {"digest": [str(DIGEST), "2"]}
    results = []
    for target in TARGETS:
        if arguments.targets and target.name not in arguments.targets:
            continue
        result = try_target(target, programs, arguments.quick)
        results.append(result)
        if not arguments.json:
            print(", ".join(f"{name} {value}" for name, value in result.items()), flush=True)
    if arguments.json:
        print(json.dumps(results, indent=2))
    if any(not each["compiled"] or "FAILED" in each.values() for each in results):
        sys.exit(1)


if __name__ == "__main__":
    main()
