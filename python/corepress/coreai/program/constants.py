"""Constants of a program: their bytes, and the chains of operations that store weights, in and out of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from itertools import count
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import FormatError
from ..format.data_types import BY_PROGRAM_NAME, DataType
from ..operations import Constant, Form, Node, evaluate
from .modules import ir, operations_of_dialect, reader_of_constants, short_name

_KEY = re.compile(r'dense_resource<(?:"((?:[^"\\]|\\.)*)"|([^>]+))>')
_ALIGNMENT = 16
MOST_PADDING = 16  # bytes behind packed data; coreai-opt pads 6 bits to groups of three
_LARGEST_ELEMENT = 8  # bytes
_UNTOUCHED = np.frombuffer(b"\xd1\x5c\x8e\x27\xb9\x03\x74\xea", np.uint8)
# Operations whose results are of a sparse type, which they infer.
_CLASSES = {
    "lut_to_sparse_with_bitmask": "LutToSparseWithBitmaskOp",
    "build_sparse_with_bitmask": "BuildSparseWithBitmaskOp",
}


def type_of(value: Any) -> tuple[DataType, tuple[int, ...]] | None:
    """The type of the elements of a value and its shape; None where it is no tensor of a known, static type."""
    found = value.type
    if not isinstance(found, ir().RankedTensorType) or not found.has_static_shape:
        return None
    data_type = BY_PROGRAM_NAME.get(str(found.element_type))
    return None if data_type is None else (data_type, tuple(found.shape))


def resource_key(attribute: Any) -> str | None:
    """The key of the resource that holds an attribute's data; None for data that is written inline."""
    if not ir().DenseResourceElementsAttr.isinstance(attribute):
        return None
    found = _KEY.match(str(attribute))
    if not found:
        return None
    return re.sub(r"\\(.)", r"\1", found[1]) if found[1] is not None else found[2]


def _name_of(number: int) -> str:
    """The key of a new resource; Core AI's library writes what is the same once, whatever the keys."""
    return f"corepress_{number:08x}"


class Stubs:
    """Takes the place of new constants' data where only the size of the file matters: each has a number.

    Attributes
    ----------
    real : dict of str to (str, int)
        By the keys of the stubs, the keys and bytes that the constants will have.
    """

    def __init__(self) -> None:
        self.real: dict[str, tuple[str, int]] = {}
        self._known: dict[int, tuple[str, int]] = {}

    def stands_for(self, constant: Constant, key: str | None, nbytes: int) -> Constant:
        """The constant, of which is known which key and bytes it will have."""
        self._known[id(constant)] = key or "", nbytes
        return constant

    def add(self, constant: Constant) -> tuple[str, NDArray[np.int64]]:
        """The key of a stub, and its data, which differ from all others: what is the same would be stored once."""
        number = len(self.real)
        name = _name_of(number)
        key, nbytes = self._known.get(id(constant), ("", constant.nbytes))
        self.real[name] = key or name, nbytes
        return name, np.array([number])


class CopiedConstant(Constant):
    """A constant that Core AI's library holds in memory: its bytes are copied when they are asked for.

    Parameters
    ----------
    data_type, shape
        Its type and shape.
    operation : operation of the program
        The constant.
    """

    _operation: Any

    def __init__(self, data_type: DataType, shape: tuple[int, ...], operation: Any) -> None:
        self.__dict__.update(type=data_type, shape=shape, _operation=operation)

    @property
    def nbytes(self) -> int:
        """Bytes that it occupies in a file."""
        return self.type.byte_count(prod(self.shape))

    @cached_property
    def data(self) -> NDArray[np.uint8]:
        """Its bytes."""
        # The library copies all data that there is, without regard to the array's size, and does not say how much that
        # was. There is room for as many elements of any type; memory that is not written to costs nothing.
        size, end = self.nbytes, self.nbytes + MOST_PADDING
        found = np.empty(max(_LARGEST_ELEMENT * prod(self.shape), end) + len(_UNTOUCHED), np.uint8)
        beyond = found[end : end + len(_UNTOUCHED)]
        beyond[:] = _UNTOUCHED
        for mark in (0x5A, 0xA5):
            found[size - 1] = mark
            reader_of_constants()(constant_op=self._operation, destination=found)
            if not np.array_equal(beyond, _UNTOUCHED):
                raise FormatError(f"has a constant with more than the {size} bytes that its type asks for")
            if found[size - 1] != mark:
                return found[:size]
        raise FormatError(f"has a constant with fewer than the {size} bytes that its type asks for")

    def forget(self) -> None:
        """Let go the copy."""
        self.__dict__.pop("data", None)


