"""``get_weights_metadata``, read from the package instead of a program in memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import numpy as np
from coremltools.optimize.coreml import CoreMLOpMetaData, CoreMLWeightMetaData
from coremltools.optimize.coreml import get_weights_metadata as peer_get_weights_metadata
from coremltools.optimize.coreml._config import _MetaDataDict
from numpy.typing import NDArray
from tqdm import tqdm

from ...coreml.format.package import Package
from ...coreml.format.values import ValueReader
from ...coreml.program.graph import label_of
from ...coreml.program.program import Definition, Program
from .models import package_of, require_program

_SMALL = 1e-12  # magnitudes that count as zero
_PIECE = 1 << 20


def get_weights_metadata(mlmodel: Any, weight_threshold: int = 2048) -> Any:
    """Return what the constants of a model contain and which operations use them.

    Parameters
    ----------
    mlmodel : coremltools.models.MLModel
        An ML program.
    weight_threshold : int
        Constants of fewer elements are left out.

    Returns
    -------
    dict of str to CoreMLWeightMetaData
        By the constants' names: ``val``, ``sparsity``, the share of magnitudes up to 1e-12, ``unique_values``, and
        ``child_ops``, the operations that use it. Printing it gives coremltools' text.

    Raises
    ------
    TypeError
        If the model is not an ML program.
    ValueError
        For several functions.
    """
    require_program("get_weights_metadata", mlmodel)
    with package_of(mlmodel) as path:
        package = Package.open(path)
        program = Program(package)
        if any(definition.operation.type != "const" for definition in program.definitions):
            return peer_get_weights_metadata(mlmodel, weight_threshold)  # which names the parts of compressed weights
        chosen = [each for each in program.definitions if prod(each.shape) >= weight_threshold and each.shape]
        found = _MetaDataDict({})
        with ValueReader(package) as values:
            users = _Users(chosen)
            for each in tqdm(_blocks_inside_first(chosen), desc="Getting Core ML weights meta data", unit=" ops"):
                found[label_of(each.operation)] = _metadata(each, values, users)
    return found


class _Users:
    """The operations that use some constants, and the operands that these are used as."""

    def __init__(self, definitions: Sequence[Definition]) -> None:
        self._constants: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
        for definition in definitions:
            for consumer in definition.consumers:
                key = definition.function, consumer.name
                self._constants[key][consumer.operand] = label_of(definition.operation)

    def of(self, definition: Definition) -> list[Any]:
        kinds = {consumer.name: consumer.operation for consumer in definition.consumers}
        return [
            CoreMLOpMetaData(
                op_type=kind, name=name, params_name_mapping=dict(self._constants[definition.function, name])
            )
            for name, kind in kinds.items()
        ]


def _metadata(definition: Definition, values: ValueReader, users: _Users) -> Any:
    array = np.array(values.read(definition.parameters["val"], definition.where).data)
    if array.dtype != np.float16:
        return CoreMLWeightMetaData(array, child_ops=users.of(definition))
    zeros, distinct = _counts(array)
    return CoreMLWeightMetaData(array, zeros / array.size, distinct, users.of(definition))


def _counts(array: NDArray[np.float16]) -> tuple[int, int]:
    """Number of values of negligible magnitude, and of distinct values; all NaN are one, and so are the zeros."""
    counts = np.zeros(1 << 16, np.int64)
    patterns = array.reshape(-1).view(np.uint16)
    for start in range(0, patterns.size, _PIECE):
        counts += np.bincount(patterns[start : start + _PIECE], minlength=counts.size)
    values = np.arange(counts.size, dtype=np.uint16).view(np.float16)
    with np.errstate(invalid="ignore"):
        zeros = int(counts[np.abs(values) <= np.float16(_SMALL)].sum())
    present = values[counts > 0]
    return zeros, int(np.unique(present).size)


def _blocks_inside_first(definitions: Sequence[Definition]) -> list[Definition]:
    """The constants of blocks inside operations, then those of the enclosing block."""
    by_place: dict[str, list[Definition]] = defaultdict(list)
    for definition in definitions:
        by_place[definition.place].append(definition)
    done: dict[str, None] = {}

    def visit(place: str) -> Iterator[Definition]:
        if place in done:
            return
        done[place] = None
        for inner in by_place:
            if inner.startswith(f"{place}/"):
                yield from visit(inner)
        yield from by_place[place]

    return [each for place in by_place for each in visit(place)]
