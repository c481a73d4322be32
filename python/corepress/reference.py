"""Slow, obvious versions of the kernels in NumPy and plain Python; tests compare the native ones with them.

Where a kernel promises bits (codes, scales, zero points, masks, packed bytes, decompressed arrays), these give the same
bits. Each function takes one block or one group: dividing a tensor is the caller's business.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class _Format(NamedTuple):
    digits: int  # of the significand, the leading one included
    exponent: int  # the smallest of a normal number

    @property
    def smallest(self) -> float:
        return math.ldexp(1.0, self.exponent + 1 - self.digits)

    @property
    def smallest_normal(self) -> float:
        return math.ldexp(1.0, self.exponent)

    @property
    def overflow(self) -> float:
        """Half way from the largest finite number to the next power of two."""
        return math.ldexp(2.0 - math.ldexp(1.0, -self.digits), 1 - self.exponent)


_FORMATS = {"float16": _Format(11, -14), "bfloat16": _Format(8, -126), "float32": _Format(24, -126)}


def pack_bits(codes: ArrayLike, nbits: int, bitorder: str = "little") -> NDArray[np.uint8]:
    """Pack codes bit by bit: bit b of code i is bit ``(i * nbits + b) % 8`` of byte ``(i * nbits + b) // 8``.

    With `bitorder` ``"big"`` both bits are counted from the most significant one.

    Parameters
    ----------
    codes : array_like of int
        Codes below ``2**nbits``, taken in row-major order.
    nbits : int
        Bits per code.

    Returns
    -------
    numpy.ndarray of uint8
        ``(count * nbits + 7) // 8`` bytes; unused bits of the last one are 0.
    """
    flat = np.asarray(codes).reshape(-1)
    packed = np.zeros((flat.size * nbits + 7) // 8, np.uint8)
    for index, code in enumerate(flat.tolist()):
        for bit in range(nbits):
            place = index * nbits + bit
            if bitorder == "little":
                packed[place // 8] |= (code >> bit & 1) << place % 8
            else:
                packed[place // 8] |= (code >> nbits - 1 - bit & 1) << 7 - place % 8
    return packed


def unpack_bits(data: NDArray[np.uint8], nbits: int, count: int) -> NDArray[np.uint8]:
    """Unpack `count` codes; the inverse of `pack_bits`.

    Parameters
    ----------
    data : numpy.ndarray of uint8
        Packed bytes.
    nbits : int
        Bits per code.
    count : int
        Number of codes.
    """
    bits = np.unpackbits(data, bitorder="little")[: count * nbits].reshape(count, nbits)
    codes: NDArray[np.uint8] = (bits << np.arange(nbits)).sum(axis=1).astype(np.uint8)
    return codes


def to_float16(values: ArrayLike) -> NDArray[np.float16]:
    """Round to half precision, to nearest, ties to even, from float64 at once.

    Parameters
    ----------
    values : array_like of float
        Infinities and NaN stay; 65520 and more becomes infinite.
    """
    return round_to(values, np.float16)


def round_to(values: ArrayLike, dtype: Any) -> NDArray[Any]:
    """Round float64 numbers to float16, bfloat16 or float32, to nearest, ties to even."""
    form = _FORMATS[np.dtype(dtype).name]
    numbers = np.asarray(values, np.float64)
    _, exponents = np.frexp(numbers)
    spacing = np.ldexp(1.0, np.maximum(exponents, form.exponent + 1) - form.digits)  # around each number
    with np.errstate(invalid="ignore"):
        rounded = np.rint(numbers / spacing) * spacing
    rounded = np.where(np.abs(numbers) >= form.overflow, np.copysign(np.inf, numbers), rounded)
    return np.where(np.isnan(numbers), np.nan, rounded).astype(dtype)


def _step(value: Any, steps: int) -> Any:
    """Return the number of its format so many places above a positive one."""
    pattern = np.array([value]).view(f"i{value.dtype.itemsize}")
    return (pattern + np.array(steps, pattern.dtype)).view(value.dtype)[0]


def vectors_of(array: NDArray[Any], cluster_dim: int, axis: int) -> NDArray[Any]:
    """Return the vectors of `cluster_dim` consecutive elements along an axis, one a row.

    Parameters
    ----------
    array : numpy.ndarray
        Any shape with such an axis, which `cluster_dim` divides.
    cluster_dim : int
        Elements of a vector.
    axis : int
        The axis. Rows come in row-major order of the array's shape with that axis divided by `cluster_dim`.
    """
    shape = (*array.shape[:axis], array.shape[axis] // cluster_dim, cluster_dim, *array.shape[axis + 1 :])
    return np.moveaxis(array.reshape(shape), axis + 1, -1).reshape(-1, cluster_dim)


def vector_distances(
    vectors: NDArray[Any], entries: NDArray[Any], weights: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Return the sums of squares, in float32 and in the order of components, between vectors and table entries.

    The kernels give the same bits for float16, and for float32 tables whose largest magnitude is from 2**-20 to 2**40.

    Parameters
    ----------
    vectors : numpy.ndarray
        Shape ``(count, length)``.
    entries : numpy.ndarray
        Shape ``(entries, length)``.
    weights : numpy.ndarray of float32, optional
        What each component's square is multiplied by, in the shape of `vectors`.
    """
    differences = vectors.astype(np.float32)[:, None, :] - entries.astype(np.float32)[None, :, :]
    squares = differences * differences
    if weights is not None:
        squares = squares * weights[:, None, :]
    distances: NDArray[np.float32] = np.add.accumulate(squares, axis=-1)[..., -1]
    return distances