class Constants:
    """Reads the constants of a program in memory, and writes new ones.

    Attributes
    ----------
    stubs : Stubs or None
        What is written in place of new constants' data, if only the size of the file matters.
    """

    def __init__(self) -> None:
        self._made: dict[int, tuple[Constant, Any]] = {}
        self._names: Iterator[str] = map(_name_of, count())
        self.stubs: Stubs | None = None

    def read(self, operation: Any) -> Constant:
        """A constant of the program.

        Raises
        ------
        FormatError
            If its data is shorter than its type asks for, or its type is not known.
        """
        found = type_of(operation.results[0])
        if found is None:
            raise FormatError(f"has a constant of type {operation.results[0].type}")
        data_type, shape = found
        attribute, size = operation.attributes["value"], data_type.byte_count(prod(shape))
        key = resource_key(attribute)
        if key is not None and size:
            return self._resource_of(key, operation, data_type, shape)
        if key is None and data_type.name == "bool":
            return Constant(data_type, shape, np.array(attribute, np.bool_).reshape(-1).view(np.uint8))
        splat = key is None and is_splat(operation)
        if splat and prod(shape) != 1:
            operation, size = _single(operation), data_type.byte_count(1)
        data = np.zeros(size, np.uint8)
        if size:
            reader_of_constants()(constant_op=operation, destination=data)
        return Constant(data_type, shape, data, splat)

    def _resource_of(self, key: str, operation: Any, data_type: DataType, shape: tuple[int, ...]) -> Constant:
        """A constant whose data is a resource."""
        return CopiedConstant(data_type, shape, operation)

    def in_file(self, key: str) -> NDArray[np.uint8] | None:
        """The bytes of a resource of the file that the program was read from; None for others."""
        return None

    def require_sizes(self, operation: Any) -> None:
        """FormatError if a constant's data is known to be of another size than its type asks for."""

    def release(self, constant: Constant) -> None:
        """Let the bytes of a constant leave memory; they are read again when they are asked for."""
        if isinstance(constant, CopiedConstant):
            constant.forget()

    def node(self, operation: Any) -> Node:
        """The chain that ends with an operation of the program."""
        name = short_name(operation)
        if name == "constant":
            return self.read(operation)
        found = type_of(operation.results[0])
        operands = tuple(self.node(operand.owner) for operand in operation.operands)
        if found is not None:
            return Form(name, operands, *found)
        # Only sparse tensors are of another type: that of their values, at the places of a mask.
        first = operands[0]
        if name == "build_sparse_with_bitmask":
            return Form(name, operands, first.type, operands[1].shape, True)
        return Form(name, operands, operands[1].type, first.shape, True)

    def emit(self, node: Node, location: Any, made: dict[int, Any] | None = None) -> Any:
        """Write a chain at the current insertion point; the value that it yields."""
        made = {} if made is None else made
        if id(node) not in made:
            if isinstance(node, Constant):
                made[id(node)] = self._emit_constant(node, location)
            else:
                operands = [self.emit(operand, location, made) for operand in node.operands]
                made[id(node)] = _emit_operation(node, operands, location)
        return made[id(node)]

    def _emit_constant(self, constant: Constant, location: Any) -> Any:
        types = ir()
        element = types.Type.parse(constant.type.program_name)
        tensor = types.RankedTensorType.get(list(constant.shape), element)
        attribute = self._splat(constant, element, tensor)
        if attribute is None:
            attribute = self._resource(constant, tensor)
        return operations_of_dialect().ConstantOp(value=attribute, loc=location).operation.results[0]

    def _splat(self, constant: Constant, element: Any, tensor: Any) -> Any:
        """Constants of one value, and axes: Core AI's verifier asks for these, and for zeros, to be inline."""
        types = ir()
        if not constant.is_splat and (constant.shape != () or not constant.type.is_integer):
            return None
        value = np.ravel(evaluate(Constant(constant.type, (), constant.data)))[0]
        single = types.IntegerAttr.get(element, int(value)) if constant.type.is_integer else None
        return types.DenseElementsAttr.get_splat(tensor, single or types.FloatAttr.get(element, float(value)))

    def _resource(self, constant: Constant, tensor: Any) -> Any:
        if self.stubs is not None:
            name, data = self.stubs.add(constant)
            return ir().DenseResourceElementsAttr.get_from_buffer(data, name, tensor, alignment=_ALIGNMENT)
        data = np.ascontiguousarray(constant.expanded())
        size = constant.type.byte_count(prod(constant.shape))
        if data.nbytes != size:
            raise ValueError(f"save: {tensor} has {size} bytes, not {data.nbytes}")
        if id(constant) not in self._made:
            data.flags.writeable = False
            name = next(self._names)
            attribute = ir().DenseResourceElementsAttr.get_from_buffer(data, name, tensor, alignment=_ALIGNMENT)
            self._made[id(constant)] = constant, attribute  # the constant too, so that no other one gets its identity
        return self._made[id(constant)][1]


def _emit_operation(form: Form, operands: list[Any], location: Any) -> Any:
    types, dialect = ir(), operations_of_dialect()
    if form.operation in _CLASSES:
        return getattr(dialect, _CLASSES[form.operation])(*operands, loc=location).operation.results[0]
    result = types.RankedTensorType.get(list(form.shape), types.Type.parse(form.type.program_name))
    created = types.Operation.create(f"coreai.{form.operation}", results=[result], operands=operands, loc=location)
    return created.results[0]


def is_splat(operation: Any) -> bool:
    """Whether a constant is written inline as one value for all elements."""
    types, attribute = ir(), operation.attributes["value"]
    return bool(types.DenseElementsAttr.isinstance(attribute) and types.DenseElementsAttr(attribute).is_splat)


def _single(operation: Any) -> Any:
    """A constant of one element with the value of one that is the same everywhere."""
    types = ir()
    attribute = types.DenseElementsAttr(operation.attributes["value"])
    with operation.context, operation.location:
        tensor = types.RankedTensorType.get([1], operation.results[0].type.element_type)
        value = types.DenseElementsAttr.get_splat(tensor, attribute.get_splat_value())
        created = types.Operation.create(
            str(operation.name), results=[tensor], attributes={"value": value}, loc=operation.location, ip=False
        )
    return created
