"""Whatever ends a run early, on whichever thread: nothing is left behind, and the source is untouched."""

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from coreml_helpers import digest, replace_weights

from corepress import compression, coreml
from corepress.coreml.format import weight_file as weight_files
from helpers.processes import TIMEOUT

CONFIGS = {
    "palettize": ["--nbits", "4"],
    "quantize": ["--dtype", "int8"],
    "prune": ["--target-sparsity", "0.5"],
}
# Whatever runs these tests in the background may ignore SIGINT, which children inherit.
MAIN = """
import contextlib, signal, sys
from corepress.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)
exceptions = main.interrupts_as_exceptions

@contextlib.contextmanager
def tell(arrived):
    with exceptions(arrived):
        print("ready", flush=True)
        yield

main.interrupts_as_exceptions = tell
sys.exit(main.main())
"""
# A file may grow to so many bytes and no further: what a full disk does, but only to this process.
LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)),) * 2)
from corepress.cli.main import main
sys.exit(main())
"""


@pytest.fixture(scope="module")
def middling_package(trained_package, tmp_path_factory):
    """Some 50 MB in weights of many sizes."""
    package = shutil.copytree(trained_package, tmp_path_factory.mktemp("middling") / "source.mlpackage")
    rng = np.random.default_rng(0)
    shapes = [(512, 2048), (64, 64), (2048, 2048), (320, 320), (640, 640)] * 4
    replace_weights(package, [(0.1 * rng.standard_normal(shape)).astype(np.float16) for shape in shapes])
    yield package
    shutil.rmtree(package)


def _command(verb, source, destination):
    return [verb, str(source), "-o", str(destination), *CONFIGS[verb]]


@pytest.mark.skipif(sys.platform == "win32", reason="signals are others there")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize("verb", CONFIGS)
def test_a_signal_at_any_moment_leaves_nothing_behind(middling_package, tmp_path, verb, number):
    before = digest(middling_package)
    seed = int.from_bytes(os.urandom(4), "little")
    rng = random.Random(seed)
    destination = tmp_path / "out.mlpackage"
    command = [sys.executable, "-c", MAIN, *_command(verb, middling_package, destination)]
    ended_early = 0
    for attempt in range(6):
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            process.stdout.readline()
            time.sleep(rng.uniform(0, 0.1 * (attempt + 1)))
            process.send_signal(number)
            _, errors = process.communicate(timeout=TIMEOUT)
        where = f"seed {seed}, attempt {attempt}: {errors}"
        if process.returncode == 0:
            assert [path.name for path in tmp_path.iterdir()] == ["out.mlpackage"], where
            coreml.inspect(destination)
            shutil.rmtree(destination)
        else:
            assert process.returncode in (128 + number, -number), where  # the latter after the command
            assert "Traceback" not in errors, where
            left = [path.name for path in tmp_path.iterdir()]
            assert left in ([], ["out.mlpackage"]), where  # whole, if the signal came after it was in place
            shutil.rmtree(destination, ignore_errors=True)
            ended_early += 1
    assert ended_early
    assert digest(middling_package) == before


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="the size of files cannot be limited")
@pytest.mark.parametrize("verb", CONFIGS)
@pytest.mark.parametrize("limit", [100, 1 << 20])
def test_a_disk_that_is_full(middling_package, tmp_path, verb, limit):
    command = [sys.executable, "-c", LIMITED, str(limit), *_command(verb, middling_package, tmp_path / "out.mlpackage")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert os.strerror(errno.EFBIG) in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("name", ["_write_all", "fdatasync", "fsync"])
def test_a_write_that_fails_on_its_thread(package, tmp_path, monkeypatch, name, existing):
    destination = tmp_path / "out.mlpackage"
    if existing:
        coreml.compress(package, destination, {"palettize": {"nbits": 8}})
    before = {path.name: digest(path) for path in tmp_path.iterdir()}
    module = weight_files if name == "_write_all" else os
    if not hasattr(module, name):
        pytest.skip("this system flushes by another call")
    original, calls = getattr(module, name), []

    def fail(*arguments):
        calls.append(arguments)
        if len(calls) == 3 or name != "_write_all":
            raise OSError(errno.ENOSPC, "no space is left")
        original(*arguments)

    monkeypatch.setattr(module, name, fail)
    monkeypatch.setattr(weight_files, "_FLUSH_CHUNK", 1000)
    with pytest.raises(OSError, match="no space is left"):
        coreml.compress(package, destination, {"palettize": {"nbits": 4}}, overwrite=existing)
    assert calls
    assert {path.name: digest(path) for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("error", [MemoryError, ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("num_threads", [1, 3])
def test_a_weight_that_fails_on_its_thread(package, tmp_path, monkeypatch, error, num_threads):
    apply_measured, calls = compression.apply_measured, []

    def fail(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 2:
            raise error("broken")
        return apply_measured(*arguments, **options)

    monkeypatch.setattr(compression, "apply_measured", fail)
    with pytest.raises(error, match="broken"):
        coreml.compress(package, tmp_path / "out.mlpackage", {"palettize": {"nbits": 4}}, num_threads=num_threads)
    assert [path.name for path in tmp_path.iterdir()] == [package.name]


def test_of_several_failures_the_first_weight_is_named(package, tmp_path):
    """Whichever thread fails first."""
    replace_weights(package, [np.full(shape, np.nan, np.float16) for shape in [(2048, 512), (64, 64), (64, 96)]])
    for _ in range(5):
        with pytest.raises(ValueError, match=r"^weight0 "):
            coreml.compress(package, tmp_path / "out.mlpackage", {"quantize": {}}, strict=True, num_threads=3)
    assert [path.name for path in tmp_path.iterdir()] == [package.name]
