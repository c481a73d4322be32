"""A call of `compress` or `plan`: what the two are asked for, the same in every format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from ..config import ConfigLike
from ..paths import StrPath
from ..specs import Spec
from ..tensors import CompressedTensor
from .calibrated import DAMPENING, WAYS, CalibrationData
from .decisions import Decisions
from .facade import Facade
from .prediction import Prediction
from .run import ProgressCallback

Made: TypeAlias = tuple[tuple[Spec, ...], CompressedTensor]
"""Steps, and the weight after these."""

DecisionsType = TypeVar("DecisionsType", bound=Decisions[Any])


@dataclass(frozen=True)
class Choice:
    """The config of a call, and what is expected of it if it was chosen for a target."""

    config: ConfigLike
    predicted: Prediction | None = None
    notes: tuple[str, ...] = ()
    made: Mapping[tuple[str, str], Made] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """The arguments of `compress` and `plan` that do not depend on the format; see `corepress.coreml.compress`.

    Attributes
    ----------
    function : str
        The call, for messages.
    calibration : Calibration or None
        The statistics themselves; see `corepress.engine.facade.statistics_of`.
    """

    function: str
    config: ConfigLike | None = None
    target_size: int | str | None = None
    target_bits: float | None = None
    target_snr: float | None = None
    candidates: Any = None
    progress: ProgressCallback | None = None
    strict: bool = False
    weight_threshold: int | None = None
    target: str | None = None
    joint_compression: bool | None = None
    keep_position_tables: bool | None = None
    importance: Mapping[str, Any] | None = None
    calibration: Any = None
    calibration_use: str = WAYS[0]
    dampening: float = DAMPENING
    num_threads: int | None = None

    @property
    def targets(self) -> dict[str, Any]:
        """What is to be reached, None for those that were not given."""
        return {"target_size": self.target_size, "target_bits": self.target_bits, "target_snr": self.target_snr}

    @property
    def has_target(self) -> bool:
        """Whether the steps are to be found."""
        return any(each is not None for each in self.targets.values())

    def choose(self, facade: Facade, src: StrPath) -> Choice:
        """The config that was given, or for a target the one that a format's `allocate` finds for the model.

        Raises
        ------
        ValueError
            If there is neither a config nor a target, or candidates without a target.
        """
        if self.has_target:
            found = facade.allocate(
                src,
                **self.targets,
                config=self.config,
                candidates=self.candidates,
                target=self.target,
                weight_threshold=self.weight_threshold,
                joint_compression=self.joint_compression,
                keep_position_tables=self.keep_position_tables,
                strict=self.strict,
                progress=self.progress,
                num_threads=self.num_threads,
                calibration=self.calibration,
            )
            return Choice(found.config, found.predicted, found.notes, found.made)
        if self.config is None:
            raise ValueError(f"{self.function}: give a config, or one of {', '.join(self.targets)}")
        if self.candidates is not None:
            raise ValueError(f"{self.function}: candidates are for a target; give one of {', '.join(self.targets)}")
        predicted = getattr(self.config, "predicted", None)  # of an allocation
        if isinstance(predicted, Prediction):
            return Choice(self.config, predicted, tuple(getattr(self.config, "notes", ())))
        return Choice(self.config)

    def decisions(self, kind: type[DecisionsType], chosen: Choice) -> DecisionsType:
        """What is decided for each weight of a model of a format."""
        known = None
        if self.calibration is not None:
            known = CalibrationData(self.calibration, self.calibration_use, self.dampening)
        return kind.of(
            chosen.config,
            self.strict,
            self.weight_threshold,
            self.target,
            self.joint_compression,
            self.keep_position_tables,
            self.importance,
            known,
        )

    def reusable(self, chosen: Choice) -> Mapping[tuple[str, str], Made]:
        """The weights that were made for the choice, by function and name, if this call would make the same."""
        is_as_made = (self.calibration_use, self.dampening) == (WAYS[0], DAMPENING) and not self.importance
        return chosen.made if is_as_made else {}
