"""Drives a run: layer by layer, store each weight in a new form or record why not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import kernels
from ..engine.report import Progress, WeightRecord
from ..engine.run import ProgressCallback
from ..errors import Skip, UnsuitableWeightError
from .document import Document, LayerPlace
from .layers import LayerWeight
from .modes import Quantization, require_half
from .network import NetworkWeight, naming, read_weights, weights_of
from .schema import require_size
from .selection import obstacle_of
from .weight_params import describe, half_error, kind_of, stored_bytes, write_encoded, write_float16, write_float32

# The least specification version that has half precision weights, and quantized ones.
HALF_VERSION, QUANTIZED_VERSION = 2, 3
_MOST_NAMED = 8


@dataclass(frozen=True)
class _Extent:
    """How much something is."""

    weights: int = 0
    bytes: int = 0

    @classmethod
    def of(cls, weights: list[NetworkWeight]) -> _Extent:
        """Of weights as they are stored."""
        sizes = (each.weight.size for each in weights)
        return cls(sum(sizes), sum(stored_bytes(each.weight.params) for each in weights))

    def __add__(self, other: _Extent) -> _Extent:
        return _Extent(self.weights + other.weights, self.bytes + other.bytes)


class Transformation:
    """Stores the weights of a model in a new form, and keeps a record of each.

    Parameters
    ----------
    quantization : Quantization
        What to do to them.
    selector : WeightSelector, object with ``do_quantize``, or None
        Which weights to change.
    threads : int
        Threads to use.
    progress : callable or None
        Called with a `Progress` at the start and after each layer.

    Attributes
    ----------
    records : list of WeightRecord
        One per weight, in the order of the layers.
    """

    def __init__(
        self, quantization: Quantization, selector: Any, threads: int, progress: ProgressCallback | None
    ) -> None:
        self._quantization, self._selector, self._threads = quantization, selector, threads
        self._progress = progress
        self.records: list[WeightRecord] = []

    def apply(self, function: str, document: Document) -> None:
        """Store the weights of a document in a new form, in place."""
        total = done = _Extent()
        if self._progress is not None or self._quantization.restores:
            total = sum((_Extent.of(read_weights(place)) for place in document.places), total)
            if self._quantization.restores:
                growth = 4 * total.weights - total.bytes
                require_size(function, document.nbytes + growth, "the model with float32 weights")
        self._notify("", done, total)
        for place in document.places:
            layer = place.read()
            found = weights_of(layer, place)
            done = sum((_Extent.of(weights) for weights in found), done)
            if sum(self._settle_layer(weights) for weights in found):
                self._replace(place, layer)
                for model in place.models:
                    model.version = max(model.version, self._least_version)
            if found:
                self._notify(found[-1][-1].name, done, total)
        require_size(function, document.size, "the result")

    def _replace(self, place: LayerPlace, layer: Any) -> None:
        place.replace(layer)

    @property
    def _least_version(self) -> int:
        return HALF_VERSION if self._quantization.to_half else QUANTIZED_VERSION

    def _settle_layer(self, weights: list[NetworkWeight]) -> int:
        """Store the weights of a layer; return how many changed."""
        before = len(self.records)
        if self._quantization.to_half:
            self._halve_layer(weights)
        else:
            for weight in weights:
                self._settle(weight, self._restore if self._quantization.restores else self._encode)
        return sum(record.status != "kept" for record in self.records[before:])

    def _notify(self, name: str, done: _Extent, total: _Extent) -> None:
        if self._progress is not None:
            self._progress(Progress(name, done.weights, total.weights, done.bytes, total.bytes))

    def _settle(
        self, weight: NetworkWeight, work: Callable[[LayerWeight], float | None], *, chosen: bool = False
    ) -> None:
        params = weight.weight.params
        with naming(weight):
            stored, before = describe(params), stored_bytes(params)
            try:
                self._require_meant(weight, chosen)
                snr_db = work(weight.weight)
            except Skip as reason:
                self._record(weight, before, before, reason=reason)
                return
            except UnsuitableWeightError as unsuitable:
                self._record(weight, before, before, reason=Skip(unsuitable.reason))
                return
        method = stored if self._quantization.restores else self._quantization.description
        self._record(weight, before, stored_bytes(params), method=method, snr_db=snr_db)

    def _require_meant(self, weight: NetworkWeight, chosen: bool) -> None:
        """Raise `Skip` for weights to leave unchanged; `chosen` overrides the selector."""
        kind = kind_of(weight.weight.params)
        if weight.weight.untouched is not None:
            raise Skip(weight.weight.untouched, expected=True)
        if kind == "empty":
            raise Skip("its values are stored in a way that this version does not know")
        if self._quantization.restores:
            if kind == "float32":
                raise Skip("not compressed", expected=True)
        elif weight.is_updatable:
            raise Skip("is updatable", expected=True)
        elif kind in ("quantized", "int8"):
            raise Skip(f"compressed already ({describe(weight.weight.params)})", expected=True)
        obstacle = None if chosen else obstacle_of(self._selector, weight)
        if obstacle is not None:
            raise Skip(obstacle, expected=True)

    def _restore(self, weight: LayerWeight) -> float | None:
        values = weight.read()
        was_int8 = kind_of(weight.params) == "int8"
        write_float32(weight.params, values)
        if was_int8:
            weight.stop_quantizing_inputs()
        return None

    def _encode(self, weight: LayerWeight) -> float | None:
        if self._quantization.encoded_bytes(weight.size, weight.channels) >= stored_bytes(weight.params):
            raise Skip("would not become smaller, with its scales or table", expected=True)
        return self._store_encoded(weight, weight.read())

    def _store_encoded(self, weight: LayerWeight, values: NDArray[np.float32]) -> float | None:
        encoded = self._quantization.encode(values, weight.channel_axis, self._threads)
        found = encoded.error(values, self._threads)
        write_encoded(weight.params, encoded, self._threads)
        return found.snr_db

    def _halve_layer(self, layer: list[NetworkWeight]) -> None:
        """Round the weights of a layer, all of them or none: Core ML accepts no layer with both precisions."""
        staying: str | None = None
        selected = any(obstacle_of(self._selector, weight) is None for weight in layer)
        for weight in layer:
            with naming(weight):
                if not selected or weight.weight.untouched is not None or kind_of(weight.weight.params) != "float32":
                    continue
                try:
                    require_half(weight.weight.read(), self._threads)
                except UnsuitableWeightError:
                    staying = weight.name

        def halve(weight: LayerWeight) -> float | None:
            if kind_of(weight.params) == "float16":
                raise Skip("float16 already", expected=True)
            values = weight.read()
            if staying is not None:
                require_half(values, self._threads)  # says why not, if it is this one
                raise Skip(f"{staying} stays float32, and Core ML accepts no layer with both precisions")
            return self._store_half(weight, values)

        for weight in layer:
            self._settle(weight, halve, chosen=selected)

    def _store_half(self, weight: LayerWeight, values: NDArray[np.float32]) -> float | None:
        half = kernels.to_float16(values, num_threads=self._threads)  # all of the layer's are known to fit
        found = half_error(values, half, self._threads)
        write_float16(weight.params, half)
        return found.snr_db

    def _record(
        self,
        weight: NetworkWeight,
        before: int,
        after: int,
        *,
        method: str | None = None,
        reason: Skip | None = None,
        snr_db: float | None = None,
    ) -> None:
        status = "kept" if method is None else "decompressed" if self._quantization.restores else "compressed"
        self.records.append(
            WeightRecord(
                name=weight.name,
                function=weight.function,
                consumers=(weight.weight.layer_type,),
                shape=weight.weight.shape,
                dtype="float32",
                status=status,
                method=method,
                reason=None if reason is None else str(reason),
                planned=reason is not None and reason.expected,
                bits_per_weight=8.0 * after / max(1, weight.weight.size),
                bytes_before=before,
                bytes_after=after,
                snr_db=snr_db,
            )
        )

    @property
    def unplanned(self) -> list[WeightRecord]:
        """Weights that could not be stored as requested."""
        return [record for record in self.records if record.status == "kept" and not record.planned]

    @property
    def unplanned_in_words(self) -> str:
        """Their names and the reasons, for the first few."""
        named = "; ".join(f"{record.name}: {record.reason}" for record in self.unplanned[:_MOST_NAMED])
        more = len(self.unplanned) - _MOST_NAMED
        return f"{len(self.unplanned)} weights left unchanged: {named}{f'; and {more} more' if more > 0 else ''}"

    def require_all(self, function: str) -> None:
        """Raise if a weight could not be stored as requested."""
        if self.unplanned:
            raise ValueError(f"{function}: {self.unplanned_in_words}")
