"""The bytes that a weight of an asset takes in another form, without making it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ..engine.meta_tensors import meta_tensor
from ..errors import Skip, TooLargeTablesError
from ..specs import Spec
from ..tensors import CompressedTensor
from .format.data_types import BY_NAME, dtype_of
from .operations import Constant, Node, lower
from .program.weights import Weight

# What bytecode needs around the bytes of a resource, at most: its key twice, its size and place, padding to 16 bytes.
_RESOURCE = 110
_AXIS_AND_ZEROS = 2 + 4 + 8
_OPERATION = 120  # an operation and its type, at most


@dataclass(frozen=True, eq=False)
class StoredSize:
    """The size of a weight in a form.

    Attributes
    ----------
    form : Node
        The form, without data.
    exact : bool
        Whether the size is certain. Where it depends on the values it is an estimate; see `meta_tensor`.
    """

    form: Node
    exact: bool

    @property
    def nbytes(self) -> int:
        """Bytes of all that is stored: codes, tables, scales and masks."""
        return self.form.nbytes


def stored_size(weight: Weight, steps: Sequence[Spec]) -> StoredSize:
    """Return the size of a weight after some steps. No data is read.

    Raises
    ------
    Skip
        If it can be stored only with tables that are larger than the weight is worth.
    ValueError
        If there is no form for the steps.
    """
    try:
        lowered: Callable[[CompressedTensor], Node] = partial(lower, dtype=weight.dtype)
        form, exact = meta_tensor(tuple(steps), weight.shape, dtype_of(weight.dtype), lowered, _stand_in)
    except TooLargeTablesError as failure:
        raise Skip(failure.reason) from None
    return StoredSize(form, exact and not weight.is_compressed)


def _stand_in(nbytes: int) -> Constant:
    """A form of which nothing is known but its bytes, and that it has an axis and zeros besides."""
    nbytes += _AXIS_AND_ZEROS
    return Constant(BY_NAME["uint8"], (nbytes,), np.zeros(nbytes, np.uint8))  # memory that is never touched


def file_bytes(form: Node) -> int:
    """The most bytes that a form takes in the file, with what describes it."""
    constants = [form] if isinstance(form, Constant) else list(form.constants())
    operations = len(constants) + (0 if isinstance(form, Constant) else len(form.operations))
    return sum(each.nbytes + _RESOURCE for each in constants) + operations * _OPERATION
