"""What a config does to each weight of a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..compression.weight_data import NO_DATA, WeightData
from ..config import Config, ConfigLike, as_config
from ..errors import Skip
from ..specs import Palettize, Spec
from ..suggestions import suggestion
from .calibrated import CalibrationData
from .resolution import resolve
from .selection import bind_rules, select
from .targets import Encoding, TargetLint, TargetWarning
from .weights import Weight

if TYPE_CHECKING:
    from typing_extensions import Self

WeightType = TypeVar("WeightType", bound=Weight)

UNCALIBRATED = (
    "the config's steps were chosen with calibration, but are applied without: errors are larger than was predicted; "
    "pass the same calibration"
)


@dataclass(frozen=True)
class Decision:
    """What to do to a weight.

    Attributes
    ----------
    steps : tuple of Spec
        The steps, with the weight's axes and groups filled in.
    description : str
        How its record describes them.
    data : WeightData
        What is known of the weight besides its values: importance is for the first step, a hessian for all steps.
    """

    steps: tuple[Spec, ...]
    description: str
    data: WeightData = NO_DATA


class Decisions(Generic[WeightType]):
    """What a config does to each weight of a model, decided before work starts; a format says what it can express.

    Parameters
    ----------
    config : Config
        The config.
    strict : bool
        Raise if a weight that the config matches cannot be compressed, and for rules that match no weight.
    importance : mapping of str to array_like, optional
        How much the squared error of each element counts, by names of weights.
    calibration : CalibrationData, optional
        What is known of the weights that `importance` has no entry for.
    """

    def __init__(
        self,
        config: Config,
        *,
        strict: bool,
        importance: Mapping[str, Any] | None = None,
        calibration: CalibrationData | None = None,
    ) -> None:
        if importance is not None and not isinstance(importance, Mapping):
            raise TypeError(
                f"compress: importance must be a dict of arrays by weight name, not {type(importance).__name__}"
            )
        self._config, self._strict, self._importance = config, strict, importance or {}
        self._calibration = calibration
        self._lint = self.lint_for(config.target)
        self._notes: tuple[str, ...] = ()
        self.unmatched_rules: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        config: ConfigLike,
        strict: bool,
        weight_threshold: int | None,
        target: str | None,
        joint_compression: bool | None,
        keep_position_tables: bool | None,
        importance: Mapping[str, Any] | None = None,
        calibration: CalibrationData | None = None,
    ) -> Self:
        """The decisions for a call of `compress` or `plan`."""
        given = as_config(
            config,
            weight_threshold=weight_threshold,
            target=target,
            joint_compression=joint_compression,
            keep_position_tables=keep_position_tables,
        )
        return cls(given, strict=strict, importance=importance, calibration=calibration)

    def lint_for(self, target: str | None) -> TargetLint:
        """What collects known problems of the format's encodings on a target."""
        raise NotImplementedError

    def check_steps(self, steps: Sequence[Spec], weight: WeightType | None) -> None:
        """Refuse steps that the format cannot express, for a weight, or None for any weight of the model.

        Raises
        ------
        ValueError
            With what can express them.
        """
        raise NotImplementedError

    def prepare_weights(self, weights: Sequence[WeightType], model: Any) -> None:
        """Check the model as a whole; raises if the run cannot succeed."""
        if not (self._config.op_types or self._config.weights):
            self.check_steps(self._config.global_config.steps, None)
        self._config, self._notes, self.unmatched_rules = bind_rules(self._config, weights)
        if self._calibration is not None:
            self._calibration.prepare(model)
        elif self._config.calibrated:
            self._notes += (UNCALIBRATED,)
        if self._strict and self.unmatched_rules:
            raise ValueError(f"config: no weight matches {'; '.join(self.unmatched_rules)}")
        known = {name for weight in weights for name in weight.names} if self._importance else ()
        for name in self._importance:
            if name not in known:
                raise ValueError(f"compress: importance of {name!r}: no weight has this name{suggestion(name, known)}")

    @property
    def notes(self) -> tuple[str, ...]:
        """Rules that were not read literally, and weights that calibration has nothing of."""
        return self._notes if self._calibration is None else (*self._notes, *self._calibration.notes)

    def decide(self, weight: WeightType) -> Decision:
        """The decision for a weight; raises `Skip` if it is left unchanged."""
        try:
            chosen = select(self._config, weight).steps
            self.check_steps(chosen, weight)
            steps = tuple(self.resolve(step, weight) for step in chosen)
        except Skip as reason:
            raise self.kept(weight, reason) from None
        axes = {axis for axis in weight.axes if axis is not None}
        encoding = Encoding(steps, len(weight.shape), axes.pop() if len(axes) == 1 else None)
        self._lint.check(weight.name, encoding)
        # Groups may have become others than asked for; blocks are described as they were asked for.
        parts = [
            step.description if isinstance(step, Palettize) else asked.description
            for step, asked in zip(steps, chosen, strict=True)
        ]
        return Decision(steps, ", then ".join(parts), self._data_of(weight, steps))

    def _data_of(self, weight: WeightType, steps: tuple[Spec, ...]) -> WeightData:
        """What is known of a weight, checked before work starts."""
        names, step = [name for name in weight.names if name in self._importance], steps[0]
        if not names:
            return NO_DATA if self._calibration is None else self._calibration.data_of(weight, steps)
        if len(names) > 1:
            raise ValueError(f"compress: importance of {' and '.join(names)}: these are one weight; give one of them")
        data, (name,) = WeightData(self._importance[names[0]]), names
        data.check("compress", name, weight.shape)
        try:
            data.require_use(step)
            if weight.is_compressed:
                data.require_plain(step.verb)
        except ValueError as failure:
            raise ValueError(f"compress: importance of {name}: {failure}") from None
        return data

    def resolve(self, step: Spec, weight: WeightType) -> Spec:
        """A step with the weight's axes and groups filled in; raises `Skip` if it does not apply to this weight."""
        return resolve(step, weight)

    def require_smaller(self, weight: WeightType, nbytes: int) -> None:
        """Raise `Skip` for a form that takes no fewer bytes than the weight takes now."""
        if nbytes >= weight.stored_bytes:
            raise Skip("would not become smaller, with its scales or table", expected=True)

    def kept(self, weight: WeightType, reason: Skip) -> Exception:
        """With `strict`, leaving a weight unchanged that the config selects is an error."""
        if reason.expected or not self._strict:
            return reason
        return ValueError(f"{weight.name} (shape {weight.shape}): {reason}")

    def warnings(self, compressed: Iterable[str]) -> tuple[TargetWarning, ...]:
        """Known problems of these encodings on the config's target."""
        return self._lint.warnings(compressed)
