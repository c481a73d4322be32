"""Writing a package anew with some constants stored in another form; everything else keeps its bytes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from .data_types import DataType
from .operations import OperationForm
from .program import BlobKey, Definition, Program, Reference, Weight
from .values import MINIMUM_BLOB_COUNT, Tensor, ValueReader, blob_value, inline_value
from .weight_file import BlobRecord, WeightFileReader


class BlobSink(Protocol):
    """What takes the blobs of one weight file: `WeightFileWriter`, or what only counts them."""

    def append(self, data_type: DataType, count: int, data: NDArray[Any]) -> int: ...

    def copy(self, reader: WeightFileReader, record: BlobRecord) -> int: ...

    def __enter__(self) -> BlobSink: ...

    def __exit__(self, *error: Any) -> None: ...


class Output(Protocol):
    """What takes a package's files: `PackageWriter`, or what only counts them."""

    def weight_file(self, source_path: Path) -> BlobSink: ...

    def write_model(self, data: bytes) -> None: ...

    def finish(self) -> None: ...


@dataclass(frozen=True, eq=False)
class Edit:
    """A weight to store anew; `build` makes its new form when its turn comes, or None to keep it after all."""

    weight: Weight
    build: Callable[[], OperationForm | None]


class _Rewriter:
    """Streams weight files, blob by blob in source order, with each edit at the place of what it replaces."""

    def __init__(self, program: Program, values: ValueReader, output: Output) -> None:
        self._program, self._values, self._output = program, values, output
        self._names = {path: name for name, path in reversed(program.file_names.items())}
        self._edited: set[Definition] = set()
        self._moved: dict[BlobKey, int] = {}
        self._references: dict[Path, dict[int, list[Reference]]] = defaultdict(lambda: defaultdict(list))
        for reference in program.references:
            self._references[reference.key.file][reference.key.offset].append(reference)

    def run(self, edits: Sequence[Edit]) -> None:
        anchors: dict[BlobKey, list[Edit]] = defaultdict(list)
        inline: list[Edit] = []
        files: set[Path] = set()
        for edit in edits:
            keys = sorted(reference.key for reference in edit.weight.first.references)
            files.update(key.file for key in keys)
            if keys:
                anchors[keys[0]].append(edit)
            else:
                inline.append(edit)
        if inline and self._names:
            files.add(min(self._names))
        for path in sorted(files):
            with self._output.weight_file(path) as writer:
                self._write_file(path, writer, anchors)
                for edit in inline if path == min(self._names) else ():
                    self._apply(edit, path, writer)
        if not self._names:
            for edit in inline:
                self._apply(edit, None, None)
        self._patch_references()
        if self._edited or files:
            self._output.write_model(self._program.serialize())

    def _write_file(self, path: Path, writer: BlobSink, anchors: dict[BlobKey, list[Edit]]) -> None:
        reader, references = self._values.file(path), self._references[path]
        for offset in sorted({record.offset for record in reader} | set(references)):
            key = BlobKey(path, offset)
            for edit in anchors.get(key, ()):
                self._apply(edit, path, writer)
            owners = [reference.owner for reference in references.get(offset, ())]
            if not owners or any(owner not in self._edited for owner in owners):
                self._moved[key] = writer.copy(reader, reader.record(offset))

    def _apply(self, edit: Edit, path: Path | None, writer: BlobSink | None) -> None:
        form = edit.build()
        if form is not None:
            values = {name: self._store(tensor, path, writer) for name, tensor in form.parameters.items()}
            for definition in edit.weight.definitions:
                form.install(definition.operation, values)
                self._edited.add(definition)
        for reference in edit.weight.first.references:
            reader = self._values.file(reference.key.file)
            reader.release(reader.record(reference.key.offset))

    def _store(self, tensor: Tensor, path: Path | None, writer: BlobSink | None) -> Any:
        if writer is None or path is None or tensor.count < MINIMUM_BLOB_COUNT or tensor.data_type.blob_number is None:
            return inline_value(tensor)
        return blob_value(tensor, self._names[path], writer.append(tensor.data_type, tensor.count, tensor.data))

    def _patch_references(self) -> None:
        for reference in self._program.references:
            if reference.owner not in self._edited and reference.key in self._moved:
                reference.value.blobFileValue.offset = self._moved[reference.key]


def rewrite(program: Program, values: ValueReader, output: Output, edits: Sequence[Edit]) -> None:
    """Carry out edits, one at a time in the order of the source's weight files, and finish the output.

    Parameters
    ----------
    program : Program
        The source's program; it is changed in place.
    values : ValueReader
        Reader of the source's constants.
    output : Output
        Where to write.
    edits : sequence of Edit
        What to store anew.
    """
    _Rewriter(program, values, output).run(edits)
    output.finish()
