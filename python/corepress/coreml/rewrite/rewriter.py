"""Rewriting a package with some constants stored in another form; everything else keeps its bytes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from ...overlap import Result, RunAhead, Task
from ..format.data_types import DataType
from ..format.values import Tensor, ValueReader, blob_value, inline_value
from ..format.weight_file import BlobRecord, WeightFileReader
from ..operations import OperationForm
from ..program.program import BlobKey, Definition, Program, Reference
from ..program.raising import raise_parts
from ..program.storage import steps
from ..program.weights import Weight
from .program_edit import Installation


class BlobSink(Protocol):
    """Receives the blobs of one weight file: `WeightFileWriter`, or a class that only counts them."""

    def append(self, data_type: DataType, count: int, data: Iterable[NDArray[Any]]) -> int: ...

    def copy(self, reader: WeightFileReader, record: BlobRecord) -> int: ...

    def __enter__(self) -> BlobSink: ...

    def __exit__(self, *error: Any) -> None: ...


class Output(Protocol):
    """Receives a package's files: `PackageWriter`, or a class that only counts them."""

    def weight_file(self, source_path: Path) -> BlobSink: ...

    def write_model(self, data: bytes) -> None: ...

    def finish(self) -> None: ...


@dataclass(frozen=True, eq=False)
class Edit:
    """A weight to store in a new form.

    Attributes
    ----------
    weight : Weight
        The weight.
    task : Task
        Makes its new form; it runs on another thread, perhaps at the same time as others, ahead of its turn.
    settle : callable
        Given the task's result when the weight's turn comes: returns the new form, or None to leave the weight
        unchanged.
    reads : bool
        Whether the task reads the weight's data.
    """

    weight: Weight
    task: Task[Any]
    settle: Callable[[Result[Any]], OperationForm | None]
    reads: bool = True


class _Rewriter:
    """Streams weight files, blob by blob in source order, with each edit in place of the data it replaces."""

    def __init__(self, program: Program, values: ValueReader, output: Output, edits: Sequence[Edit]) -> None:
        self._program, self._values, self._output = program, values, output
        self._names = {path: name for name, path in reversed(program.file_names.items())}
        self._installation = Installation(program)
        self._edited: set[Definition] = set()
        self._with_compressed: set[str] = set()  # prefixes of models that have compressed weights now
        self._moved: dict[BlobKey, int] = {}
        self._references: dict[Path, dict[int, list[Reference]]] = defaultdict(lambda: defaultdict(list))
        for reference in program.references:
            self._references[reference.key.file][reference.key.offset].append(reference)
        self._anchors: dict[BlobKey, list[Edit]] = defaultdict(list)
        self._inline: list[Edit] = []
        self._files: set[Path] = set()
        for edit in edits:
            keys = sorted(reference.key for step in steps(edit.weight.first) for reference in step.references)
            self._files.update(key.file for key in keys)
            if keys:
                self._anchors[keys[0]].append(edit)
            else:
                self._inline.append(edit)
        if self._inline and self._names:
            self._files.add(min(self._names))

    def run(self, num_threads: int | None, is_edited: bool) -> int | None:
        tasks = [Task(partial(self._work, edit), edit.task.nbytes) for edit in self._in_order()]
        with RunAhead(tasks, num_threads) as ahead:
            self._results = ahead.results()
            for path in sorted(self._files):
                with self._output.weight_file(path) as writer:
                    self._write_file(path, writer)
            if not self._names:
                for edit in self._inline:
                    self._apply(edit, None, None)
        self._installation.finish()
        self._patch_references()
        raised_from = raise_parts(self._program, self._with_compressed)
        if self._edited or self._files or is_edited:
            self._output.write_model(self._program.serialize())
        return raised_from

    def _in_order(self) -> Iterator[Edit]:
        """The edits in the order in which their turns come."""
        first = min(self._names, default=None)
        by_file: dict[Path, list[Edit]] = defaultdict(list)
        for key in sorted(self._anchors):
            by_file[key.file].extend(self._anchors[key])
        for path in sorted(self._files):
            yield from by_file[path]
            if path == first:
                yield from self._inline
        if first is None:
            yield from self._inline

    def _work(self, edit: Edit, threads: int) -> Any:
        """Run an edit's task, on any thread; its data is in memory only while it runs."""
        first = edit.weight.first
        stored = [self._stored(each) for step in steps(first) for each in step.references] if edit.reads else []
        for reader, record in stored:
            reader.prefetch(record)
        try:
            return edit.task.work(threads)
        finally:
            for reader, record in stored:
                reader.release(record)

    def _stored(self, reference: Reference) -> tuple[WeightFileReader, BlobRecord]:
        reader = self._values.file(reference.key.file)
        return reader, reader.record(reference.key.offset)

    def _write_file(self, path: Path, writer: BlobSink) -> None:
        reader, references = self._values.file(path), self._references[path]
        for record in reader.records(references):
            offset = record.offset
            key = BlobKey(path, offset)
            for edit in self._anchors.get(key, ()):
                self._apply(edit, path, writer)
            owners = [reference.owner for reference in references.get(offset, ())]
            if not owners or any(owner not in self._edited for owner in owners):
                self._moved[key] = writer.copy(reader, record)
        for edit in self._inline if path == min(self._names) else ():
            self._apply(edit, path, writer)

    def _apply(self, edit: Edit, path: Path | None, writer: BlobSink | None) -> None:
        form = edit.settle(next(self._results))
        if form is not None:
            store = partial(self._store, path=path, writer=writer)
            self._edited |= self._installation.install(edit.weight, form, store)
            if form.type != "const":
                self._with_compressed.update(definition.part.prefix for definition in edit.weight.definitions)

    def _store(self, tensor: Tensor, path: Path | None, writer: BlobSink | None) -> Any:
        if writer is None or path is None or not tensor.is_blob:
            return inline_value(tensor)
        return blob_value(tensor, self._names[path], writer.append(tensor.data_type, tensor.count, tensor.pieces()))

    def _patch_references(self) -> None:
        for reference in self._program.references:
            if reference.key in self._moved:
                reference.value.blobFileValue.offset = self._moved[reference.key]


def rewrite(
    program: Program,
    values: ValueReader,
    output: Output,
    edits: Sequence[Edit],
    num_threads: int | None,
    *,
    is_edited: bool = False,
) -> int | None:
    """Apply edits and finish the output; blobs are in the order of the source's weight files.

    Models that are too old for compressed weights are raised if they get some.

    Parameters
    ----------
    program : Program
        The source's program; it is changed in place.
    values : ValueReader
        Reader of the source's constants.
    output : Output
        Where to write.
    edits : sequence of Edit
        The weights to store in a new form.
    num_threads : int or None
        Threads that the edits' tasks share; None for all CPUs this process may use, or `COREPRESS_NUM_THREADS`.
    is_edited : bool
        Whether the program has been changed already.

    Returns
    -------
    int or None
        The specification version whose operations the program had, if it was raised.
    """
    raised_from = _Rewriter(program, values, output, edits).run(num_threads, is_edited)
    output.finish()
    return raised_from
