"""The dry run: what quantizing would do to each weight of a network, and the size of the result."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays import as_threads
from ..engine.planned import Plan, PlannedWeight
from ..engine.records import ChangeRecord
from ..engine.report import WeightRecord
from ..sources import unchanged
from .document import LayerPlace
from .layers import LayerWeight
from .model_io import is_path, name_of, open_model, size_of
from .modes import LutFunction, Quantization
from .transform import Transformation
from .weight_params import HALF_BITS, write_blank


class BlankTransformation(Transformation):
    """Stores zeros, and records only their sizes in the document."""

    def _replace(self, place: LayerPlace, layer: Any) -> None:
        place.resize(layer.ByteSize())

    def _store_encoded(self, weight: LayerWeight, values: NDArray[np.float32]) -> None:
        self._quantization.require_encodable(values, weight.channel_axis, self._threads)
        channels = weight.channels if self._quantization.has_scales else None
        write_blank(weight.params, weight.size, int(self._quantization.nbits or 0), channels)

    def _store_half(self, weight: LayerWeight, values: NDArray[np.float32]) -> None:
        write_blank(weight.params, weight.size, HALF_BITS, None)


@unchanged("model")
def plan(
    model: Any,
    nbits: int,
    quantization_mode: str = "linear",
    *,
    lut_function: LutFunction | None = None,
    selector: Any = None,
    strict: bool = False,
    num_threads: int | None = None,
) -> Plan:
    """Return what `quantize_weights` would do with the same arguments, without encoding or writing anything.

    Parameters
    ----------
    model : path-like, spec or MLModel
        The model.
    nbits : int
        1 to 8, or 16.
    quantization_mode : str
        As for `quantize_weights`, but not ``"dequantization"``.
    lut_function, selector, strict, num_threads
        As for `quantize_weights`. The function is not called.

    Returns
    -------
    Plan
        One record per weight, and totals. All sizes are exact: weights are read to find those that cannot be stored as
        requested.

    Raises
    ------
    TypeError, ValueError, FormatError
        As `quantize_weights` does.
    """
    started = time.perf_counter()
    quantization = Quantization(nbits, quantization_mode, lut_function)
    if quantization.restores:
        raise ValueError(f"plan: quantization_mode {quantization_mode!r} compresses nothing")
    with open_model("plan", model) as document:
        run = BlankTransformation(quantization, selector, as_threads("plan", num_threads), None)
        run.apply("plan", document)
        if strict:
            run.require_all("plan")
        before = size_of(model) if is_path(model) else document.nbytes
        after = before - document.nbytes + document.size
        version = document.root.version
    return Plan(
        source=name_of(model),
        weights=tuple(map(planned_weight, run.records)),
        bytes_before=before,
        bytes_after=after,
        exact=True,
        specification_version=version,
        raised_from=None,
        notes=quantization.advice,
        unmatched_rules=(),
        warnings=(),
        seconds=time.perf_counter() - started,
    )


def planned_weight(record: WeightRecord) -> PlannedWeight:
    """The record of a plan for what was done to zeros."""
    values = {field.name: getattr(record, field.name) for field in dataclasses.fields(ChangeRecord)}
    status = "keep" if record.status == "kept" else "compress"
    return PlannedWeight(**values | {"status": status}, exact=True)
