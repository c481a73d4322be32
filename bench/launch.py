"""Runs a command and prints its seconds, peak memory in megabytes, and seconds of all CPUs; see models.py.

A process of its own, because on Linux a child's peak memory starts at that of the process that started it.
"""

import os
import sys
import time

start = time.perf_counter()
pid = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, 2, 1)])
_, status, usage = os.wait4(pid, 0)
seconds = time.perf_counter() - start
print(seconds, usage.ru_maxrss / (1e3 if sys.platform == "linux" else 1e6), usage.ru_utime + usage.ru_stime)
sys.exit(os.waitstatus_to_exitcode(status))
