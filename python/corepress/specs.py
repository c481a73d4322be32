"""Specs of compression steps: frozen, valid by construction, and shared by arrays and models."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from functools import cache
from numbers import Real
from types import NoneType, UnionType
from typing import Any, ClassVar, TypeAlias, Union, get_args, get_origin, get_type_hints

import numpy as np

from .errors import IndivisibleError
from .intake import whole
from .suggestions import suggestion

PALETTE_BITS = (1, 2, 3, 4, 6, 8)
IMPORTANCE_NEEDS_KMEANS = "importance is for mode 'kmeans' and no lut"
LARGEST_M = 1024
INTEGER_DTYPES = ("int8", "uint8", "int4", "uint4", "int2", "uint2")
FLOAT_DTYPES = ("float8_e4m3fn", "float8_e5m2", "float4_e2m1fn")
LUT_DTYPES = ("int8", "uint8", "float8_e4m3fn", "float8_e5m2")
VECTORS_FED_BACK = (1, 2, 4, 8, 16, 32)  # cluster_dim with a hessian


def in_bits(count: float) -> str:
    """A number of bits in words: ``1 bit``, ``2.5 bits``."""
    return f"{count:g} {'bit' if count == 1 else 'bits'}"


def _require(condition: bool, spec: object, rule: str) -> None:
    if not condition:
        raise ValueError(f"{spec.verb}: {rule}")  # type: ignore[attr-defined]


def _require_rules(spec: object, rules: tuple[tuple[Callable[[Any], bool], str], ...]) -> None:
    """ValueError for the first rule that a spec breaks; each is a condition, and the message where it does not hold."""
    for holds, rule in rules:
        if not holds(spec):
            _require(False, spec, rule.format(spec=spec))


def _require_choice(spec: object, name: str, choices: tuple[Any, ...]) -> None:
    value = getattr(spec, name)
    known = isinstance(value, str | int | NoneType) and not isinstance(value, bool) and value in choices
    _require(known, spec, f"{name} must be {', '.join(map(repr, choices))}, not {value!r}")


def checked_n_m_ratio(verb: str, ratio: Any) -> tuple[int, int]:
    """Return n and m of n:m pruning; ValueError if they are not valid."""
    match [whole(each) for each in ratio] if isinstance(ratio, tuple | list) else []:
        case [int(n), int(m)] if 0 <= n <= m and 1 <= m <= LARGEST_M:
            return n, m
    raise ValueError(
        f"{verb}: n_m_ratio must be two whole numbers, 0 <= n <= m and 1 <= m <= {LARGEST_M}, not {ratio!r}"
    )


def checked_threshold(verb: str, threshold: Any) -> float:
    """Return the threshold of pruning; ValueError if it is not valid."""
    number = _settled(threshold, float)
    if number is None:
        raise ValueError(f"{verb}: threshold must be a number, not {threshold!r}")
    if not number >= 0:
        raise ValueError(f"{verb}: threshold must not be negative or NaN, not {threshold}")
    return float(number)


@dataclass(frozen=True, kw_only=True)
class Palettize:
    """Replace weights by indices into a palette (lookup table, LUT) of values.

    Parameters
    ----------
    nbits : {1, 2, 3, 4, 6, 8}, optional
        Bits per index; the palette has ``2**nbits`` entries. Required for all modes except ``"unique"`` and
        ``"custom"``.
    mode : {"kmeans", "uniform", "unique", "custom"}
        How the palette is found. ``"kmeans"`` gives the smallest possible squared error, ``"uniform"`` evenly spaced
        values from the smallest to the largest weight, ``"unique"`` the distinct values, at most 256, ``"custom"`` what
        `lut_function` returns.
    granularity : {"per_tensor", "per_grouped_channel"}
        One palette for the tensor, or one per `group_size` channels.
    group_size : int
        Number of channels that share a palette, for ``"per_grouped_channel"``.
    cluster_dim : int
        Number of weights, from consecutive channels, that one index encodes; must divide the axis and `group_size`. The
        entries of the palette are then vectors.
    channel_axis : int, optional
        Axis that groups and vectors run along; None for axis 0, or in a model for the output channel axis of the
        consumer op.
    indivisible : {"skip", "nearest_divisor", "per_tensor", "error"}
        What to do if `group_size` does not divide the axis: ``"skip"`` leaves the weight unchanged (for an array, an
        error); ``"nearest_divisor"`` uses the nearest group size that divides it, the smaller of two; ``"per_tensor"``
        uses one palette; ``"error"`` fails.
    enable_per_channel_scale : bool
        Divide each output channel by its largest magnitude first, and store the magnitudes as scales.
    nonfinite : {"keep", "error", "table"}
        What to do with a weight that has infinite or NaN values: leave it unchanged (for an array, an error); fail; or
        give each infinity its own entry in the palette, unless there are NaNs.
    lut_dtype : {"int8", "uint8", "float8_e4m3fn", "float8_e5m2"}, optional
        Quantize the entries afterwards, with one scale for all palettes, instead of leaving them in the weight's dtype;
        floats need Core AI.
    lut_function : callable, optional
        For ``"custom"``: given a weight or a group of it, returns a palette of at most 256 values and an index into it
        for each weight. In a model it is called from several threads at once.
    """

    verb: ClassVar[str] = "palettize"
    nbits: int | None = None
    mode: str = "kmeans"
    granularity: str = "per_tensor"
    group_size: int = field(default=32, metadata={"rule": "a whole number of at least 1"})
    cluster_dim: int = field(default=1, metadata={"rule": "a whole number from 1 on"})
    channel_axis: int | None = None
    indivisible: str = "skip"
    enable_per_channel_scale: bool = False
    nonfinite: str = "keep"
    lut_dtype: str | None = None
    lut_function: Callable[[Any], tuple[Any, Any]] | None = field(default=None, metadata={"flag": False})

    def __post_init__(self) -> None:
        _settle(self, "nbits")
        _require_choice(self, "mode", ("kmeans", "uniform", "unique", "custom"))
        if self.nbits is not None and self.mode != "custom":
            _require_choice(self, "nbits", PALETTE_BITS)
        _require_choice(self, "granularity", ("per_tensor", "per_grouped_channel"))
        _require_choice(self, "indivisible", ("skip", "nearest_divisor", "per_tensor", "error"))
        _require_choice(self, "nonfinite", ("keep", "error", "table"))
        _require_choice(self, "lut_dtype", (None, *LUT_DTYPES))
        _require_rules(self, _PALETTIZE_RULES)

    @property
    def importance_needs(self) -> str | None:
        """Why the importance of weights has no use here; None if it has one."""
        return None if self.mode == "kmeans" else IMPORTANCE_NEEDS_KMEANS

    @property
    def hessian_needs(self) -> str | None:
        """Why second moments of the inputs have no use here; None if they have one."""
        if self.mode != "kmeans":
            return f"hessian is for mode 'kmeans' or a given lut, not for mode {self.mode!r}"
        if self.nonfinite == "table":
            return "hessian cannot go together with nonfinite 'table'"
        if self.cluster_dim not in VECTORS_FED_BACK:
            lengths = ", ".join(map(str, VECTORS_FED_BACK))
            return f"hessian is for cluster_dim {lengths}, not {self.cluster_dim}"
        return None

    def fitted(self, shape: tuple[int, ...], axis: int) -> Palettize:
        """Return the spec with groups that divide `axis`, as `indivisible` says; IndivisibleError if it allows none."""
        length = shape[axis]
        if length % self.cluster_dim:
            raise IndivisibleError(
                f"palettize: axis {axis} of length {length} is not a multiple of cluster_dim {self.cluster_dim} "
                f"(shape {shape})"
            )
        if self.granularity == "per_tensor" or length % self.group_size == 0:
            return self
        if self.indivisible == "per_tensor":
            return replace(self, granularity="per_tensor")
        if self.indivisible == "nearest_divisor":
            divisors = (size for size in range(self.cluster_dim, length + 1, self.cluster_dim) if length % size == 0)
            return replace(self, group_size=min(divisors, key=lambda size: (abs(size - self.group_size), size)))
        raise IndivisibleError(
            f"palettize: axis {axis} of length {length} is not a multiple of group_size {self.group_size} "
            f"(shape {shape})"
        )

    @property
    def description(self) -> str:
        bits = "" if self.nbits is None else f" {in_bits(self.nbits)}"
        mode = "" if self.mode == "kmeans" else f" {self.mode}"
        groups = f", groups of {self.group_size}" if self.granularity == "per_grouped_channel" else ""
        vectors = f", vectors of {self.cluster_dim}" if self.cluster_dim > 1 else ""
        scales = ", per-channel scale" if self.enable_per_channel_scale else ""
        table = f", {self.lut_dtype} table" if self.lut_dtype else ""
        return f"palettize{bits}{mode}{vectors}{groups}{scales}{table}"


_PALETTIZE_RULES: tuple[tuple[Callable[[Palettize], bool], str], ...] = (
    (lambda spec: spec.mode != "custom" or callable(spec.lut_function), "mode {spec.mode!r} needs lut_function"),
    (lambda spec: spec.mode == "custom" or not spec.lut_function, "mode {spec.mode!r} does not take lut_function"),
    (lambda spec: spec.mode in ("unique", "custom") or spec.nbits is not None, "mode {spec.mode!r} needs nbits"),
    (
        lambda spec: spec.mode != "custom" or spec.nbits is None,
        "mode 'custom' does not take nbits; the length of the table decides",
    ),
    (lambda spec: spec.group_size >= 1, "group_size must be at least 1, not {spec.group_size}"),
    (lambda spec: spec.cluster_dim >= 1, "cluster_dim must be a whole number from 1 on, not {spec.cluster_dim}"),
    (
        lambda spec: spec.cluster_dim == 1 or spec.mode in ("kmeans", "unique"),
        "cluster_dim above 1 needs mode 'kmeans' or 'unique', not {spec.mode!r}",
    ),
    (
        lambda spec: spec.granularity == "per_tensor" or spec.group_size % spec.cluster_dim == 0,
        "group_size {spec.group_size} is not a multiple of cluster_dim {spec.cluster_dim}",
    ),
    (
        lambda spec: spec.nonfinite != "table" or spec.cluster_dim == 1,
        "nonfinite 'table' needs cluster_dim 1, not {spec.cluster_dim}",
    ),
    (
        lambda spec: spec.nonfinite != "table" or spec.lut_dtype is None,
        "nonfinite 'table' and lut_dtype cannot go together",
    ),
    (
        lambda spec: spec.nonfinite != "table" or not spec.enable_per_channel_scale,
        "nonfinite 'table' and enable_per_channel_scale cannot go together",
    ),
    (
        lambda spec: spec.nonfinite != "table" or spec.mode != "custom",
        "nonfinite 'table' is not for mode 'custom', whose function makes the table",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Quantize:
    """Replace weights by integers, or by floats of few bits, with a scale, and in ``"linear"`` mode a zero point.

    Parameters
    ----------
    dtype : {"int8", "uint8", "int4", "uint4", "int2", "uint2", "float8_e4m3fn", "float8_e5m2", "float4_e2m1fn"}
        Type of the codes. Core ML has integers of 8 and 4 bits, Core AI all of them. Floats need mode
        ``"linear_symmetric"``.
    mode : {"linear_symmetric", "linear"}
        Symmetric around zero, or over the range of the values.
    granularity : {"per_channel", "per_tensor", "per_block"}
        The weights that share a scale.
    block_size : int or tuple of int
        For ``"per_block"``: number of input channels that share a scale, within each output channel; or the size along
        each axis of the weight, 0 for the whole axis.
    scale_search : {"mse"}, optional
        Search for the scale, and in ``"linear"`` mode the zero point, with the least squared error instead of using the
        range of the values.
    scale_dtype : {"float8_e8m0fnu"}, optional
        Scales that are powers of two, of a byte each, instead of scales in the weight's dtype; needs mode
        ``"linear_symmetric"``, and Core AI.
    channel_axis : int, optional
        Output channel axis, whose entries each have their own scales; None for axis 0, or in a model for that of the
        consumer op. The input channel axis is 1 for 0, 0 for 1, -2 for -1 and -1 for -2.
    nonfinite : {"keep", "error"}
        What to do with a weight that has infinite or NaN values: leave it unchanged (for an array, an error), or fail.
    """

    verb: ClassVar[str] = "quantize"
    dtype: str = "int8"
    mode: str = "linear_symmetric"
    granularity: str = "per_channel"
    block_size: int | tuple[int, ...] = field(default=32, metadata={"rule": "a whole number or one per axis"})
    scale_search: str | None = None
    scale_dtype: str | None = None
    channel_axis: int | None = None
    nonfinite: str = "keep"

    def __post_init__(self) -> None:
        _settle(self)
        _require_choice(self, "nonfinite", ("keep", "error"))
        _require_choice(self, "dtype", (*INTEGER_DTYPES, *FLOAT_DTYPES))
        _require_choice(self, "mode", ("linear_symmetric", "linear"))
        _require_choice(self, "granularity", ("per_channel", "per_tensor", "per_block"))
        _require_choice(self, "scale_search", (None, "mse"))
        _require_choice(self, "scale_dtype", (None, "float8_e8m0fnu"))
        if self.mode == "linear":
            rule = "has no zero points; use mode 'linear_symmetric'"
            _require(self.dtype not in FLOAT_DTYPES, self, f"dtype {self.dtype!r} {rule}")
            _require(self.scale_dtype is None, self, f"scale_dtype {self.scale_dtype!r} {rule}")
        if isinstance(self.block_size, int):
            _require(self.block_size >= 1, self, f"block_size must be at least 1, not {self.block_size}")
        else:
            _require(
                len(self.block_size) > 0 and min(self.block_size) >= 0,
                self,
                f"block_size must have one entry per axis, none negative, not {self.block_size}",
            )

    @property
    def importance_needs(self) -> str | None:
        """Why the importance of weights has no use here; None if it has one."""
        return None if self.scale_search == "mse" else "importance needs scale_search 'mse'"

    @property
    def hessian_needs(self) -> str | None:
        """Why second moments of the inputs have no use here; they have one."""
        return None

    @property
    def description(self) -> str:
        mode = " linear" if self.mode == "linear" else ""
        binary = f", {self.scale_dtype} scales" if self.scale_dtype else ""
        blocks = f"blocks of {self.block_size}" if self.granularity == "per_block" else self.granularity
        search = f", {self.scale_search} scales" if self.scale_search else ""
        return f"quantize {self.dtype}{mode} {blocks}{search}{binary}"


@dataclass(frozen=True, kw_only=True)
class Prune:
    """Set the weights of smallest magnitude to zero and store only the others.

    Give exactly one of `target_sparsity`, `threshold` and `n_m_ratio`.

    Parameters
    ----------
    target_sparsity : float, optional
        Fraction s in [0, 1]: zero where ``|w| <= a[floor((n - 1) * s)]``, `a` the sorted magnitudes; 1 zeroes all,
        0 nothing.
    threshold : float, optional
        Zero where ``|w| <= threshold``.
    n_m_ratio : tuple of int, optional
        ``(n, m)``: of every m consecutive weights along `dim` the n of smallest magnitude become zero.
    block_size : int, optional
        With `target_sparsity`: zero blocks of this many consecutive weights along `dim`, by their L2 norm.
    dim : {0, 1}, optional
        Axis of `n_m_ratio` (None: 1, the input channels) or `block_size` (None: 0, the output channels).
    minimum_sparsity_percentile : float
        With `threshold`: the minimum fraction of zeros, in [0, 1], that makes pruning worthwhile. A weight with fewer
        is left unchanged (for an array, an error).
    nonfinite : {"keep", "error"}
        What to do with a weight that has infinite or NaN values: leave it unchanged (for an array, an error), or fail.
    """

    verb: ClassVar[str] = "prune"
    target_sparsity: float | None = field(default=None, metadata={"rule": "a number from 0 to 1"})
    threshold: float | None = None
    n_m_ratio: tuple[int, int] | None = None
    block_size: int | None = field(default=None, metadata={"rule": "a whole number from 2 on"})
    dim: int | None = None
    minimum_sparsity_percentile: float = field(default=0.0, metadata={"rule": "a number from 0 to 1"})
    nonfinite: str = "keep"

    def __post_init__(self) -> None:
        _settle(self, "n_m_ratio", "dim")
        _require_choice(self, "nonfinite", ("keep", "error"))
        if self.threshold is not None:
            checked_threshold(self.verb, self.threshold)
        if self.n_m_ratio is not None:
            object.__setattr__(self, "n_m_ratio", checked_n_m_ratio(self.verb, self.n_m_ratio))
        _require_rules(self, _PRUNE_RULES)
        if self.dim is not None:
            _require_choice(self, "dim", (0, 1))

    @property
    def importance_needs(self) -> str:
        """Why the importance of weights has no use here."""
        return "importance has no use, since magnitudes decide"

    @property
    def hessian_needs(self) -> str | None:
        """Why second moments of the inputs have no use here; None if they have one."""
        return None if self.threshold is None else "hessian has no use with threshold, since magnitudes decide"

    @property
    def is_structured(self) -> bool:
        """Whether weights are pruned in groups along an axis."""
        return self.n_m_ratio is not None or self.block_size is not None

    @property
    def axis(self) -> int:
        """`dim`, or its default."""
        if self.dim is not None:
            return self.dim
        return 1 if self.n_m_ratio is not None else 0

    @property
    def description(self) -> str:
        if self.threshold is not None:
            return f"prune |w| <= {self.threshold:g}"
        if self.n_m_ratio is not None:
            n, m = self.n_m_ratio
            return f"prune {n}:{m} along axis {self.axis}"
        blocks = f", blocks of {self.block_size} along axis {self.axis}" if self.block_size is not None else ""
        return f"prune {self.target_sparsity:.0%}{blocks}"


_PRUNE_RULES: tuple[tuple[Callable[[Prune], bool], str], ...] = (
    (
        lambda spec: [spec.target_sparsity, spec.threshold, spec.n_m_ratio].count(None) == 2,
        "give exactly one of target_sparsity, threshold and n_m_ratio",
    ),
    (
        lambda spec: spec.target_sparsity is None or 0.0 <= spec.target_sparsity <= 1.0,
        "target_sparsity must be between 0 and 1, not {spec.target_sparsity}",
    ),
    (lambda spec: spec.block_size is None or spec.target_sparsity is not None, "block_size needs target_sparsity"),
    (
        lambda spec: spec.block_size is None or spec.block_size >= 2,
        "block_size must be a whole number from 2 on, not {spec.block_size}",
    ),
    (lambda spec: spec.dim is None or spec.is_structured, "dim needs n_m_ratio or block_size"),
    (
        lambda spec: not spec.minimum_sparsity_percentile or spec.threshold is not None,
        "minimum_sparsity_percentile needs threshold",
    ),
    (
        lambda spec: 0.0 <= spec.minimum_sparsity_percentile <= 1.0,
        "minimum_sparsity_percentile must be between 0 and 1, not {spec.minimum_sparsity_percentile}",
    ),
)


Spec: TypeAlias = Palettize | Quantize | Prune
SPECS: dict[str, type[Palettize] | type[Quantize] | type[Prune]] = {
    spec.verb: spec for spec in (Palettize, Quantize, Prune)
}


def spec_from_dict(step: Any) -> Spec:
    """Build a spec from its short form, for example ``{"palettize": {"nbits": 4}}``."""
    if not isinstance(step, dict) or len(step) != 1:
        raise ValueError(f"config: a step is a dict with one key out of {', '.join(SPECS)}, not {step!r}")
    ((verb, options),) = step.items()
    if verb not in SPECS:
        raise ValueError(f"config: unknown step {verb!r}; known are {', '.join(SPECS)}{suggestion(verb, SPECS)}")
    spec, options = SPECS[verb], {} if options is None else options
    if not isinstance(options, dict):
        raise ValueError(f"{verb}: options must be a dict, not {options!r}")
    known = [each.name for each in fields(spec)]
    for name in options:
        if name == "weight_threshold":
            raise ValueError(
                f"{verb}: {name} is not an option of a step; put it next to the step: {{{verb!r}: ..., {name!r}: ...}}"
            )
        if name not in known:
            raise ValueError(f"{verb}: no option {name!r}; there are {', '.join(known)}{suggestion(name, known)}")
    return spec(**options)


def spec_to_dict(spec: Spec) -> dict[str, dict[str, Any]]:
    """The short form of a spec, with the options that differ from their defaults."""
    options = {}
    for each in fields(spec):
        value = getattr(spec, each.name)
        if value != each.default:
            if callable(value):
                raise ValueError(f"{spec.verb}: {each.name} is a function, which has no form as a dict")
            options[each.name] = list(value) if isinstance(value, tuple) else value
    return {spec.verb: options}


_WORDS = {int: "a whole number", float: "a number", bool: "true or false", NoneType: "None"}


@cache
def _kinds_of_fields(verb: str) -> dict[str, tuple[Any, ...]]:
    """The types that the hint of each field of a verb's spec allows."""
    return {name: _kinds(hint) for name, hint in get_type_hints(SPECS[verb]).items()}


