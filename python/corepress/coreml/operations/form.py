"""What all constant operations have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import FormatError
from ..data_types import DataType
from ..values import Tensor

Parameters = Mapping[str, Tensor]
Types = Mapping[str, tuple[DataType, tuple[int, ...]]]


class UnsupportedForm(Exception):
    """A valid operation that this version cannot turn into a compressed tensor; the message says what it has."""


@dataclass(frozen=True, eq=False)
class OperationForm:
    """An operation that yields a constant.

    Attributes
    ----------
    type : str
        Operation type.
    parameters : dict of str to Tensor
        Its parameters, in the order in which weight files hold them.
    in_inputs : bool
        Whether the operation carries them as inputs (iOS 18 form) or as attributes.
    """

    type: str
    parameters: dict[str, Tensor]
    in_inputs: bool = False

    def install(self, operation: Any, values: Mapping[str, Any]) -> None:
        """Turn an operation into this one; its outputs and its ``name`` attribute stay.

        Parameters
        ----------
        operation : message
            The ``Operation`` to edit.
        values : mapping of str to message
            A ``Value`` for each parameter.
        """
        operation.type = self.type
        operation.ClearField("inputs")
        for name in [name for name in operation.attributes if name != "name"]:
            del operation.attributes[name]
        for name, value in values.items():
            if self.in_inputs:
                operation.inputs[name].arguments.add().value.CopyFrom(value)
            else:
                operation.attributes[name].CopyFrom(value)


def scalar(value: int, dtype: type[np.generic]) -> Tensor:
    """A constant of rank 0."""
    return Tensor.of(np.asarray(value, dtype))


def parameter(parameters: Parameters, name: str, *types: str) -> Tensor:
    """A parameter that must be there; with `types`, of one of these element types."""
    if name not in parameters:
        raise FormatError(f"has no parameter {name}")
    tensor = parameters[name]
    if types and tensor.data_type.name not in types:
        raise FormatError(f"its {name} must be {' or '.join(types)}, not {tensor.data_type.name}")
    return tensor


def dense_shape(parameters: Parameters) -> tuple[int, ...]:
    """The parameter ``shape`` of the iOS 16 forms."""
    return tuple(map(int, parameter(parameters, "shape", "uint32", "int32").data.reshape(-1)))


def packed_bytes(tensor: Tensor) -> NDArray[np.uint8]:
    """The stored bytes of an 8-bit or packed tensor."""
    return tensor.data.reshape(-1).view(np.uint8)
