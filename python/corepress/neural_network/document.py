"""Stream an .mlmodel layer by layer; unedited bytes are copied verbatim."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from ..coreml.format.messages import parse_message
from ..coreml.format.wire_format import BYTES, VARINT, Field, fields, varint
from ..errors import FormatError
from .byte_sources import BytesSource, FileSource, Source
from .held_values import HeldValues
from .schema import Model, NeuralNetworkLayer

_COPIED_AT_ONCE = 1 << 24
_DEEPEST = 32  # pipelines within pipelines

_NETWORKS = ("neuralNetwork", "neuralNetworkClassifier", "neuralNetworkRegressor")
_WRAPPED = ("pipelineClassifier", "pipelineRegressor")


def _number(message: Any, name: str) -> int:
    return int(message.DESCRIPTOR.fields_by_name[name].number)


_KINDS = {each.number: each.name for each in Model.DESCRIPTOR.oneofs_by_name["Type"].fields}
_VERSION, _UPDATABLE = _number(Model, "specificationVersion"), _number(Model, "isUpdatable")
_WRAPPED_PIPELINE = _number(Model().pipelineClassifier, "pipeline")
_PARTS, _PART_NAMES = _number(Model().pipeline, "models"), _number(Model().pipeline, "names")
_LAYERS = _number(Model().neuralNetwork, "layers")


class _Repeated(Exception):
    """A message is stored in several pieces, which only protobuf can merge."""


@dataclass
class _Span:
    """Bytes that are copied."""

    source: Source
    begin: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.begin

    def pieces(self) -> Iterator[bytes]:
        for begin in range(self.begin, self.end, _COPIED_AT_ONCE):
            yield self.source.read(begin, min(begin + _COPIED_AT_ONCE, self.end))


@dataclass
class Node:
    """A message as a list of its fields, some of which are nodes."""

    tag: bytes  # before its length; empty for the outermost
    entries: list[_Span | Node | _LayerEntry | ModelNode] = field(default_factory=list)

    def copy(self, source: Source, begin: int, end: int) -> None:
        """Append bytes that are copied."""
        last = self.entries[-1] if self.entries else None
        if isinstance(last, _Span) and last.end == begin:
            last.end = end
        else:
            self.entries.append(_Span(source, begin, end))

    def own_fields(self) -> Iterator[tuple[int, bytes]]:
        """Numbers and bytes, tags included, of all fields that are copied."""
        for span in self.entries:
            if isinstance(span, _Span):
                for each in fields(span.source.read, span.begin, span.end):
                    yield each.number, span.source.read(each.begin, each.end)

    @property
    def children(self) -> list[Node]:
        """The nodes in it."""
        return [entry for entry in self.entries if isinstance(entry, Node)]

    @property
    def layer_count(self) -> int:
        """The number of its own layers, not counting those of its nodes."""
        return sum(isinstance(entry, _LayerEntry) for entry in self.entries)

    def _head(self) -> bytes:
        return b""

    def _content_size(self) -> int:
        return len(self._head()) + sum(entry.size for entry in self.entries)

    @property
    def size(self) -> int:
        content = self._content_size()
        return content + (len(self.tag) + len(varint(content)) if self.tag else 0)

    def pieces(self) -> Iterator[bytes]:
        if self.tag:
            yield self.tag + varint(self._content_size())
        yield self._head()
        for entry in self.entries:
            yield from entry.pieces()


@dataclass
class _LayerEntry:
    """A layer; `replaced` once it was edited, `resized` if only its size is known."""

    tag: bytes
    span: _Span
    replaced: bytes | None = None
    resized: int | None = None

    @property
    def _content_size(self) -> int:
        if self.resized is not None:
            return self.resized
        return self.span.size if self.replaced is None else len(self.replaced)

    @property
    def size(self) -> int:
        return len(self.tag) + len(varint(self._content_size)) + self._content_size

    def pieces(self) -> Iterator[bytes]:
        yield self.tag + varint(self._content_size)
        if self.replaced is None:
            yield from self.span.pieces()
        else:
            yield self.replaced


@dataclass
class ModelNode(Node):
    """A model, or one in a pipeline.

    Attributes
    ----------
    version : int
        Its specification version, which may be set.
    is_updatable : bool
        Whether it can be trained on a device.
    kind : str or None
        The field of its oneof, if this package knows it.
    where : str
        Names of the enclosing pipelines' models and its own, each followed by a slash; empty for the outermost.
    """

    where: str = ""
    version: int = 0
    is_updatable: bool = False
    kind: str | None = None

    @property
    def in_words(self) -> str:
        """Its description for messages."""
        return f"its part {self.where.rstrip('/')}" if self.where else "the model"

    def _head(self) -> bytes:
        return varint(_VERSION << 3 | VARINT) + varint(self.version) if self.version else b""


@dataclass
class LayerPlace:
    """The position of a layer.

    Attributes
    ----------
    where : str
        Names of the enclosing pipelines' models, each followed by a slash.
    models : tuple of ModelNode
        These models, outermost first.
    """

    where: str
    models: tuple[ModelNode, ...]
    _entry: _LayerEntry

    @property
    def is_trained(self) -> bool:
        """Whether one of these models is updatable; which layers are trained then is up to the layers."""
        return any(model.is_updatable for model in self.models)

    def read(self) -> Any:
        """Parse the layer; FormatError if it is damaged."""
        span = self._entry.span
        try:
            return parse_message(span.source.read(span.begin, span.end), NeuralNetworkLayer)
        except FormatError as error:
            raise FormatError(f"{self.where}layer at byte {span.begin}: damaged ({error})") from error

    def read_held(self) -> tuple[Any, HeldValues]:
        """Parse the layer without loading its large values; FormatError if it is damaged."""
        span, held = self._entry.span, HeldValues()
        try:
            data = held.take_out(span.source, span.begin, span.end, NeuralNetworkLayer.DESCRIPTOR)
            return parse_message(data, NeuralNetworkLayer), held
        except FormatError as error:
            raise FormatError(f"{self.where}layer at byte {span.begin}: damaged ({error})") from error

    def replace(self, layer: Any) -> None:
        """Replace the layer."""
        self._entry.replaced = bytes(layer.SerializeToString(deterministic=True))

    def resize(self, nbytes: int) -> None:
        """Change only the counted size of the layer; the document can no longer be written."""
        self._entry.resized = nbytes


class Document:
    """A model, split into its layers; use it as a context manager.

    Parameters
    ----------
    given : pathlib.Path or bytes
        A file, or its contents. A file is read as needed and must not change.

    Attributes
    ----------
    root : ModelNode
        The model.
    places : list of LayerPlace
        The layers of its networks, in order, but not those of networks nested in layers.
    nbytes : int
        Its size in bytes when it was opened.

    Raises
    ------
    FormatError
        If it is not a model.
    """

    def __init__(self, given: Path | bytes) -> None:
        name = os.fspath(given) if isinstance(given, Path) else "the model"
        self._source: Source = FileSource(given) if isinstance(given, Path) else BytesSource(given)
        self.nbytes = self._source.size
        try:
            try:
                self._take_apart()
            except _Repeated:
                model = parse_message(self._source.read(0, self.nbytes), Model)
                data = model.SerializeToString(deterministic=True)
                self._source.close()
                self._source = BytesSource(bytes(data))
                self._take_apart()
        except FormatError as error:
            self._source.close()
            raise FormatError(f"{name}: not a serialized Core ML model ({error})") from None
        except BaseException:
            self._source.close()
            raise

    def _take_apart(self) -> None:
        self.places: list[LayerPlace] = []
        self.root = self._model(b"", 0, self._source.size, "", ())

    @property
    def size(self) -> int:
        """Its current size in bytes."""
        return self.root.size

    def pieces(self) -> Iterator[bytes]:
        """Its current contents, in pieces; SourceChangedError at the end if the file was changed meanwhile."""
        yield from self.root.pieces()
        self._source.require_unchanged()

    def _model(self, tag: bytes, begin: int, end: int, where: str, outer: tuple[ModelNode, ...]) -> ModelNode:
        if len(outer) >= _DEEPEST:
            raise FormatError(f"pipelines are nested more than {_DEEPEST} deep")
        node = ModelNode(tag, where=where)
        models = (*outer, node)
        for each in fields(self._source.read, begin, end):
            if each.number == _VERSION and each.wire_type == VARINT:
                node.version = each.value
                continue
            if each.number == _UPDATABLE and each.wire_type == VARINT:
                node.is_updatable = bool(each.value)
            if each.number in _KINDS and each.wire_type == BYTES:
                if node.kind is not None:
                    raise _Repeated
                node.kind = _KINDS[each.number]
                if node.kind in _NETWORKS:
                    node.entries.append(self._network(each, where, models))
                    continue
                if node.kind == "pipeline":
                    node.entries.append(self._pipeline(each, where, models))
                    continue
                if node.kind in _WRAPPED:
                    node.entries.append(self._wrapped(each, where, models))
                    continue
            node.copy(self._source, each.begin, each.end)
        return node

    def _wrapped(self, outer: Field, where: str, models: tuple[ModelNode, ...]) -> Node:
        node, seen = Node(outer.tag), False
        for each in fields(self._source.read, outer.value, outer.end):
            if each.number == _WRAPPED_PIPELINE and each.wire_type == BYTES:
                if seen:
                    raise _Repeated
                node.entries.append(self._pipeline(each, where, models))
                seen = True
            else:
                node.copy(self._source, each.begin, each.end)
        return node

    def _pipeline(self, outer: Field, where: str, models: tuple[ModelNode, ...]) -> Node:
        found = list(fields(self._source.read, outer.value, outer.end))
        parts = [each for each in found if (each.number, each.wire_type) == (_PARTS, BYTES)]
        names = [
            self._source.read(each.value, each.end).decode(errors="replace")
            for each in found
            if (each.number, each.wire_type) == (_PART_NAMES, BYTES)
        ]
        if len(set(names)) != len(parts) or not all(names):
            names = [str(index) for index in range(len(parts))]
        node, left = Node(outer.tag), iter(names)
        for each in found:
            if (each.number, each.wire_type) == (_PARTS, BYTES):
                inside = f"{where}{next(left)}/"
                node.entries.append(self._model(each.tag, each.value, each.end, inside, models))
            else:
                node.copy(self._source, each.begin, each.end)
        return node

    def _network(self, outer: Field, where: str, models: tuple[ModelNode, ...]) -> Node:
        node = Node(outer.tag)
        for each in fields(self._source.read, outer.value, outer.end):
            if (each.number, each.wire_type) == (_LAYERS, BYTES):
                entry = _LayerEntry(each.tag, _Span(self._source, each.value, each.end))
                node.entries.append(entry)
                self.places.append(LayerPlace(where, models, entry))
            else:
                node.copy(self._source, each.begin, each.end)
        return node

    def close(self) -> None:
        """Close the file; pieces of it can no longer be read."""
        self._source.close()

    def __enter__(self) -> Document:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
