"""Random probes of the outputs: the error of the outputs that an error of a weight causes, to second order.

For v ~ N(0, I) and g the gradient of ``<v, f(x)>`` with respect to a weight, the expectation of ``<E, g>^2`` is the
squared change of the outputs for a small change E of the weight (Hutchinson's estimator of the Gauss-Newton form). It
needs no labels, no loss, and one backward pass for a whole batch.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..runtime.features import Description
from ..runtime.torch.backend import TorchBackend
from ..runtime.torch.gradients import watched
from ..runtime.torch.module import ProgramModule
from ..runtime.torch.schedule import Step, Values
from .references import Reference

_CLASSES = "classify"
_LEAST_PROBABILITY = 1e-12
_NOT_ONE = 1e-3  # of the sum of what are called probabilities


class Outputs:
    """The floating-point outputs of a function: their power, and random vectors that weigh them alike.

    Parameters
    ----------
    backend : TorchBackend
        The function.
    description : Description
        What it returns.

    Attributes
    ----------
    powers : dict of str to float
        Mean sum of squares of each output in a run.
    """

    def __init__(self, backend: TorchBackend, description: Description) -> None:
        self._names = [each.name for each in description.outputs]
        self.powers: dict[str, float] = {}
        self._sums: dict[str, float] = defaultdict(float)
        self._runs = 0
        self._probabilities: list[Tensor] = []

    def observe(self, step: Step, values: Values) -> None:
        """Note the probabilities of a classifier, whose output is a dictionary."""
        if step.operation.type == _CLASSES:
            slots = step.inputs.get("probabilities", ())
            if slots and isinstance(values[slots[0]], Tensor):
                self._probabilities.append(values[slots[0]])

    def tensors(self, outputs: Mapping[str, Any]) -> list[tuple[Tensor, str]]:
        """The outputs of a run that can be probed, each with the name of its metric."""
        found = [
            (outputs[name], name)
            for name in self._names
            if isinstance(outputs.get(name), Tensor) and outputs[name].is_floating_point() and outputs[name].numel()
        ]
        found += [(each, _CLASSES) for each in self._probabilities]
        self._probabilities = []
        return found

    def add_power(self, outputs: Mapping[str, Any], *, begins: bool) -> None:
        """Add the power of the outputs; `begins` with the first step of a part through which gradients go back."""
        self.add_power_of(self.tensors(outputs), begins=begins)

    def add_power_of(self, tensors: Sequence[tuple[Tensor, str]], *, begins: bool) -> None:
        """The same for tensors and the names of their metrics."""
        self._runs += begins
        for tensor, name in tensors:
            value = (
                1.0
                if name == _CLASSES and _are_probabilities(tensor)
                else float(tensor.detach().double().square().sum())
            )
            self._sums[name] += value

    def mean_powers(self) -> dict[str, float]:
        """The mean power of each output in a run."""
        return {name: value / self._runs for name, value in self._sums.items()}

    def vector(self, tensor: Tensor, name: str, generator: torch.Generator) -> Tensor:
        """A random vector for an output, such that a change counts by the output's own power."""
        drawn = torch.randn(tensor.shape, generator=generator).to(tensor.device)
        if name == _CLASSES and _are_probabilities(tensor):
            # Through a softmax this is (diag(p) - p p^T)^(1/2) z on its inputs: the metric of Kullback and Leibler.
            return drawn / tensor.detach().clamp(min=_LEAST_PROBABILITY).sqrt()
        power = self.powers.get(name, 0.0)
        return drawn / math.sqrt(power) if 0 < power < math.inf else torch.zeros_like(tensor)


def _are_probabilities(tensor: Tensor) -> bool:
    values = tensor.detach()
    return bool((values >= 0).all()) and abs(float(values.double().sum()) - 1) < _NOT_ONE


