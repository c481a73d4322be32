"""How far apart two assets are, weight by weight."""

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
from .format.asset import Asset
from .program.program import Program
from .program.weights import Weight


@unchanged("first", "second")
def compare_weights(first: StrPath, second: StrPath, *, num_threads: int | None = None) -> Comparison:
    """Report how far apart the weights of two assets are, as `corepress.coreai.compare` does."""
    num_threads = as_threads("compare", num_threads)
    started = time.perf_counter()
    assets = Asset.open(first), Asset.open(second)
    ours, theirs = (Program(asset).weights for asset in assets)
    by_name = {name: weight for weight in reversed(theirs) for name in weight.names}
    our_names = {name for weight in ours for name in weight.names}
    compared = ComparedWeights()
    for weight in ours:
        other = by_name.get(weight.name)
        if other is not None:
            compared.add(*_compare(weight, other, num_threads))
    return Comparison(
        first=os.fspath(first),
        second=os.fspath(second),
        weights=tuple(compared.records),
        only_in_first=tuple(weight.name for weight in ours if weight.name not in by_name),
        only_in_second=tuple(weight.name for weight in theirs if our_names.isdisjoint(weight.names)),
        bytes=assets[0].size,
        other_bytes=assets[1].size,
        snr_db=compared.snr_db,
        seconds=time.perf_counter() - started,
    )


def _compare(weight: Weight, other: Weight, num_threads: int | None) -> tuple[ComparedWeight, float]:
    """The record of a weight, and its sum of squared differences."""
    found: dict[str, Any] = {}
    sse = 0.0
    try:
        if (weight.dtype, weight.shape) != (other.dtype, other.shape):
            raise Undecodable(f"{weight.dtype} {weight.shape} and {other.dtype} {other.shape}")
        error = distance(decoded_pairs(weight, other, num_threads), num_threads)
        sse = 0.0 if math.isnan(error.sse) else error.sse
        found = {"snr_db": error.snr_db, "cosine": error.cosine, "max_abs": error.max_abs}
    except Undecodable as reason:
        found = {"problem": str(reason)}
    record = ComparedWeight(
        name=weight.name,
        function=weight.function,
        shape=weight.shape,
        storage=weight.storage,
        other_storage=other.storage,
        bytes=weight.stored_bytes,
        other_bytes=other.stored_bytes,
        **found,
    )
    return record, sse
