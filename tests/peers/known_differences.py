"""Tests of coremltools that corepress does not pass, by pattern, and why that is right."""

from __future__ import annotations

KNOWN: dict[str, dict[str, str]] = {
    "optimize": {
        "test_const_as_output": "A constant that also leaves a block is kept: Core ML takes no compressed one there.",
        "test_palettization_pcs": "Below specification version 10 per-channel scales are multiplied into the tables, "
        "which takes one operation and a table less.",
    },
    "accelerate": {},
}
