"""What all constant operations share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...errors import FormatError
from ...tensors import CompressedTensor
from ..format.data_types import DataType
from ..format.values import Tensor

# What an operation is given: stored values, or what an operation before it yields.
Parameters: TypeAlias = Mapping[str, Tensor | CompressedTensor]
Types: TypeAlias = Mapping[str, tuple[DataType, tuple[int, ...]]]


class UnsupportedForm(Exception):
    """A valid operation that this version cannot convert to a compressed tensor; the message says why."""


@dataclass(frozen=True, eq=False)
class Output:
    """An output of another operation, as a parameter."""

    form: OperationForm
    index: int = 0


@dataclass(frozen=True, eq=False)
class OperationForm:
    """An operation that yields a constant, and through its parameters those that it builds on: a chain.

    Attributes
    ----------
    type : str
        Operation type.
    parameters : dict of str to Tensor or Output
        Its parameters, in the order in which weight files hold them. A tensor that occurs twice in a chain is stored
        once.
    in_inputs : bool
        Whether the operation carries them as inputs (iOS 18 form) or as attributes.
    outputs : tuple of (DataType, tuple of int)
        Types of its outputs; for the last operation of a chain they may be left out, since the program has them
        already.
    """

    type: str
    parameters: dict[str, Tensor | Output]
    in_inputs: bool = False
    outputs: tuple[tuple[DataType, tuple[int, ...]], ...] = ()

    def chain(self) -> list[OperationForm]:
        """The operations that this one builds on, producers first, and itself as the last; each once."""
        found: dict[OperationForm, None] = {}
        for given in self.parameters.values():
            if isinstance(given, Output):
                found.update(dict.fromkeys(given.form.chain()))
        found[self] = None
        return list(found)

    def tensors(self) -> list[Tensor]:
        """All that the chain stores, each once, in the order in which weight files hold it."""
        given = [parameter for each in self.chain() for parameter in each.parameters.values()]
        return list(dict.fromkeys(parameter for parameter in given if isinstance(parameter, Tensor)))

    def without_data(self) -> OperationForm:
        """The same form with zeros in place of what weight files hold, which take no memory."""
        tensors = {each: each if not each.is_blob else each.blank() for each in self.tensors()}
        forms: dict[OperationForm, OperationForm] = {}
        for each in self.chain():
            parameters = {
                name: replace(given, form=forms[given.form]) if isinstance(given, Output) else tensors[given]
                for name, given in each.parameters.items()
            }
            forms[each] = replace(each, parameters=parameters)
        return forms[self]

    @property
    def nbytes(self) -> int:
        """Bytes that the chain stores."""
        return sum(tensor.nbytes for tensor in self.tensors())


def scalar(value: int, dtype: type[np.generic]) -> Tensor:
    """A constant of rank 0."""
    return Tensor.of(np.asarray(value, dtype))


def parameter(parameters: Parameters, name: str, *types: str) -> Tensor:
    """A required stored parameter; with `types`, of one of these element types."""
    if name not in parameters:
        raise FormatError(f"has no parameter {name}")
    tensor = parameters[name]
    if not isinstance(tensor, Tensor):
        raise UnsupportedForm(f"a computed {name}")
    if types and tensor.data_type.name not in types:
        raise FormatError(f"its {name} must be {' or '.join(types)}, not {tensor.data_type.name}")
    return tensor


def dense_shape(parameters: Parameters) -> tuple[int, ...]:
    """The parameter ``shape`` of the iOS 16 forms."""
    return tuple(map(int, parameter(parameters, "shape", "uint32", "int32").data.reshape(-1)))


def packed_bytes(tensor: Tensor) -> NDArray[np.uint8]:
    """The stored bytes of an 8-bit or packed tensor."""
    return tensor.data.reshape(-1).view(np.uint8)
