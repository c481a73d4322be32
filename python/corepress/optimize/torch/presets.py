"""Ready-made options for the configs of this package, and schedules: those of `corepress.training.presets`."""

from __future__ import annotations

from ...training.presets import names, preset, sparsity_schedule, w2_dkm, w4, w6, w8, w8a8

__all__ = ["names", "preset", "sparsity_schedule", "w2_dkm", "w4", "w6", "w8", "w8a8"]


def __dir__() -> list[str]:
    return __all__
