"""What has no form in Core AI."""

from __future__ import annotations

from collections.abc import Sequence

from ...engine.joint_steps import Rule, check_joint
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
    check_joint(specs, _RULES)


_RULES: tuple[Rule, ...] = (
    (
        lambda joint: joint.palettizes_codes and joint.scales.dtype not in ("int8", "uint8"),
        "palettized codes are int8 or uint8, not {joint.scales.dtype}",
    ),
    (
        lambda joint: joint.quantizes_tables and joint.scales.dtype not in _TABLES,
        f"tables hold {', '.join(_TABLES[:-1])} or {_TABLES[-1]}, not {{joint.scales.dtype}}",
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
