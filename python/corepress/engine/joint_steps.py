"""Steps that follow each other: which combinations have a form, apart from what only one format lacks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from ..compression.joint import require_scales_of_tables
from ..specs import Palettize, Quantize, Spec


class JointSteps:
    """The steps of joint compression; of those that are missing, a spec that no rule objects to.

    Attributes
    ----------
    verbs : list of str
        What is done, in order.
    palette : Palettize
        The palettization among them.
    scales : Quantize
        The quantization among them.
    """

    def __init__(self, specs: Sequence[Spec]) -> None:
        self.verbs = [spec.verb for spec in specs]
        self.palette = next((spec for spec in specs if isinstance(spec, Palettize)), Palettize(nbits=1))
        self.scales = next((spec for spec in specs if isinstance(spec, Quantize)), Quantize())

    def goes_before(self, first: str, second: str) -> bool:
        """Whether there are both steps, in this order."""
        return {first, second} <= set(self.verbs) and self.verbs.index(first) < self.verbs.index(second)

    @property
    def palettizes_codes(self) -> bool:
        """Whether codes are palettized."""
        return self.goes_before(Quantize.verb, Palettize.verb)

    @property
    def quantizes_tables(self) -> bool:
        """Whether the table of a palette is quantized."""
        return self.goes_before(Palettize.verb, Quantize.verb)

    @property
    def quantizes_sparse_values(self) -> bool:
        """Whether what pruning leaves is quantized."""
        return {"prune", "quantize"} <= set(self.verbs) and not self.quantizes_tables

    @property
    def description(self) -> str:
        """The verbs in order."""
        return ", then ".join(self.verbs)


Rule: TypeAlias = tuple[Callable[[JointSteps], bool], str]
"""Whether steps have no form, and the message, into which `joint` is put."""

# What no format has a form for.
_RULES: tuple[Rule, ...] = (
    (lambda joint: len(set(joint.verbs)) < len(joint.verbs), "each step can be used once"),
    (
        lambda joint: joint.palette.lut_dtype is not None and "quantize" in joint.verbs,
        "lut_dtype quantizes the table already; leave out one of them",
    ),
    (
        lambda joint: joint.palette.cluster_dim > 1 and (joint.verbs[0] != "palettize" or "prune" in joint.verbs),
        "cluster_dim above 1 is only for plain weights, and its result cannot be pruned",
    ),
    (
        lambda joint: joint.palettizes_codes and joint.palette.enable_per_channel_scale,
        "enable_per_channel_scale is for plain weights, not for their codes",
    ),
)


def check_joint(specs: Sequence[Spec], rules: Iterable[Rule]) -> JointSteps:
    """Refuse several steps that have no form.

    Parameters
    ----------
    specs : sequence of spec
        The steps.
    rules : iterable of Rule
        Those of the format.

    Raises
    ------
    ValueError
        With the rule.
    """
    joint = JointSteps(specs)
    for is_broken, rule in (*_RULES, *rules):
        if is_broken(joint):
            raise ValueError(f"config: {joint.description}: {rule.format(joint=joint)}")
    if joint.quantizes_tables:
        require_scales_of_tables(f"config: {joint.description}", joint.scales)
    return joint
