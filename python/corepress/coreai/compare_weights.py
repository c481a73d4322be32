"""How far apart two assets are, weight by weight."""

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
from .format.asset import Asset
from .program.program import Program


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
            pairs = partial(decoded_pairs, weight, other, num_threads)
            compared.compare(weight, other, partial(distance_of, pairs, num_threads))
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
