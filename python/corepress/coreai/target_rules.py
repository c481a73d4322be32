"""Encodings of Core AI known to fail or be slow, by target, with sources."""

from __future__ import annotations

from ..engine.targets import Encoding, Rule

_MODELS = "https://github.com/apple/coreai-models/issues/{}"
_MODEL_ZOO = "john-rocky/coreai-model-zoo, knowledge/compression"


def _of_codes(encoding: Encoding, *dtypes: str) -> bool:
    return encoding.integers is not None and encoding.palette is None and encoding.integers.dtype in dtypes


RULES = (
    Rule(
        ("ane",),
        lambda encoding: _of_codes(encoding, "int8", "uint8") and _is_per_block(encoding),
        "8-bit integers with scales per block gave wrong results on the Neural Engine (cosine 0.37), without a "
        "warning; use a palette, or granularity='per_channel'",
        _MODELS.format(279),
    ),
    Rule(
        ("ane",),
        lambda encoding: _of_codes(encoding, "int4", "uint4", "int2", "uint2"),
        "models with 4-bit integers crash on the Neural Engine or run on the GPU instead; use a palette",
        _MODELS.format(55),
    ),
    Rule(
        ("gpu",),
        lambda encoding: (
            _of_codes(encoding, "int8", "uint8")
            and encoding.integers is not None
            and encoding.integers.granularity == "per_channel"
        ),
        "8-bit integers with a scale per channel lose rows of wide layers on the GPU; granularity='per_block' with "
        "block_size=32 is right there, and faster",
        _MODEL_ZOO,
    ),
)


def _is_per_block(encoding: Encoding) -> bool:
    return encoding.integers is not None and encoding.integers.granularity == "per_block"