def assign_vectors(
    vectors: NDArray[Any], entries: NDArray[Any], weights: NDArray[np.float32] | None = None
) -> NDArray[np.int64]:
    """Return the nearest entry of each vector, of equally near ones the first; see `vector_distances`."""
    codes: NDArray[np.int64] = np.argmin(vector_distances(vectors, entries, weights), axis=1)
    return codes


def lloyd_step(vectors: NDArray[Any], entries: NDArray[Any]) -> NDArray[np.float64]:
    """Return the means of the vectors nearest to each entry, in float64; an entry that has none stays.

    Parameters
    ----------
    vectors : numpy.ndarray
        Shape ``(count, length)``.
    entries : numpy.ndarray
        Shape ``(entries, length)``.
    """
    moved = entries.astype(np.float64)
    codes = assign_vectors(vectors, entries)
    for code in np.unique(codes):
        moved[code] = vectors[codes == code].astype(np.float64).mean(axis=0)
    return moved


def decode_palette(codes: NDArray[Any], lut: NDArray[Any], vector_axis: int | None) -> NDArray[Any]:
    """Look up every element: ``lut[group of its code..., its code, its place in the vector]``.

    Parameters
    ----------
    codes : numpy.ndarray of int
        In the weight's shape, with `vector_axis` divided by the vectors' length.
    lut : numpy.ndarray
        Shape: groups along each axis of `codes`, entries, length of a vector. Groups divide the axes of `codes`.
    vector_axis : int or None
        None where the length is 1.
    """
    length = lut.shape[-1]
    shape = tuple(size * length if axis == vector_axis else size for axis, size in enumerate(codes.shape))
    dense = np.empty(shape, lut.dtype)
    for place in np.ndindex(shape):
        index = tuple(each // length if axis == vector_axis else each for axis, each in enumerate(place))
        group = tuple(
            each * groups // size for each, groups, size in zip(index, lut.shape[:-2], codes.shape, strict=True)
        )
        component = 0 if vector_axis is None else place[vector_axis] % length
        dense[place] = lut[(*group, codes[index], component)]
    return dense


def table_cuts(lut: NDArray[Any]) -> NDArray[np.float64]:
    """Return the middles between the neighbouring entries of an ascending table, in float64."""
    entries = lut.astype(np.float64)
    return (entries[:-1] + entries[1:]) / 2


def assign(values: NDArray[Any], lut: NDArray[Any]) -> NDArray[np.uint8]:
    """Return for each value the number of its nearest entry; between two equally near ones the lower.

    Parameters
    ----------
    values : numpy.ndarray of float16 or float32
        Any shape.
    lut : numpy.ndarray
        Ascending entries. Of equal entries the first is taken, for values above the last of them too.
    """
    cuts = table_cuts(lut)
    codes = np.zeros(values.shape, np.int64)
    for cut in cuts:
        codes += values.astype(np.float64) > cut
    first_equal = np.searchsorted(lut, lut, side="left")
    return first_equal[codes].astype(np.uint8)


def uniform_table(values: NDArray[Any], entries: int) -> NDArray[Any]:
    """Even steps from the smallest to the largest value, in double, rounded to the dtype of `values`; -0 is 0."""
    lowest, highest = float(values.min()), float(values.max())
    steps = [lowest + k * ((highest - lowest) / (entries - 1)) for k in range(entries - 1)]
    table: NDArray[Any] = round_to([*steps, highest], values.dtype) + values.dtype.type(0)
    return table


def look_up(codes: NDArray[np.uint8], lut: NDArray[Any]) -> NDArray[Any]:
    """Return the entries that the codes stand for."""
    return lut[codes]


def block_parameters(parameters: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return each element's parameter: element i of an axis takes entry ``i // (length // entries)`` of it.

    Parameters
    ----------
    parameters : numpy.ndarray
        One axis per axis of `shape`, then any further ones.
    shape : tuple of int
        Whose axes the entries divide.
    """
    for axis, length in enumerate(shape):
        entries = parameters.shape[axis]
        parameters = parameters.take([i // (length // entries) for i in range(length)], axis=axis)
    return parameters


def look_up_groups(codes: NDArray[np.uint8], lut: NDArray[Any]) -> NDArray[Any]:
    """Return the entries that codes stand for, each in the table of its group.

    Parameters
    ----------
    codes : numpy.ndarray of uint8
        In the tensor's shape.
    lut : numpy.ndarray
        Groups along each axis, then entries, then 1.
    """
    tables = block_parameters(lut[..., 0], codes.shape)
    entries: NDArray[Any] = np.take_along_axis(tables, codes[..., None].astype(np.intp), axis=-1)[..., 0]
    return entries


def dequantize_blocks(codes: NDArray[Any], scale: NDArray[Any], zero_point: NDArray[Any] | None) -> NDArray[Any]:
    """Return ``(codes - zero_point) * scale`` with the parameters of each element's block; see `dequantize`."""
    centred = codes.astype(np.float32)
    if zero_point is not None:
        centred = centred - block_parameters(zero_point, codes.shape).astype(np.float32)
    return (centred * block_parameters(scale, codes.shape).astype(np.float32)).astype(scale.dtype)


def normalize(weight: NDArray[Any], axis: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the largest magnitude of each entry of an axis, 1 where that is 0, and the weight divided by it.

    Parameters
    ----------
    weight : numpy.ndarray of float16 or float32
        Any shape.
    axis : int
        The axis whose entries have a scale each.
    """
    others = tuple(each for each in range(weight.ndim) if each != axis % weight.ndim)
    scale = np.abs(weight).max(axis=others, keepdims=True)
    scale[scale == 0] = 1
    return scale, (weight.astype(np.float32) / scale.astype(np.float32)).astype(weight.dtype)


def kmeans1d(values: Sequence[float], k: int, weights: Sequence[float] | None = None) -> tuple[list[float], float]:
    """Cluster numbers optimally, in exact rational arithmetic, by a dynamic program over all cuts.

    Parameters
    ----------
    values : sequence of float
        Numbers in any order, repetitions allowed. The work grows with ``k * n**2``.
    k : int
        Number of clusters.
    weights : sequence of float, optional
        Importance of each value; None for 1 each. Values of weight 0 are left out.

    Returns
    -------
    centroids : list of float
        Means of the clusters of an optimal solution, ascending; as many as distinct values if those are fewer than k.
    inertia : float
        The least possible weighted sum of squared distances to the nearest centroid.
    """
    totals: dict[Fraction, Fraction] = {}
    for value, weight in zip(values, weights if weights is not None else [1.0] * len(values), strict=True):
        if weight > 0:
            totals[Fraction(value)] = totals.get(Fraction(value), Fraction(0)) + Fraction(weight)
    points = sorted(totals.items())
    count = len(points)
    weight_sums, moment_sums, square_sums = [Fraction(0)], [Fraction(0)], [Fraction(0)]
    for point, weight_of_point in points:
        weight_sums.append(weight_sums[-1] + weight_of_point)
        moment_sums.append(moment_sums[-1] + weight_of_point * point)
        square_sums.append(square_sums[-1] + weight_of_point * point * point)

    def mean(begin: int, end: int) -> Fraction:
        return (moment_sums[end] - moment_sums[begin]) / (weight_sums[end] - weight_sums[begin])

    def cost(begin: int, end: int) -> Fraction:
        return square_sums[end] - square_sums[begin] - (moment_sums[end] - moment_sums[begin]) * mean(begin, end)

    best = [cost(0, end) if end else Fraction(0) for end in range(count + 1)]  # of the points before `end`
    starts = [[0] * (count + 1)]
    for clusters in range(2, min(k, count) + 1):
        start_of = [0] * (count + 1)
        new = list(best)
        for end in range(clusters, count + 1):
            start_of[end] = min(range(clusters - 1, end), key=lambda start: best[start] + cost(start, end))
            new[end] = best[start_of[end]] + cost(start_of[end], end)
        best = new
        starts.append(start_of)
    centroids = []
    end = count
    for start_of in reversed(starts):
        centroids.append(float(mean(start_of[end], end)))
        end = start_of[end]
    return centroids[::-1], float(best[count])


def choose_scale(low: float, high: float, code_range: tuple[int, int], symmetric: bool, dtype: Any) -> tuple[Any, int]:
    """Return the scale and the zero point for values in [low, high].

    Parameters
    ----------
    low, high : float
        Range of the values.
    code_range : tuple of int
        Smallest and largest code; codes are signed if the smallest is negative.
    symmetric : bool
        Whether the range is made symmetric about zero; otherwise it is widened to include zero.
    dtype : dtype
        Of the weight and the scale.
    """
    lowest, highest = code_range
    zero_point = 0
    if symmetric:
        high = max(abs(low), abs(high))
        low = -high
        zero_point = 0 if lowest < 0 else (highest + 1) // 2
    else:
        low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        return np.dtype(dtype).type(1), zero_point
    if not symmetric:
        zero_point = round((lowest * high - highest * low) / (high - low))
        zero_point = min(max(zero_point, lowest), highest)
    with np.errstate(over="ignore"):
        span = float(round_to(high - low, dtype))  # as coremltools has it, unless that overflows
    scale = round_to((span if math.isfinite(span) else high - low) / (highest - lowest), dtype)[()]
    scale = max(scale, np.dtype(dtype).type(_FORMATS[np.dtype(dtype).name].smallest))
    while not _decodes_finite(scale, lowest - zero_point) or not _decodes_finite(scale, highest - zero_point):
        scale = _step(scale, -1)
    return scale, zero_point


def _decodes_finite(scale: Any, code: int) -> bool:
    with np.errstate(over="ignore"):
        return bool(np.isfinite((np.float32(code) * np.float32(scale)).astype(scale.dtype)))


def quantize(
    values: NDArray[Any], code_range: tuple[int, int], symmetric: bool, search_scale: bool = False
) -> tuple[NDArray[np.int64], Any, int]:
    """Quantize one block: ``clip(rint(value / scale) + zero_point)``, the quotient in float32, ties to even.

    Of a subnormal scale and the next one above, the one with the smaller squared error is taken.

    Parameters
    ----------
    values : numpy.ndarray of float16 or float32
        Any shape, at least one value.
    code_range : tuple of int
        Smallest and largest code.
    symmetric : bool
        See `choose_scale`.
    search_scale : bool
        See `search_scale`; symmetric codes then have one more value at the end that is left out otherwise.

    Returns
    -------
    codes : numpy.ndarray of int64
        In the shape of `values`.
    scale : numpy.floating
        Of the weight's dtype.
    zero_point : int
    """
    scale, zero_point = choose_scale(float(values.min()), float(values.max()), code_range, symmetric, values.dtype)
    scales = [scale]
    if float(scale) < _FORMATS[scale.dtype.name].smallest_normal:
        scales.append(_step(scale, 1))
    errors = [_squared_error(values, scale, zero_point, code_range) for scale in scales]
    scale = scales[errors.index(min(errors))]
    if search_scale:
        if symmetric and code_range[0] < 0:
            code_range = code_range[0] - 1, code_range[1]
        elif symmetric:
            code_range = code_range[0], code_range[1] + 1
        scale, zero_point = _search_scale(values, scale, zero_point, code_range, symmetric)
    return _codes(values, scale, zero_point, code_range), scale, zero_point


def _codes(values: NDArray[Any], scale: Any, zero_point: int, code_range: tuple[int, int]) -> NDArray[np.int64]:
    quotients = np.rint(values.astype(np.float32) / np.float32(scale)).astype(np.float64)
    codes: NDArray[np.int64] = np.clip(quotients + zero_point, *code_range).astype(np.int64)
    return codes


def _squared_error(values: NDArray[Any], scale: Any, zero_point: int, code_range: tuple[int, int]) -> float:
    decoded = dequantize(_codes(values, scale, zero_point, code_range), scale, zero_point)
    return error_sums(values, decoded)[0]


def _search_scale(
    values: NDArray[Any], start: Any, start_zero_point: int, code_range: tuple[int, int], symmetric: bool
) -> tuple[Any, int]:
    """Return a scale and a zero point of smaller squared error than the given ones, if they are found.

    Scales from 40 to 76 sixty-fourths of the given one are candidates, each with the zero points that clip about as
    much at both ends. The three whose codes explain most of the values' squares are improved: the least-squares scale
    for the codes gives new codes, neighbouring zero points are tried, until nothing improves.
    """
    lowest, highest = code_range
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    best = (_ordered_error(values, start, start_zero_point, code_range), start, start_zero_point)
    if best[0] == 0:
        return start, start_zero_point

    def rounded(scale: float, zero_point: int) -> tuple[Any, int] | None:
        with np.errstate(over="ignore"):
            smallest = values.dtype.type(_FORMATS[values.dtype.name].smallest)
            candidate = max(round_to(np.float32(scale), values.dtype)[()], smallest)
        ends = (lowest - zero_point, highest - zero_point)
        usable = lowest <= zero_point <= highest and all(_decodes_finite(candidate, code) for code in ends)
        return (candidate, zero_point) if usable else None

    def consider(scale: float, zero_point: int) -> bool:
        nonlocal best
        candidate = rounded(scale, zero_point)
        if candidate is None or candidate == best[1:]:
            return False
        error = _ordered_error(values, *candidate, code_range)
        if error < best[0]:
            best = (error, *candidate)
            return True
        return False

    def consider_scale_of(moments: tuple[float, float], zero_point: int) -> bool:
        return moments[0] > 0 and consider(moments[0] / moments[1], zero_point)

    candidates = []
    for sixty_fourths in (*range(40, 47, 2), *range(47, 74), 76):
        scale = float(start) * sixty_fourths / 64
        if symmetric:
            candidates.append(rounded(scale, start_zero_point))
        else:
            middle = round((lowest + highest) / 2 - (low + high) / 2 / scale)
            inside = min(max(middle, lowest), highest)
            candidates += [rounded(scale, inside + shift) for shift in (-1, 0, 1)]
    usable = list(filter(None, candidates))
    fits = [
        (_rough_moments(values, usable[0][0], scale, lowest - zero_point, highest - zero_point), zero_point)
        for scale, zero_point in usable
    ]
    for _ in range(3):
        explained = [product * product / square if square else 0.0 for (product, square), _ in fits]
        if max(explained, default=0.0) <= 0:
            break
        moments, zero_point = fits[explained.index(max(explained))]
        consider_scale_of(moments, zero_point)
        for _ in range(6):
            centred = _codes(values, *best[1:], code_range) - best[2]
            improved = consider_scale_of(_moments(values, centred), best[2])
            if not symmetric:
                _, scale, zero_point = best
                for shift in (-1, 1):
                    improved = consider(float(scale), zero_point + shift) or improved
            if not improved:
                break
        fits = [fit for fit in fits if fit[0] != moments]
    return best[1:]


def _in_lanes(numbers: NDArray[np.float64]) -> float:
    """Sum as the kernels do: eight lanes, then the lanes in order."""
    padded = np.append(numbers.reshape(-1), np.zeros(-numbers.size % 8))
    return float(np.add.accumulate(np.add.accumulate(padded.reshape(-1, 8), axis=0)[-1])[-1])


def _moments(values: NDArray[Any], centred: NDArray[Any]) -> tuple[float, float]:
    exact, codes = values.astype(np.float64), centred.astype(np.float64)
    return _in_lanes(exact * codes), _in_lanes(codes * codes)


def _rough_moments(
    values: NDArray[Any], first_scale: Any, scale: Any, lowest: int, highest: int
) -> tuple[float, float]:
    """Moments in single precision, added up 256 values at a time, in units near the first candidate's scale."""
    exponent = max(math.frexp(float(first_scale))[1] - 1, -126)
    unit = np.float32(2.0 ** min(max(-exponent, -126), 126))
    exact = values.astype(np.float32).reshape(-1) * unit
    quotients = np.clip(exact * (np.float32(1) / (np.float32(scale) * unit)), lowest, highest)
    codes = np.rint(quotients).astype(np.float32)
    product = square = 0.0
    for begin in range(0, exact.size, 256):
        part = slice(begin, begin + 256)
        product += float(np.add.accumulate(exact[part] * codes[part])[-1]) / float(unit)
        square += float(np.add.accumulate(codes[part] * codes[part])[-1])
    return product, square


def _ordered_error(values: NDArray[Any], scale: Any, zero_point: int, code_range: tuple[int, int]) -> float:
    decoded = dequantize(_codes(values, scale, zero_point, code_range), scale, zero_point)
    return _in_lanes((values.astype(np.float64) - decoded.astype(np.float64)) ** 2)


def dequantize(codes: NDArray[Any], scale: Any, zero_point: int) -> NDArray[Any]:
    """Return ``(codes - zero_point) * scale``, computed in float32 and rounded once more for a float16 scale."""
    products = (codes.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)
    return products.astype(scale.dtype)


def magnitude_of_sparsity(weight: NDArray[Any], target_sparsity: float) -> float:
    """Return the largest magnitude that pruning to a target sparsity zeroes: ``a[floor((n - 1) * s)]``.

    Parameters
    ----------
    weight : numpy.ndarray of float16 or float32
        Any shape.
    target_sparsity : float
        Fraction s in [0, 1]. 0 gives 0: only zeros go; 1 gives infinity: everything goes.
    """
    if target_sparsity == 0 or weight.size == 0:
        return 0.0
    if target_sparsity == 1:
        return math.inf
    magnitudes = np.sort(np.abs(weight.astype(np.float64)).reshape(-1))
    return float(magnitudes[math.floor((weight.size - 1) * target_sparsity)])


def magnitude_mask(weight: NDArray[Any], threshold: float) -> NDArray[np.bool_]:
    """Return where ``|weight| > threshold``, compared in float64, hence exactly."""
    above: NDArray[np.bool_] = np.abs(weight.astype(np.float64)) > threshold
    return above


def n_m_mask(weight: NDArray[Any], n_m_ratio: tuple[int, int], dim: int) -> NDArray[np.bool_]:
    """Return what stays when of every m consecutive weights along an axis the n of smallest magnitude go.

    Parameters
    ----------
    weight : numpy.ndarray of float16 or float32
        Any shape.
    n_m_ratio : tuple of int
        n and m. Of equal magnitudes the first goes first.
    dim : int
        The axis. Its end is filled up with zeros, which are the first to go.
    """
    n, m = n_m_ratio
    lines = np.moveaxis(np.abs(weight), dim, -1)
    keep = np.zeros(lines.shape, np.bool_)
    for begin in range(0, lines.shape[-1], m):
        group = lines[..., begin : begin + m]
        length = group.shape[-1]
        order = np.argsort(group, axis=-1, kind="stable")
        np.put_along_axis(keep[..., begin : begin + m], order[..., max(0, n - (m - length)) :], True, axis=-1)
    return np.moveaxis(keep, -1, dim)


def block_mask(weight: NDArray[Any], target_sparsity: float, block_size: int, dim: int) -> NDArray[np.bool_]:
    """Return where a block's norm is above ``a[floor((n - 1) * s)]``, `a` the sorted norms of all weights' blocks.

    Parameters
    ----------
    weight : numpy.ndarray of float16 or float32
        Any shape, at least one element.
    target_sparsity : float
        Fraction s, above 0 and below 1.
    block_size : int
        Consecutive weights along the axis that are a block; the last one may be shorter.
    dim : int
        The axis.
    """
    squares = np.moveaxis(weight.astype(np.float64) ** 2, dim, 0)
    norms = np.zeros_like(squares)
    for begin in range(0, squares.shape[0], block_size):
        total = np.zeros(squares.shape[1:])
        for row in squares[begin : begin + block_size]:
            total += row
        norms[begin : begin + block_size] = total
    limit = np.sort(norms.reshape(-1))[math.floor((norms.size - 1) * target_sparsity)]
    above: NDArray[np.bool_] = np.moveaxis(norms > limit, 0, dim)
    return above


def encode_sparse(weight: NDArray[Any], mask: NDArray[np.bool_]) -> NDArray[Any]:
    """Return the weights where `mask` is true, in row-major order."""
    return weight[mask]


def decode_sparse(values: NDArray[Any], mask: NDArray[np.bool_]) -> NDArray[Any]:
    """Return an array of the mask's shape with `values` where it is true and 0 elsewhere."""
    dense = np.zeros(mask.shape, values.dtype)
    dense[mask] = values
    return dense


def error_sums(first: NDArray[Any], second: NDArray[Any]) -> tuple[float, float, float, float, float]:
    """Return the sums of ``(a - b)**2``, ``a**2``, ``b**2`` and ``a * b``, and the largest ``|a - b|``.

    Parameters
    ----------
    first, second : numpy.ndarray of float16 or float32
        Finite, of one shape.
    """
    pairs = list(zip(first.reshape(-1).tolist(), second.reshape(-1).tolist(), strict=True))
    return (
        math.fsum((a - b) ** 2 for a, b in pairs),
        math.fsum(a * a for a, _ in pairs),
        math.fsum(b * b for _, b in pairs),
        math.fsum(a * b for a, b in pairs),
        max((abs(a - b) for a, b in pairs), default=0.0),
    )
