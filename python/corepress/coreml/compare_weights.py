"""How far apart two packages are, weight by weight."""

from __future__ import annotations

import math
import os
import time
from typing import Any

from ..arrays import as_threads
from ..engine.comparison import ComparedWeight, ComparedWeights, Comparison
from ..engine.distances import Undecodable, distance
from ..paths import StrPath
from ..sources import unchanged
from .decoded import decoded_pairs
from .format.package import Package
from .format.values import ValueReader
from .program.program import Definition, Program
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
                compared.add(*_compare(weight, other, values, others, num_threads))
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


def _compare(
    weight: Weight, other: Weight, values: ValueReader, others: ValueReader, num_threads: int | None
) -> tuple[ComparedWeight, float]:
    """The record of a constant, and its sum of squared differences."""
    found: dict[str, Any] = {}
    sse = 0.0
    first, second = weight.first, other.first
    try:
        _require_alike(first, second)
        error = distance(decoded_pairs((first, values), (second, others), num_threads), num_threads)
        sse = 0.0 if math.isnan(error.sse) else error.sse
        found = {"snr_db": error.snr_db, "cosine": error.cosine, "max_abs": error.max_abs}
    except Undecodable as reason:
        found = {"problem": str(reason)}
    record = ComparedWeight(
        name=first.name,
        function=first.function,
        shape=first.shape,
        storage=weight.storage,
        other_storage=other.storage,
        bytes=weight.stored_bytes,
        other_bytes=other.stored_bytes,
        **found,
    )
    return record, sse


def _require_alike(first: Definition, second: Definition) -> None:
    if (first.data_type, first.shape) != (second.data_type, second.shape):
        ours, theirs = (f"{each.data_type.name} {each.shape}" for each in (first, second))
        raise Undecodable(f"{ours} and {theirs}")
