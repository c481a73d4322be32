"""Turning compressed weights back into plain ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

from .. import overlap as pipeline
from ..arrays import as_threads
from ..engine.report import Report
from ..engine.run import Outcome, ProgressCallback
from ..errors import FormatError, Skip
from ..paths import StrPath
from ..tensors.base import CompressedTensor, decoded_pieces
from .format.values import LazyTensor, Tensor, ValueReader
from .operations import OperationForm, UnsupportedForm, constant, constant_of, lift, lift_output
from .program.program import Definition, Program
from .program.storage import steps
from .program.weights import Weight
from .rewrite.driver import Work, transform


def decompress(
    src: StrPath,
    dst: StrPath,
    *,
    progress: ProgressCallback | None = None,
    overwrite: bool = False,
    num_threads: int | None = None,
) -> Report:
    """Decompress the weights of an ``.mlpackage``, compressed by any tool.

    Forms that this version does not support are left unchanged and reported.

    Parameters
    ----------
    src, dst : path-like
        The package to read and the package to write.
    progress : callable, optional
        Called with a `Progress` at the start and after each weight.
    overwrite : bool
        Replace `dst` if it exists.
    num_threads : int, optional
        Threads to use; None for all CPUs this process may use, or `COREPRESS_NUM_THREADS`.

    Returns
    -------
    Report
        One record per weight, and totals.

    Raises
    ------
    FormatError
        If the package is damaged.
    """
    num_threads = as_threads("decompress", num_threads)

    def decide(program: Program, values: ValueReader, weight: Weight) -> Work:
        if not weight.is_compressed:
            raise Skip("not compressed", expected=True)

        def work(threads: int) -> Outcome[OperationForm]:
            return Outcome(_plain_form(weight.first, values, threads), "decompressed", weight.storage)

        return work

    return transform(
        src,
        dst,
        decide,
        prepare=lambda program: None,
        progress=progress,
        overwrite=overwrite,
        num_threads=num_threads,
    )


def _plain_form(definition: Definition, values: ValueReader, num_threads: int) -> OperationForm:
    found = _read(definition, values)
    if isinstance(found, Tensor):
        return constant(found.data)
    if found.size * found.dtype.itemsize <= pipeline.MOST_BYTES_AHEAD:
        return constant(found.dense(num_threads=num_threads))

    def decode() -> Iterator[NDArray[Any]]:
        for (piece,) in decoded_pieces((found,), num_threads):
            yield piece
            release(definition, values)

    return constant_of(LazyTensor.of_shape(found.dtype, found.shape, decode))


def release(definition: Definition, values: ValueReader) -> None:
    """Let the system drop the pages of a constant's data."""
    for step in steps(definition):
        for reference in step.references:
            reader = values.file(reference.key.file)
            reader.release(reader.record(reference.key.offset))


def lift_definition(definition: Definition, values: ValueReader) -> CompressedTensor:
    """The compressed tensor of a definition; raises `Skip` for forms that this version does not support.

    Parameters
    ----------
    definition : Definition
        What to read, with the definitions that it is made from.
    values : ValueReader
        Reader of its package.
    """
    lifted = _read(definition, values)
    if isinstance(lifted, Tensor):
        raise Skip(f"{definition.operation.type} of plain values is not supported by this version")
    return lifted


def _read(definition: Definition, values: ValueReader) -> CompressedTensor | Tensor:
    lifted: dict[Definition, Tensor | CompressedTensor] = {}
    for step in steps(definition):
        parameters: dict[str, Tensor | CompressedTensor] = {
            name: values.read(value, f"{step.where}: {name}") for name, value in step.parameters.items()
        }
        try:
            for name, (producer, index) in step.operands.items():
                parameters[name] = lift_output(producer.operation.type, lifted[producer], index)
            if step.operation.type == "const":
                lifted[step] = parameters["val"]
            else:
                lifted[step] = lift(step.operation.type, parameters)
        except UnsupportedForm as form:
            raise Skip(f"{form} is not supported by this version") from None
        except FormatError as error:
            raise FormatError(f"{step.where}: {error}") from error
    found = lifted[definition]
    dtype = found.data_type.dtype if isinstance(found, Tensor) else found.dtype
    if (found.shape, dtype) != (definition.shape, definition.data_type.dtype):
        raise FormatError(
            f"{definition.where}: is declared {definition.data_type.name} {definition.shape}, "
            f"but stores {dtype} {found.shape}"
        )
    return found
