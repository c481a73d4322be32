"""What each system does in its own way, as far as another can play it."""

from __future__ import annotations

import ctypes
import errno
import os
import queue
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from corepress import coreml, get_library, interrupts, native, system
from corepress.coreml.format.package import Package
from corepress.errors import FormatError
from corepress.outputs import write_output
from corepress.system import linux, macos, posix
from corepress.system.base import System
from corepress.system.linux import Linux
from corepress.system.macos import MacOS
from corepress.system.windows import Windows

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a Unix plays the others")
SYSTEMS = (System, posix.Posix, Linux, MacOS, Windows)


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    return path


def use(monkeypatch, machine: System) -> None:
    monkeypatch.setattr(system, "current", machine)


# --- macOS ---


class AppleLibrary:
    """Functions of macOS's C library; `result` is what they return."""

    def __init__(self, result: int) -> None:
        self.result, self.calls = result, []

    def clonefile(self, source, target, flags):
        self.calls.append("clonefile")
        if self.result == 0:
            Path(os.fsdecode(target)).write_bytes(Path(os.fsdecode(source)).read_bytes())
        return self.result

    def renamex_np(self, first, second, flags):
        assert flags.value == 2  # RENAME_SWAP
        self.calls.append("renamex_np")
        if self.result == 0:
            Linux().exchange(Path(os.fsdecode(first)), Path(os.fsdecode(second)))
        return self.result


@pytest.fixture(params=[0, -1], ids=["APFS", "another file system"])
def apple(request, monkeypatch) -> AppleLibrary:
    library = AppleLibrary(request.param)
    monkeypatch.setattr(macos, "c_library", lambda: library)
    for name in ("copy_file_range", "fdatasync", "sched_getaffinity"):
        monkeypatch.delattr(os, name)
    use(monkeypatch, MacOS())
    return library


def test_macos_clones_and_exchanges_where_it_can(apple, package, tmp_path):
    small = tmp_path / "small.mlpackage"
    (package / "notes.txt").write_text("kept", encoding="utf-8")
    for nbits in (4, 6):
        coreml.compress(package, small, {"palettize": {"nbits": nbits}}, overwrite=True)
    assert (small / "notes.txt").read_text(encoding="utf-8") == "kept"
    assert coreml.verify(package, small).ok
    assert sorted(os.listdir(tmp_path)) == ["small.mlpackage", "source.mlpackage"]
    assert set(apple.calls) == {"clonefile", "renamex_np"}


@pytest.mark.parametrize("knows", [True, False])
def test_macos_flushes_to_the_disk_itself(file, monkeypatch, knows):
    fcntl = pytest.importorskip("fcntl")
    requests, flushed = [], []

    def request(descriptor, number):
        requests.append(number)
        if not knows:
            raise OSError(errno.ENOTSUP, "no such request")

    monkeypatch.setattr(fcntl, "fcntl", request)
    monkeypatch.setattr(os, "fsync", flushed.append)
    MacOS().sync(file)
    assert requests == [51]  # F_FULLFSYNC
    assert len(flushed) == (not knows)


# --- Linux ---


def test_linux_exchanges_without_a_function_of_the_c_library(file, tmp_path, monkeypatch):
    other, library = tmp_path / "other", ctypes.CDLL(None)
    other.write_bytes(b"other")
    monkeypatch.setattr(linux, "c_library", lambda: SimpleNamespace(syscall=library.syscall))
    if not Linux().exchange(file, other):
        pytest.skip("this file system or machine exchanges nothing")
    assert (file.read_bytes(), other.read_bytes()) == (b"other", b"content")