class Probing:
    """Judges candidates by gradients as these arrive.

    Parameters
    ----------
    fisher : bool
        Whether squares of the gradients are added up too.
    num_threads : int
        Threads for decoding candidates.

    Attributes
    ----------
    squares : dict of str to dict of str to list of float
        For each weight and candidate, what each gradient gave.
    """

    def __init__(self, fisher: bool, num_threads: int) -> None:
        self._fisher, self._threads = fisher, num_threads
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._references: dict[str, dict[str, Reference]] = {}
        self._entries: dict[str, Tensor] = {}
        self._keys: dict[str, list[str]] = defaultdict(list)
        self.squares: dict[str, dict[str, list[float]]] = {}
        self._products: dict[tuple[str, str], Tensor] = {}
        self._of_entries: dict[tuple[str, str], NDArray[np.float64]] = {}
        self._gradients: dict[str, Tensor] = {}
        self._sums: dict[str, Tensor] = {}
        self._count = 0

    def add(self, key: str, parameter: str, shape: tuple[int, ...], references: Mapping[str, Reference]) -> None:
        """Judge the candidates of a weight of a shape, which is a parameter of the module."""
        self._keys[parameter].append(key)
        self._shapes[key], self._references[key] = shape, dict(references)
        self.squares[key] = {name: [] for name in references}
        for name, each in references.items():
            if each.part is not None:
                self._entries[key] = torch.from_numpy(each.part.entries)
                self._of_entries[key, name] = np.zeros(each.part.entries.size)
        if self._fisher:
            self._sums[key] = torch.zeros(math.prod(shape))

    @contextmanager
    def watching(self, module: ProgramModule) -> Iterator[None]:
        """Run the module and go back through it in this context, ending each gradient with `end_of_gradient`."""
        with watched(module, self._keys, self._receive):
            yield

    def _receive(self, parameter: str, gradient: Tensor) -> None:
        gradient = gradient.detach().cpu()
        for key in self._keys[parameter]:
            gradient = gradient.reshape(self._shapes[key])
            some: Tensor | None = None
            for name, reference in self._references[key].items():
                error = torch.from_numpy(reference.error(self._threads))
                part = reference.part
                if part is None:
                    product = torch.dot(error.reshape(-1), gradient.reshape(-1)).double()
                else:
                    if some is None:
                        some = gradient.index_select(part.axis, self._entries[key])
                    product = part.products(error, some)
                before = self._products.get((key, name))
                self._products[key, name] = product if before is None else before + product
            if self._fisher:
                flat = gradient.reshape(-1)
                self._gradients[key] = self._gradients[key] + flat if key in self._gradients else flat

    def end_of_gradient(self) -> None:
        """Square what all uses of each weight have given together."""
        for key, squares in self.squares.items():
            for name, found in squares.items():
                found.append(self._squared(key, name))
        for key, gradient in self._gradients.items():
            self._sums[key] += gradient.square()
        self._gradients.clear()
        self._count += 1

    def _squared(self, key: str, name: str) -> float:
        product = self._products.pop((key, name), None)
        if product is None:
            return 0.0
        part = self._references[key][name].part
        if part is None:
            return float(product) ** 2
        squares = product.square().numpy()
        self._of_entries[key, name] += squares
        return float((squares / part.probabilities).sum())

    def variances(self) -> dict[str, dict[str, float]]:
        """The variance of each mean that comes from the choice of rows, by weight and candidate."""
        found: dict[str, dict[str, float]] = defaultdict(dict)
        for (key, name), sums in self._of_entries.items():
            part = self._references[key][name].part
            assert part is not None
            found[key][name] = part.variance(sums / max(1, self._count))
        return dict(found)

    def state(self) -> dict[str, NDArray[Any]]:
        """The sums so far."""
        found: dict[str, NDArray[Any]] = {f"fisher/{key}": each.numpy() for key, each in self._sums.items()}
        return found | {f"rows/{name}/{key}": each for (key, name), each in self._of_entries.items()}

    def fishers(self) -> dict[str, NDArray[np.float32]]:
        """Their mean, in each weight's shape."""
        count = max(1, self._count)
        return {key: (each / count).numpy().reshape(self._shapes[key]) for key, each in self._sums.items()}

    def restore(self, squares: Mapping[str, Mapping[str, list[float]]], state: Mapping[str, NDArray[Any]]) -> None:
        """Continue where a run was interrupted."""
        self.squares = {key: {name: list(each) for name, each in found.items()} for key, found in squares.items()}
        for key in self._sums:
            self._sums[key] = torch.from_numpy(np.array(state[f"fisher/{key}"]))
        for key, name in self._of_entries:
            self._of_entries[key, name] = np.array(state[f"rows/{name}/{key}"])
        self._count = max((len(each) for found in self.squares.values() for each in found.values()), default=0)
