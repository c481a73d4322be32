"""Quantize the weights of neural networks, and decompress them."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any, overload

from .. import system
from ..arrays import as_threads
from ..engine.report import Report
from ..engine.run import ProgressCallback
from ..paths import StrPath
from ..sources import unchanged
from .model_io import is_path, like_given, name_of, open_model, open_writer, size_of
from .modes import DEQUANTIZATION, LutFunction, Quantization
from .transform import Transformation
from .weight_params import HALF_BITS

ReportCallback = Callable[[Report], None]


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
    """Store the weights of a neural network at 16 bits, or at 1 to 8 bits.

    Everything else is left unchanged. A weight that cannot be stored as requested, or that would not become smaller, is
    left unchanged, bit for bit, and listed in the report with the reason, as are the weights of updatable layers.
    Networks nested in loops and branches, and all networks of a pipeline, are included.

    Parameters
    ----------
    model : path-like, spec or MLModel
        An ``.mlmodel``, or an ``.mlpackage`` that contains a neural network, as a path or a coremltools object. It is
        never changed.
    nbits : int or None
        16 for half precision, whatever the mode; or 1 to 8. Ignored for ``"dequantization"``.
    quantization_mode : str
        ``"linear"``: linear steps from the smallest to the largest value, for each channel of a matrix or kernel.
        ``"linear_symmetric"``: linear steps around zero, for 2 bits or more. ``"linear_lut"``: one lookup table (LUT,
        palette) of evenly spaced values for the whole weight. ``"kmeans_lut"``, also ``"kmeans"``: the table with the
        smallest possible squared error. ``"custom_lut"``: what `lut_function` returns. ``"dequantization"``: back to
        float32, including half precision.
    destination : path-like, optional
        The ``.mlmodel`` to write, or the ``.mlpackage`` if `model` is one; required if `model` is a path.
    lut_function : callable, optional
        For ``"custom_lut"``: given `nbits` and a weight, a read-only array, returns a table of at most ``2**nbits``
        values and a whole number below its length for each weight.
    selector : WeightSelector or object with ``do_quantize``, optional
        Which weights to change; None for all. Objects with ``do_quantize`` are coremltools' selectors. With 16 bits
        whole layers are selected, if one of their weights is.
    overwrite : bool
        Replace `destination` if it exists.
    strict : bool
        Raise if a weight cannot be stored as requested.
    progress : callable, optional
        Called with a `Progress` at the start and after each layer.
    on_report : callable, optional
        Called with the `Report`. Without it and a destination, a warning lists weights that could not be stored as
        requested.
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
        If `model` is not a model.
    ValueError
        For values out of range; models without a neural network; results of 2 GiB or more.
    FormatError
        If the model is damaged.

    Notes
    -----
    Codes are stored most significant bit first. Linear scales and biases are coremltools', rounded to float32, and each
    weight takes the nearest code for these; narrow channels keep all their codes. Layers are not fused with batch
    normalizations that follow them: the range of their weights would grow, and Core ML fuses them itself when it loads
    a model. For tables, see `corepress.palettize`.
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

    A layer with a value out of float16 range, 65,520 or more, or with a value that is not finite, keeps all its weights
    in float32: Core ML does not allow both precisions in one layer.

    Parameters
    ----------
    model : path-like, spec or MLModel
        The model. It is never changed.
    destination : path-like, optional
        The ``.mlmodel`` to write; required if `model` is a path.
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
    """Convert all weights of a neural network to float32, as `quantize_weights` does with ``"dequantization"``.

    Parameters
    ----------
    model : path-like, spec or MLModel
        The model. It is never changed. Layers with int8 weights that also quantize their inputs no longer do so.
    destination : path-like, optional
        The ``.mlmodel`` to write; required if `model` is a path.
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


@unchanged("model", at_end=False)
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
            writer = open_writer(function, destination, model, overwrite=overwrite)
        run = Transformation(quantization, selector, threads, progress)
        run.apply(function, document)
        if strict:
            run.require_all(function)
        if writer is not None:
            writer.write(document.pieces())
            data, written, bytes_after = b"", str(writer.destination), size_of(writer.destination)
        else:
            data, written, bytes_after = b"".join(document.pieces()), "", document.size
        bytes_before = size_of(model) if is_path(model) else document.nbytes
    report = Report(
        source=name_of(model),
        destination=written,
        weights=tuple(run.records),
        bytes_before=bytes_before,
        bytes_after=bytes_after,
        seconds=time.perf_counter() - started,
        peak_memory_bytes=system.current.peak_memory(),
        specification_version=document.root.version,
        notes=quantization.advice,
    )
    if on_report is not None:
        on_report(report)
    if destination is not None:
        return report
    if on_report is None and run.unplanned:
        warnings.warn(f"{function}: {run.unplanned_in_words}", stacklevel=4)
    return like_given(model, data)
