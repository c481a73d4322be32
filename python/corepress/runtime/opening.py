"""What a model file holds: the kind of model, its description, and the parts of a pipeline; weights are left alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..coreml.format.descriptions import ModelDescription
from ..coreml.format.kinds import MODEL_TYPES, refuse_foreign
from ..coreml.format.messages import parse_message
from ..coreml.format.package import Package
from ..coreml.format.wire_format import BYTES, VARINT, fields
from ..errors import FormatError
from ..neural_network.byte_sources import BytesSource, FileSource, Source
from ..neural_network.layer_schema import StoredNetwork, read_network
from ..paths import user_path
from .features import Description

PROGRAM = "mlProgram"
NETWORKS = ("neuralNetwork", "neuralNetworkClassifier", "neuralNetworkRegressor")
PIPELINES = ("pipeline", "pipelineClassifier", "pipelineRegressor")
_VERSION, _DESCRIPTION = 1, 2  # fields of a model
_MODELS, _NAMES = 1, 2  # of a pipeline
_PIPELINE_OF_WRAPPED = 1
_SHAPE_MAPPING = 5  # of a network: 0 for five axes, 1 for those of the arrays
_DEEPEST = 32  # pipelines within pipelines


@dataclass(frozen=True)
class ModelPart:
    """A model, or one in a pipeline.

    Attributes
    ----------
    kind : str
        The field of its type: "mlProgram", "neuralNetworkClassifier", "pipeline", …
    in_words : str
        The kind in words: "an ML program".
    name : str
        Its name in the pipeline; empty for the outermost.
    version : int
        Its specification version.
    description : protobuf message
        A ModelDescription.
    parts : tuple of ModelPart
        The models of a pipeline.
    takes_sequences : bool
        Whether it is a network that works on five axes.
    """

    kind: str
    in_words: str
    name: str
    version: int
    description: Any
    parts: tuple[ModelPart, ...]
    takes_sequences: bool
    _source: Source
    _begin: int
    _end: int

    def data(self) -> bytes:
        """The serialized model."""
        return self._source.read(self._begin, self._end)

    def network(self) -> StoredNetwork:
        """The network that it is; its values are read from the file, which must stay open until then."""
        return read_network(self._source, self._begin, self._end)

    @property
    def function_names(self) -> tuple[str, ...]:
        """Names of its functions, if it has descriptions for several."""
        return tuple(each.name for each in self.description.functions)

    def function(self, name: str | None) -> str | None:
        """The function of this name, or the default for None; None where there is only one.

        Raises
        ------
        ValueError
            If there is no such function.
        """
        names = self.function_names
        if name is None and names:
            default = self.description.defaultFunctionName
            return default if default in names else names[0]
        if not names and name not in (None, "main"):
            raise ValueError(f"load: function_name is {name!r}, but the model has only one function, main")
        if names and name not in names:
            raise ValueError(f"load: function_name is {name!r}, but the functions are {', '.join(names)}")
        return name

    def describe(self, function_name: str | None) -> Description:
        """The description of the model, or of a function that `function` returned."""
        message = next(
            (each for each in self.description.functions if each.name == function_name),
            self.description,
        )
        return Description.of(message, takes_sequences=self.takes_sequences)


@dataclass(frozen=True)
class OpenModel:
    """An opened model: its package, if it is one, and its outermost part."""

    path: Path | None
    package: Package | None
    root: ModelPart


@contextmanager
def open_model(model: Any) -> Iterator[OpenModel]:
    """Open a package or a model file.

    Parameters
    ----------
    model : path-like, protobuf message or coremltools MLModel
        The model.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    TypeError
        If it is not a model.
    FormatError
        If it is of another kind, or damaged.
    """
    package, path = None, None
    if not isinstance(model, str | os.PathLike):
        spec = model.get_spec() if hasattr(model, "get_spec") else model
        if getattr(model, "package_path", None):
            path, package = Path(model.package_path), Package.open(model.package_path)
        if not hasattr(spec, "SerializeToString"):
            raise TypeError(f"load: model must be a path, a spec or an MLModel, not {type(model).__name__}")
        source: Source = BytesSource(spec.SerializeToString())
    else:
        path = user_path(model)
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file")
        refuse_foreign(path, of_any_kind=True)
        package = Package.open(path) if path.is_dir() else None
        source = FileSource(package.model_path if package is not None else path)
    try:
        try:
            root = _part(source, 0, source.size, "", 0)
        except FormatError as error:
            raise FormatError(f"{path or 'the model'}: not a serialized Core ML model ({error})") from error
        yield OpenModel(path, package, root)
        source.require_unchanged()
    finally:
        source.close()


def _part(source: Source, begin: int, end: int, name: str, depth: int) -> ModelPart:
    if depth > _DEEPEST:
        raise FormatError(f"pipelines are nested more than {_DEEPEST} deep")
    version, description = 0, b""
    found: tuple[int, int, int] | None = None
    for each in fields(source.read, begin, end):
        if each.number == _VERSION and each.wire_type == VARINT:
            version = each.value
        elif each.number == _DESCRIPTION and each.wire_type == BYTES:
            description += source.read(each.value, each.end)
        elif each.number in MODEL_TYPES and each.wire_type == BYTES:
            if found is not None:
                raise FormatError("its type is stored in several pieces")
            found = each.number, each.value, each.end
    if found is None:
        raise FormatError("it has no type")
    number, first, last = found
    kind, in_words = MODEL_TYPES[number]
    return ModelPart(
        kind=kind,
        in_words=in_words,
        name=name,
        version=version,
        description=parse_message(description, ModelDescription),
        parts=tuple(_parts(source, first, last, kind, depth)) if kind in PIPELINES else (),
        takes_sequences=kind in NETWORKS and not _keeps_axes(source, first, last),
        _source=source,
        _begin=begin,
        _end=end,
    )


def _parts(source: Source, begin: int, end: int, kind: str, depth: int) -> Iterator[ModelPart]:
    if kind != "pipeline":
        wrapped = [each for each in fields(source.read, begin, end) if each.number == _PIPELINE_OF_WRAPPED]
        if len(wrapped) != 1 or wrapped[0].wire_type != BYTES:
            raise FormatError("a pipeline is stored in several pieces, or missing")
        begin, end = wrapped[0].value, wrapped[0].end
    found = [each for each in fields(source.read, begin, end) if each.wire_type == BYTES]
    models = [each for each in found if each.number == _MODELS]
    names = [source.read(each.value, each.end).decode(errors="replace") for each in found if each.number == _NAMES]
    if len(set(names)) != len(models) or not all(names):
        names = [str(index) for index in range(len(models))]
    if not models:
        raise FormatError("a pipeline has no models")
    for each, name in zip(models, names, strict=True):
        yield _part(source, each.value, each.end, name, depth + 1)


def _keeps_axes(source: Source, begin: int, end: int) -> bool:
    return any(
        each.number == _SHAPE_MAPPING and each.wire_type == VARINT and each.value == 1
        for each in fields(source.read, begin, end)
    )
