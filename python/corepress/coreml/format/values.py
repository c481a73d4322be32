"""Conversion of constants between `Tensor` in memory and the program's ``Value`` messages."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import FormatError
from .data_types import BY_NAME, BY_PROGRAM_NUMBER, DataType, data_type_of
from .package import Package
from .schema import Value, ValueType
from .weight_file import BlobRecord, WeightFileReader

MINIMUM_BLOB_COUNT = 10  # smaller constants stay in the program, as coremltools writes them
_MAXIMUM_RANK = 32
_MAXIMUM_COUNT = 2**56  # of elements, so that bytes of all types can be counted in 64 bits


@dataclass(frozen=True, eq=False)
class Tensor:
    """A constant.

    Attributes
    ----------
    data_type : DataType
        Element type.
    shape : tuple of int
        Shape in elements.
    data : numpy.ndarray
        Elements in that shape; of packed types, their bytes.
    """

    data_type: DataType
    shape: tuple[int, ...]
    data: NDArray[Any]

    @classmethod
    def of(cls, array: NDArray[Any]) -> Tensor:
        """A tensor of an array whose dtype has a matching data type."""
        return cls(data_type_of(array.dtype), array.shape, array)

    @classmethod
    def packed(cls, name: str, shape: tuple[int, ...], data: NDArray[Any]) -> Tensor:
        """A tensor of packed elements of the data type called `name`, which may also be an 8-bit type."""
        data_type = BY_NAME[name]
        return cls(data_type, shape, data if data_type.dtype is None else data.view(data_type.dtype).reshape(shape))

    @property
    def count(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes stored."""
        return self.data_type.byte_count(self.count)

    @property
    def is_blob(self) -> bool:
        """Whether weight files hold it; others are in the program."""
        return self.count >= MINIMUM_BLOB_COUNT and self.data_type.blob_number is not None

    def blank(self) -> Tensor:
        """A tensor of the same size whose data is a view of a single zero."""
        return Tensor(self.data_type, self.shape, np.broadcast_to(np.zeros((), self.data.dtype), self.data.shape))

    def pieces(self) -> Iterable[NDArray[Any]]:
        """`data`, all at once or in pieces."""
        return (self.data,)


@dataclass(frozen=True, eq=False)
class LazyTensor(Tensor):
    """A constant that is too large for memory: `data` is a view of a single zero, and `make` gives its pieces."""

    make: Callable[[], Iterable[NDArray[Any]]]

    @classmethod
    def of_shape(
        cls, dtype: np.dtype[Any], shape: tuple[int, ...], make: Callable[[], Iterable[NDArray[Any]]]
    ) -> LazyTensor:
        """A tensor whose pieces are made when it is written."""
        return cls(data_type_of(dtype), shape, np.broadcast_to(np.zeros((), dtype), shape), make)

    def pieces(self) -> Iterable[NDArray[Any]]:
        return self.make()


def tensor_type(message: Any, where: str) -> tuple[DataType, tuple[int, ...]] | None:
    """Data type and shape of a ``ValueType``; None for other than tensors of fixed shape."""
    if message.WhichOneof("type") != "tensorType":
        return None
    tensor = message.tensorType
    if tensor.dataType not in BY_PROGRAM_NUMBER:
        raise FormatError(f"{where}: unknown data type {tensor.dataType}")
    if any(dimension.WhichOneof("dimension") != "constant" for dimension in tensor.dimensions):
        return None
    shape = tuple(dimension.constant.size for dimension in tensor.dimensions)
    if len(shape) != tensor.rank or len(shape) > _MAXIMUM_RANK:
        raise FormatError(f"{where}: rank {tensor.rank} with {len(shape)} dimensions")
    if prod(size or 1 for size in shape) > _MAXIMUM_COUNT:
        raise FormatError(f"{where}: shape {shape} is too large")
    return BY_PROGRAM_NUMBER[tensor.dataType], shape


def nested_values(value: Any) -> Iterator[Any]:
    """A ``Value`` message and all that its lists, tuples and dictionaries hold."""
    yield value
    if value.WhichOneof("value") != "immediateValue":
        return
    kind = value.immediateValue.WhichOneof("value")
    if kind in ("tuple", "list"):
        for member in getattr(value.immediateValue, kind).values:
            yield from nested_values(member)
    elif kind == "dictionary":
        for pair in value.immediateValue.dictionary.values:
            yield from nested_values(pair.key)
            yield from nested_values(pair.value)


