"""What to do to a weight: frozen descriptions, valid by construction, that arrays and models share."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeAlias

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
    """Replace weights by indices into a table found by exact k-means.

    Parameters
    ----------
    nbits : {1, 2, 3, 4, 6, 8}
        Bits per index; the table has ``2**nbits`` entries.
    mode : {"kmeans"}
        How the table is found. ``"kmeans"`` gives the smallest possible squared error.
    granularity : {"per_tensor", "per_grouped_channel"}
        One table for the tensor, or one per `group_size` channels.
    group_size : int
        Channels that share a table, for ``"per_grouped_channel"``.
    channel_axis : int, optional
        Axis that is grouped; None for axis 0, or in a model for the output channel axis of the consumer op.
    """

    verb: ClassVar[str] = "palettize"
    nbits: int
    mode: str = "kmeans"
    granularity: str = "per_tensor"
    group_size: int = 32
    channel_axis: int | None = None

    def __post_init__(self) -> None:
        _require_choice(self, "nbits", PALETTE_BITS)
        _require_choice(self, "mode", ("kmeans",))
        _require_choice(self, "granularity", ("per_tensor", "per_grouped_channel"))
        _require(self.group_size >= 1, self, f"group_size must be at least 1, not {self.group_size}")

    @property
    def description(self) -> str:
        groups = f", groups of {self.group_size}" if self.granularity == "per_grouped_channel" else ""
        return f"palettize {self.nbits} bits{groups}"


@dataclass(frozen=True, kw_only=True)
class Quantize:
    """Replace weights by integers with a scale, and in ``"linear"`` mode a zero point.

    Parameters
    ----------
    dtype : {"int8", "uint8", "int4", "uint4"}
        Integer type of the codes.
    mode : {"linear_symmetric", "linear"}
        Symmetric about zero, or over the range of the values.
    granularity : {"per_channel", "per_tensor", "per_block"}
        What shares a scale.
    block_size : int or tuple of int
        For ``"per_block"``: entries of the input channel axis that share a scale, for each output channel; or entries
        along each axis of the weight, 0 for the whole axis.
    scale_search : {"mse"}, optional
        Search the scale, and in ``"linear"`` mode the zero point, for the least squared error instead of taking the
        range of the values.
    channel_axis : int, optional
        Output channel axis, with scales of its own for each entry; None for axis 0, or in a model for that of the
        consumer op. The input channel axis is 1 for 0, 0 for 1, -2 for -1 and -1 for -2.
    """

    verb: ClassVar[str] = "quantize"
    dtype: str = "int8"
    mode: str = "linear_symmetric"
    granularity: str = "per_channel"
    block_size: int | tuple[int, ...] = 32
    scale_search: str | None = None
    channel_axis: int | None = None

    def __post_init__(self) -> None:
        _require_choice(self, "dtype", ("int8", "uint8", "int4", "uint4"))
        _require_choice(self, "mode", ("linear_symmetric", "linear"))
        _require_choice(self, "granularity", ("per_channel", "per_tensor", "per_block"))
        _require_choice(self, "scale_search", (None, "mse"))
        known = isinstance(self.block_size, int | tuple | list) and not isinstance(self.block_size, bool)
        _require(known, self, f"block_size must be a number or one per axis, not {self.block_size!r}")
        if isinstance(self.block_size, int):
            _require(self.block_size >= 1, self, f"block_size must be at least 1, not {self.block_size}")
        else:
            object.__setattr__(self, "block_size", tuple(self.block_size))  # of a list too, so that specs have a hash
            _require(
                len(self.block_size) > 0 and all(type(size) is int and size >= 0 for size in self.block_size),
                self,
                f"block_size must have one entry per axis, none negative, not {self.block_size}",
            )

    @property
    def description(self) -> str:
        mode = " linear" if self.mode == "linear" else ""
        blocks = f"blocks of {self.block_size}" if self.granularity == "per_block" else self.granularity
        search = f", {self.scale_search} scales" if self.scale_search else ""
        return f"quantize {self.dtype}{mode} {blocks}{search}"


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
