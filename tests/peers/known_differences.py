"""Tests of coremltools that corepress does not pass, by pattern, and why that is right."""

from __future__ import annotations

KNOWN: dict[str, dict[str, str]] = {
    "optimize": {
        "test_const_as_output": "A constant that also leaves a block is kept: Core ML takes no compressed one there.",
        "test_joint_palettize_quantize_weights*True": "The same; and tables larger than the weight are not made.",
        "test_joint_prune_quantize_weights*False": "Offsets that are all zero, those of zero weights, are left out.",
        "test_palettization_pcs": "Below specification version 10 per-channel scales are multiplied into the tables.",
    },
    "accelerate": {},
}
