"""The bytes that a weight takes in another form, without making it and without a plan of the package."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from ..engine.meta_tensors import meta_tensor
from ..errors import FormatError, Skip, TooLargeTablesError
from ..specs import Spec
from .format.data_types import BY_NAME
from .format.values import Tensor
from .format.weight_file import WeightFileLayout
from .operations import MOST_WEIGHTS_PER_BYTE, OperationForm, lower_to
from .program.weights import Weight


@dataclass(frozen=True, eq=False)
class StoredSize:
    """The size of a weight in a form.

    Attributes
    ----------
    form : OperationForm
        The form, without data.
    exact : bool
        Whether the size is certain. Where it depends on the values it is an estimate; see `meta_tensor`.
    """

    form: OperationForm
    exact: bool

    @property
    def nbytes(self) -> int:
        """Bytes of all that is stored: codes, tables, scales and masks. Reports and plans count these."""
        return self.form.nbytes

    @property
    def file_bytes(self) -> int:
        """Bytes in the weight file, where each part has a record and is aligned.

        The smallest parts are not there but in the program. Behind the last part of a file there is no padding.
        """
        return sum(WeightFileLayout.footprint(tensor.nbytes) for tensor in self.form.tensors() if tensor.is_blob)


def stored_size(weight: Weight, steps: Sequence[Spec], version: int | None = None) -> StoredSize:
    """Return the size of a weight after some steps. No data is read.

    Parameters
    ----------
    weight : Weight
        The weight.
    steps : sequence of Spec
        What is done to it, with its axes and groups filled in, as `resolve_all` returns them.
    version : int, optional
        Specification version whose forms are used; None for that of the weight's program.

    Raises
    ------
    Skip
        If this version can store it only with tables that are larger than the weight is worth.
    FormatError
        If the declared shape is more than the stored bytes can decode to.
    ValueError
        If this version has no form for the steps.
    """
    first, stored = weight.first, weight.stored_bytes
    assert first.data_type.dtype is not None, "only floats are compressed"
    # Of compressed weights nothing is read that the declared shape could contradict.
    if prod(first.shape) > MOST_WEIGHTS_PER_BYTE * stored:
        raise FormatError(f"{first.where}: shape {first.shape} is more than {stored} stored bytes decode to")
    try:
        lowered = lower_to(version or first.version)
        form, exact = meta_tensor(tuple(steps), first.shape, first.data_type.dtype, lowered, stand_in)
    except TooLargeTablesError as failure:
        raise Skip(failure.reason) from None
    return StoredSize(form, exact and first.operation.type == "const")


def stand_in(nbytes: int) -> OperationForm:
    """A form of which nothing is known but its bytes."""
    data = np.zeros(nbytes, np.uint8)  # memory that is never touched, and so takes none
    return OperationForm("constexpr_unknown", {"data": Tensor(BY_NAME["uint8"], (nbytes,), data)}, True)
