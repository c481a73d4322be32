"""How far apart two neural networks are, weight by weight."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

from ..arrays import as_threads
from ..engine.comparison import ComparedWeight, ComparedWeights, Comparison
from ..errors import FormatError
from ..sources import unchanged
from .document import Document, LayerPlace
from .layers import apart
from .model_io import is_path, name_of, open_model, size_of
from .network import NetworkWeight, naming, read_weights
from .weight_params import describe, stored_bytes


@unchanged("full_precision_model", "quantized_model")
def compare_weights(full_precision_model: Any, quantized_model: Any, *, num_threads: int | None = None) -> Comparison:
    """Report how far apart the weights of two neural networks are, as `neural_network.compare_models` does."""
    started = time.perf_counter()
    threads = as_threads("compare_models", num_threads)
    with (
        open_model("compare_models", full_precision_model) as first,
        open_model("compare_models", quantized_model) as second,
    ):
        compared, missing, added = _compare_all(first, second, threads)
        given = (full_precision_model, first), (quantized_model, second)
        sizes = [size_of(model) if is_path(model) else document.nbytes for model, document in given]
    return Comparison(
        first=name_of(full_precision_model),
        second=name_of(quantized_model),
        weights=tuple(compared.records),
        only_in_first=tuple(missing),
        only_in_second=tuple(added),
        bytes=sizes[0],
        other_bytes=sizes[1],
        snr_db=compared.snr_db,
        seconds=time.perf_counter() - started,
    )


def _compare_all(first: Document, second: Document, threads: int) -> tuple[ComparedWeights, list[str], list[str]]:
    """Compare the weights that both have; also return the names of those that only one has."""
    compared, missing, others = ComparedWeights(), [], _Lookup(second)
    seen: set[_Key] = set()
    for key, weight in _numbered(first):
        other = others.find(key)
        if other is None:
            missing.append(weight.name)
        else:
            seen.add(key)
            compared.add(*_compare(weight, other, threads))
    return compared, missing, [path.rpartition("/")[2] for path, number in others.keys if (path, number) not in seen]


_Key = tuple[str, int]  # the path of a weight, and which of those with this path


def _numbered(document: Document) -> Iterator[tuple[_Key, NetworkWeight]]:
    counts: dict[str, int] = {}
    for place in document.places:
        for weight in read_weights(place):
            counts[weight.path] = counts.get(weight.path, -1) + 1
            yield (weight.path, counts[weight.path]), weight


class _Lookup:
    """The weights of a document by their keys; a layer is read when one of its weights is asked for."""

    def __init__(self, document: Document) -> None:
        self.keys: dict[_Key, tuple[LayerPlace, int]] = {}
        counts: dict[str, int] = {}
        for place in document.places:
            for index, weight in enumerate(read_weights(place)):
                counts[weight.path] = counts.get(weight.path, -1) + 1
                self.keys[weight.path, counts[weight.path]] = place, index
        self._latest: tuple[LayerPlace | None, list[NetworkWeight]] = None, []

    def find(self, key: _Key) -> NetworkWeight | None:
        """The weight, or None."""
        if key not in self.keys:
            return None
        place, index = self.keys[key]
        if self._latest[0] is not place:
            self._latest = place, read_weights(place)
        return self._latest[1][index]


def _compare(weight: NetworkWeight, other: NetworkWeight, threads: int) -> tuple[ComparedWeight, float]:
    """The record of a weight, and its sum of squared differences."""
    found: dict[str, Any] = {}
    sse = 0.0
    with naming(weight):
        storages = describe(weight.weight.params), describe(other.weight.params)
    sizes = stored_bytes(weight.weight.params), stored_bytes(other.weight.params)
    if weight.weight.shape != other.weight.shape:
        found = {"problem": f"shapes {weight.weight.shape} and {other.weight.shape}"}
    else:
        try:
            difference = apart(weight.weight, other.weight, threads)
        except FormatError as reason:
            found = {"problem": str(reason)}
        else:
            sse = 0.0 if math.isnan(difference.sse) else difference.sse
            found = {"snr_db": difference.snr_db, "cosine": difference.cosine, "max_abs": difference.max_abs}
    record = ComparedWeight(
        name=weight.name,
        function=weight.function,
        shape=weight.weight.shape,
        storage=storages[0],
        other_storage=storages[1],
        bytes=sizes[0],
        other_bytes=sizes[1],
        **found,
    )
    return record, sse
