"""Core AI programs: their weights, and edits in place."""

from __future__ import annotations

import copy
import os
from math import prod
from pathlib import Path
from typing import Any

from ...errors import FormatError
from ..format.asset import METADATA, PROGRAM, Asset
from ..format.asset_writer import NO_METADATA, AssetWriter
from ..format.data_types import FLOATS
from ..operations import COMPRESSING, Node
from .constants import Constants, is_splat, type_of
from .graph import Graphs
from .loading import load_program
from .mapped_constants import MappedConstants
from .modules import ir, short_name
from .names import made_unique, names_of
from .uses import Uses, uses_of
from .weights import Place, Weight, keys_of

LEAST_ELEMENTS = 256  # of a plain constant that is a weight; smaller ones are written inline
_CODES = 8  # most bits of an element that is a code, not a value


class Program:
    """The program of an asset, in memory; its weights remain in the file until they are read.

    Parameters
    ----------
    asset : Asset or path-like
        The asset.

    Attributes
    ----------
    path : pathlib.Path
        That of the asset.
    weights : list of Weight
        All constants that are weights, in program order: plain floats of at least `LEAST_ELEMENTS` elements, and
        whatever operations of compression yield from constants. Those whose data is the same are one.
    function_names : tuple of str
        Names of its functions that can be called from outside.
    graphs : Graphs
        All its functions.
    program : coreai.authoring.AIProgram
        The program, for those who run it; edits by `Weight.replace` are in it.

    Raises
    ------
    FormatError
        If it is damaged.
    MissingExtraError
        If Core AI's library is not installed.
    """

    def __init__(self, asset: Asset | str | os.PathLike[str]) -> None:
        asset = asset if isinstance(asset, Asset) else Asset.open(asset)
        self._open(asset.root, load_program(asset), MappedConstants(asset.bytecode))

    @classmethod
    def copy_of(cls, program: Any) -> Program:
        """A copy of a program in memory; its weights remain where they are until they are read.

        Parameters
        ----------
        program : coreai.authoring.AIProgram
            The program. What it and the copy store is let go with the last of them.
        """
        self = cls.__new__(cls)
        self._open(Path("program"), copy.deepcopy(program), Constants())
        return self

    def _open(self, path: Path, program: Any, constants: Constants) -> None:
        self.path, self.program, self.constants = path, program, constants
        self.module = program._module._mlir_module
        try:
            self.graphs = Graphs(self.module)
        except (KeyError, IndexError) as error:
            raise FormatError(f"{self.path}: has a function without {error}") from error
        self.function_names = tuple(graph.name for graph in self.graphs if not graph.is_private)
        self.weights = self._find_weights()

    def weight(self, name: str) -> Weight:
        """The weight of this name; KeyError if there is none."""
        for weight in self.weights:
            if name in weight.names:
                return weight
        raise KeyError(name)

    def _find_weights(self) -> list[Weight]:
        places: dict[Any, list[Place]] = {}
        for graph in self.graphs:
            stores: dict[Any, bool] = {}
            for operation in graph.operations:
                if operation.name == "coreai.constant":
                    self.constants.require_sizes(operation)
                if _stores_weight(operation, stores):
                    places.setdefault(keys_of(operation), []).append(Place(operation, graph))
        weights = [self._weight(each) for each in places.values()]
        found = [weight for weight in weights if weight is not None]
        candidates = [names_of(weight.uses) or [f"{weight.function}.constant"] for weight in found]
        for weight, names in zip(found, made_unique(candidates), strict=True):
            weight.names = names
        return found

    def _weight(self, places: list[Place]) -> Weight | None:
        found = [uses_of(place.value, place.graph, self.graphs, self.constants) for place in places]
        uses = tuple(use for each in found for use in each.found)
        data_type, shape = type_of(places[0].value) or (None, ())
        assert data_type is not None
        if not any(each.found or each.obstacle for each in found):
            return None  # nobody uses it, and it leaves the file
        return Weight(self, places, data_type.name, shape, uses, _obstacle(found, places[0], data_type.name))

    def substitute(self, weight: Weight, form: Node) -> None:
        """Write a chain of operations at all places of a weight, and remove those that were there."""
        types, values = ir(), dict[Any, Any]()
        with self.module.context:
            for place in weight.places:
                old = place.value
                block = place.operation.block
                if block not in values:
                    with types.InsertionPoint(place.operation), place.operation.location:
                        values[block] = self.constants.emit(form, place.operation.location)
                new = values[block]
                new.owner.verify()
                if str(new.type) != str(old.type):
                    raise ValueError(f"{self.path}: weight {weight.name}: {new.type} cannot replace {old.type}")
                old.replace_all_uses_with(new)
                _remove(place.operation)
                place.operation = new.owner

    def save(self, writer: AssetWriter) -> None:
        """Write the program in its current state to the asset that a writer builds.

        Raises
        ------
        ValueError
            If Core AI's library refuses the program.
        """
        self.write(writer.program_path)

    def write_asset(self, folder: Path) -> None:
        """Write the program in its current state as an asset to a new folder, without what only people read."""
        folder.mkdir()
        self.write(folder / PROGRAM)
        (folder / METADATA).write_text(NO_METADATA, encoding="utf-8")

    def write(self, path: Path) -> None:
        """Write the program in its current state to a file; ValueError if Core AI's library refuses it."""
        try:
            self.program._save_bytecode(path)
        except Exception as error:
            raise ValueError(f"{self.path}: Core AI's library refuses the edited program: {error}") from error


