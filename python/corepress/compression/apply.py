"""Any spec, applied to an array or a compressed tensor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..arrays import as_weight
from ..specs import Palettize, Prune, Quantize, Spec
from ..tensors import CompressedTensor
from .metrics import snr_db
from .palettes import Measured, palettize_measured
from .pruning import prune_measured
from .quantization import quantize_measured, quantize_tables
from .weight_data import NO_DATA, WeightData


def _palettize_one(
    weight: Any, spec: Palettize, data: WeightData, num_threads: int | None, _measured: bool
) -> Measured:
    measured = palettize_measured([weight], spec, num_threads, data=[data], in_list=False)
    return quantize_tables(measured, spec, num_threads, in_list=False)[0]


def _quantize_one(weight: Any, spec: Quantize, data: WeightData, num_threads: int | None, measured: bool) -> Measured:
    return quantize_measured([weight], [data], spec, num_threads, in_list=False, measured=measured)[0]


def _prune_one(weight: Any, spec: Prune, data: WeightData, num_threads: int | None, measured: bool) -> Measured:
    return prune_measured([weight], spec, num_threads, [data], in_list=False, measured=measured)[0]


_APPLY: dict[type, Callable[..., Measured]] = {Palettize: _palettize_one, Quantize: _quantize_one, Prune: _prune_one}


def apply(weight: Any, spec: Spec, *, data: WeightData = NO_DATA, num_threads: int | None = None) -> CompressedTensor:
    """Compress an array or a compressed tensor as `spec` says; ValueError for data that it has no use for."""
    data.require_use(spec)
    tensor: CompressedTensor = _APPLY[type(spec)](weight, spec, data, num_threads, False)[0]
    return tensor


def apply_steps(
    weight: Any, steps: Sequence[Spec], *, data: WeightData = NO_DATA, num_threads: int | None = None
) -> Any:
    """Compress an array or a compressed tensor step by step; each step takes of `data` what it has a use for.

    The first step's use is not checked: data that it has none for is left out.
    """
    for number, step in enumerate(steps):
        of_step = data.usable(step).of_step(step, weight, is_first=number == 0)
        weight = apply(weight, step, data=of_step, num_threads=num_threads)
    return weight


def apply_measured(
    weight: Any, spec: Spec, *, data: WeightData = NO_DATA, num_threads: int | None = None
) -> tuple[CompressedTensor, float]:
    """Like `apply`, but also return the SNR in dB that `error` would report.

    Where the kernels do not compute the error as they go, this takes another pass over the weight.
    """
    data.require_use(spec)
    weight = as_weight(spec.verb, weight)
    tensor, noise = _APPLY[type(spec)](weight, spec, data, num_threads, True)
    squared_error, squared_first = noise or tensor.error_sums(weight, num_threads)[:2]
    return tensor, snr_db(squared_first, squared_error)