class ValueReader:
    """Reads constants of one package, on any thread; weight files are opened when first needed.

    Parameters
    ----------
    package : Package
        The package whose files the values refer to.
    """

    def __init__(self, package: Package) -> None:
        self._package = package
        self._files: dict[Path, WeightFileReader] = {}
        self._paths: dict[str, Path] = {}
        self._lock = threading.Lock()

    def file(self, path: Path) -> WeightFileReader:
        """The reader of a weight file."""
        with self._lock:
            if path not in self._files:
                self._files[path] = WeightFileReader(path)
            return self._files[path]

    def record(self, value: Any) -> tuple[WeightFileReader, BlobRecord]:
        """Where a value with a blob is stored."""
        name = value.blobFileValue.fileName
        if name not in self._paths:
            self._paths[name] = self._package.locate(name)
        file = self.file(self._paths[name])
        return file, file.record(value.blobFileValue.offset)

    def check(self, value: Any, where: str) -> tuple[DataType, tuple[int, ...]]:
        """Data type and shape of a tensor value whose stored data has been found to match them."""
        declared = tensor_type(value.type, where)
        if declared is None:
            raise FormatError(f"{where}: must be a tensor of fixed shape")
        data_type, shape = declared
        count = prod(shape)
        if value.WhichOneof("value") == "blobFileValue":
            _, record = self.record(value)
            if record.data_type != data_type:
                raise FormatError(f"{where}: is {data_type.name}, but its blob holds {record.data_type.name}")
            stored = record.count
        else:
            stored = _inline_count(value, data_type, where)
            if data_type.packed:
                count = data_type.byte_count(count)
        if stored != count:
            raise FormatError(f"{where}: shape {shape} needs {count} elements, but {stored} are stored")
        return declared

    def read(self, value: Any, where: str, *, allocate: Callable[[int], NDArray[np.uint8]] | None = None) -> Tensor:
        """A tensor value; of a blob, a read-only view of the file, or a copy in what `allocate` gives for its bytes."""
        data_type, shape = self.check(value, where)
        if value.WhichOneof("value") == "blobFileValue":
            file, record = self.record(value)
            data = file.read_into(record, allocate(record.size)) if allocate else file.array(record)
        else:
            values = getattr(value.immediateValue.tensor, data_type.inline_field or "").values
            if isinstance(values, bytes):
                data = np.frombuffer(values, data_type.dtype or np.uint8)
            else:
                data = np.array(values).astype(data_type.dtype or np.str_)
        return Tensor(data_type, shape, data.reshape(shape) if data_type.dtype else data)

    def close(self) -> None:
        """Close all weight files."""
        for file in self._files.values():
            file.close()

    def __enter__(self) -> ValueReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _inline_count(value: Any, data_type: DataType, where: str) -> int:
    """Number of inline elements; of packed types, of bytes."""
    tensor = value.immediateValue.tensor
    field = tensor.WhichOneof("value")
    if field is None or field != data_type.inline_field:
        raise FormatError(f"{where}: {data_type.name} values are stored in {field}, not in {data_type.inline_field}")
    values = getattr(tensor, field).values
    if not isinstance(values, bytes):
        return len(values)
    size = data_type.dtype.itemsize if data_type.dtype else 1
    if len(values) % size:
        raise FormatError(f"{where}: {len(values)} bytes are not a whole number of {data_type.name} elements")
    return len(values) // size


def type_message(data_type: DataType, shape: tuple[int, ...]) -> Any:
    """The ``ValueType`` of a tensor."""
    message = ValueType()
    message.tensorType.dataType = data_type.program_number
    message.tensorType.rank = len(shape)
    for size in shape:
        message.tensorType.dimensions.add().constant.size = size
    return message


def value_of_type(tensor: Tensor) -> Any:
    """A ``Value`` with a tensor's type and no data yet."""
    value = Value()
    value.type.CopyFrom(type_message(tensor.data_type, tensor.shape))
    return value


def inline_value(tensor: Tensor) -> Any:
    """A ``Value`` that holds its data itself."""
    value = value_of_type(tensor)
    field = getattr(value.immediateValue.tensor, tensor.data_type.inline_field or "")
    field.SetInParent()
    if tensor.data_type.inline_field == "bytes":
        field.values = np.ascontiguousarray(tensor.data).tobytes()
    else:
        field.values.extend(tensor.data.reshape(-1).tolist())
    return value


def blob_value(tensor: Tensor, file_name: str, offset: int) -> Any:
    """A ``Value`` whose data is stored in a weight file."""
    value = value_of_type(tensor)
    value.blobFileValue.fileName = file_name
    value.blobFileValue.offset = offset
    return value
