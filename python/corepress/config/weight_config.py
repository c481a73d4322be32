"""The steps and size threshold that a config assigns to a weight."""

from __future__ import annotations

from dataclasses import dataclass

from ..specs import Spec


@dataclass(frozen=True)
class WeightConfig:
    """The steps and size threshold for a weight.

    Attributes
    ----------
    steps : tuple of spec
        The steps, in order; empty for weights to leave unchanged.
    weight_threshold : int or None
        Weights of this many elements or fewer are left unchanged; None for the config's own threshold.
    """

    steps: tuple[Spec, ...] = ()
    weight_threshold: int | None = None

    @property
    def description(self) -> str:
        """A short description."""
        return ", then ".join(step.description for step in self.steps) or "keep"


KEEP = WeightConfig()
