"""What an allocation chooses from: the ways in which each weight may be stored."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from ..intake import whole
from ..specs import PALETTE_BITS, Palettize, Prune, Quantize, Spec, spec_from_dict, spec_to_dict
from ..suggestions import suggestion
from .config import Config
from .recipes import KEEP_BITS

Steps: TypeAlias = tuple[Spec, ...]

UNCHANGED: Steps = ()
"""The candidate that leaves a weight unchanged."""
DEFAULT_CANDIDATES: tuple[Steps, ...] = tuple((Palettize(nbits=nbits),) for nbits in (2, 3, 4, 6, 8))
"""One palette per weight, of 2, 3, 4, 6 or 8 bits."""
_BLOCKS = {"granularity": "per_block", "scale_search": "mse"}
CANDIDATE_SETS: dict[str, tuple[Steps, ...]] = {
    "default": (*DEFAULT_CANDIDATES, UNCHANGED),
    # What `coreml.reports.targets` has no warning of: one table of up to 256 values, in 1, 2, 4 or 8 bits; int8 with
    # a scale per channel.
    "ane": (
        (Palettize(nbits=4, cluster_dim=2),),
        *((Palettize(nbits=nbits),) for nbits in (2, 4, 8)),
        (Quantize(),),
        UNCHANGED,
    ),
    # Integers, whose scales the GPU applies as it reads them.
    "gpu": (
        *((Quantize(dtype="int4", block_size=size, **_BLOCKS),) for size in (128, 64, 32, 16)),  # type: ignore[arg-type]
        (Quantize(),),
        UNCHANGED,
    ),
    "groups": (
        *DEFAULT_CANDIDATES,
        *(
            (Palettize(nbits=nbits, granularity="per_grouped_channel", group_size=16, indivisible="nearest_divisor"),)
            for nbits in (2, 3, 4, 6)
        ),
        UNCHANGED,
    ),
    "sparse": (
        *((Prune(target_sparsity=sparsity), Palettize(nbits=4)) for sparsity in (0.75, 0.5)),
        *DEFAULT_CANDIDATES,
        UNCHANGED,
    ),
}
"""Candidates by name; the names of targets have what runs fast there."""


def candidate_key(steps: Sequence[Spec]) -> str:
    """The name of a candidate in files: the short form of its steps as JSON, without spaces and with sorted keys."""
    return json.dumps([spec_to_dict(step) for step in steps], sort_keys=True, separators=(",", ":"))


def candidate_of(key: str) -> Steps:
    """The candidate that a key names; ValueError if it names none."""
    return tuple(spec_from_dict(each) for each in json.loads(key))


def describe_candidate(steps: Sequence[Spec]) -> str:
    """A candidate in words."""
    return ", then ".join(step.description for step in steps) or "unchanged"


def parse_candidates(given: Any, target: str | None = None) -> tuple[Steps, ...]:
    """The candidates that a user names, each once, in the given order.

    Parameters
    ----------
    given : str, sequence, or None
        The name of a set: "default", "ane", "gpu", "groups" or "sparse"; or a list of candidates, each a step, a dict
        of one step, a list of steps, the bits of a palette (16 leaves the weight unchanged), or None, which leaves it
        unchanged too. None for the set of the target, or the default.
    target : str, optional
        A config's target.

    Raises
    ------
    ValueError
        If there is no such set, a candidate is not valid, or there are none.
    TypeError
        If it is neither a name nor a sequence.
    """
    if given is None:
        return CANDIDATE_SETS.get(target or "", CANDIDATE_SETS["default"])
    if isinstance(given, str):
        if given not in CANDIDATE_SETS:
            known = ", ".join(CANDIDATE_SETS)
            raise ValueError(
                f"candidates: no set {given!r}; there are {known}{suggestion(given, CANDIDATE_SETS)}, or give a list"
            )
        return CANDIDATE_SETS[given]
    if isinstance(given, Mapping) or not isinstance(given, Sequence):
        raise TypeError(f"candidates must be a list, or the name of a set, not {given!r}")
    found = tuple(dict.fromkeys(_candidate(number, each) for number, each in enumerate(given, 1)))
    if not found:
        raise ValueError("candidates: none are given; list at least one")
    return found


def _candidate(number: int, given: Any) -> Steps:
    if given is None:
        return UNCHANGED
    bits = whole(given)
    if bits is not None:
        if bits in KEEP_BITS:
            return UNCHANGED
        if bits not in PALETTE_BITS:
            allowed = ", ".join(map(str, (*PALETTE_BITS, *KEEP_BITS)))
            raise ValueError(f"candidates: bits must be {allowed}, not {given!r}")
        return (Palettize(nbits=bits),)
    try:
        parsed = Config(global_config=given).global_config
    except ValueError as error:
        raise ValueError(f"candidates: number {number}: {str(error).removeprefix('config: ')}") from error
    if parsed.weight_threshold is not None:
        raise ValueError(f"candidates: number {number}: weight_threshold is for all candidates; pass it separately")
    steps: Steps = parsed.steps
    candidate_key(steps)  # functions have no form in a file
    return steps
