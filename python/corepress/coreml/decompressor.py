"""Turning compressed weights back into plain ones."""

from __future__ import annotations

from ..arrays import as_threads
from ..errors import FormatError
from ..tensors import CompressedTensor
from .operations import UnsupportedForm, constant, lift, lift_output
from .program import Definition, Program, Weight
from .report import Report
from .storage import describe_storage, is_compressed, steps
from .transform import Keep, Outcome, ProgressCallback, StrPath, Work, transform
from .values import Tensor, ValueReader


def decompress(
    src: StrPath,
    dst: StrPath,
    *,
    progress: ProgressCallback | None = None,
    overwrite: bool = False,
    num_threads: int | None = None,
) -> Report:
    """Decompress the weights of an ``.mlpackage``, compressed by whichever tool.

    Forms that this version does not know are kept and reported.

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
        if not is_compressed(weight):
            raise Keep("not compressed", planned=True)

        def work(threads: int) -> Outcome:
            found = _read(weight.first, values)
            dense = found.data if isinstance(found, Tensor) else found.dense(num_threads=threads)
            return Outcome(constant(dense), "decompressed", describe_storage(weight))

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


def lift_definition(definition: Definition, values: ValueReader) -> CompressedTensor:
    """The compressed tensor of a definition; raises `Keep` for forms that this version does not know.

    Parameters
    ----------
    definition : Definition
        What to read, with the definitions that it is made from.
    values : ValueReader
        Reader of its package.
    """
    lifted = _read(definition, values)
    if isinstance(lifted, Tensor):
        raise Keep(f"{definition.operation.type} of plain values is not supported by this version")
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
            raise Keep(f"{form} is not supported by this version") from None
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
