"""Weights as Core ML's ``WeightParams`` messages and as arrays: the one place that reads and writes the messages."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import kernels
from .._core import decode_even_steps, look_up, sum_errors, sum_even_step_errors, sum_palette_errors
from ..arrays import contiguous
from ..compression.metrics import Error, error_of_sums
from ..errors import FormatError
from ..specs import in_bits
from ..tensors import packed_size

HALF_BITS = 16
_ENTRIES = 256  # of a table that codes of one byte look up
_PIECE = 1 << 20  # weights that are widened at a time


@dataclass(frozen=True)
class PackedCodes:
    """Codes that are unpacked on demand.

    Attributes
    ----------
    data : numpy.ndarray of uint8
        Packed, most significant bit first.
    nbits, size : int
        Bits of a code, and how many there are.
    """

    data: NDArray[np.uint8]
    nbits: int
    size: int

    def __getitem__(self, wanted: slice) -> NDArray[Any]:
        first = wanted.start // 8 * 8
        part = self.data[first * self.nbits // 8 : packed_size(wanted.stop, self.nbits)]
        return kernels.unpack_bits(part, self.nbits, wanted.stop - first, bitorder="big")[wanted.start - first :]


@dataclass(frozen=True)
class EncodedWeight:
    """A weight of 1 to 8 bits, before it is packed.

    Attributes
    ----------
    codes : numpy.ndarray of uint8
        In the weight's shape.
    nbits : int
        Bits of a code.
    scale, bias : numpy.ndarray of float32 or None
        Weights are ``scale * code + bias``; one, or one per entry of `channel_axis`. `bias` may be empty: 0.
    lut : numpy.ndarray of float32 or None
        Instead: weights are ``lut[code]``; ``2**nbits`` entries.
    channel_axis : int or None
        See above.
    """

    codes: NDArray[Any]
    nbits: int
    scale: NDArray[np.float32] | None = None
    bias: NDArray[np.float32] | None = None
    lut: NDArray[np.float32] | None = None
    channel_axis: int | None = None

    def dense(self, num_threads: int | None = None) -> NDArray[np.float32]:
        """The decoded weight."""
        values = np.empty(self.codes.shape, np.float32)
        if self.lut is not None:
            count = self.codes.size
            look_up(self._bytes, ((1, count),), 8, self._byte_table, None, values.reshape(-1), num_threads)
        else:
            decode_even_steps(self._bytes, *self._steps, values.reshape(-1), num_threads)
        return values

    def error(self, weight: NDArray[np.float32], num_threads: int | None = None) -> Error:
        """The error of `weight`, without decoding all of it at once."""
        if self.lut is not None:
            layout = (1, 1, weight.size)
            sums = sum_palette_errors(weight, self._bytes, layout, 8, self._byte_table, num_threads)
        else:
            sums = sum_even_step_errors(weight, self._bytes, *self._steps, num_threads)
        return error_of_sums(sums, weight.size)

    @property
    def _bytes(self) -> NDArray[np.uint8]:
        return np.ascontiguousarray(self.codes).reshape(-1).view(np.uint8)

    @property
    def _byte_table(self) -> NDArray[np.float32]:
        """The table, with an entry for every byte."""
        assert self.lut is not None
        return np.pad(self.lut, (0, _ENTRIES - self.lut.size), mode="edge")

    @property
    def scales(self) -> NDArray[np.float32]:
        """The scales; one, or one for each channel."""
        assert self.scale is not None
        return self.scale

    @property
    def biases(self) -> NDArray[np.float32]:
        """As many biases as there are scales."""
        return np.zeros_like(self.scales) if self.bias is None or self.bias.size == 0 else self.bias

    @property
    def _steps(self) -> tuple[tuple[int, int, int], bool, NDArray[np.float32], NDArray[np.float32]]:
        """Layout of the channels, whether codes are signed, scales and biases."""
        layout = channel_layout(self.codes.shape, self.channel_axis if self.scales.size > 1 else None)
        return layout, self.codes.dtype == np.int8, self.scales, self.biases


def channel_layout(shape: tuple[int, ...], channel_axis: int | None) -> tuple[int, int, int]:
    """The layout of a weight's channels: outer, channels, run; None for one channel."""
    if channel_axis is None:
        return 1, 1, prod(shape)
    return prod(shape[:channel_axis]), shape[channel_axis], prod(shape[channel_axis + 1 :])


