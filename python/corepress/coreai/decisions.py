"""What a config does to each weight of an asset: which forms Core AI has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..config import Config, ConfigLike, as_config
from ..engine.calibrated import CalibrationData
from ..engine.decisions import Decisions
from ..engine.targets import TargetLint
from ..specs import Spec
from .operations import check_steps
from .program.program import Program
from .program.weights import Weight
from .target_rules import RULES


class AssetDecisions(Decisions[Weight]):
    """What a config does to each weight of an asset, decided before work starts.

    Parameters
    ----------
    config, strict, importance, calibration
        As for `corepress.engine.decisions.Decisions`.
    """

    def __init__(
        self,
        config: Config,
        *,
        strict: bool,
        importance: Mapping[str, Any] | None = None,
        calibration: CalibrationData | None = None,
    ) -> None:
        super().__init__(
            config, strict=strict, lint=TargetLint(config.target, RULES), importance=importance, calibration=calibration
        )

    def prepare(self, program: Program) -> None:
        """Check the program as a whole; raises if the run cannot succeed."""
        self.prepare_weights(program.weights, program)

    def check_steps(self, steps: Sequence[Spec], weight: Weight | None) -> None:
        """Refuse steps that have no form in Core AI."""
        check_steps(steps)


def decisions_of(
    config: ConfigLike,
    strict: bool,
    weight_threshold: int | None,
    target: str | None,
    joint_compression: bool | None,
    keep_position_tables: bool | None,
    importance: Mapping[str, Any] | None = None,
    calibration: CalibrationData | None = None,
) -> AssetDecisions:
    """The decisions for a call of `compress` or `plan`."""
    given = as_config(
        config,
        weight_threshold=weight_threshold,
        target=target,
        joint_compression=joint_compression,
        keep_position_tables=keep_position_tables,
    )
    return AssetDecisions(given, strict=strict, importance=importance, calibration=calibration)
