"""Quantizing the weights of neural networks, and turning them back into plain ones."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from ..arrays import as_threads
from ..coreml.report import Progress, Report, WeightRecord, peak_memory_bytes
from ..coreml.transform import Keep, ProgressCallback
from ..errors import UnsuitableWeightError
from ..measure import error
from .document import Document
from .layers import LayerWeight
from .model_io import ModelFileWriter, StrPath, is_path, like_given, name_of, open_model
from .modes import DEQUANTIZATION, HALF_BITS, LutFunction, Quantization, to_half
from .network import NetworkWeight, naming, read_weights, updatable_part, weights_of
from .schema import require_size
from .selection import obstacle_of
from .weight_params import describe, kind_of, read_weight, stored_bytes, write_encoded, write_float16, write_float32

ReportCallback = Callable[[Report], None]
# The least specification version that has half precision weights, and quantized ones.
_HALF_VERSION, _QUANTIZED_VERSION = 2, 3
_MOST_NAMED = 8


@overload
def quantize_weights(
    model: Any,
    nbits: int | None,
    quantization_mode: str = "linear",
    *,
    destination: StrPath,
    lut_function: LutFunction | None = None,
    selector: Any = None,
    overwrite: bool = False,
    strict: bool = False,
    progress: ProgressCallback | None = None,
    on_report: ReportCallback | None = None,
    num_threads: int | None = None,
) -> Report: ...
@overload
def quantize_weights(
    model: Any,
    nbits: int | None,
    quantization_mode: str = "linear",
    *,
    destination: None = None,
    lut_function: LutFunction | None = None,
    selector: Any = None,
    overwrite: bool = False,
    strict: bool = False,
    progress: ProgressCallback | None = None,
    on_report: ReportCallback | None = None,
    num_threads: int | None = None,
) -> Any: ...
def quantize_weights(
    model: Any,
    nbits: int | None,
    quantization_mode: str = "linear",
    *,
    destination: StrPath | None = None,
    lut_function: LutFunction | None = None,
    selector: Any = None,
    overwrite: bool = False,
    strict: bool = False,
    progress: ProgressCallback | None = None,
    on_report: ReportCallback | None = None,
    num_threads: int | None = None,
) -> Any:
    """Store the weights of a neural network in 16 bits, or in 1 to 8.

    All else stays as it was. A weight that cannot be stored as asked stays bit for bit and is named in the report with
    the reason; so does one that would not become smaller. Networks nested in loops and branches, and all networks of a
    pipeline, are meant too.

    Parameters
    ----------
    model : path-like, spec or MLModel
        An ``.mlmodel``, by its path or as coremltools' object. It is never changed.
    nbits : int or None
        16 for half precision, whatever the mode; or 1 to 8. Ignored for ``"dequantization"``.
    quantization_mode : str
        ``"linear"``: even steps from the smallest to the largest value, for each channel of a matrix or kernel.
        ``"linear_symmetric"``: even steps about zero, for 2 bits or more. ``"linear_lut"``: a table of even steps for
        the whole weight. ``"kmeans_lut"``, also ``"kmeans"``: the table with the smallest possible squared error.
        ``"custom_lut"``: what `lut_function` returns. ``"dequantization"``: back to float32, half precision included.
    destination : path-like, optional
        The ``.mlmodel`` to write; needed if `model` is a path.
    lut_function : callable, optional
        For ``"custom_lut"``: given `nbits` and a weight, a read-only array, returns a table of at most ``2**nbits``
        values and a whole number below its length for each weight.
    selector : WeightSelector or object with ``do_quantize``, optional
        Which weights to store anew; None for all. The second are coremltools' selectors. With 16 bits whole layers are
        selected, if a weight of theirs is.
    overwrite : bool
        Replace `destination` if it exists.
    strict : bool
        Raise if a weight cannot be stored as asked.
    progress : callable, optional
        Called with a `Progress` at the start and after each layer.
    on_report : callable, optional
        Called with the `Report`. Without it and a destination, weights that could not be stored as asked are named in a
        warning.
    num_threads : int, optional
        Threads to use; None for all CPUs this process may use, or `COREPRESS_NUM_THREADS`. The result does not depend
        on it.

    Returns
    -------
    Report, or an object like `model`
        With a `destination` a report with one record per weight, otherwise the new spec or MLModel.

    Raises
    ------
    TypeError
        If `model` is none.
    ValueError
        For values out of range; models that are updatable or hold no neural network; results of 2 GiB or more.
    FormatError
        If the model is damaged.

    Notes
    -----
    Codes are stored the most significant bit first. Linear scales and biases are coremltools', rounded to float32, and
    each weight takes the code that is nearest under these; narrow channels keep all their codes. Layers are not fused
    with batch normalizations that follow them: their weights would spread over a wider range, and Core ML fuses them
    itself when it loads a model. Tables: see `corepress.palettize`.
    """
    quantization = Quantization(nbits, quantization_mode, lut_function)
    return _run(
        "quantize_weights",
        model,
        quantization,
        destination,
        selector,
        overwrite=overwrite,
        strict=strict,
        progress=progress,
        on_report=on_report,
        num_threads=num_threads,
    )


def convert_to_fp16(
    model: Any,
    *,
    destination: StrPath | None = None,
    selector: Any = None,
    overwrite: bool = False,
    strict: bool = False,
    progress: ProgressCallback | None = None,
    on_report: ReportCallback | None = None,
    num_threads: int | None = None,
) -> Any:
    """Store the weights of a neural network in half precision, as `quantize_weights` does with 16 bits.

    A layer with a value that half precision does not reach, 65,520 or more, or that is not finite, stays in float32 as
    a whole: Core ML does not let the two mix in a layer.

    Parameters
    ----------
    model : path-like, spec or MLModel
        The model. It is never changed.
    destination : path-like, optional
        The ``.mlmodel`` to write; needed if `model` is a path.
    selector, overwrite, strict, progress, on_report, num_threads
        As for `quantize_weights`.

    Returns
    -------
    Report, or an object like `model`
        With a `destination` a report with one record per weight, otherwise the new spec or MLModel.

    Raises
    ------
    TypeError, ValueError, FormatError
        As `quantize_weights` does.
    """
    return _run(
        "convert_to_fp16",
        model,
        Quantization(HALF_BITS, "linear"),
        destination,
        selector,
        overwrite=overwrite,
        strict=strict,
        progress=progress,
        on_report=on_report,
        num_threads=num_threads,
    )


def decompress(
    model: Any,
    destination: StrPath | None = None,
    *,
    progress: ProgressCallback | None = None,
    overwrite: bool = False,
    on_report: ReportCallback | None = None,
    num_threads: int | None = None,
) -> Any:
    """Turn all weights of a neural network into float32, as `quantize_weights` does with ``"dequantization"``.

    Parameters
    ----------
    model : path-like, spec or MLModel
        The model. It is never changed. Layers with int8 weights that quantize their inputs too no longer do.
    destination : path-like, optional
        The ``.mlmodel`` to write; needed if `model` is a path.
    progress, overwrite, on_report, num_threads
        As for `quantize_weights`.

    Returns
    -------
    Report, or an object like `model`
        With a `destination` a report with one record per weight, otherwise the new spec or MLModel.

    Raises
    ------
    TypeError, ValueError, FormatError
        As `quantize_weights` does.
    """
    return _run(
        "decompress",
        model,
        Quantization(None, DEQUANTIZATION),
        destination,
        None,
        overwrite=overwrite,
        strict=False,
        progress=progress,
        on_report=on_report,
        num_threads=num_threads,
    )


def _run(
    function: str,
    model: Any,
    quantization: Quantization,
    destination: StrPath | None,
    selector: Any,
    *,
    overwrite: bool,
    strict: bool,
    progress: ProgressCallback | None,
    on_report: ReportCallback | None,
    num_threads: int | None,
) -> Any:
    started = time.perf_counter()
    threads = as_threads(function, num_threads)
    if is_path(model) and destination is None:
        raise ValueError(f"{function}: a model given by its path needs a destination")
    with open_model(function, model) as document:
        writer = None
        if destination is not None:
            source = model if is_path(model) else None
            writer = ModelFileWriter(function, destination, source, overwrite=overwrite)
        part = updatable_part(document)
        if part is not None and not quantization.restores:
            raise ValueError(
                f"{function}: {name_of(model)}: {part} is updatable, and training on the device needs float32 weights"
            )
        run = _Run(quantization, selector, threads, progress)
        run.transform(function, document)
        if strict:
            run.require_all(function)
        if writer is not None:
            writer.write(document.pieces())
        data = b"" if writer is not None else b"".join(document.pieces())
        bytes_before, bytes_after = document.nbytes, document.size
    report = Report(
        source=name_of(model),
        destination="" if writer is None else str(writer.destination),
        weights=tuple(run.records),
        bytes_before=bytes_before,
        bytes_after=bytes_after,
        seconds=time.perf_counter() - started,
        peak_memory_bytes=peak_memory_bytes(),
    )
    if on_report is not None:
        on_report(report)
    if writer is not None:
        return report
    if on_report is None and run.unplanned:
        warnings.warn(f"{function}: {run.unplanned_in_words}", stacklevel=3)
    return like_given(model, data)


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


class _Run:
    """Transforms a parsed model, and keeps a record of each weight."""

    def __init__(
        self, quantization: Quantization, selector: Any, threads: int, progress: ProgressCallback | None
    ) -> None:
        self._quantization, self._selector, self._threads = quantization, selector, threads
        self._progress = progress
        self.records: list[WeightRecord] = []

    def transform(self, function: str, document: Document) -> None:
        """Store the weights of a model anew."""
        total = done = _Extent()
        if self._progress is not None or self._quantization.restores:
            weights = [weight for place in document.places for weight in read_weights(place)]
            total = _Extent.of(weights)
            if self._quantization.restores:
                growth = 4 * total.weights - total.bytes
                require_size(function, document.nbytes + growth, "the model with float32 weights")
            del weights
        self._notify("", done, total)
        for place in document.places:
            layer = place.read()
            found = weights_of(layer, place.where)
            done = sum((_Extent.of(weights) for weights in found), done)
            if sum(self._settle_layer(weights) for weights in found):
                place.replace(layer)
                for model in place.models:
                    model.version = max(model.version, self._least_version)
            if found:
                self._notify(found[-1][-1].name, done, total)
        require_size(function, document.size, "the result")

    @property
    def _least_version(self) -> int:
        return _HALF_VERSION if self._quantization.to_half else _QUANTIZED_VERSION

    def _settle_layer(self, weights: list[NetworkWeight]) -> int:
        """How many weights were stored anew."""
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
            except Keep as reason:
                self._record(weight, before, before, reason=reason)
                return
            except UnsuitableWeightError as unsuitable:
                self._record(weight, before, before, reason=Keep(unsuitable.reason))
                return
        method = stored if self._quantization.restores else self._quantization.description
        self._record(weight, before, stored_bytes(params), method=method, snr_db=snr_db)

    def _require_meant(self, weight: NetworkWeight, chosen: bool) -> None:
        """Raise `Keep` for what is not to be stored anew; `chosen`: whatever the selector says of it."""
        kind = kind_of(weight.weight.params)
        if weight.weight.untouched is not None:
            raise Keep(weight.weight.untouched, planned=True)
        if kind == "empty":
            raise Keep("its values are stored in a way that this version does not know")
        if self._quantization.restores:
            if kind == "float32":
                raise Keep("not compressed", planned=True)
        elif kind in ("quantized", "int8"):
            raise Keep(f"compressed already ({describe(weight.weight.params)})", planned=True)
        obstacle = None if chosen else obstacle_of(self._selector, weight)
        if obstacle is not None:
            raise Keep(obstacle, planned=True)

    def _read(self, weight: LayerWeight) -> NDArray[np.float32]:
        return read_weight(weight.params, weight.shape, weight.channel_axis)

    def _restore(self, weight: LayerWeight) -> float | None:
        values = self._read(weight)
        was_int8 = kind_of(weight.params) == "int8"
        write_float32(weight.params, values)
        if was_int8:  # such layers quantize their inputs too, which goes with int8 weights only
            getattr(weight.layer, weight.layer_type).int8DynamicQuantize = False
        return None

    def _encode(self, weight: LayerWeight) -> float | None:
        channels = 1 if weight.channel_axis is None else weight.shape[weight.channel_axis]
        if self._quantization.encoded_bytes(weight.size, channels) >= stored_bytes(weight.params):
            raise Keep("would not become smaller, with its scales or table", planned=True)
        values = self._read(weight)
        encoded = self._quantization.encode(values, weight.channel_axis, self._threads)
        found = error(values, encoded.dense(), num_threads=self._threads)
        write_encoded(weight.params, encoded, self._threads)
        return found.snr_db

    def _halve_layer(self, layer: list[NetworkWeight]) -> None:
        """Round the weights of a layer, all of them or none: Core ML takes no layer with both precisions."""
        halves: list[NDArray[np.float16]] = []
        staying: str | None = None
        selected = any(obstacle_of(self._selector, weight) is None for weight in layer)
        for weight in layer:
            if selected and weight.weight.untouched is None and kind_of(weight.weight.params) == "float32":
                with naming(weight):
                    try:
                        halves.append(to_half(self._read(weight.weight)))
                    except UnsuitableWeightError:
                        staying = weight.name

        def halve(weight: LayerWeight) -> float | None:
            if kind_of(weight.params) == "float16":
                raise Keep("float16 already", planned=True)
            values = self._read(weight)
            if staying is not None:
                to_half(values)  # says why not, if it is this one
                raise Keep(f"{staying} stays float32, and Core ML takes no layer with both precisions")
            half = halves.pop(0)
            found = error(values, half.astype(np.float32), num_threads=self._threads)
            write_float16(weight.params, half)
            return found.snr_db

        for weight in layer:
            self._settle(weight, halve, chosen=selected)

    def _record(
        self,
        weight: NetworkWeight,
        before: int,
        after: int,
        *,
        method: str | None = None,
        reason: Keep | None = None,
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
                planned=reason is not None and reason.planned,
                bits_per_weight=8.0 * after / max(1, weight.weight.size),
                bytes_before=before,
                bytes_after=after,
                snr_db=snr_db,
            )
        )

    @property
    def unplanned(self) -> list[WeightRecord]:
        """Weights that could not be stored as asked."""
        return [record for record in self.records if record.status == "kept" and not record.planned]

    @property
    def unplanned_in_words(self) -> str:
        """Their names and the reasons, or those of the first few."""
        named = "; ".join(f"{record.name}: {record.reason}" for record in self.unplanned[:_MOST_NAMED])
        more = len(self.unplanned) - _MOST_NAMED
        return f"{len(self.unplanned)} weights stay as they were: {named}{f'; and {more} more' if more > 0 else ''}"

    def require_all(self, function: str) -> None:
        """Raise if a weight could not be stored as asked."""
        if self.unplanned:
            raise ValueError(f"{function}: {self.unplanned_in_words}")
