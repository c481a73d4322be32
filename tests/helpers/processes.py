"""How long tests wait for other processes."""

from __future__ import annotations

import os

# Generous, since it only ends what hangs: on a busy machine an import of coremltools alone takes half a minute.
TIMEOUT = 300 * float(os.environ.get("COREPRESS_TEST_TIMEOUT_SCALE", "1"))
