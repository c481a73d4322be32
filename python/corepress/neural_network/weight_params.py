"""Weights as Core ML's ``WeightParams`` messages and as arrays: the one place that reads and writes the messages."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import kernels
from ..errors import FormatError
from ..tensors import packed_size

_PIECE = 1 << 20  # weights that are decoded at a time


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

    def dense(self) -> NDArray[np.float32]:
        """The decoded weight."""
        if self.lut is not None:
            looked_up: NDArray[np.float32] = self.lut[self.codes]
            return looked_up
        assert self.scale is not None
        scale, bias = self._spread(self.scale), self._spread(self.bias)
        values = np.empty(self.codes.shape, np.float32)
        # Piece by piece along the first axis, so that what is in between stays in the cache.
        rows = max(1, _PIECE // max(1, prod(self.codes.shape[1:])))
        with np.errstate(over="ignore", invalid="ignore"):  # scales of other tools may be infinite
            for begin in range(0, len(self.codes), rows):
                place = slice(begin, begin + rows)
                np.multiply(self.codes[place], _rows(scale, place), out=values[place])
                values[place] += _rows(bias, place)
        return values

    def _spread(self, parameters: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """Parameters in a shape that broadcasts with the codes."""
        if parameters is None or parameters.size == 0:
            parameters = np.zeros(1, np.float32)
        shape = [1] * self.codes.ndim
        if parameters.size > 1 and self.channel_axis is not None:
            shape[self.channel_axis] = parameters.size
        return parameters.reshape(shape)


def _rows(parameters: NDArray[np.float32], place: slice) -> NDArray[np.float32]:
    return parameters[place] if len(parameters) > 1 else parameters


def kind_of(params: Any) -> str:
    """How a weight is stored.

    Returns
    -------
    {"float32", "float16", "quantized", "int8", "empty"}
        ``"int8"`` is that of layers that quantize their inputs too.

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


def read_weight(params: Any, shape: tuple[int, ...], channel_axis: int | None) -> NDArray[np.float32]:
    """Decode a weight to float32.

    Raises
    ------
    FormatError
        If the message does not hold such a weight.
    """
    kind = kind_of(params)
    if kind == "float32":
        return _shaped(np.frombuffer(_joined(params.floatValue), "<f4"), shape)
    if kind == "float16":
        return _shaped(np.frombuffer(_whole(params.float16Value, 2), "<f2"), shape).astype(np.float32)
    if kind == "empty":
        raise FormatError("has no values")
    return read_encoded(params, shape, channel_axis).dense()


def read_encoded(params: Any, shape: tuple[int, ...], channel_axis: int | None) -> EncodedWeight:
    """Unpack a quantized weight; FormatError if the message does not hold such a one."""
    quantization, count = params.quantization, prod(shape)
    nbits = int(quantization.numberOfBits)
    if not 1 <= nbits <= 8:
        raise FormatError(f"numberOfBits must be 1 to 8, not {nbits}")
    if params.int8RawValue:
        data = np.frombuffer(params.int8RawValue, np.int8)
        if nbits != 8 or data.size != count:
            raise FormatError(f"int8RawValue must have {count} values of 8 bits (shape {shape}), not {data.size}")
        codes: NDArray[Any] = data
    else:
        raw, size = np.frombuffer(params.rawValue, np.uint8), packed_size(count, nbits)
        if raw.size < size:
            raise FormatError(f"rawValue must have {size} bytes (shape {shape}, {nbits} bits), not {raw.size}")
        codes = raw[:size] if nbits == 8 else kernels.unpack_bits(raw[:size], nbits, count, bitorder="big")
    codes = codes.reshape(shape)
    form = quantization.WhichOneof("QuantizationType")
    if form == "lookupTableQuantization":
        table = np.array(quantization.lookupTableQuantization.floatValue, np.float32)
        if table.size != 2**nbits or params.int8RawValue:
            raise FormatError(f"a lookup table of {nbits} bits must have {2**nbits} entries, not {table.size}")
        return EncodedWeight(codes, nbits, lut=table)
    if form != "linearQuantization":
        raise FormatError("quantization is neither linear nor by a lookup table")
    scale = np.array(quantization.linearQuantization.scale, np.float32)
    bias = np.array(quantization.linearQuantization.bias, np.float32)
    channels = 1 if channel_axis is None else shape[channel_axis]
    if scale.size not in (1, channels) or bias.size not in (0, scale.size):
        raise FormatError(
            f"linear quantization must have 1 or {channels} scales and as many biases or none, "
            f"not {scale.size} and {bias.size}"
        )
    return EncodedWeight(codes, nbits, scale=scale, bias=bias, channel_axis=channel_axis)


def _joined(pieces: Any) -> bytes:
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _whole(data: bytes, itemsize: int) -> bytes:
    if len(data) % itemsize:
        raise FormatError(f"{len(data)} bytes are no whole number of values of {itemsize} bytes")
    return data


def _shaped(values: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    if values.size != prod(shape):
        raise FormatError(f"holds {values.size} values, but its layer's sizes mean {prod(shape)} (shape {shape})")
    return values.reshape(shape)


def _clear(params: Any) -> None:
    for field in ("floatValue", "float16Value", "rawValue", "int8RawValue", "quantization"):
        params.ClearField(field)


def write_float32(params: Any, values: NDArray[np.float32]) -> None:
    """Store plain values."""
    _clear(params)
    params.floatValue.append(values.astype("<f4", copy=False).tobytes())


def write_float16(params: Any, values: NDArray[np.float16]) -> None:
    """Store half precision values."""
    _clear(params)
    params.float16Value = values.astype("<f2", copy=False).tobytes()


def write_encoded(params: Any, weight: EncodedWeight, num_threads: int | None) -> None:
    """Store codes of 1 to 8 bits, the most significant bit first."""
    _clear(params)
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


def stored_bytes(params: Any) -> int:
    """Bytes of values, scales and tables."""
    linear, table = params.quantization.linearQuantization, params.quantization.lookupTableQuantization
    payloads = (*params.floatValue, params.float16Value, params.rawValue, params.int8RawValue)
    return sum(map(len, payloads)) + 4 * (len(linear.scale) + len(linear.bias) + len(table.floatValue))


def describe(params: Any) -> str:
    """How a weight is stored, in words."""
    kind = kind_of(params)
    if kind == "int8":
        return "int8, inputs quantized too"
    if kind != "quantized":
        return kind
    bits = f"{params.quantization.numberOfBits} bits"
    if params.quantization.WhichOneof("QuantizationType") == "lookupTableQuantization":
        return f"{bits}, lookup table"
    scales = len(params.quantization.linearQuantization.scale)
    return f"{bits}, linear, {scales} scale{'' if scales == 1 else 's'}"
