"""The weights of a program."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...engine.weights import Consumer, Uses
from ...errors import FormatError
from ...tensors import CompressedTensor
from ..format.data_types import BY_NAME, dtype_of
from ..operations import Constant, Node, describe, lift, lower
from ..operations.form import Form, values_of
from .constants import resource_key
from .graph import Graph
from .uses import Use

if TYPE_CHECKING:
    from .program import Program


COMPRESSIBLE = ("float16", "bfloat16", "float32")


@dataclass(eq=False)
class Place:
    """Where a weight is in a program: the operation that yields it, and its function."""

    operation: Any
    graph: Graph

    @property
    def value(self) -> Any:
        """What the operation yields."""
        return self.operation.results[0]


class Weight(Uses):
    """A constant as it is stored: all places in the program that have its data.

    Attributes
    ----------
    name : str
        Its name, which no other weight of the program has, and which compression does not change.
    names : tuple of str
        All its names.
    function : str
        The function that it is in, the first of several.
    shape : tuple of int
        Its shape.
    dtype : {"float16", "bfloat16", "float32", "float64"}
        Type of its values, of the decompressed ones if it is compressed.
    uses : tuple of Use
        Where it is used, with the operations.
    obstacle : str or None
        Why it must be left unchanged, in a few words; None if it may be compressed.
    places : list of Place
        Where it is.
    """

    def __init__(
        self,
        program: Program,
        places: list[Place],
        dtype: str,
        shape: tuple[int, ...],
        uses: tuple[Use, ...],
        obstacle: str | None,
    ) -> None:
        self._program, self.places, self.uses, self.obstacle = program, places, uses, obstacle
        self.shape, self.dtype = shape, dtype
        self.function = places[0].graph.name
        self.names: tuple[str, ...] = ()
        self._node: Node | None = None

    @property
    def name(self) -> str:
        """The first of its names."""
        return self.names[0]

    @property
    def key(self) -> str:
        """Equal for equal weights of one program."""
        return self.name

    @property
    def float_dtypes(self) -> tuple[str, ...]:
        """The element types that can be compressed."""
        return COMPRESSIBLE

    @property
    def size(self) -> int:
        """Number of its elements."""
        return prod(self.shape)

    @property
    def dense_bytes(self) -> int:
        """Bytes of its plain values."""
        return BY_NAME[self.dtype].byte_count(self.size)

    @property
    def consumers(self) -> tuple[Consumer, ...]:  # type: ignore[override]
        """Its distinct consumers."""
        return tuple(dict.fromkeys(use.consumer for use in self.uses))

    @property
    def functions(self) -> tuple[str, ...]:
        """All functions that it is in."""
        return tuple(dict.fromkeys(place.graph.name for place in self.places))

    @property
    def node(self) -> Node:
        """The chain of operations that stores it."""
        if self._node is None:
            try:
                self._node = self._program.constants.node(self.places[0].operation)
            except FormatError as error:
                raise FormatError(f"{self._where}: {error}") from error
        return self._node

    @property
    def is_compressed(self) -> bool:
        """Whether it is stored by other operations than a constant."""
        return isinstance(self.node, Form)

    @property
    def stored_bytes(self) -> int:
        """Bytes that it is stored in, tables and scales included."""
        return self.node.nbytes

    @property
    def storage(self) -> str:
        """How it is stored, in a few words."""
        return describe(self.node)

    @property
    def _where(self) -> str:
        return f"{self._program.path}: weight {self.name}"

    def read(self) -> NDArray[Any] | CompressedTensor:
        """Its values, mapped from the file where that is possible, or the compressed tensor that it is stored as.

        Returns
        -------
        numpy.ndarray or CompressedTensor
            Of its dtype; bfloat16 is that of the package ml_dtypes. An array, too, for chains of operations that
            compressed tensors do not have, such as an offset after the scale.

        Raises
        ------
        FormatError
            If its parts contradict each other.
        UnsupportedForm
            If operations that are not known store it.
        """
        try:
            lifted = lift(self.node)
        except FormatError as error:
            raise FormatError(f"{self._where}: {error}") from error
        if lifted.shape != self.shape:
            raise FormatError(f"{self._where}: its parts are of shape {lifted.shape}, it is of {self.shape}")
        return lifted

    def release(self) -> None:
        """Let the file's part that holds it leave memory; what `read` returned remains valid."""
        for constant in (self.node,) if isinstance(self.node, Constant) else self.node.constants():
            self._program.constants.release(constant)

    def replace(self, tensor: CompressedTensor | NDArray[Any]) -> None:
        """Store another tensor instead, in the program in memory; what stored the old one is removed.

        Parameters
        ----------
        tensor : CompressedTensor or numpy.ndarray
            Of the weight's shape. Values, tables and scales of another float type are rounded to the weight's. It
            must not be changed afterwards: the program refers to its memory. That of the old one is let go.

        Raises
        ------
        ValueError
            If its shape differs, or Core AI has no form for it.
        """
        if tuple(tensor.shape) != self.shape:
            raise ValueError(f"{self._where}: is of shape {self.shape}, the tensor of {tuple(tensor.shape)}")
        self.store(lower(tensor, self.dtype) if isinstance(tensor, CompressedTensor) else self.plain(tensor))

    def plain(self, values: NDArray[Any]) -> Constant:
        """What stores plain values, rounded to the weight's type."""
        return values_of(np.ascontiguousarray(values).astype(dtype_of(self.dtype), copy=False))

    def store(self, form: Node) -> None:
        """Store what `lower` or `plain` returned for this weight instead, as `replace` does."""
        self.release()
        self._program.substitute(self, form)
        self._node = form

    def __repr__(self) -> str:
        return f"<Weight {self.name}, {self.dtype} {self.shape}, {self.storage}>"


def keys_of(operation: Any) -> Any:
    """What tells apart the data of chains: equal for those that store the same."""
    if str(operation.name) == "coreai.constant":
        attribute = operation.attributes["value"]
        key = resource_key(attribute)
        return (key, str(operation.results[0].type)) if key is not None else attribute
    operands: Iterable[Any] = (operand.owner for operand in operation.operands)
    return str(operation.name), str(operation.results[0].type), tuple(keys_of(each) for each in operands)
