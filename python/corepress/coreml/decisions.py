"""What a config does to each weight of a package: which forms the operations of its version have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..config import Config
from ..engine.calibrated import CalibrationData
from ..engine.decisions import Decisions
from ..specs import Spec
from .operations import check_steps
from .program.program import Part, Program
from .program.raising import obstacle
from .program.weights import Weight, visible_weights
from .target_rules import PackageLint


class PackageDecisions(Decisions[Weight]):
    """What a config does to each weight of a package, decided before work starts.

    Parameters
    ----------
    config, strict, importance, calibration
        As for `corepress.engine.decisions.Decisions`.
    """

    _lint: PackageLint

    def __init__(
        self,
        config: Config,
        *,
        strict: bool,
        importance: Mapping[str, Any] | None = None,
        calibration: CalibrationData | None = None,
    ) -> None:
        super().__init__(config, strict=strict, importance=importance, calibration=calibration)
        self._obstacles: dict[str, str | None] = {}
        self._oldest: Part | None = None

    def lint_for(self, target: str | None) -> PackageLint:
        """What collects known problems of Core ML's encodings on a target."""
        return PackageLint(target)

    def prepare(self, program: Program) -> None:
        """Check the program as a whole; raises if the run cannot succeed."""
        self._oldest = min(program.parts, key=lambda part: part.version)
        self.prepare_weights(visible_weights(program), program)
        self._lint.check_version(program.specification_version)

    def check_steps(self, steps: Sequence[Spec], weight: Weight | None) -> None:
        """Refuse steps that no operation of the model's version can express."""
        part = self._oldest
        if weight is not None:
            part = weight.first.part
            self._require_raisable(part)
        assert part is not None, "prepared first"
        check_steps(steps, part.version, part.model.specificationVersion)

    def _require_raisable(self, part: Part) -> None:
        """Refuse compressed weights in a model that is too old for them and cannot be raised."""
        if part.prefix not in self._obstacles:
            self._obstacles[part.prefix] = obstacle(part)
        if (reason := self._obstacles[part.prefix]) is not None:
            raise ValueError(f"config: {reason}")