def test_linux_copies_without_copies_inside_the_kernel(file, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EXDEV, "two file systems")

    monkeypatch.setattr(os, "copy_file_range", refuse)
    Linux().copy_file(file, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"content"


@pytest.mark.parametrize("machine", [System(), posix.Posix(), Linux()], ids=lambda machine: type(machine).__name__)
def test_files_are_copied(machine, file, tmp_path):
    machine.copy_file(file, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"content"
    (tmp_path / "empty").touch()
    machine.copy_file(tmp_path / "empty", tmp_path / "empty copy")
    assert (tmp_path / "empty copy").read_bytes() == b""


# --- any ---


@pytest.mark.parametrize("machine", [each() for each in SYSTEMS], ids=lambda machine: type(machine).__name__)
def test_names_without_numbers_are_compared_by_path(machine, file, tmp_path, monkeypatch):
    other, link, real = tmp_path / "other", tmp_path / "link", os.stat
    other.touch()
    link.symlink_to(file)
    assert machine.is_same(file, link)
    assert not machine.is_same(file, other)

    def unnumbered(path, **options):
        found = real(path, **options)
        return os.stat_result((found.st_mode, 0, *found[2:]))

    monkeypatch.setattr(os, "stat", unnumbered)
    assert machine.is_same(file, link)
    assert not machine.is_same(file, other)
    assert not machine.is_same(file, tmp_path / "none")


def test_what_is_inside(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    assert system.current.is_inside(tmp_path / "link/new", folder)
    assert system.current.is_inside(folder, folder)
    assert not system.current.is_inside(tmp_path / "folder2", folder)


@pytest.mark.parametrize("name", ["C:", "weight.bin:stream", "NUL", "com1.txt", "a.", "b ", "a*b", "a\tb", "CONOUT$"])
def test_names_that_windows_has_no_files_of(package, monkeypatch, name):
    opened = Package.open(package)
    use(monkeypatch, Windows())
    with pytest.raises(FormatError, match="which cannot name a file here"):
        opened.locate(f"@model_path/{name}/weight.bin")


@pytest.mark.parametrize("name", ["weight.bin", "0-weight.bin", "nullable", "com10", "重み.bin", ".hidden", "con-1"])
def test_names_that_windows_has(name):
    assert Windows().is_name(name)


@pytest.mark.parametrize(
    ("machine", "found"),
    [(Linux(), "lib/libcorepress.so"), (MacOS(), "lib/libcorepress.dylib"), (Windows(), "bin/corepress.dll")],
)  # fmt: skip
def test_the_shared_library_is_found(tmp_path, monkeypatch, machine, found):
    for folder in ("bin", "lib"):
        (tmp_path / folder).mkdir()
    for name in ("libcorepress.dll.a", "corepress.lib", "libcorepress.a"):
        (tmp_path / "lib" / name).touch()
    monkeypatch.setattr(native, "_ROOT", str(tmp_path))
    use(monkeypatch, machine)
    with pytest.raises(FileNotFoundError, match=r"get_library: no .*corepress"):
        get_library()
    (tmp_path / found).touch()
    assert Path(get_library()) == tmp_path / found


@pytest.mark.parametrize("machine", [each() for each in SYSTEMS[:4]], ids=lambda machine: type(machine).__name__)
def test_machines_are_described(machine):
    assert machine.cpus() >= 1
    assert machine.memory_bytes() is None or machine.memory_bytes() > 1 << 20
    assert machine.peak_memory() is None or machine.peak_memory() > 1 << 20
    if not isinstance(machine, MacOS):  # which asks a program
        assert machine.cpu_name()


def test_linux_tells_without_proc(monkeypatch):
    for name in ("_STATUS", "_CPUS", "_CLEAR"):
        monkeypatch.setattr(linux, name, Path("/nowhere"))
    assert Linux().peak_memory() > 1 << 20
    assert isinstance(Linux().cpu_name(), str)
    assert not Linux().measures_peaks


# --- signals and waits ---


def test_windows_waits_a_little_at_a_time(monkeypatch):
    """A wait for a lock is not interrupted there; Ctrl-C must not wait for the end of a weight."""

    class Slow:
        def __init__(self):
            self.timeouts = []

        def get(self, timeout):
            self.timeouts.append(timeout)
            if len(self.timeouts) < 3:
                raise queue.Empty
            return "done"

    slow = Slow()
    assert Windows().take(slow) == "done"
    assert max(slow.timeouts) <= 0.5


def test_other_systems_wait_at_once():
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    waiting.put("done")
    assert system.current.take(waiting) == "done"


def test_every_signal_that_ends_a_process_is_known():
    code = "import signal; signal.SIGBREAK = signal.SIGUSR1; from corepress import interrupts as i; print(i.INTERRUPTS)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True, encoding="utf-8")
    assert "SIGUSR1" in done.stdout
    assert signal.SIGINT in interrupts.INTERRUPTS


def test_files_are_on_the_disk_before_they_get_their_names(tmp_path, monkeypatch):
    """So a power failure leaves the old file or the new one; then the folder that has the name."""
    calls = []
    for name in ("flush", "replace", "sync"):
        original = getattr(system.current, name)

        def noted(*arguments, name=name, original=original):
            calls.append((name, *(each.name for each in arguments if isinstance(each, Path))))
            return original(*arguments)

        monkeypatch.setattr(system.current, name, noted)
    write_output(tmp_path / "report.json", "{}")
    assert [name for name, *_ in calls[:3]] == ["flush", "replace", "sync"]
    assert calls[1][2] == "report.json"
    assert calls[2][1] == tmp_path.name
    assert (tmp_path / "report.json").read_text() == "{}"
