"""The order in which a block's operations run, and when their results are freed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from ...coreml.program.graph import Operation
from ...errors import OperationError as OperationError

# The results of a run by slot. What `OBSERVER` holds, unless None, is called with each step and the results after it.
Values: TypeAlias = list[Any]
Observer: TypeAlias = "Callable[[Step, Values], None]"
OBSERVER = 0
ITERATIONS = 1  # holds how many iterations all loops of the run have had
RESERVED = 2


@dataclass(frozen=True, eq=False)
class Step:
    """One operation of a schedule.

    Attributes
    ----------
    operation : Operation
        The operation.
    run : callable
        Computes it, given the results so far, and stores its own.
    inputs : dict of str to tuple of int
        Slots of the values that it takes, by parameter.
    outputs : tuple of int
        Slots of its results.
    """

    operation: Operation
    run: Callable[[Values], None]
    inputs: dict[str, tuple[int, ...]]
    outputs: tuple[int, ...]


@dataclass(eq=False)
class Schedule:
    """The steps of a block.

    Attributes
    ----------
    inputs, outputs : tuple of int
        Slots that are set before, and read after a run.
    steps : list of Step
        In order.
    last_uses : list of tuple of int
        For each step, the slots that nothing reads after it.
    """

    inputs: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()
    steps: list[Step] = field(default_factory=list)
    last_uses: list[tuple[int, ...]] = field(default_factory=list)

    def plan_frees(self, reads: list[set[int]]) -> None:
        """Find the last use of every result.

        Parameters
        ----------
        reads : list of set of int
            For each step, the slots that it reads, also within its blocks.
        """
        last: dict[int, int] = {}
        own = set(self.inputs)
        for index, step in enumerate(self.steps):
            own.update(step.outputs)
            last.update(dict.fromkeys((*reads[index], *step.outputs), index))
        frees: list[list[int]] = [[] for _ in self.steps]
        for slot, index in last.items():
            if slot in own and slot not in self.outputs:
                frees[index].append(slot)
        self.last_uses = [tuple(each) for each in frees]

    def run(self, values: Values) -> None:
        """Compute all steps.

        Raises
        ------
        ValueError, RuntimeError
            If an operation cannot be computed; the message begins with the operation.
        """
        if values[OBSERVER] is not None:
            for _ in self.run_observed(values):
                pass
            return
        step: Step | None = None
        try:
            for step, last_uses in zip(self.steps, self.last_uses, strict=True):
                step.run(values)
                for slot in last_uses:
                    values[slot] = None
        except ERRORS as error:
            raise _named(error, step) from error

    def run_observed(self, values: Values) -> Iterator[Step]:
        """Compute step by step, and call the observer after each; errors are those of `run`."""
        for step, last_uses in zip(self.steps, self.last_uses, strict=True):
            try:
                step.run(values)
            except ERRORS as error:
                raise _named(error, step) from error
            observe = values[OBSERVER]
            if observe is not None:
                observe(step, values)
            yield step
            for slot in last_uses:
                values[slot] = None


# An AttributeError comes of a list where a program says that it is a tensor.
ERRORS = (
    ValueError,
    RuntimeError,
    IndexError,
    TypeError,
    AttributeError,
    ZeroDivisionError,
    OverflowError,
    MemoryError,
)


def _named(error: Exception, step: Step | None) -> Exception:
    if isinstance(error, OperationError) or step is None:
        return error
    return OperationError(f"{step.operation.where}: {reason_of(error)}")


def reason_of(error: Exception) -> str:
    """What an error says, without the places in PyTorch's code that some of its errors list."""
    return str(error).partition("\nException raised from")[0].strip() or type(error).__name__


def slots_read(schedules: Iterable[Schedule], reads: Iterable[set[int]]) -> set[int]:
    """What nested blocks take from outside."""
    found: set[int] = set()
    for each in reads:
        found |= each
    for schedule in schedules:
        found -= {*schedule.inputs, *(slot for step in schedule.steps for slot in step.outputs)}
    return found
