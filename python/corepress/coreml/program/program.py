"""Walking an ML program: its constants, who consumes them, and every reference to a weight file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ...engine.weights import Consumer
from ...errors import FormatError
from ..format.data_types import DataType
from ..format.kinds import holds_networks, model_in_words
from ..format.messages import parse_message
from ..format.package import Package
from ..format.schema import Model, read_model, serialize_model
from ..format.values import nested_values, tensor_type
from ..format.versions import IOS18
from .graph import (
    Argument,
    Block,
    Function,
    Literal,
    Operation,
    Value,
    function_graphs,
    is_definition,
    opset_version,
)

_PIPELINES = ("pipeline", "pipelineClassifier", "pipelineRegressor")


class BlobKey(NamedTuple):
    """The identity of a blob: weight file and offset of its record."""

    file: Path
    offset: int


class Part(NamedTuple):
    """A model with an ML program: the package's own, or one of its pipeline.

    `prefix` starts the names in it. `version` is the specification version whose operations its program may use, which
    its opsets decide; `model.specificationVersion` is what it declares.
    """

    prefix: str
    model: Any
    version: int


class Operand(NamedTuple):
    """An output of a definition that another one takes, with its number."""

    definition: Definition
    output: int


@dataclass(eq=False)
class Definition:
    """One operation that yields a constant: ``const``, or ``constexpr_...``.

    Attributes
    ----------
    name, function : str
        Name of its first output, and of its function; in a pipeline, after the model's name and a slash.
    place : str
        Its block, by function, opset and the operations that contain the block.
    part : Part
        Its model, and the version of the model's operations.
    operation, block : message
        The operation and its block, for editing in place.
    data_type, shape
        Type of the first output.
    operands : dict of str to Operand
        What it takes from other definitions: the earlier steps of a joint form.
    consumers : list of Consumer
        Where it is used, by operations that are not definitions themselves.
    references : list of Reference
        Its parameters in weight files.
    users : list of Definition or None
        Other definitions that use it; None for constant operations that are not definitions.
    feeds_output : bool
        Whether it is an output of a block.
    original : Definition
        The first definition that shares its stored bytes; itself if there is no other.
    """

    name: str
    function: str
    place: str
    part: Part
    operation: Any
    block: Any
    data_type: DataType
    shape: tuple[int, ...]
    operands: dict[str, Operand] = field(default_factory=dict)
    consumers: list[Consumer] = field(default_factory=list)
    references: list[Reference] = field(default_factory=list)
    users: list[Definition | None] = field(default_factory=list)
    feeds_output: bool = False
    original: Definition = field(init=False)

    def __post_init__(self) -> None:
        self.original = self

    @property
    def version(self) -> int:
        """Specification version whose operations its program may use."""
        return self.part.version

    @property
    def output_name(self) -> str:
        """Name of its first output, as the program has it."""
        return str(self.operation.outputs[0].name)

    @property
    def producers(self) -> list[Definition]:
        """The definitions that it builds on, each once."""
        return list(dict.fromkeys(operand.definition for operand in self.operands.values()))

    @property
    def feeds_definition(self) -> bool:
        """Whether another constant uses it."""
        return bool(self.users)

    @property
    def parameters(self) -> dict[str, Any]:
        """Its parameters' values by name, wherever the operation carries them; operands given by name are left out."""
        parameters = {name: value for name, value in self.operation.attributes.items() if name != "name"}
        for name, argument in self.operation.inputs.items():
            for binding in argument.arguments:
                if binding.WhichOneof("binding") == "value":
                    parameters[name] = binding.value
        return parameters

    @property
    def where(self) -> str:
        """For error messages."""
        return f"function {self.function}: {self.operation.type} {self.name}"


@dataclass(frozen=True, eq=False)
class Reference:
    """A parameter in a weight file; `owner` is its operation if that is a definition, else None."""

    key: BlobKey
    value: Any
    parameter: str
    owner: Definition | None


