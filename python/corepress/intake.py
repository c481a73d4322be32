"""Validation of arguments, once, on entry: arrays by any protocol, whole numbers of any type, outputs.

Functions take the names of the caller and of the argument; their errors name both, the value and the rule it breaks.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Dtypes(NamedTuple):
    """The dtypes that an argument may have, and what messages call them."""

    names: tuple[str, ...]
    words: str


# bfloat16 is the package ml_dtypes', which nothing here needs.
FLOATS = Dtypes(("float16", "bfloat16", "float32", "float64"), "float16, bfloat16, float32 or float64")
INTEGERS = Dtypes(tuple(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)), "integers")
NUMBERS = Dtypes((*FLOATS.names, *INTEGERS.names, "bool"), "numbers")
CODES = Dtypes(("uint8", "int8", "bool"), "uint8, int8 or bool")
MASKS = Dtypes(("bool", "uint8"), "bool or uint8")
BYTES = Dtypes(("uint8",), "uint8")


def as_array(verb: str, name: str, given: Any, dtypes: Dtypes) -> NDArray[Any]:
    """Return an argument as a native-endian array of one of `dtypes`, copied only if necessary.

    Parameters
    ----------
    verb, name : str
        Caller and argument, for messages.
    given : array_like
        A NumPy array, a list of numbers, or an object with ``__array__``, the buffer protocol or DLPack on the CPU. For
        tensors that require gradients, their values.
    dtypes : Dtypes
        The allowed dtypes.

    Raises
    ------
    TypeError
        For other dtypes, masked arrays, and objects that are not arrays or not in the CPU's memory.
    ValueError
        For lists whose parts differ in shape.
    """
    if _is_masked(given):
        raise TypeError(
            f"{verb}: {name} must not be a masked array; fill it, with {name}.filled(value) "
            "(palettize and quantize ignore values of importance 0)"
        )
    array = np.asarray(given) if isinstance(given, np.ndarray) else _read(verb, name, given, dtypes)
    dtype = array.dtype.newbyteorder("=")
    if dtype.name not in dtypes.names:
        hint = "; give one of its fields" if dtype.names else ""
        if dtype.kind == "c":
            hint = "; give its real and imaginary parts separately"
        raise TypeError(f"{verb}: {name} must be {_rule(array, given, dtypes)}{hint}")
    return array.astype(dtype, copy=False)


def _is_masked(given: Any) -> bool:
    """Whether this is a masked array or a list of such; there are none before their module is imported."""
    masked = sys.modules.get("numpy.ma")
    if masked is None:
        return False
    return any(isinstance(each, masked.MaskedArray) for each in (given if isinstance(given, list | tuple) else [given]))


def _rule(array: NDArray[Any], given: Any, dtypes: Dtypes) -> str:
    if array.dtype != object or isinstance(given, np.ndarray | list | tuple):
        return f"{dtypes.words}, not {array.dtype}"
    return f"an array of {dtypes.words}, not {_described(given)}"


def _described(given: Any) -> str:
    """A short description of a value."""
    return repr(given)[:40] if given is None or isinstance(given, str | bool | int | float) else type(given).__name__


def _read(verb: str, name: str, given: Any, dtypes: Dtypes) -> NDArray[Any]:
    """Import an object by the protocol that it has."""
    if given is None or isinstance(given, str):
        raise TypeError(f"{verb}: {name} must be an array of {dtypes.words}, not {_described(given)}")
    try:
        if isinstance(given, bytes):
            return np.frombuffer(given, np.uint8)
        if getattr(given, "requires_grad", False) is True:
            given = given.detach()
        if hasattr(given, "__dlpack__") and not hasattr(given, "__array__"):
            return np.from_dlpack(given)
        return np.asarray(given)
    except MemoryError:
        raise
    except Exception as failure:  # whatever the object raises
        if hasattr(given, "__dlpack__"):
            array = _read_bfloat16(verb, name, given)
            if array is not None:
                return array
        raise _refusal(verb, name, given, dtypes, failure) from failure


def _refusal(verb: str, name: str, given: Any, dtypes: Dtypes, failure: Exception) -> Exception:
    device = str(getattr(given, "device", "cpu"))
    if device == "meta":
        return TypeError(
            f"{verb}: {name} must hold values; a tensor on the meta device has only a shape, load it first"
        )
    if "cpu" not in device.lower():
        return TypeError(f"{verb}: {name} must be in the CPU's memory, not on {device}; give {name}.cpu()")
    if isinstance(given, list | tuple) and isinstance(failure, ValueError):
        return ValueError(f"{verb}: {name} must be an array of {dtypes.words}, not a list whose parts differ in shape")
    dtype = getattr(given, "dtype", None)
    what = _described(given) if dtype is None else f"{_described(given)} of {dtype}"
    return TypeError(f"{verb}: {name} must be an array of {dtypes.words}, not {what} that NumPy cannot read: {failure}")


def _read_bfloat16(verb: str, name: str, given: Any) -> NDArray[Any] | None:
    """Import bfloat16, which NumPy refuses, by DLPack as the 16-bit integers that its bits are; None for what is none.

    The dtype of a capsule without versions is at byte 20 of the tensor it points to: code, bits, lanes.
    """
    import ctypes

    get_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
        ("PyCapsule_GetPointer", ctypes.pythonapi)
    )
    try:
        capsule, device = given.__dlpack__(), given.__dlpack_device__()
        dtype = (ctypes.c_uint8 * 4).from_address(get_pointer(capsule, b"dltensor") + 20)
    except Exception:  # the first failure is reported
        return None
    cpu, unsigned, bfloat16 = 1, 1, 4
    if device[0] != cpu or bytes(dtype) != bytes([bfloat16, 16, 1, 0]):
        return None
    try:
        from ml_dtypes import bfloat16 as scalar
    except ImportError:
        raise TypeError(
            f"{verb}: {name} is bfloat16, for which NumPy needs the package ml_dtypes; install it, or give "
            f"{name}.float()"
        ) from None
    dtype[0] = unsigned
    array: NDArray[Any] = np.from_dlpack(_Capsule(capsule, device)).view(scalar)
    return array


class _Capsule:
    """An object that hands over a tensor once."""

    def __init__(self, capsule: Any, device: tuple[int, int]) -> None:
        self._parts = capsule, device

    def __dlpack__(self, **_: Any) -> Any:
        return self._parts[0]

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._parts[1]


def as_output(verb: str, out: Any, shape: tuple[int, ...], dtype: Any, *sources: NDArray[Any]) -> NDArray[Any]:
    """Return the array to write a result to: a new one for None, else `out` or a view of its memory.

    Parameters
    ----------
    verb : str
        The caller, for messages.
    out : numpy.ndarray or None
        Or an object that exports writable memory by the buffer protocol or DLPack.
    shape : tuple of int
        Shape of the result.
    dtype : dtype
        Dtype of the result.
    *sources : numpy.ndarray
        Contiguous arrays that are read while `out` is written.

    Raises
    ------
    TypeError
        If `out` is not an array.
    ValueError
        If it does not fit, is not contiguous, aligned and writable, or shares memory with a source.
    """
    if out is None:
        return np.empty(shape, dtype)
    array = out if isinstance(out, np.ndarray) else _view_of(out)
    rule = f"{verb}: out must be a writable, C-contiguous and aligned {np.dtype(dtype)} array of shape {shape}"
    if array is None or _is_masked(out):
        raise TypeError(f"{rule}, not {_described(out)}")
    if array.shape != shape or array.dtype != dtype or not array.flags.carray:
        flags = array.flags
        faults = {"read-only": flags.writeable, "not C-contiguous": flags.c_contiguous, "not aligned": flags.aligned}
        found = [f"{array.dtype} {array.shape}", *(fault for fault, fine in faults.items() if not fine)]
        raise ValueError(f"{rule}, not {', '.join(found)}")
    if any(np.may_share_memory(array, source) for source in sources):  # exact for contiguous arrays
        raise ValueError(f"{verb}: out must not share memory with what is read; give a separate array")
    return array


def _view_of(out: Any) -> NDArray[Any] | None:
    """The memory of an object that is not a NumPy array, if it exports it."""
    try:
        return np.from_dlpack(out) if hasattr(out, "__dlpack__") else np.asarray(memoryview(out))
    except (TypeError, ValueError, BufferError, RuntimeError):
        return None


def whole(value: Any) -> int | None:
    """A value of any integer type as int; None for everything else, including bool."""
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def as_whole(verb: str, name: str, value: Any, least: int | None = None, most: int | None = None) -> int:
    """Return a whole number of any integer type as int; TypeError for other types, ValueError if it is out of range."""
    number = whole(value)
    if number is None:
        raise TypeError(f"{verb}: {name} must be a whole number, not {value!r}")
    if (least is not None and number < least) or (most is not None and number > most):
        limit = "must not be negative" if least == 0 else f"must be at least {least}"
        raise ValueError(f"{verb}: {name} {limit if most is None else f'must be from {least} to {most}'}, not {number}")
    return number


def as_shape(verb: str, shape: Any) -> tuple[int, ...]:
    """Return a shape as a tuple of int; one number is a shape of one axis."""
    if whole(shape) is not None:
        shape = (shape,)
    if not isinstance(shape, Iterable):
        raise TypeError(f"{verb}: shape must be whole numbers, not {shape!r}")
    return tuple(as_whole(verb, "shape", size, 0) for size in shape)
