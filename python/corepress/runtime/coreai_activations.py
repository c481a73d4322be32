"""What a Core AI program computes, by name: its functions, their inputs and outputs, and the results in between.

Works on the objects of ``coreai.authoring`` without importing it; only `coreai_worker` calls it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

TAP = "corepress.tap."  # what the names of outputs begin with that are intermediate results
_NAME = "coreai.name"
_SHORT = re.compile(r"^(coreaix?|udml)\.(decomposable\.)?")
_SOURCE = re.compile(r'"sources": \[\{id = \d+ : ui64, identifiers = \["([^"]+)"')
_TENSOR = re.compile(r"tensor<((?:[0-9?]+x)*)([A-Za-z0-9]+)(?:, .*)?>")
_HANDLE = re.compile(r"^(?:!coreai\.handle)?<(tensor<.*>)>$")
_TYPES = {
    "i1": "bool",
    "f16": "float16",
    "f32": "float32",
    "f64": "float64",
    "bf16": "bfloat16",
    "f8E4M3FN": "float8_e4m3fn",
    "f8E5M2": "float8_e5m2",
    "f8E8M0FNU": "float8_e8m0fnu",
    "f4E2M1FN": "float4_e2m1fn",
}
_TAPPED = {"bool", "float16", "float32", "bfloat16"} | {
    f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32)
}
Shape = tuple["int | None", ...]
# Of a value: the number of its operation in the function's block, and of the result; before them, for a value of
# another function that is called, the number of the call in its own function.
Place = tuple[int, ...]


@dataclass(frozen=True)
class Activation:
    """An intermediate result that depends on the inputs.

    Attributes
    ----------
    place : tuple of int
        Where it is.
    name : str
        Unique in the function; from the operation of PyTorch that it was converted from, where the asset says so.
    operation : str
        Type of the operation that computes it, such as "conv2d".
    dtype : str
        Type of its elements.
    shape : tuple of int or None
        None for sizes that only a run decides.
    is_named : bool
        Whether the name is the asset's.
    """

    place: Place
    name: str
    operation: str
    dtype: str
    shape: Shape
    is_named: bool


def corresponding(first: Sequence[Activation], second: Sequence[Activation]) -> dict[str, str]:
    """The activations of a program that are those of another version of the same model.

    Where both compute the same operations in the same order, as versions do whose weights are stored in different ways,
    it is their order that counts; else it is their names, and where one of them has none, the longest common
    runs of operations and shapes.

    Parameters
    ----------
    first, second : sequence of Activation
        Those of both, in program order.

    Returns
    -------
    dict of str to str
        By the name in the second, the name in the first.
    """
    ours, theirs = ([(each.operation, each.shape) for each in side] for side in (first, second))
    if ours == theirs:
        return {their.name: our.name for our, their in zip(first, second, strict=True)}
    if all(each.is_named for each in (*first, *second)):
        operations = {each.name: each.operation for each in first}
        return {each.name: each.name for each in second if operations.get(each.name) == each.operation}
    found: dict[str, str] = {}
    for begin, other, length in SequenceMatcher(None, ours, theirs, autojunk=False).get_matching_blocks():
        found |= {second[other + place].name: first[begin + place].name for place in range(length)}
    return found


def functions_of(program: Any) -> dict[str, Any]:
    """Inputs, outputs and states of each function that can be called from outside: lists of (name, type, shape).

    The type is "" for what is no tensor.
    """
    found = {}
    for graph in _graphs(program._module._mlir_module.body.operations):
        if "priv" in graph.attributes:
            continue
        inputs: list[tuple[str, str, Shape]] = []
        states: list[tuple[str, str, Shape]] = []
        attributes = list(graph.arg_attrs) if graph.arg_attrs else []
        for index, argument in enumerate(graph.arguments):
            name = attributes[index][_NAME].value if _NAME in attributes[index] else f"arg{index}"
            handle = _HANDLE.match(str(argument.type))
            (inputs if handle is None else states).append((name, *tensor_of(handle[1] if handle else argument.type)))
        outputs = [
            (name, *tensor_of(value.type)) for name, value in graph.outputs_spec if "token" not in str(value.type)
        ]
        found[graph.sym_name.value] = {"inputs": inputs, "outputs": outputs, "states": states}
    return found


def _graphs(operations: Any) -> Iterator[Any]:
    for operation in operations:
        if operation.name == "coreai.graph":
            yield operation
        elif operation.name == "udml.namespace":
            yield from _graphs(operation.regions[0].blocks[0].operations)


def tensor_of(kind: Any) -> tuple[str, Shape]:
    """Type and shape of a tensor; the type is "" for anything else."""
    match = _TENSOR.fullmatch(str(kind))
    if match is None:
        return "", ()
    sizes = tuple(None if size == "?" else int(size) for size in match[1].split("x")[:-1])
    name = match[2]
    if name not in _TYPES:
        name = re.sub(r"^si(\d+)$", r"int\1", re.sub(r"^ui(\d+)$", r"uint\1", name))
    return _TYPES.get(name, name), sizes


def activations_of(program: Any, function: str) -> list[Activation]:
    """The tensors that a function computes from its inputs, in program order, without those within blocks of others.

    What is computed from constants alone, such as the values of a compressed weight, is left out: the same model has
    the same activations however its weights are stored.
    """
    graph = program._get_graph(function)
    depends = set(graph.arguments)
    found: list[tuple[Place, str, str | None, str, Shape]] = []
    for number, operation in enumerate(graph.entry_block.operations):
        if not any(value in depends for value in _operands(operation)):
            continue
        depends.update(operation.results)
        short, source = _SHORT.sub("", operation.name), _SOURCE.search(str(operation.location))
        for index, result in enumerate(operation.results):
            dtype, shape = tensor_of(result.type)
            if dtype in _TAPPED:
                found.append(((number, index), short, source and source[1], dtype, shape))
    return list(_named(found))


def _operands(operation: Any) -> Iterator[Any]:
    """What an operation takes, its nested blocks too."""
    yield from operation.operands
    for region in operation.regions:
        for block in region.blocks:
            for inner in block.operations:
                yield from _operands(inner)


def _named(found: list[tuple[Place, str, str | None, str, Shape]]) -> Iterator[Activation]:
    """The last result of an operation of PyTorch has its name; those before it add what they are."""
    last = {source: place for place, _, source, _, _ in found if source is not None}
    counts: Counter[str] = Counter()
    for place, short, source, dtype, shape in found:
        base = short if source is None else source if last[source] == place else f"{source}.{short}"
        counts[base] += 1
        name = f"{base}:{counts[base]}" if source is None or counts[base] > 1 else base
        yield Activation(place, name, short, dtype, shape, source is not None)
