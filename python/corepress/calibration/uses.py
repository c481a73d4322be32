"""Which operations of a function multiply by which weights, and how each reads its weight as matrices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from ..compression.matrix_view import MatrixView
from ..coreml.program.graph import (
    Argument,
    Function,
    Operation,
    StateType,
    TensorType,
    Value,
    is_definition,
)
from ..coreml.program.program import Definition, Program
from ..coreml.program.weights import Weight

Option = Callable[[Operation, str, Any], Any]
_LOOKUPS = ("gather", "gather_along_axis", "gather_nd")


@dataclass(frozen=True, eq=False)
class Use:
    """A weight as an operand of an operation.

    Attributes
    ----------
    operation : Operation
        The operation.
    operand : str
        The parameter that takes the weight.
    weight : Weight
        The weight.
    constant : Value
        The constant that is used, possibly after casts, transposes and reshapes.
    other : str
        The parameter whose value the weight is multiplied with; "" if there is no such product.
    place : int
        Number of the weight among several values of the parameter.
    view : MatrixView or None
        How the weight is read as matrices; None where there is no such view.
    kernel : tuple of int
        Sizes of a convolution's window; its elements are the fastest part of a column's number.
    batch : int
        Of a batch of matrices, its axis in the operand, counted from the end; 0 if there is none.
    reason : str
        Why there is no view.
    """

    operation: Operation
    operand: str
    weight: Weight
    constant: Value
    other: str = ""
    place: int = 0
    view: MatrixView | None = None
    kernel: tuple[int, ...] = ()
    batch: int = 0
    reason: str = ""


class NoView(Exception):
    """An operation uses a weight in a way for which there are no second moments; the message says how."""


def uses_of(program: Program, function: Function, weights: Sequence[Weight], option: Option) -> Iterator[Use]:
    """The uses of weights in a function, nested blocks included, in program order.

    Parameters
    ----------
    program : Program
        The program.
    function : Function
        One of its functions.
    weights : sequence of Weight
        The weights to look for.
    option : callable
        Given an operation, the name of a parameter and its default: its value. Raises `NoView` if only a run decides.
    """
    definitions = {(each.place, each.output_name): each for each in reversed(program.definitions)}
    owners = {definition: weight for weight in weights for definition in weight.definitions}

    def owner_of(value: Value) -> Weight | None:
        producer = value.producer
        definition: Definition | None = None
        if producer is not None and is_definition(producer.message):
            definition = definitions.get((producer.place, producer.outputs[0].name))
        return owners.get(definition) if definition is not None else None

    passed: set[Operation] = set()  # that only bring a weight into another form
    for operation in function.operations():
        if is_definition(operation.message) or operation in passed:
            continue
        for operand, arguments in operation.inputs.items():
            for place, argument in enumerate(arguments):
                found = _traced(argument, option)
                if found is None or (weight := owner_of(found[0])) is None:
                    continue
                constant, axes, through = found
                if operation.type in _FORMS and operand == "x":
                    continue  # whoever takes its result is asked
                passed.update(through)
                yield _use(operation, operand, place, weight, constant, axes, option)


def _use(
    operation: Operation,
    operand: str,
    place: int,
    weight: Weight,
    constant: Value,
    axes: tuple[int | None, ...] | None,
    option: Option,
) -> Use:
    read = _READERS.get((operation.type, operand))
    try:
        if operation.type in _LOOKUPS:
            raise NoView(f"its rows are looked up by {operation.type}")
        if read is None:
            raise NoView(f"it is the {operand} of {operation.type}")
        if axes is None:
            raise NoView(f"it is reshaped before {operation.type}")
        sizes = tuple(weight.first.shape[axis] if axis is not None else 1 for axis in axes)
        found = read(operation, place, sizes, option)
        view = found.view_of(weight.first.shape, axes)
    except NoView as reason:
        return Use(operation, operand, weight, constant, place=place, reason=str(reason))
    return Use(operation, operand, weight, constant, found.other, place, view, found.kernel, found.batch)


@dataclass(frozen=True)
class _Reading:
    """Axes of the operand that are rows and columns, and the number of groups."""

    other: str
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    groups: int = 1
    group_axis: int = 0
    kernel: tuple[int, ...] = ()
    batch: int = 0

    def view_of(self, shape: tuple[int, ...], axes: tuple[int | None, ...]) -> MatrixView:
        """The view of the stored weight, given the axis of it that each axis of the operand is."""
        rows = [axes[each] for each in self.rows]
        columns = [axes[each] for each in self.columns]
        own_rows, own_columns = ([axis for axis in each if axis is not None] for each in (rows, columns))
        rest = [axis for axis in range(len(shape)) if axis not in (*own_rows, *own_columns)]
        assert all(shape[axis] == 1 for axis in rest), (shape, axes)
        group_axis = axes[self.group_axis]
        try:
            return MatrixView(
                shape, (*own_rows, *rest), tuple(own_columns), self.groups, 0 if group_axis is None else group_axis
            )
        except ValueError as error:
            raise NoView(str(error).removeprefix("MatrixView: ")) from error


def _linear(operation: Operation, place: int, sizes: tuple[int, ...], option: Option) -> _Reading:
    return _Reading("x", (0,), (1,))


def _matmul(operand: str) -> Callable[..., _Reading]:
    other = "y" if operand == "x" else "x"

    def read(operation: Operation, place: int, sizes: tuple[int, ...], option: Option) -> _Reading:
        rank = len(sizes)
        if rank == 1:
            return _Reading(other, (), (0,))
        turned = bool(option(operation, f"transpose_{operand}", False))
        rows, columns = (rank - 1, rank - 2) if (operand == "y") != turned else (rank - 2, rank - 1)
        batches = [axis for axis in range(rank - 2) if sizes[axis] > 1]
        if len(batches) > 1:
            raise NoView("it is a batch of matrices along several axes")
        if not batches:
            return _Reading(other, (rows,), (columns,))
        (batch,) = batches
        return _Reading(other, (batch, rows), (columns,), sizes[batch], batch, batch=batch - rank)

    return read


def _conv(operation: Operation, place: int, sizes: tuple[int, ...], option: Option) -> _Reading:
    groups = int(option(operation, "groups", 1))
    return _Reading("x", (0,), tuple(range(1, len(sizes))), groups, 0, sizes[2:])


def _conv_transpose(operation: Operation, place: int, sizes: tuple[int, ...], option: Option) -> _Reading:
    groups = int(option(operation, "groups", 1))
    return _Reading("x", tuple(range(1, len(sizes))), (0,), groups, 0)


def _einsum(operation: Operation, place: int, sizes: tuple[int, ...], option: Option) -> _Reading:
    own, other, output = einsum_axes(str(option(operation, "equation", "")), place)
    if len(own) != len(sizes):
        raise NoView("the equation of its einsum is for another rank")
    columns = [axis for axis, letter in enumerate(own) if letter in other and letter not in output]
    batches = [axis for axis, letter in enumerate(own) if letter in other and letter in output and sizes[axis] > 1]
    rows = [axis for axis, letter in enumerate(own) if letter not in other and letter in output]
    single = [axis for axis in range(len(own)) if axis not in (*columns, *batches, *rows)]
    if any(sizes[axis] > 1 for axis in single) or not columns or any(sizes[axis] == 1 for axis in columns):
        raise NoView("its einsum is not a product of matrices")
    if len(batches) > 1:
        raise NoView("it is a batch of matrices along several axes")
    if not batches:
        return _Reading("values", tuple(rows), tuple(columns))
    return _Reading("values", (*batches, *rows), tuple(columns), sizes[batches[0]], batches[0])


def einsum_axes(equation: str, place: int) -> tuple[str, str, str]:
    """The letters of one of two operands, of the other one, and of the result."""
    inputs, _, output = equation.replace(" ", "").partition("->")
    operands = inputs.split(",")
    if len(operands) != 2 or any(len(set(each)) != len(each) for each in operands):
        raise NoView("its einsum is not of two operands with distinct axes")
    return operands[place], operands[1 - place], output


_READERS: dict[tuple[str, str], Callable[..., _Reading]] = {
    ("linear", "weight"): _linear,
    ("matmul", "x"): _matmul("x"),
    ("matmul", "y"): _matmul("y"),
    ("conv", "weight"): _conv,
    ("conv_transpose", "weight"): _conv_transpose,
    ("einsum", "values"): _einsum,
}


_Axes = tuple["int | None", ...]


def _traced(argument: Argument, option: Option) -> tuple[Value, _Axes | None, list[Operation]] | None:
    """The constant that a value is a form of, the constant's axis for each axis, and the operations between.

    An axis of size 1 that the constant lacks is None; None in place of the axes where elements changed their order.
    """
    through: list[Operation] = []
    value = argument
    maps: list[_Axes | None] = []
    while isinstance(value, Value) and value.producer is not None:
        producer = value.producer
        if is_definition(producer.message):
            rank = _rank(value)
            if rank is None:
                return None
            axes: _Axes | None = tuple(range(rank))
            for step in reversed(maps):
                axes = None if axes is None or step is None else tuple(None if i is None else axes[i] for i in step)
            return value, axes, through
        form = _FORMS.get(producer.type)
        sources = producer.inputs.get("x", ())
        if form is None or len(sources) != 1 or not isinstance(sources[0], Value):
            return None
        try:
            maps.append(form(producer, sources[0], value, option))
        except NoView:
            maps.append(None)
        through.append(producer)
        value = sources[0]
    return None


def _rank(value: Value) -> int | None:
    shape = _shape(value)
    return None if shape is None else len(shape)


def _shape(value: Value) -> tuple[int, ...] | None:
    kind = value.type
    if isinstance(kind, StateType) or not isinstance(kind, TensorType) or kind.shape is None or None in kind.shape:
        return None
    return tuple(size or 0 for size in kind.shape)


def _cast(operation: Operation, source: Value, result: Value, option: Option) -> _Axes | None:
    rank = _rank(source)
    return None if rank is None else tuple(range(rank))


def _transpose(operation: Operation, source: Value, result: Value, option: Option) -> _Axes | None:
    rank = _rank(source)
    return None if rank is None else tuple(int(axis) % rank for axis in option(operation, "perm", None))


def _same_elements(operation: Operation, source: Value, result: Value, option: Option) -> _Axes | None:
    """Axes of size 1 come and go; the others are in the same order."""
    before, after = _shape(source), _shape(result)
    if before is None or after is None or prod(before) != prod(after):
        return None
    own = [axis for axis, size in enumerate(before) if size != 1]
    if [before[axis] for axis in own] != [size for size in after if size != 1]:
        return None
    remaining = iter(own)
    return tuple(next(remaining) if size != 1 else None for size in after)


_FORMS: dict[str, Callable[..., _Axes | None]] = {
    "cast": _cast,
    "identity": _cast,
    "transpose": _transpose,
    "expand_dims": _same_elements,
    "squeeze": _same_elements,
    "reshape": _same_elements,
}
