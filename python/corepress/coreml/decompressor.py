"""Turning compressed weights back into plain ones."""

from __future__ import annotations

from ..errors import FormatError
from ..tensors import CompressedTensor
from .operations import UnsupportedForm, constant, lift, lift_output
from .program import Definition, Program, Weight
from .report import Report
from .storage import describe_storage, is_compressed, steps
from .transform import Keep, Outcome, ProgressCallback, StrPath, Task, transform
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

    def decide(program: Program, values: ValueReader, weight: Weight) -> Task:
        if not is_compressed(weight):
            raise Keep("not compressed", planned=True)

        def task() -> Outcome:
            tensor = lift_definition(weight.first, values)
            return Outcome(constant(tensor.dense(num_threads=num_threads)), "decompressed", describe_storage(weight))

        return task

    return transform(src, dst, decide, prepare=lambda program: None, progress=progress, overwrite=overwrite)


def lift_definition(definition: Definition, values: ValueReader) -> CompressedTensor:
    """The compressed tensor of a definition; raises `Keep` for forms that this version does not know.

    Parameters
    ----------
    definition : Definition
        What to read, with the definitions that it is made from.
    values : ValueReader
        Reader of its package.
    """
    lifted: dict[Definition, Tensor | CompressedTensor] = {}
    for step in steps(definition):
        parameters: dict[str, Tensor | CompressedTensor] = {
            name: values.read(value, f"{step.where}: {name}") for name, value in step.parameters.items()
        }
        try:
            for name, (producer, index) in step.operands.items():
                given = lifted[producer]
                if isinstance(given, CompressedTensor):
                    given = lift_output(producer.operation.type, given, index)
                parameters[name] = given
            const = step.operation.type == "const"
            lifted[step] = parameters["val"] if const else lift(step.operation.type, parameters)
        except UnsupportedForm as form:
            raise Keep(f"{form} is not supported by this version") from None
        except FormatError as error:
            raise FormatError(f"{step.where}: {error}") from error
    tensor = lifted[definition]
    assert isinstance(tensor, CompressedTensor)
    if (tensor.shape, tensor.dtype) != (definition.shape, definition.data_type.dtype):
        raise FormatError(
            f"{definition.where}: is declared {definition.data_type.name} {definition.shape}, "
            f"but stores {tensor.dtype} {tensor.shape}"
        )
    return tensor