def _obstacle(found: list[Uses], place: Place, dtype: str) -> str | None:
    if dtype == "float64":
        return "is float64"
    if place.value.type.encoding is not None:
        return "has hardware constraints"
    if str(place.operation.name) == "coreai.constant" and is_splat(place.operation):
        return "is one value, stored once"
    return next((uses.obstacle for uses in found if uses.obstacle), None)


def _stores_weight(operation: Any, stores: dict[Any, bool]) -> bool:
    """Whether an operation is the last of those that yield a weight; `stores` says which belong to such chains."""
    name = short_name(operation)
    found = type_of(operation.results[0]) if len(operation.results) == 1 else None
    if name == "constant":
        stores[operation] = True
        return (
            found is not None
            and found[0].name in FLOATS
            and prod(found[1]) >= LEAST_ELEMENTS
            and _is_used(operation, stores)
        )
    if name not in COMPRESSING and not _casts_codes(operation, name, found):
        return False
    if not all(_producer(operand) in stores for operand in operation.operands):
        return False
    stores[operation] = True
    return found is not None and found[0].name in FLOATS and prod(found[1]) > 1 and _is_used(operation, stores)


def _casts_codes(operation: Any, name: str, found: Any) -> bool:
    """Whether an operation makes floats of codes."""
    if name != "cast" or found is None or found[0].name not in FLOATS:
        return False
    given = type_of(operation.operands[0])
    return given is not None and given[0].nbits <= _CODES and given[0].name != "bool"


def _is_used(operation: Any, stores: dict[Any, bool]) -> bool:
    """Whether anything but another operation of a chain uses the result."""
    for use in operation.results[0].uses:
        owner = use.owner.operation
        name = short_name(owner)
        if name not in COMPRESSING:
            return True
        if not all(_producer(operand) is not None and _is_constant(operand) for operand in owner.operands):
            return True
    return False


def _is_constant(value: Any) -> bool:
    """Whether constants alone decide a value: they, and operations of compression and casts on them."""
    producer = _producer(value)
    if producer is None:
        return False
    name = short_name(producer)
    if name == "constant":
        return True
    return name in (*COMPRESSING, "cast") and all(_is_constant(operand) for operand in producer.operands)


def _producer(value: Any) -> Any:
    """The operation that yields a value; None for arguments."""
    owner = getattr(value, "owner", None)
    if owner is None or isinstance(owner, ir().Block):
        return None
    return owner.operation


def _remove(operation: Any) -> None:
    """Remove an operation that nothing uses, and those that only it used."""
    if any(True for result in operation.results for _ in result.uses):
        return
    producers = list(dict.fromkeys(filter(None, map(_producer, operation.operands))))
    operation.erase()
    for producer in producers:
        if short_name(producer) in (*COMPRESSING, "cast", "constant"):
            _remove(producer)
