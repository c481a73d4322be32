"""Outputs of two models, sample by sample, as records of how far apart they are."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..engine.comparison import ComparedOutput
from ..neural_network.compared_output import NetworkOutput
from .distances import Distance, pairs_of

_TOP = 5


class OutputTally:
    """Adds up how far apart the outputs of two models are.

    Parameters
    ----------
    always_as_network : bool
        Whether all records are `NetworkOutput`, and not only those of classes.
    """

    def __init__(self, *, always_as_network: bool = False) -> None:
        self._always = always_as_network
        self._distances: dict[str, Distance] = {}
        self._agreements: dict[str, list[tuple[bool, bool | None]]] = {}

    def add(self, expected: Mapping[str, Any], actual: Mapping[str, Any]) -> None:
        """Add the outputs for a sample."""
        for name, pair in pairs_of(expected, actual):
            self._distances.setdefault(name, Distance()).add(*pair)
        for name in expected.keys() & actual.keys():
            ours, theirs = expected[name], actual[name]
            if isinstance(ours, Mapping):
                best, others = _best(ours), _best(theirs)
                agreement: tuple[bool, bool | None] = best[:1] == others[:1], best[:1] == [] or best[0] in others
            elif isinstance(ours, str | int | np.integer):
                agreement = bool(ours == theirs), None
            else:
                continue
            self._agreements.setdefault(name, []).append(agreement)

    @property
    def records(self) -> tuple[ComparedOutput, ...]:
        """One record for each output that both models have and that can be compared."""
        names = self._distances.keys() | self._agreements.keys()
        return tuple(self._record(name) for name in sorted(names))

    def _record(self, name: str) -> ComparedOutput:
        distance, agreements = self._distances.get(name), self._agreements.get(name)
        if distance is None:
            assert agreements is not None
            unknown = math.nan
            return NetworkOutput(name, len(agreements), unknown, unknown, unknown, unknown, _part(agreements, 0))
        measured = name, distance.samples, distance.snr_db, distance.cosine, distance.max_abs
        if agreements is None and not self._always:
            return ComparedOutput(*measured)
        top_1, top_5 = (None, None) if agreements is None else (_part(agreements, 0), _part(agreements, 1))
        return NetworkOutput(*measured, distance.psnr_db, top_1, top_5)


def compare_outputs(predictions: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> tuple[ComparedOutput, ...]:
    """Compare the outputs of two networks.

    Parameters
    ----------
    predictions : iterable of pairs of dict
        The networks' outputs for each sample, by name: arrays, images, labels, or probabilities by class.
    """
    tally = OutputTally(always_as_network=True)
    for expected, actual in predictions:
        tally.add(expected, actual)
    return tally.records


def _best(probabilities: Mapping[Any, float]) -> list[Any]:
    return sorted(probabilities, key=lambda label: -probabilities[label])[:_TOP]


def _part(agreements: list[tuple[bool, bool | None]], place: int) -> float | None:
    found = [each[place] for each in agreements]
    return None if None in found else sum(map(bool, found)) / len(found)