def _kinds(hint: Any) -> tuple[Any, ...]:
    parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return tuple(get_origin(part) or part for part in parts)


def _settle(spec: Spec, *choices: str) -> None:
    """Check the types of a spec's fields, and convert integers to int, numbers to float, and lists to tuples.

    Strings, and fields that `choices` names, are left to `_require_choice`, whose messages say more.
    """
    for each in fields(spec):
        kinds, value = _kinds_of_fields(spec.verb)[each.name], getattr(spec, each.name)
        if type(value) in kinds and type(value) is not tuple:
            continue
        settled = next((made for made in (_settled(value, kind) for kind in kinds) if made is not None), None)
        if settled is not None:
            object.__setattr__(spec, each.name, settled)
        elif str not in kinds and each.name not in choices:
            rule = each.metadata.get("rule") or " or ".join(_WORDS.get(kind, "a function") for kind in kinds)
            raise ValueError(f"{spec.verb}: {each.name} must be {rule}, not {value!r}")


def _settled(value: Any, kind: Any) -> Any:
    """A value converted to a field's type, or None if it cannot be."""
    if kind is int:
        return whole(value)
    if kind is bool:
        return bool(value) if isinstance(value, np.bool_) else None
    if kind is float and isinstance(value, Real) and not isinstance(value, bool):
        with suppress(OverflowError):  # of whole numbers beyond the range of float
            return float(value)
    if kind is tuple and isinstance(value, list | tuple):
        sizes = [whole(each) for each in value]
        return None if None in sizes else tuple(sizes)
    return value if kind is Callable and callable(value) else None
