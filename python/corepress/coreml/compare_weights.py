"""How far apart two packages are, weight by weight."""

from __future__ import annotations

import os
import time
from functools import partial

from ..arrays import as_threads
from ..engine.comparison import ComparedWeights, Comparison
from ..engine.distances import distance_of
from ..paths import StrPath
from ..sources import unchanged
from .decoded import decoded_pairs
from .format.package import Package
from .format.values import ValueReader
from .program.program import Program
from .program.renames import read_renamed
from .program.weights import Weight, visible_weights


@unchanged("first", "second")
def compare_weights(first: StrPath, second: StrPath, *, num_threads: int | None = None) -> Comparison:
    """Report how far apart the weights of two packages are, as `corepress.coreml.compare` does."""
    num_threads = as_threads("compare", num_threads)
    started = time.perf_counter()
    packages = Package.open(first), Package.open(second)
    program = Program(packages[0])
    programs = program, read_renamed(packages[1], program)
    ours, theirs = (visible_weights(program) for program in programs)
    our_names, their_names = _by_name(ours), _by_name(theirs)
    compared = ComparedWeights()
    with ValueReader(packages[0]) as values, ValueReader(packages[1]) as others:
        for weight in ours:
            other = next((their_names[key] for key in _keys(weight) if key in their_names), None)
            if other is not None:
                pairs = partial(decoded_pairs, (weight.first, values), (other.first, others), num_threads)
                compared.compare(weight, other, partial(distance_of, pairs, num_threads))
    return Comparison(
        first=os.fspath(first),
        second=os.fspath(second),
        weights=tuple(compared.records),
        only_in_first=_only(ours, their_names),
        only_in_second=_only(theirs, our_names),
        bytes=packages[0].size,
        other_bytes=packages[1].size,
        snr_db=compared.snr_db,
        seconds=time.perf_counter() - started,
    )


_Key = tuple[str, str]


def _keys(weight: Weight) -> list[_Key]:
    return [(definition.function, definition.name) for definition in weight.definitions]


def _by_name(weights: list[Weight]) -> dict[_Key, Weight]:
    return {key: weight for weight in weights for key in _keys(weight)}


def _only(weights: list[Weight], others: dict[_Key, Weight]) -> tuple[str, ...]:
    return tuple(weight.first.name for weight in weights if not any(key in others for key in _keys(weight)))