def half_error(weight: NDArray[np.float32], half: NDArray[np.float16], num_threads: int | None = None) -> Error:
    """The error of a finite weight in half precision, without converting all of it at once."""
    values, halves = weight.reshape(-1), half.reshape(-1)
    pieces = [
        sum_errors(values[begin : begin + _PIECE], halves[begin : begin + _PIECE].astype(np.float32), num_threads)
        for begin in range(0, values.size, _PIECE)
    ]
    *sums, largest = zip(*pieces, strict=True)
    sse, signal, decoded, product = map(math.fsum, sums)
    return error_of_sums((sse, signal, decoded, product, max(largest)), values.size)


def decoded_pieces(
    weights: Sequence[tuple[Any, tuple[int, ...], int | None]], num_threads: int | None = None
) -> Iterator[tuple[NDArray[np.float32], ...]]:
    """Decode weights of one shape a piece at a time, 1-D and alike for all: none is in memory as float32 as a whole.

    Parameters
    ----------
    weights : sequence of tuple
        Arguments of `read_weight`.
    num_threads : int, optional
        Threads to use.

    Raises
    ------
    FormatError
        If a message does not hold such a weight.
    """
    decoders = [_decoder(*weight, num_threads) for weight in weights]
    size, run = prod(weights[0][1]), max(run for _, run in decoders)
    step = max(1, _PIECE // run) * run if run <= _PIECE else _PIECE
    begin = 0
    while begin < size or begin == 0:
        # A piece has whole channels, or a part of one.
        stop = min(begin + step, size if run <= _PIECE else (begin // run + 1) * run)
        yield tuple(decode(begin, stop) for decode, _ in decoders)
        begin = stop or 1


def _decoder(
    params: Any, shape: tuple[int, ...], channel_axis: int | None, num_threads: int | None
) -> tuple[Callable[[int, int], NDArray[np.float32]], int]:
    """A function that decodes a range of a weight's elements, and the length of a channel's runs."""
    kind = kind_of(params)
    if kind in ("quantized", "int8"):
        codes, encoded = read_codes(params, shape, channel_axis)
        axis = channel_axis if encoded.lut is None and encoded.scales.size > 1 else None
        _, channels, run = channel_layout(shape, axis)

        def decode(begin: int, stop: int) -> NDArray[np.float32]:
            piece = codes[begin:stop]
            if axis is None:
                return replace(encoded, codes=piece, channel_axis=None).dense(num_threads)
            rows = np.arange(begin // run, -(-stop // run))
            scale, bias = encoded.scales[rows % channels], encoded.biases[rows % channels]
            part = replace(encoded, codes=piece.reshape(rows.size, -1), scale=scale, bias=bias, channel_axis=0)
            return part.dense(num_threads).reshape(-1)

        return decode, run if axis is not None else 1
    values: NDArray[Any] = read_half(params, shape) if kind == "float16" else read_weight(params, shape, channel_axis)
    flat = values.reshape(-1)
    return lambda begin, stop: contiguous(flat[begin:stop], np.float32), 1


def kind_of(params: Any) -> str:
    """How a weight is stored.

    Returns
    -------
    {"float32", "float16", "quantized", "int8", "empty"}
        ``"int8"`` is for layers that also quantize their inputs.

    Raises
    ------
    FormatError
        If it is stored in several ways at once.
    """
    sizes = {
        "float32": sum(map(len, params.floatValue)),
        "float16": len(params.float16Value),
        "quantized": len(params.rawValue),
        "int8": len(params.int8RawValue),
    }
    found = [kind for kind, size in sizes.items() if size]
    if len(found) > 1:
        raise FormatError(f"a weight must be stored in one way, not as {' and '.join(found)}")
    return found[0] if found else "empty"


def is_same_message(first: Any, second: Any) -> bool:
    """Whether two messages are the same bit for bit; serialized only if their sizes are equal."""
    if first.ByteSize() != second.ByteSize():
        return False
    one, other = (each.SerializeToString(deterministic=True) for each in (first, second))
    return bool(one == other)


def read_weight(params: Any, shape: tuple[int, ...], channel_axis: int | None) -> NDArray[np.float32]:
    """Decode a weight to float32.

    Raises
    ------
    FormatError
        If the message does not hold such a weight.
    """
    kind = kind_of(params)
    if kind == "float32":
        return _shaped(np.frombuffer(_whole(_joined(params.floatValue), 4), "<f4"), shape)
    if kind == "float16":
        return read_half(params, shape).astype(np.float32)
    if kind == "empty":
        raise FormatError("has no values")
    return read_encoded(params, shape, channel_axis).dense()


def read_half(params: Any, shape: tuple[int, ...]) -> NDArray[np.float16]:
    """The half precision numbers of a weight; FormatError if the message does not hold as many."""
    return _shaped(np.frombuffer(_whole(params.float16Value, 2), "<f2"), shape)


def read_encoded(params: Any, shape: tuple[int, ...], channel_axis: int | None) -> EncodedWeight:
    """Unpack a quantized weight; FormatError if the message does not hold such a one."""
    codes, encoded = read_codes(params, shape, channel_axis)
    return replace(encoded, codes=codes[0 : prod(shape)].reshape(shape))


def read_codes(
    params: Any, shape: tuple[int, ...], channel_axis: int | None
) -> tuple[NDArray[Any] | PackedCodes, EncodedWeight]:
    """The codes of a quantized weight, which can be sliced, and the weight without them.

    Raises
    ------
    FormatError
        If the message does not hold such a weight.
    """
    quantization = params.quantization
    nbits = int(quantization.numberOfBits)
    if not 1 <= nbits <= 8:
        raise FormatError(f"numberOfBits must be 1 to 8, not {nbits}")
    if prod(shape) == 0:
        raise FormatError(f"holds values, but its layer's sizes require none (shape {shape})")
    codes = _stored_codes(params, nbits, shape)
    form = quantization.WhichOneof("QuantizationType")
    if form == "lookupTableQuantization":
        return codes, _with_table(params, nbits)
    if form == "linearQuantization":
        return codes, _with_scales(quantization.linearQuantization, nbits, shape, channel_axis)
    raise FormatError("quantization is neither linear nor by a lookup table")


_NO_CODES = np.empty(0, np.uint8)


def _stored_codes(params: Any, nbits: int, shape: tuple[int, ...]) -> NDArray[Any] | PackedCodes:
    count = prod(shape)
    if params.int8RawValue:
        codes = np.frombuffer(params.int8RawValue, np.int8)
        if nbits != 8 or codes.size != count:
            raise FormatError(f"int8RawValue must have {count} values of 8 bits (shape {shape}), not {codes.size}")
        return codes
    raw, size = np.frombuffer(params.rawValue, np.uint8), packed_size(count, nbits)
    if raw.size < size:
        raise FormatError(f"rawValue must have {size} bytes (shape {shape}, {in_bits(nbits)}), not {raw.size}")
    return raw[:size] if nbits == 8 else PackedCodes(raw[:size], nbits, count)


def _with_table(params: Any, nbits: int) -> EncodedWeight:
    table = np.array(params.quantization.lookupTableQuantization.floatValue, np.float32)
    if table.size != 2**nbits or params.int8RawValue:
        raise FormatError(f"a lookup table of {in_bits(nbits)} must have {2**nbits} entries, not {table.size}")
    return EncodedWeight(_NO_CODES, nbits, lut=table)


def _with_scales(linear: Any, nbits: int, shape: tuple[int, ...], channel_axis: int | None) -> EncodedWeight:
    scale, bias = np.array(linear.scale, np.float32), np.array(linear.bias, np.float32)
    channels = 1 if channel_axis is None else shape[channel_axis]
    if scale.size not in (1, channels) or bias.size not in (0, scale.size):
        raise FormatError(
            f"linear quantization must have 1 or {channels} scales and as many biases or none, "
            f"not {scale.size} and {bias.size}"
        )
    return EncodedWeight(_NO_CODES, nbits, scale=scale, bias=bias, channel_axis=channel_axis)


def _joined(pieces: Any) -> bytes | memoryview:
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _whole(data: bytes | memoryview, itemsize: int) -> bytes | memoryview:
    if len(data) % itemsize:
        raise FormatError(f"{len(data)} bytes are no whole number of values of {itemsize} bytes")
    return data


def _shaped(values: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    if values.size != prod(shape):
        raise FormatError(f"holds {values.size} values, but its layer's sizes require {prod(shape)} (shape {shape})")
    return values.reshape(shape)


def clear_values(params: Any) -> None:
    """Remove the values and their quantization."""
    for field in ("floatValue", "float16Value", "rawValue", "int8RawValue", "quantization"):
        params.ClearField(field)


def write_float32(params: Any, values: NDArray[np.float32]) -> None:
    """Store plain values."""
    clear_values(params)
    params.floatValue.append(values.astype("<f4", copy=False).tobytes())


def write_float16(params: Any, values: NDArray[np.float16]) -> None:
    """Store half precision values."""
    clear_values(params)
    params.float16Value = values.astype("<f2", copy=False).tobytes()


def write_encoded(params: Any, weight: EncodedWeight, num_threads: int | None) -> None:
    """Store codes of 1 to 8 bits, the most significant bit first."""
    clear_values(params)
    if weight.nbits == 8:
        params.rawValue = weight.codes.tobytes()
    else:
        packed = kernels.pack_bits(weight.codes, weight.nbits, bitorder="big", num_threads=num_threads)
        params.rawValue = packed.tobytes()
    params.quantization.numberOfBits = weight.nbits
    if weight.lut is not None:
        params.quantization.lookupTableQuantization.floatValue.extend(weight.lut.tolist())
    else:
        assert weight.scale is not None
        linear = params.quantization.linearQuantization
        linear.scale.extend(weight.scale.tolist())
        linear.bias.extend([] if weight.bias is None else weight.bias.tolist())


def write_blank(params: Any, count: int, nbits: int, channels: int | None) -> None:
    """Store zeros instead of a quantized weight, in the same number of bytes.

    Parameters
    ----------
    params : protobuf message
        The ``WeightParams``.
    count, nbits : int
        How many codes, and their bits; 16 for half precision, which has neither scales nor tables.
    channels : int or None
        For how many channels there are scales and biases; None for a table.
    """
    clear_values(params)
    if nbits == HALF_BITS:
        params.float16Value = bytes(2 * count)
        return
    params.rawValue = bytes(packed_size(count, nbits))
    params.quantization.numberOfBits = nbits
    if channels is None:
        params.quantization.lookupTableQuantization.floatValue.extend([0.0] * 2**nbits)
    else:
        params.quantization.linearQuantization.scale.extend([0.0] * channels)
        params.quantization.linearQuantization.bias.extend([0.0] * channels)


def stored_bytes(params: Any) -> int:
    """Bytes of values, scales and tables."""
    linear, table = params.quantization.linearQuantization, params.quantization.lookupTableQuantization
    payloads = (*params.floatValue, params.float16Value, params.rawValue, params.int8RawValue)
    return sum(map(len, payloads)) + 4 * (len(linear.scale) + len(linear.bias) + len(table.floatValue))


def describe(params: Any) -> str:
    """A short description of how a weight is stored."""
    kind = kind_of(params)
    if kind == "int8":
        return "int8, inputs quantized too"
    if kind != "quantized":
        return kind
    bits = in_bits(params.quantization.numberOfBits)
    if params.quantization.WhichOneof("QuantizationType") == "lookupTableQuantization":
        return f"{bits}, lookup table"
    scales = len(params.quantization.linearQuantization.scale)
    return f"{bits}, linear, {scales} scale{'' if scales == 1 else 's'}"
