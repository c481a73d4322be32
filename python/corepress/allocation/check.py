"""The last word: recipes are run on the samples that calibration kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from ..engine.opened import OpenedModel
from ..errors import MissingExtraError, UnsupportedOperationError
from ..paths import StrPath
from ..runtime.metrics import Comparing, Metric
from ..runtime.model import Model, load
from ..runtime.samples import Samples, steps_of
from ..tensors import CompressedTensor
from .made import made
from .options import FreeWeight, Option

_MOST_BYTES = 1 << 28  # of outputs that are held; more samples are left out


@dataclass(frozen=True)
class Checked:
    """What a check found.

    Attributes
    ----------
    snr_db : tuple of float
        For each recipe the lowest signal-to-noise ratio of any output, over all samples.
    samples : int
        How many samples were run.
    note : str or None
        Why nothing was run.
    tensors : dict of (int, str) to CompressedTensor
        The weights that were made, by their numbers and the options' keys.
    """

    snr_db: tuple[float, ...] = ()
    samples: int = 0
    note: str | None = None
    tensors: Mapping[tuple[int, str], CompressedTensor] = field(default_factory=dict)


def check(
    src: StrPath,
    opened: OpenedModel,
    statistics: Any,
    free: Sequence[FreeWeight],
    recipes: Sequence[Sequence[Option]],
    num_threads: int,
) -> Checked:
    """Run a model in float32 on the samples that calibration kept, as it is and with the weights of some recipes.

    No file is written: the weights are replaced in memory.

    Parameters
    ----------
    src : path-like
        The model.
    opened : OpenedModel
        The same, opened.
    statistics : Statistics
        What `calibrate` returned.
    free : sequence of FreeWeight
        The weights.
    recipes : sequence of sequence of Option
        For each recipe an option for each weight.
    num_threads : int
        Threads for making weights.
    """
    if not opened.runs_in_torch:
        return Checked(
            note=f"the recipe was not run on the kept samples: weights of an {opened.what} cannot be replaced in memory"
        )
    if not statistics.kept:
        return Checked(note="no samples were kept for choices, so that the recipe was not run; give calibration more")
    try:
        model = load(src, function_name=statistics.function_name, precision="float32", backend="torch")
        module = model.module
    except (UnsupportedOperationError, MissingExtraError, AttributeError) as error:
        return Checked(note=f"the recipe was not run: {str(error).removeprefix('load: ')}")
    places = _places(module, free)
    originals = {number: parameter.data for number, parameter in places.items()}
    samples = Samples("allocate", list(statistics.kept), model.description)  # labels are no inputs
    expected = _outputs(model, samples, None)
    found = []
    tensors: dict[tuple[int, str], CompressedTensor] = {}  # recipes have most of them in common
    with opened.reading([free[number].weight for number in places]):
        for number in places:
            each = free[number]
            wanted = {options[number].key: options[number].steps for options in recipes if options[number].steps}
            stored = opened.stored(each.weight)
            known = statistics.weights.get(each.key)
            of_weight = made(stored, list(wanted.values()), known, num_threads)
            tensors |= {(number, key): tensor for key, tensor in zip(wanted, of_weight, strict=True)}
            opened.release(each.weight)
    for options in recipes:
        for number, parameter in places.items():
            if options[number].steps:
                tensor = tensors[number, options[number].key]
                parameter.data = _like(originals[number], tensor, num_threads)
            else:
                parameter.data = originals[number]
        comparing = Comparing(Metric.of("allocate", "snr"))
        outputs = _outputs(model, samples, len(expected))
        for ours, theirs in zip(expected, outputs, strict=True):
            for first, second in zip(ours, theirs, strict=True):
                comparing.add(first, second)
        found.append(comparing.value)
    return Checked(tuple(found), len(expected), tensors=tensors)


def _like(original: Any, tensor: CompressedTensor, num_threads: int) -> Any:
    """A weight in place of another one of the same kind."""
    values = np.asarray(tensor.dense(num_threads=num_threads))
    return original.new_tensor(values).to(original.dtype).reshape(original.shape)


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


def _outputs(model: Model, samples: Samples, count: int | None) -> list[list[dict[str, Any]]]:
    """What a model returns for the first samples, each as the outputs of its runs; None for as many as are held."""
    found: list[list[dict[str, Any]]] = []
    held = 0
    for sample in islice(samples, count):
        state = model.make_state() if model.states else None
        outputs = [model.predict(samples.inputs_of(step), state) for step in steps_of(sample)]
        held += sum(getattr(value, "nbytes", 0) for run in outputs for value in run.values())
        if found and count is None and held > _MOST_BYTES:
            break
        found.append(outputs)
    return found
