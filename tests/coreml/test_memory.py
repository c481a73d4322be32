"""Memory stays near the largest weight, however large the package is."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from coreml_helpers import replace_weights, weight_file

from corepress import coreml

COUNT, SHAPE = 20, (1024, 4096)
RUN = """
import json, sys
from corepress import coreml
from corepress import overlap
from corepress import system
source, destination, dense, config, ahead, behind = sys.argv[1:]
overlap.MOST_BYTES_AHEAD, overlap.MOST_BYTES_BEHIND = int(ahead), int(behind)
coreml.inspect(source)
before = system.current.peak_memory()
coreml.compress(source, destination, json.loads(config), num_threads=2)
compressing = system.current.peak_memory() - before
coreml.decompress(destination, dense, num_threads=2)
print(compressing, system.current.peak_memory() - before)
"""


@pytest.fixture(scope="module")
def heavy_package(trained_package, tmp_path_factory):
    package = shutil.copytree(trained_package, tmp_path_factory.mktemp("heavy") / "heavy.mlpackage")
    weight = (0.1 * np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32)).astype(np.float16)
    replace_weights(package, [weight] * COUNT)
    yield package
    shutil.rmtree(package)


@pytest.mark.skipif(sys.platform == "win32", reason="peak memory is not told there")
@pytest.mark.parametrize("config", [{"palettize": {"nbits": 4}}, {"quantize": {}}, {"prune": {"target_sparsity": 0.5}}])
def test_memory_is_a_few_weights(heavy_package, tmp_path, config):
    largest = 2 * SHAPE[0] * SHAPE[1]
    budgets = [str(2 * largest), str(largest)]
    paths = [heavy_package, tmp_path / "compressed.mlpackage", tmp_path / "dense.mlpackage"]
    command = [sys.executable, "-c", RUN, *map(str, paths), json.dumps(config), *budgets]
    measured = []
    for _ in range(2):  # pages of mapped files stay a little longer where the disk is busy: the smaller one counts
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        measured.append(tuple(map(int, done.stdout.split())))
        assert weight_file(paths[2]).stat().st_size == weight_file(heavy_package).stat().st_size
        for path in paths[1:]:
            shutil.rmtree(path)
    compressing, both = map(min, zip(*measured, strict=True))
    assert compressing < 7 * largest  # with what was mapped, and modules that were loaded meanwhile
    assert both < 8 * largest


GIANT = (16384, 4096)
CHECK = """
import sys, threading
from corepress import coreml
def resident():
    with open("/proc/self/status") as status:
        return next(1024 * int(line.split()[1]) for line in status if line.startswith("VmRSS"))
source, destination, dense = sys.argv[1:]
runs = (
    lambda: coreml.verify(source, destination),
    lambda: coreml.compare(source, destination),
    lambda: coreml.decompress(destination, dense),
    lambda: coreml.verify(source, source),
)
for run in runs:
    before, done = resident(), threading.Event()
    peaks = [before]
    def sample():
        while not done.wait(0.002):
            peaks.append(resident())
    sampler = threading.Thread(target=sample)
    sampler.start()
    run()
    done.set()
    sampler.join()
    print(max(peaks) - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("config", [{"palettize": {"nbits": 4}}, {"prune": {"target_sparsity": 0.5}}])
def test_checking_and_decompressing_hold_pieces_of_a_weight(trained_package, tmp_path, config):
    package = shutil.copytree(trained_package, tmp_path / "giant.mlpackage")
    row = np.random.default_rng(0).standard_normal(GIANT[1]).astype(np.float16)
    replace_weights(package, [np.tile(row, (GIANT[0], 1))])
    paths = [package, tmp_path / "compressed.mlpackage", tmp_path / "dense.mlpackage"]
    coreml.compress(paths[0], paths[1], config)
    done = subprocess.run([sys.executable, "-c", CHECK, *map(str, paths)], capture_output=True, text=True, check=True)
    for peak in map(int, done.stdout.split()):
        assert peak < GIANT[0] * GIANT[1]  # half of its bytes
    assert weight_file(paths[2]).stat().st_size == weight_file(package).stat().st_size
    for path in paths:
        shutil.rmtree(path)


BIG = 256 << 20
STARTED = "from corepress import system; print(system.current.peak_memory())"
STARTING = f"""
import subprocess, sys
block = b"x" * {BIG}  # resident in this process, whose memory getrusage counts as its child's
subprocess.run([sys.executable, "-c", {STARTED!r}], check=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="peak memory is not reported there")
def test_the_peak_is_not_that_of_the_process_that_started_this_one():
    command = [sys.executable, "-c", STARTING]
    assert 10**6 < int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) < BIG