def programs_of(model: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The models with an ML program: the model itself, or those of a pipeline at any depth.

    Each comes with a prefix for the names in it, empty outside of pipelines: the model's name or number, and a slash.
    """
    kind = model.WhichOneof("Type")
    if kind == "mlProgram":
        yield prefix, model
    else:
        for inner, part in pipeline_of(model, prefix):
            yield from programs_of(part, inner)


def pipeline_of(model: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The models that a pipeline consists of, each with a prefix for the names in it; none of other models."""
    kind = model.WhichOneof("Type")
    if kind not in _PIPELINES:
        return
    pipeline = model.pipeline if kind == "pipeline" else getattr(model, kind).pipeline
    names = list(pipeline.names)
    if len(set(names)) != len(pipeline.models) or not all(names):
        names = [str(index) for index in range(len(pipeline.models))]
    for name, part in zip(names, pipeline.models, strict=False):
        yield f"{prefix}{name}/", part


class Program:
    """The ML program of a package, or the programs of its pipeline, and what is in them.

    Parameters
    ----------
    package : Package
        Package to read.
    model : message, optional
        Its model, if it has been read already, and perhaps edited.

    Attributes
    ----------
    package : Package
        The package.
    model : message
        The model.
    parts : tuple of Part
        The models with an ML program, one unless it is a pipeline.
    version : int
        Specification version whose operations the program may use; of several programs, the lowest.
    functions : tuple of str
        Names of its functions, sorted.
    graphs : dict of str to list of Function
        All operations of each part, by the part's prefix; the definitions are its constants.
    definitions : list of Definition
        All constants, in program order.
    references : list of Reference
        All values in weight files, in program order.
    file_names : dict of str to pathlib.Path
        The weight files, by the names that the program uses.
    names : dict of str to set of str
        For each function, all names of values in it.

    Raises
    ------
    FormatError
        If the model is damaged.
    ValueError
        If it is not an ML program, or its functions use opsets whose forms differ.
    """

    def __init__(self, package: Package, model: Any = None) -> None:
        self.package = package
        self.model = read_model(package.model_path) if model is None else model
        self.specification_version = int(self.model.specificationVersion)
        self.graphs: dict[str, list[Function]] = {}
        self.definitions: list[Definition] = []
        self._operands: dict[Value, Operand] = {}
        self.references: list[Reference] = []
        self.file_names: dict[str, Path] = {}
        self.names: dict[str, set[str]] = defaultdict(set)
        programs = list(programs_of(self.model))
        if not programs:
            kind = model_in_words(package.model_path)
            network = " (corepress.neural_network is for neural networks)" if holds_networks(package.model_path) else ""
            raise ValueError(
                f"{package.root}: is {kind}, not an ML program; only ML programs can be compressed here{network}"
            )
        functions, parts = [], []
        for prefix, model in programs:
            if model.mlProgram.version != 1:
                raise FormatError(f"{package.model_path}: program version must be 1, not {model.mlProgram.version}")
            parts.append(Part(prefix, model, self._common_version(model)))
            functions += [f"{prefix}{name}" for name in sorted(model.mlProgram.functions)]
            self._walk_program(parts[-1])
        _find_originals(self.definitions)
        self.functions, self.parts = tuple(functions), tuple(parts)
        self.version = min(part.version for part in parts)

    def _common_version(self, model: Any) -> int:
        """The specification version whose forms all blocks of a program may use."""
        default = int(model.specificationVersion)
        opsets = [opset for function in model.mlProgram.functions.values() for opset in function.block_specializations]
        versions = {opset_version(opset, default) for opset in opsets}
        version = min(versions, default=default)
        if version < IOS18 <= max(versions, default=version):
            names = ", ".join(f"CoreML{each - 1}" for each in sorted(versions))
            raise ValueError(f"{self.package.root}: opsets {names} in one program need different forms of one weight")
        return version

    def _walk_program(self, part: Part) -> None:
        program = part.model.mlProgram
        self._refer(program.attributes, None)
        try:
            graphs = self.graphs[part.prefix] = list(function_graphs(part.model, part.prefix))
        except FormatError as error:
            raise FormatError(f"{self.package.model_path}: {error}") from error
        for graph in graphs:
            name = f"{part.prefix}{graph.name}"
            self._refer(graph.message.attributes, None)
            self._walk_block(part, name, graph.block)

    def _walk_block(self, part: Part, function: str, block: Block) -> None:
        self._refer(block.message.attributes, None)
        names = self.names[function]
        names.update(value.name for value in block.inputs)
        for operation in block.operations:
            definition = None
            if is_definition(operation.message):
                definition = self._define(part, function, operation, block)
            if definition:
                self.definitions.append(definition)
                for index, value in enumerate(operation.outputs):
                    self._operands[value] = Operand(definition, index)
            self._bind_operands(operation, definition)
            for nested in operation.blocks:
                self._walk_block(part, function, nested)
            names.update(value.name for value in operation.outputs)
        for output in block.outputs:
            source = self._operand(output)
            if source:
                source.definition.feeds_output = True

    def _define(self, part: Part, function: str, operation: Operation, block: Block) -> Definition | None:
        message = operation.message
        if not message.outputs:
            where = f"{self.package.model_path}: function {function}"
            raise FormatError(f"{where}: {operation.type} without an output")
        output = message.outputs[0]
        where = f"{self.package.model_path}: function {function}: {operation.type} {output.name}"
        declared = tensor_type(output.type, where)
        if operation.type == "const":
            if operation.inputs or operation.blocks or "val" not in operation.attributes:
                raise FormatError(f"{where}: a const has an attribute val and neither inputs nor blocks")
            if tensor_type(operation.attributes["val"].type, where) != declared:
                raise FormatError(f"{where}: its value is of another type than its output")
        if declared is None:
            return None
        name = f"{part.prefix}{output.name}"
        return Definition(name, function, operation.place, part, message, block.message, *declared)

    def _bind_operands(self, operation: Operation, definition: Definition | None) -> None:
        self._refer(operation.attributes, definition)
        for operand, arguments in sorted(operation.inputs.items()):
            for argument in arguments:
                if isinstance(argument, Literal):
                    self._refer({operand: argument.message}, definition)
                    continue
                source = self._operand(argument)
                if source and is_definition(operation.message):
                    source.definition.users.append(definition)
                    if definition:
                        definition.operands[operand] = source
                elif source:
                    axes = channel_axes(operation, operand, len(source.definition.shape))
                    groups = convolution_groups(operation, operand)
                    consumer = Consumer(operation.type, operand, *axes, operation.name, groups)
                    source.definition.consumers.append(consumer)

    def _operand(self, argument: Argument) -> Operand | None:
        return self._operands.get(argument) if isinstance(argument, Value) else None

    def _refer(self, values: Any, owner: Definition | None) -> None:
        for parameter in sorted(values):
            for value in nested_values(values[parameter]):
                if value.WhichOneof("value") != "blobFileValue":
                    continue
                name = value.blobFileValue.fileName
                if name not in self.file_names:
                    self.file_names[name] = self.package.locate(name)
                key = BlobKey(self.file_names[name], value.blobFileValue.offset)
                reference = Reference(key, value, parameter, owner)
                self.references.append(reference)
                if owner:
                    owner.references.append(reference)

    def serialize(self) -> bytes:
        """The model file of the program in its current state, checked to be readable.

        Raises
        ------
        ValueError
            If it is not readable.
        """
        data = serialize_model(self.model)
        try:
            parse_message(data, Model)
        except FormatError as error:
            raise ValueError(
                f"{self.package.root}: the result could not be read back ({error}); leave the weights of its "
                "innermost blocks out"
            ) from error
        return data


def _scalar(operation: Operation, operand: str, field: str, absent: Any) -> Any:
    """An operand of one element; None if it is not known beforehand."""
    for argument in operation.inputs.get(operand, ()):
        if isinstance(argument, Literal):
            value = argument.message
        elif isinstance(argument, Value) and argument.producer is not None and argument.producer.type == "const":
            value = argument.producer.attributes["val"]
        else:
            return None
        values = getattr(value.immediateValue.tensor, field).values
        return values[0] if len(values) == 1 else None
    return absent


def convolution_groups(operation: Operation, operand: str) -> int | None:
    """Into how many groups a convolution divides axis 0 of its weight; 1 for other operands."""
    if operation.type not in ("conv", "conv_transpose") or operand != "weight":
        return 1
    groups = _scalar(operation, "groups", "ints", 1)
    return groups if groups is None or groups >= 1 else None


def channel_axes(operation: Operation, operand: str, rank: int) -> tuple[int | None, int | None]:
    """Which axes of an operand of this rank are its output and input channel axes, by coremltools' rule."""
    axes = (0, 1)
    if operation.type == "conv_transpose":
        axes = (1, 0)
    elif operation.type == "matmul" and operand in ("x", "y"):
        transposed = _scalar(operation, f"transpose_{operand}", "bools", False)
        if transposed is None:
            return None, None
        axes = (rank - 1, rank - 2) if (operand == "y") != transposed else (rank - 2, rank - 1)
    output, source = (axis if 0 <= axis < rank else None for axis in axes)
    return output, source


def _find_originals(definitions: list[Definition]) -> None:
    """Find definitions that share their storage: they use the same blobs, and are built on definitions that do."""
    # What a definition builds on comes before it and is identified by its original, so that long chains cost no more.
    originals: dict[Hashable, Definition] = {}
    in_files: set[Definition] = set()
    for definition in definitions:
        operands = tuple(
            (name, index, producer.original) for name, (producer, index) in sorted(definition.operands.items())
        )
        if definition.references or any(producer in in_files for _, _, producer in operands):
            definition.original = originals.setdefault(_content(definition, operands), definition)
            in_files.add(definition.original)


def _content(definition: Definition, operands: Hashable) -> Hashable:
    blobs = tuple((reference.parameter, reference.key) for reference in definition.references)
    inline = tuple(
        (name, value.SerializeToString(deterministic=True))
        for name, value in sorted(definition.parameters.items())
        if value.WhichOneof("value") != "blobFileValue"
    )
    operation = definition.operation.type, definition.version, definition.data_type, definition.shape
    return *operation, blobs, inline, operands
