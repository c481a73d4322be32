"""Constants of a program that was read from a file: the bytes of large ones are mapped."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import FormatError
from ...mapped_files import release_array
from ..format.bytecode import Bytecode
from ..format.data_types import DataType
from ..operations import Constant
from .constants import MOST_PADDING, Constants, CopiedConstant, resource_key, type_of


class MappedConstants(Constants):
    """Reads the constants of a program whose file is mapped, and writes new ones.

    Parameters
    ----------
    bytecode : Bytecode
        The file that the program was read from, whose bytes are mapped.
    """

    def __init__(self, bytecode: Bytecode) -> None:
        super().__init__()
        self.bytecode = bytecode
        self._names = (name for name in self._names if name not in bytecode.blobs)

    def _resource_of(self, key: str, operation: Any, data_type: DataType, shape: tuple[int, ...]) -> Constant:
        if key not in self.bytecode.blobs:  # written since
            return super()._resource_of(key, operation, data_type, shape)
        size = data_type.byte_count(prod(shape))
        self._require_size(key, size)
        return Constant(data_type, shape, self.bytecode.view(key)[:size])

    def in_file(self, key: str) -> NDArray[np.uint8] | None:
        """The bytes of a resource of the file that the program was read from; None for others."""
        return self.bytecode.view(key) if key in self.bytecode.blobs else None

    def require_sizes(self, operation: Any) -> None:
        """FormatError if a constant's data in the file is of another size than its type asks for.

        More is not read: coreai-opt 0.4 writes fp4 weights with a byte for each element.
        """
        key = resource_key(operation.attributes["value"])
        found = type_of(operation.results[0])
        if key is None or found is None:
            return
        if key not in self.bytecode.blobs:
            raise FormatError(f"{self.bytecode.path}: has no data for resource {key}")
        self._require_size(key, found[0].byte_count(prod(found[1])))

    def _require_size(self, key: str, size: int) -> None:
        blob = self.bytecode.blobs[key]
        if not size <= blob.size <= size + MOST_PADDING:
            raise FormatError(f"{self.bytecode.path}: resource {key} has {blob.size} bytes, its type asks for {size}")

    def release(self, constant: Constant) -> None:
        """Let the pages of a mapped constant leave memory."""
        super().release(constant)
        if not isinstance(constant, CopiedConstant):
            release_array(constant.data)
