"""What to do to a weight: frozen descriptions, valid by construction, that arrays and models share."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, TypeAlias

from .errors import IndivisibleError

PALETTE_BITS = (1, 2, 3, 4, 6, 8)


def _require(condition: bool, spec: object, rule: str) -> None:
    if not condition:
        raise ValueError(f"{spec.verb}: {rule}")  # type: ignore[attr-defined]


def _require_choice(spec: object, name: str, choices: tuple[Any, ...]) -> None:
    value = getattr(spec, name)
    known = any(value == choice for choice in choices) and not isinstance(value, (bool, float))
    _require(known, spec, f"{name} must be {', '.join(map(repr, choices))}, not {value!r}")


@dataclass(frozen=True, kw_only=True)
class Palettize:
    """Replace weights by indices into a table of values.

    Parameters
    ----------
    nbits : {1, 2, 3, 4, 6, 8}, optional
        Bits per index; the table has ``2**nbits`` entries. Needed for all modes but ``"unique"``.
    mode : {"kmeans", "uniform", "unique"}
        How the table is found. ``"kmeans"`` gives the smallest possible squared error, ``"uniform"`` even steps from
        the smallest to the largest weight, ``"unique"`` the distinct values, if they are at most 256.
    granularity : {"per_tensor", "per_grouped_channel"}
        One table for the tensor, or one per `group_size` channels.
    group_size : int
        Channels that share a table, for ``"per_grouped_channel"``.
    channel_axis : int, optional
        Axis that is grouped; None for axis 0, or in a model for the output channel axis of the consumer op.
    indivisible : {"skip", "nearest_divisor", "per_tensor", "error"}
        What to do where `group_size` does not divide the axis. ``"skip"`` leaves the weight as it is, which for an
        array is an error; ``"nearest_divisor"`` takes the nearest group size that divides, the smaller of two;
        ``"per_tensor"`` one table.
    """

    verb: ClassVar[str] = "palettize"
    nbits: int | None = None
    mode: str = "kmeans"
    granularity: str = "per_tensor"
    group_size: int = 32
    channel_axis: int | None = None
    indivisible: str = "skip"

    def __post_init__(self) -> None:
        _require_choice(self, "mode", ("kmeans", "uniform", "unique"))
        if self.nbits is None:
            _require(self.mode == "unique", self, f"mode {self.mode!r} needs nbits")
        else:
            _require_choice(self, "nbits", PALETTE_BITS)
        _require_choice(self, "granularity", ("per_tensor", "per_grouped_channel"))
        _require(self.group_size >= 1, self, f"group_size must be at least 1, not {self.group_size}")
        _require_choice(self, "indivisible", ("skip", "nearest_divisor", "per_tensor", "error"))

    def fitted(self, shape: tuple[int, ...], axis: int) -> Palettize:
        """Return the spec whose groups divide `axis`, which `indivisible` decides; IndivisibleError if none is to."""
        length = shape[axis]
        if self.granularity == "per_tensor" or length % self.group_size == 0:
            return self
        if self.indivisible == "per_tensor":
            return replace(self, granularity="per_tensor")
        if self.indivisible == "nearest_divisor":
            divisors = (size for size in range(1, length + 1) if length % size == 0)
            return replace(self, group_size=min(divisors, key=lambda size: (abs(size - self.group_size), size)))
        raise IndivisibleError(
            f"palettize: axis {axis} of length {length} is not a multiple of group_size {self.group_size} "
            f"(shape {shape})"
        )

    @property
    def description(self) -> str:
        bits = "" if self.nbits is None else f" {self.nbits} bits"
        mode = "" if self.mode == "kmeans" else f" {self.mode}"
        groups = f", groups of {self.group_size}" if self.granularity == "per_grouped_channel" else ""
        return f"palettize{bits}{mode}{groups}"


@dataclass(frozen=True, kw_only=True)
class Quantize:
    """Replace weights by integers with a scale, and in ``"linear"`` mode a zero point.

    Parameters
    ----------
    dtype : {"int8", "uint8"}
        Integer type of the codes.
    mode : {"linear_symmetric", "linear"}
        Symmetric about zero, or over the range of the values.
    granularity : {"per_channel", "per_tensor"}
        What shares a scale.
    channel_axis : int, optional
        Axis with one scale per entry; None for axis 0, or in a model for the output channel axis of the consumer op.
    """

    verb: ClassVar[str] = "quantize"
    dtype: str = "int8"
    mode: str = "linear_symmetric"
    granularity: str = "per_channel"
    channel_axis: int | None = None

    def __post_init__(self) -> None:
        _require_choice(self, "dtype", ("int8", "uint8"))
        _require_choice(self, "mode", ("linear_symmetric", "linear"))
        _require_choice(self, "granularity", ("per_channel", "per_tensor"))

    @property
    def description(self) -> str:
        mode = " linear" if self.mode == "linear" else ""
        return f"quantize {self.dtype}{mode} {self.granularity}"


@dataclass(frozen=True, kw_only=True)
class Prune:
    """Set the weights of smallest magnitude to zero and store only the others.

    Give exactly one of the two parameters.

    Parameters
    ----------
    target_sparsity : float, optional
        Fraction s in [0, 1]: zero where ``|w| <= a[floor((n - 1) * s)]``, `a` the sorted magnitudes; 1 zeroes all,
        0 nothing.
    threshold : float, optional
        Zero where ``|w| <= threshold``.
    """

    verb: ClassVar[str] = "prune"
    target_sparsity: float | None = None
    threshold: float | None = None

    def __post_init__(self) -> None:
        _require(
            (self.target_sparsity is None) != (self.threshold is None),
            self,
            "give exactly one of target_sparsity and threshold",
        )
        if self.target_sparsity is not None:
            _require(
                0.0 <= self.target_sparsity <= 1.0,
                self,
                f"target_sparsity must be between 0 and 1, not {self.target_sparsity}",
            )
        if self.threshold is not None:
            _require(self.threshold >= 0.0, self, f"threshold must not be negative or NaN, not {self.threshold}")

    @property
    def description(self) -> str:
        if self.threshold is not None:
            return f"prune |w| <= {self.threshold:g}"
        return f"prune {self.target_sparsity:.0%}"


Spec: TypeAlias = Palettize | Quantize | Prune
SPECS: dict[str, type[Palettize] | type[Quantize] | type[Prune]] = {
    spec.verb: spec for spec in (Palettize, Quantize, Prune)
}


def spec_from_dict(step: dict[str, dict[str, Any]]) -> Spec:
    """Build a spec from its short form, for example ``{"palettize": {"nbits": 4}}``."""
    if not isinstance(step, dict) or len(step) != 1:
        raise ValueError(f"config: a step is a dict with one key out of {', '.join(SPECS)}, not {step!r}")
    ((verb, options),) = step.items()
    if verb not in SPECS:
        raise ValueError(f"config: unknown step {verb!r}; known are {', '.join(SPECS)}")
    options = options or {}
    known = [field.name for field in fields(SPECS[verb])]
    for name in options:
        if name not in known:
            raise ValueError(f"config: {verb} has no option {name!r}; it has {', '.join(known)}")
    return SPECS[verb](**options)
