"""Models that run with other weights: replaced in memory, or in a copy of the asset, which Core AI's run-time reads."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..coreai.program.program import Program
from ..paths import StrPath
from ..runtime.model import Model, load
from ..tensors import CompressedTensor
from .options import FreeWeight


class RecipeModel(Protocol):
    """A model, and what runs it with some weights stored in another way.

    Attributes
    ----------
    model : Model
        The model as it is.
    numbers : sequence of int
        The numbers of the weights that can be replaced; others belong to other functions.
    most_seconds : float
        For the runs of one recipe; fewer samples are run where one takes long.
    """

    model: Model
    numbers: Sequence[int]
    most_seconds: float

    def with_weights(self, tensors: Mapping[int, CompressedTensor]) -> Any:
        """A context manager of the model with these weights, by their numbers; the others are unchanged."""


class InMemory:
    """An ML program in float32, whose weights are parameters of a module of torch.

    Parameters
    ----------
    src : path-like
        The package.
    function_name : str or None
        The function to run.
    free : sequence of FreeWeight
        The weights.
    num_threads : int
        Threads for decoding weights.

    Raises
    ------
    UnsupportedOperationError, MissingExtraError
        If it cannot be run.
    """

    most_seconds = float("inf")

    def __init__(self, src: StrPath, function_name: str | None, free: Sequence[FreeWeight], num_threads: int) -> None:
        self.model = load(src, function_name=function_name, precision="float32", backend="torch")
        self._threads = num_threads
        self._places = _places(self.model.module, free)
        self._originals = {number: parameter.data for number, parameter in self._places.items()}
        self.numbers: Sequence[int] = list(self._places)

    @contextmanager
    def with_weights(self, tensors: Mapping[int, CompressedTensor]) -> Iterator[Model]:
        """The model with these weights."""
        for number, tensor in tensors.items():
            original = self._originals[number]
            values = np.asarray(tensor.dense(num_threads=self._threads))
            self._places[number].data = original.new_tensor(values).to(original.dtype).reshape(original.shape)
        try:
            yield self.model
        finally:
            for number in tensors:
                self._places[number].data = self._originals[number]


class InCopies:
    """An asset, which Core AI's run-time reads from a file, as it computes.

    Parameters
    ----------
    src : path-like
        The asset.
    function_name : str or None
        The function to run.
    free : sequence of FreeWeight
        The weights.

    Raises
    ------
    UnsupportedOperationError
        If it cannot be run.
    """

    most_seconds = 60.0

    def __init__(self, src: StrPath, function_name: str | None, free: Sequence[FreeWeight]) -> None:
        self._src, self._function_name = src, function_name
        self._names = [each.weight.name for each in free]
        self.model = load(src, function_name=function_name)
        self.numbers: Sequence[int] = range(len(free))

    @contextmanager
    def with_weights(self, tensors: Mapping[int, CompressedTensor]) -> Iterator[Model]:
        """The model with these weights, in a temporary copy."""
        program = Program(self._src)
        weights = {each.name: each for each in program.weights}
        for number, tensor in tensors.items():
            weights[self._names[number]].replace(tensor)
        with tempfile.TemporaryDirectory(prefix="corepress-") as folder:
            copy = Path(folder) / "recipe.aimodel"
            program.write_asset(copy)
            yield load(copy, function_name=self._function_name)


def _places(module: Any, free: Sequence[FreeWeight]) -> dict[int, Any]:
    """The parameters of a module that the weights are, by the weights' numbers; those of other functions have none."""
    parameters = dict(module.named_parameters())
    found = {}
    for number, each in enumerate(free):
        for name in each.weight.names:
            parameter = parameters.get(name)
            if parameter is not None and tuple(parameter.shape) == tuple(each.weight.shape):
                found[number] = parameter
                break
    return found
