"""Tests of coremltools that corepress does not pass, by pattern, and why that is right."""

from __future__ import annotations

KNOWN: dict[str, dict[str, str]] = {
    "optimize": {
        "test_palettization_pcs": "Below specification version 10 per-channel scales are multiplied into the tables.",
    },
    "accelerate": {},
}
