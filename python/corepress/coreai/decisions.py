"""What a config does to each weight of an asset: which forms Core AI has."""

from __future__ import annotations

from collections.abc import Sequence

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

    def lint_for(self, target: str | None) -> TargetLint:
        """What collects known problems of Core AI's encodings on a target."""
        return TargetLint(target, RULES)

    def prepare(self, program: Program) -> None:
        """Check the program as a whole; raises if the run cannot succeed."""
        self.prepare_weights(program.weights, program)

    def check_steps(self, steps: Sequence[Spec], weight: Weight | None) -> None:
        """Refuse steps that have no form in Core AI."""
        check_steps(steps)
