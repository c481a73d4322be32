"""Ctrl-C ends calls of the kernels, and what comes after them works."""

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import corepress as cp
from corepress import _core
from helpers.processes import TIMEOUT

# One native call each, of a second or more on one thread.
LONG = {
    "kmeans": "K.kmeans(V, 8192)",
    "kmeans1d": "K.kmeans1d(D, 256)",
    "kmeans1d with weights": "K.kmeans1d(D, 256, abs(D))",
    "kmeans1d_sweep": "K.kmeans1d_sweep(D, (2, 4, 16, 64, 256))",
    "vectors": "cp.palettize(W, nbits=8, cluster_dim=4)",
    "groups": "cp.palettize(W, nbits=8, granularity='per_grouped_channel', group_size=1)",
    "importance": "cp.palettize([W] * 9, nbits=8, importance=[abs(W)] * 9)",
    "many": "cp.palettize([W] * 29, nbits=8)",
    "searched": "cp.quantize(W, dtype='int4', granularity='per_tensor', scale_search='mse')",
    "searched blocks": "cp.quantize([W] * 9, dtype='int4', granularity='per_block', block_size=32, scale_search='mse')",
    "pruned blocks": "cp.prune([W] * 49, target_sparsity=0.5, block_size=4)",
}
PROGRAM = """
import signal, threading
import numpy as np
import corepress as cp
K = cp.kernels
rng = np.random.default_rng(0)
V = rng.standard_normal((200_000, 8)).astype(np.float32)
D = rng.standard_normal(3_000_000)
W = rng.standard_normal((2048, 4096)).astype(np.float32)
heard = 0
def handle(number, frame):
    # However many signals come during a call that does not look for them, Python handles one when it is over.
    global heard
    heard += 1
    if heard == 4:
        raise KeyboardInterrupt
signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
try:
    {call}
    print("finished")
except KeyboardInterrupt:
    print("interrupted")
signal.setitimer(signal.ITIMER_REAL, 0)
small = cp.palettize(W[:64, :64], nbits=4)
print(cp.error(W[:64, :64], small).snr_db > 15, threading.active_count())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("name", LONG)
def test_a_signal_ends_the_call(name):
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(call=LONG[name])],
        capture_output=True,
        text=True,
        timeout=2 * TIMEOUT,
        check=False,
        env={**os.environ, "COREPRESS_NUM_THREADS": "2"},
    )
    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout.split() == ["interrupted", "True", "1"]


def test_a_source_ends_the_calls_of_its_threads():
    weight = np.random.default_rng(0).standard_normal((2048, 2048)).astype(np.float32)
    source, ended = _core.StopSource(), []

    def work():
        with source:
            try:
                while True:
                    cp.palettize(weight, nbits=8, cluster_dim=4, num_threads=1)
            except KeyboardInterrupt:
                ended.append(True)
            with pytest.raises(KeyboardInterrupt):
                cp.prune(weight, target_sparsity=0.5)
            with pytest.raises(KeyboardInterrupt):
                _core.check_stop()
        _core.check_stop()
        ended.append(cp.prune(weight, target_sparsity=0.5).sparsity)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    cp.palettize(weight, nbits=2)  # others are not affected
    source.stop()
    for thread in threads:
        thread.join()
    assert sorted(ended) == pytest.approx([0.5, 0.5, 1, 1], abs=1e-3)


GROUPS = {
    "none": ({}, 0),
    "unified": ({"proc/self/cgroup": "0::/a/b\n", "cg/a/b/cpu.max": "150000 100000\n"}, 2),
    "unified, of a parent": (
        {"proc/self/cgroup": "0::/a/b\n", "cg/a/b/cpu.max": "max 100000\n", "cg/a/cpu.max": "300000 100000\n"},
        3,
    ),
    "unified, the least counts": (
        {"proc/self/cgroup": "0::/a/b\n", "cg/a/b/cpu.max": "800000 100000\n", "cg/a/cpu.max": "300000 100000\n"},
        3,
    ),
    "unified, a namespace": ({"proc/self/cgroup": "0::/\n", "cg/cpu.max": "50000 100000\n"}, 1),
    "unified, elsewhere": ({"proc/self/cgroup": "0::/../other\n", "cg/cpu.max": "400000 100000\n"}, 4),
    "version 1": (
        {
            "proc/self/cgroup": "5:memory:/x\n3:cpu,cpuacct:/docker/c\n",
            "cpu/cpu.cfs_quota_us": "250000\n",
            "cpu/cpu.cfs_period_us": "100000\n",
        },
        3,
    ),
    "version 1, no quota": (
        {
            "proc/self/cgroup": "3:cpu,cpuacct:/docker/c\n",
            "cpu/cpu.cfs_quota_us": "-1\n",
            "cpu/cpu.cfs_period_us": "100000\n",
        },
        0,
    ),
    "odd": ({"proc/self/cgroup": "0::/\n::\nx\n", "cg/cpu.max": "many few\n"}, 0),
    "zero": ({"proc/self/cgroup": "0::/\n", "cg/cpu.max": "0 0\n"}, 0),
    "huge": ({"proc/self/cgroup": "0::/\n", "cg/cpu.max": "99999999999 1000\n"}, 0),
}
MOUNTS = """\
25 30 0:23 / /sys rw,nosuid - sysfs sysfs rw
30 25 0:26 / /cg rw,nosuid shared:4 - cgroup2 cgroup2 rw
31 25 0:27 /docker/c /cpu rw,nosuid - cgroup cgroup rw,cpu,cpuacct
32 25 0:28 / /with\\040space rw,nosuid - cgroup cgroup rw,memory
short
"""


@pytest.mark.parametrize("name", GROUPS)
def test_quotas_of_containers(name, tmp_path):
    files, expected = GROUPS[name]
    for path, text in {**files, "proc/self/mountinfo": MOUNTS}.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    assert _core.cpu_quota(str(tmp_path)) == expected


def test_a_quota_bounds_the_threads():
    quota = _core.cpu_quota()
    if quota and "COREPRESS_NUM_THREADS" not in os.environ:
        assert _core.default_threads() <= quota
    assert _core.cpu_quota("/no/such/folder") == 0
