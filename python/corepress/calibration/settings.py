"""How a calibration of a package is done."""

from __future__ import annotations

from dataclasses import dataclass

from ..config.candidates import Steps


@dataclass(frozen=True)
class Settings:
    """How a calibration is done; see `corepress.coreml.calibrate`."""

    candidates: tuple[Steps, ...]
    probes: int | None
    importance: bool
    block_columns: int | None
    memory_limit: int
    weight_threshold: int
    seed: int
    num_threads: int | None
