"""What a config says about some weights."""

from __future__ import annotations

from dataclasses import dataclass

from ..specs import Spec


@dataclass(frozen=True)
class WeightConfig:
    """What to do to a weight.

    Attributes
    ----------
    steps : tuple of spec
        What to do, in this order; empty for weights to keep.
    weight_threshold : int or None
        Weights of this many elements or fewer are kept; None for the config's own threshold.
    """

    steps: tuple[Spec, ...] = ()
    weight_threshold: int | None = None

    @property
    def description(self) -> str:
        """In a few words."""
        return ", then ".join(step.description for step in self.steps) or "keep"


KEEP = WeightConfig()
