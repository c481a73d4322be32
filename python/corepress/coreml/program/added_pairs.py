"""The pairs of `quantize` and `dequantize` that a program has and its source has not: checked, and taken out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..format.data_types import BY_PROGRAM_NUMBER
from .graph import label_of
from .program import programs_of
from .renames import blocks_of, names_made

_PAIR = ("quantize", "dequantize")


def take_out_pairs(source: Any, model: Any) -> tuple[int, list[str]]:
    """Take the pairs that a model has and its source has not out of the model.

    What took the result of a pair takes what the pair was given, and constants that only pairs used are removed.

    Parameters
    ----------
    source : message
        The model that was quantized.
    model : message
        The result, which is changed in place.

    Returns
    -------
    int
        How many operations were taken out.
    list of str
        What is wrong with them.
    """
    count = 0
    problems: list[str] = []
    others = dict(programs_of(source))
    for prefix, part in programs_of(model):
        functions = others[prefix].mlProgram.functions if prefix in others else {}
        for name in sorted(part.mlProgram.functions):
            if name not in functions:
                continue
            pairs = _Pairs(part.mlProgram.functions[name], set(names_made(functions[name])), f"{prefix}{name}")
            count += len(pairs.added)
            problems += pairs.problems()
            pairs.take_out()
    return count, problems


class _Pairs:
    def __init__(self, function: Any, known: set[str], path: str) -> None:
        self._function, self._path = function, path
        self.added: dict[str, Any] = {}  # by the name of the result
        self._constants: dict[str, Any] = {}
        for block in blocks_of(function):
            for operation in block.operations:
                if not operation.outputs or operation.outputs[0].name in known:
                    continue
                if operation.type in _PAIR and len(operation.outputs) == 1:
                    self.added[str(operation.outputs[0].name)] = operation
                elif operation.type == "const":
                    self._constants[str(operation.outputs[0].name)] = operation

    def problems(self) -> Iterator[str]:
        """What is wrong with the pairs."""
        for operation in self.added.values():
            reason = self._problem(operation)
            if reason is not None:
                yield f"function {self._path}: {operation.type} {label_of(operation)} {reason}"

    def _problem(self, operation: Any) -> str | None:
        scale, zero_point = (self._value(operation, name) for name in ("scale", "zero_point"))
        if scale is None or scale.size != 1 or not (math.isfinite(scale.item()) and scale.item() > 0):
            return "must have one scale, finite and greater than 0"
        if "zero_point" in operation.inputs and (zero_point is None or zero_point.size != 1):
            return "must have one zero point, or none"
        if operation.type == "quantize":
            return None
        before = self.added.get(_given(operation))
        if before is None or before.type != "quantize":
            return "does not follow a quantize that was added"
        same = all(_alike(self._value(operation, name), self._value(before, name)) for name in ("scale", "zero_point"))
        return None if same else "has another scale or zero point than its quantize"

    def _value(self, operation: Any, name: str) -> np.ndarray[Any, Any] | None:
        """The value of a parameter that is one of the added constants."""
        given = _given(operation, name)
        if given not in self._constants or "val" not in self._constants[given].attributes:
            return None
        value = self._constants[given].attributes["val"]
        tensor = value.immediateValue.tensor
        kind = BY_PROGRAM_NUMBER.get(value.type.tensorType.dataType)
        field = tensor.WhichOneof("value")
        if field is None or kind is None or kind.dtype is None or field != kind.inline_field:
            return None
        values = getattr(tensor, field).values
        if isinstance(values, bytes):
            return np.frombuffer(values, kind.dtype) if len(values) % kind.dtype.itemsize == 0 else None
        return np.array(list(values), kind.dtype)

    def take_out(self) -> None:
        """Remove the pairs, and the constants that only they use."""
        if not self.added:
            return
        uses: Counter[str] = Counter()
        for block in blocks_of(self._function):
            uses.update(block.outputs)
            for operation in block.operations:
                if not self._is_added(operation):
                    for argument in operation.inputs.values():
                        uses.update(each.name for each in argument.arguments if each.WhichOneof("binding") == "name")
        parameters = {
            _given(operation, name) for operation in self.added.values() for name in operation.inputs if name != "input"
        }
        unused = {name for name in self._constants if name in parameters and not uses[name]}
        sources = {name: self._source(name) for name in self.added}
        for block in reversed(list(blocks_of(self._function))):  # inner ones first, since operations are copied
            kept = []
            for operation in block.operations:
                if self._is_added(operation) or (operation.outputs and operation.outputs[0].name in unused):
                    continue
                for argument in operation.inputs.values():
                    for binding in argument.arguments:
                        if binding.WhichOneof("binding") == "name" and binding.name in sources:
                            binding.name = sources[binding.name]
                copy = type(operation)()
                copy.CopyFrom(operation)
                kept.append(copy)
            block.outputs[:] = [sources.get(name, name) for name in block.outputs]
            del block.operations[:]
            block.operations.extend(kept)

    def _is_added(self, operation: Any) -> bool:
        return bool(operation.outputs and operation.outputs[0].name in self.added) and operation.type in _PAIR

    def _source(self, name: str) -> str:
        """What a chain of pairs begins with."""
        seen = set()
        while name in self.added and name not in seen:
            seen.add(name)
            name = _given(self.added[name])
        return name


def _given(operation: Any, name: str = "input") -> str:
    """The name that a parameter is bound to; empty if it is none."""
    arguments = list(operation.inputs[name].arguments) if name in operation.inputs else []
    if len(arguments) != 1 or arguments[0].WhichOneof("binding") != "name":
        return ""
    return str(arguments[0].name)


def _alike(first: Any, second: Any) -> bool:
    if first is None or second is None:
        return first is second
    return bool(first.dtype == second.dtype and np.array_equal(first, second))
