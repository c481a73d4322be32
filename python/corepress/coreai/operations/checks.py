"""What has no form in Core AI."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...compression.joint import require_scales_of_tables
from ...specs import Palettize, Quantize, Spec
from ..format.data_types import BY_NAME

_TABLES = ("int8", "uint8", "float8_e4m3fn", "float8_e5m2")


def check(spec: Spec) -> None:
    """Refuse a spec that no chain of operations can express.

    Raises
    ------
    ValueError
        With what to use instead.
    """
    if isinstance(spec, Quantize) and spec.dtype not in BY_NAME:
        raise ValueError(f"quantize: dtype {spec.dtype!r} has no form in Core AI")
    if isinstance(spec, Palettize) and spec.nbits is not None and f"uint{spec.nbits}" not in BY_NAME:
        raise ValueError(f"palettize: nbits {spec.nbits} has no form in Core AI")


def check_steps(specs: Sequence[Spec]) -> None:
    """Refuse steps of joint compression, in the order given, that have no form.

    Raises
    ------
    ValueError
        With the rule.
    """
    for spec in specs:
        check(spec)
    if len(specs) < 2:
        return
    joint = _Joint(specs)
    steps = ", then ".join(joint.verbs)
    for is_broken, rule in _JOINT_RULES:
        if is_broken(joint):
            raise ValueError(f"config: {steps}: {rule.format(joint=joint)}")
    if joint.quantizes_tables:
        require_scales_of_tables(f"config: {steps}", joint.scales)


class _Joint:
    """The steps of joint compression; of those that are missing, a spec that no rule objects to."""

    def __init__(self, specs: Sequence[Spec]) -> None:
        self.verbs = [spec.verb for spec in specs]
        self.palette = next((spec for spec in specs if isinstance(spec, Palettize)), Palettize(nbits=1))
        self.scales = next((spec for spec in specs if isinstance(spec, Quantize)), Quantize())

    def goes_before(self, first: str, second: str) -> bool:
        """Whether there are both steps, in this order."""
        return {first, second} <= set(self.verbs) and self.verbs.index(first) < self.verbs.index(second)

    @property
    def palettizes_codes(self) -> bool:
        return self.goes_before(Quantize.verb, Palettize.verb)

    @property
    def quantizes_tables(self) -> bool:
        return self.goes_before(Palettize.verb, Quantize.verb)

    @property
    def quantizes_sparse_values(self) -> bool:
        return {"prune", "quantize"} <= set(self.verbs) and not self.quantizes_tables


_JOINT_RULES: tuple[tuple[Callable[[_Joint], bool], str], ...] = (
    (lambda joint: len(set(joint.verbs)) < len(joint.verbs), "each step can be used once"),
    (
        lambda joint: joint.palette.cluster_dim > 1 and (joint.verbs[0] != "palettize" or "prune" in joint.verbs),
        "cluster_dim above 1 is only for plain weights, and its result cannot be pruned",
    ),
    (
        lambda joint: joint.palettizes_codes and joint.scales.dtype not in ("int8", "uint8"),
        "palettized codes are int8 or uint8, not {joint.scales.dtype}",
    ),
    (
        lambda joint: joint.quantizes_tables and joint.scales.dtype not in _TABLES,
        f"tables hold {', '.join(_TABLES[:-1])} or {_TABLES[-1]}, not {{joint.scales.dtype}}",
    ),
    (
        lambda joint: joint.palettizes_codes and joint.palette.enable_per_channel_scale,
        "enable_per_channel_scale is for plain weights, not for their codes",
    ),
    (
        lambda joint: (
            joint.quantizes_sparse_values
            and joint.scales.mode == "linear"
            and (joint.scales.granularity != "per_tensor" or joint.palettizes_codes)
        ),
        "zero points of pruned weights need granularity 'per_tensor' and no palette; use mode 'linear_symmetric'",
    ),
)
