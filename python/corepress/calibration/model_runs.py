"""Running a model on the steps of a sample, and seeing what it computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..runtime.features import Description
from ..runtime.torch.backend import TorchBackend
from ..runtime.torch.module import ProgramModule
from ..runtime.torch.schedule import Observer


@dataclass(frozen=True)
class ModelRuns:
    """A function that is loaded, and a description of what it takes and returns."""

    backend: TorchBackend
    description: Description

    @property
    def module(self) -> ProgramModule:
        """The function, as PyTorch runs it."""
        return self.backend.module

    def step(self, step: Any, observe: Observer, state: Any) -> Mapping[str, Any]:
        """The outputs of one step; `observe` sees the values of each operation."""
        arguments = self.description.arguments("calibrate", step)
        return self.module.observe(observe, self.backend.tensors(arguments), state)

    def forward(
        self, steps: Sequence[Any], observe: Observer, begin: Callable[[], None] | None = None
    ) -> Iterator[Mapping[str, Any]]:
        """The outputs of each step of a sample; `begin` is called before each."""
        state = self.backend.make_state()
        for step in steps:
            if begin is not None:
                begin()
            yield self.step(step, observe, state)
