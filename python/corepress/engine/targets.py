"""Known problems of encodings on targets: rules, and the search for what they apply to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..specs import Palettize, Prune, Quantize, Spec


@dataclass(frozen=True)
class TargetWarning:
    """A known problem of an encoding on a target.

    Attributes
    ----------
    target : str
        The target of the check.
    message : str
        What is known, and what to use instead.
    source : str
        The source of this information.
    weights : tuple of str
        The affected weights; empty for the package as a whole.
    """

    target: str
    message: str
    source: str
    weights: tuple[str, ...] = ()

    def __str__(self) -> str:
        count = f"{len(self.weights)} {'weight' if len(self.weights) == 1 else 'weights'}: " if self.weights else ""
        return f"{self.target}: {count}{self.message} [{self.source}]"

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return {**vars(self), "weights": list(self.weights)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TargetWarning:
        """The reverse of `to_dict`."""
        return cls(**{**values, "weights": tuple(values["weights"])})


@dataclass(frozen=True)
class Encoding:
    """The parts of an encoding that the rules check: the steps, and the output channel axis of the consumer."""

    steps: tuple[Spec, ...]
    rank: int
    output_axis: int | None

    @property
    def palette(self) -> Palettize | None:
        """The palettization among the steps."""
        return next((step for step in self.steps if isinstance(step, Palettize)), None)

    @property
    def integers(self) -> Quantize | None:
        """The quantization among the steps."""
        return next((step for step in self.steps if isinstance(step, Quantize)), None)

    @property
    def pruned(self) -> bool:
        """Whether the steps prune."""
        return any(isinstance(step, Prune) for step in self.steps)

    @property
    def cluster_dim(self) -> int:
        """Weights per table entry."""
        return 1 if self.palette is None else self.palette.cluster_dim

    @property
    def grouped(self) -> bool:
        """Whether it has several tables."""
        return self.palette is not None and self.palette.granularity == "per_grouped_channel"

    def is_output_axis(self, axis: int | None) -> bool:
        """Whether an axis is, or defaults to, the output channel axis."""
        return axis is None or self.output_axis is None or (axis - self.output_axis) % max(self.rank, 1) == 0


@dataclass(frozen=True)
class Rule:
    """One known problem of some targets."""

    targets: tuple[str, ...]
    applies: Callable[[Encoding], bool]
    message: str
    source: str


class TargetLint:
    """Collects the known problems of the encodings of a run, for one target.

    Parameters
    ----------
    target : str or None
        The target; None checks only problems on all targets.
    rules : sequence of Rule
        The known problems.
    """

    def __init__(self, target: str | None, rules: Sequence[Rule]) -> None:
        self._target, self._rules = target, rules
        self._model: list[TargetWarning] = []
        self._found: dict[Rule, list[str]] = {}
        self._names = {target} if target else set()

    def check(self, name: str, encoding: Encoding) -> None:
        """Check one weight."""
        for rule in self._rules:
            if self._names.intersection(rule.targets) and rule.applies(encoding):
                self._found.setdefault(rule, []).append(name)

    def warnings(self, compressed: Iterable[str]) -> tuple[TargetWarning, ...]:
        """The problems found for weights that were actually compressed."""
        names = set(compressed)
        found = [
            TargetWarning(
                next(name for name in rule.targets if name in self._names), rule.message, rule.source, weights
            )
            for rule, checked in self._found.items()
            if (weights := tuple(name for name in checked if name in names))
        ]
        return (*self._model, *found)
