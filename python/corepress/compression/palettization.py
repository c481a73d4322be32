"""The verb for palettes: options in, a spec and checked arguments out; `palettes` does the work."""

from __future__ import annotations

from typing import Any, overload

import numpy as np

from ..arrays import as_list, is_list
from ..specs import IMPORTANCE_NEEDS_KMEANS, Palettize
from ..tensors import CompressedTensor, PalettizedTensor, QuantizedTensor, SparseTensor
from .palettes import palettize_measured
from .quantization import quantize_tables
from .tables import given_table, width_for
from .weight_data import WeightData


@overload
def palettize(
    weight: list[Any] | tuple[Any, ...],
    *,
    nbits: int | None = None,
    mode: str = "kmeans",
    granularity: str = "per_tensor",
    group_size: int = 32,
    cluster_dim: int = 1,
    channel_axis: int | None = None,
    indivisible: str = "skip",
    enable_per_channel_scale: bool = False,
    lut: Any = None,
    importance: Any = None,
    hessian: Any = None,
    dampening: float = 0.01,
    nonfinite: str = "keep",
    lut_dtype: str | None = None,
    num_threads: int | None = None,
) -> list[PalettizedTensor]: ...
@overload
def palettize(
    weight: SparseTensor,
    *,
    nbits: int | None = None,
    mode: str = "kmeans",
    granularity: str = "per_tensor",
    group_size: int = 32,
    channel_axis: int | None = None,
    indivisible: str = "skip",
    enable_per_channel_scale: bool = False,
    lut: Any = None,
    hessian: Any = None,
    dampening: float = 0.01,
    lut_dtype: str | None = None,
    num_threads: int | None = None,
) -> SparseTensor: ...
@overload
def palettize(
    weight: QuantizedTensor,
    *,
    nbits: int | None = None,
    mode: str = "kmeans",
    granularity: str = "per_tensor",
    group_size: int = 32,
    channel_axis: int | None = None,
    indivisible: str = "skip",
    enable_per_channel_scale: bool = False,
    lut: Any = None,
    num_threads: int | None = None,
) -> QuantizedTensor: ...
@overload
def palettize(
    weight: Any,
    *,
    nbits: int | None = None,
    mode: str = "kmeans",
    granularity: str = "per_tensor",
    group_size: int = 32,
    cluster_dim: int = 1,
    channel_axis: int | None = None,
    indivisible: str = "skip",
    enable_per_channel_scale: bool = False,
    lut: Any = None,
    importance: Any = None,
    hessian: Any = None,
    dampening: float = 0.01,
    nonfinite: str = "keep",
    lut_dtype: str | None = None,
    num_threads: int | None = None,
) -> PalettizedTensor: ...
def palettize(
    weight: Any,
    *,
    nbits: int | None = None,
    mode: str = "kmeans",
    granularity: str = "per_tensor",
    group_size: int = 32,
    cluster_dim: int = 1,
    channel_axis: int | None = None,
    indivisible: str = "skip",
    enable_per_channel_scale: bool = False,
    lut: Any = None,
    importance: Any = None,
    hessian: Any = None,
    dampening: float = 0.01,
    nonfinite: str = "keep",
    lut_dtype: str | None = None,
    num_threads: int | None = None,
) -> CompressedTensor | list[PalettizedTensor]:
    """Replace weights by indices into a palette (lookup table, LUT) of ``2**nbits`` values.

    There is one palette, or one per group of channels. Each weight is assigned to its nearest entry, the lower one if
    two are equally near. With `cluster_dim` above 1 the entries are vectors, and an index encodes that many consecutive
    channels.

    Parameters
    ----------
    weight : array_like of float16, bfloat16, float32 or float64, list of them, SparseTensor, or QuantizedTensor
        Any shape and strides; never written to. float64 is rounded to float32. A list or tuple holds several weights
        and gives a list; small ones are processed in parallel. For a sparse tensor the stored values are palettized,
        those of each group separately; for an 8-bit quantized tensor the codes, with palettes of its integers.
    nbits : {1, 2, 3, 4, 6, 8}, optional
        Bits per index. Required for ``"kmeans"`` and ``"uniform"``; otherwise the fewest that hold the entries.
    mode : {"kmeans", "uniform", "unique"}
        How the palette is found. ``"kmeans"``: the optimum; no other palette of that size has a smaller squared error,
        up to the rounding of its entries to the weight's dtype. ``"uniform"``: evenly spaced values from the smallest
        to the largest weight, the palette that coremltools computes unless that overflows or misses the range.
        ``"unique"``: the distinct values, lossless except for the sign of zeros.
    granularity : {"per_tensor", "per_grouped_channel"}
        One palette for the tensor, or one per `group_size` entries of `channel_axis`.
    group_size : int
        Number of channels that share a palette.
    cluster_dim : int
        Number of consecutive entries of `channel_axis` that one index encodes; must divide the axis and `group_size`.
        Above 1 only for ``"kmeans"`` and ``"unique"``.
    channel_axis : int, optional
        Axis that groups and vectors run along; None for axis 0.
    indivisible : {"skip", "nearest_divisor", "per_tensor", "error"}
        What to do if `group_size` does not divide the axis: ``"nearest_divisor"`` uses the nearest size that does, the
        smaller of two; ``"per_tensor"`` uses one palette; for an array, both others raise IndivisibleError.
    enable_per_channel_scale : bool
        Divide each entry of `channel_axis`, the output channels, by its largest magnitude first (by 1 if all are zero),
        in float32 and rounded to the weight's dtype, and palettize the quotients.
    lut : array_like, optional
        A given palette instead of `mode`: 1 to 256 finite values, 1-D, in any order, rounded to the weight's dtype. All
        groups share it.
    importance : array_like of floats, integers or bool, optional
        How much each weight's squared error counts, in the weight's shape, for mode ``"kmeans"``: not negative, finite;
        only ratios matter. A group whose importance is 0 everywhere is clustered with equal importance. For a list of
        weights, a list with one entry per weight, None for equal importance.
    hessian : array_like of float32 or float64, optional
        Second moments E[x x^T] of the inputs of the layer that this weight belongs to, by which codes are chosen so
        that the outputs change little (error feedback): c by c for the c columns of the weight as a matrix whose rows
        are the entries of `channel_axis` and whose columns are all other axes in row-major order, or (blocks, c, c) of
        consecutive columns. For a list of weights, a list with one entry per weight, or None. The palettes are those of
        the call without it, except that those of 1 to 3 bits are fitted again; sizes are the same. `cluster_dim` up to
        32, a power of two.
    dampening : float
        With `hessian`: how many times the mean of its diagonal is added to it; more for fewer samples.
    nonfinite : {"keep", "error", "table"}
        What to do about infinite weights: for an array, the first two raise NonFiniteError. ``"table"`` gives -inf and
        inf their own entries in the palette, the first and the last, in groups that contain them, and finds the others
        from the finite weights. NaN always raises NonFiniteError.
    lut_dtype : {"int8", "uint8", "float8_e4m3fn", "float8_e5m2"}, optional
        Quantize the entries afterwards, with one scale for all palettes; float types are for Core AI. None: entries in
        the weight's dtype. Not for the codes of a quantized tensor.
    num_threads : int, optional
        Threads to use; None for all CPUs this process may use, or `COREPRESS_NUM_THREADS`.

    Returns
    -------
    PalettizedTensor or list of PalettizedTensor
        With indices packed in row-major order, least significant bit first, and entries in ascending order; vectors
        ascend component by component. For a sparse or a quantized tensor, a tensor of the same class with palettized
        values or data.

    Raises
    ------
    TypeError
        If the weight is not a float array in the CPU's memory, or another argument is not an array of numbers.
    ValueError
        For values out of range, a group size that does not divide the axis (`IndivisibleError`), more distinct values
        than entries (`TooManyValuesError`), and NaN or infinite weights (`NonFiniteError`).

    Notes
    -----
    Optimal one-dimensional clustering after Gronlund et al., "Fast exact k-means, k-medians and Bregman divergence
    clustering in 1D", arXiv:1701.07204, on the histogram of the weights. A group of more than 16,384 float32 weights is
    first clustered in about 32,768 buckets; the cuts between its entries are then refined to single values. Vectors are
    clustered as by `corepress.kernels.kmeans`: a good palette, with no known way to find the optimum. A group with no
    more distinct vectors than entries loses nothing.

    Examples
    --------
    >>> weight = np.linspace(-1, 1, 4096, dtype=np.float16).reshape(64, 64)
    >>> palettized = palettize(weight, nbits=4, granularity="per_grouped_channel", group_size=16)
    >>> palettized
    <PalettizedTensor 4 bits float16, 4 groups, shape (64, 64), 4.250 bits/weight>
    >>> palettized.lut.shape, palettized.codes().dtype, palettized.dense().dtype
    ((4, 1, 16, 1), dtype('uint8'), dtype('float16'))
    """
    weights, importances = as_list("palettize", weight, importance)
    _, hessians = as_list("palettize", weight, hessian, "hessian")
    in_list = is_list(weight)
    options: dict[str, Any] = {
        "granularity": granularity,
        "group_size": group_size,
        "cluster_dim": cluster_dim,
        "channel_axis": channel_axis,
        "indivisible": indivisible,
        "enable_per_channel_scale": enable_per_channel_scale,
        "nonfinite": nonfinite,
        "lut_dtype": lut_dtype,
    }
    if mode == "custom":
        raise ValueError("palettize: mode 'custom' is for models, where lut_function makes the tables; give lut")
    table = None
    if lut is not None:
        table = np.sort(given_table("palettize", "lut", lut))
        nbits = width_for(table.size) if nbits is None else nbits
    spec = Palettize(nbits=nbits, mode=mode, **options)
    if table is not None:
        if spec.mode != "kmeans":
            raise ValueError(f"palettize: give lut or mode {mode!r}, not both")
        if spec.cluster_dim != 1:
            raise ValueError(f"palettize: give lut or cluster_dim {cluster_dim}, not both")
        if spec.nonfinite == "table":
            raise ValueError("palettize: nonfinite 'table' makes its own table; leave out lut")
        width_for(table.size, spec.nbits)
        if importance is not None:
            raise ValueError(f"palettize: {IMPORTANCE_NEEDS_KMEANS}")
    WeightData(importance, hessian, dampening=dampening).require_use(spec)
    data = [WeightData(*each, dampening=dampening) for each in zip(importances, hessians, strict=True)]
    measured = palettize_measured(weights, spec, num_threads, table, data, in_list=in_list)
    tensors = [tensor for tensor, _ in quantize_tables(measured, spec, num_threads, in_list=in_list)]
    return tensors if in_list else tensors[0]
