"""The last word: recipes are run on the samples that calibration kept."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from ..engine.opened import OpenedModel
from ..errors import MissingExtraError, UnsupportedOperationError
from ..paths import StrPath
from ..runtime.metrics import Comparing, Metric
from ..runtime.model import Model
from ..runtime.samples import Samples, steps_of
from ..tensors import CompressedTensor
from .made import made
from .options import FreeWeight, Option
from .recipe_models import InCopies, InMemory, RecipeModel

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
    """Run a model on the samples that calibration kept, as it is and with the weights of some recipes.

    An ML program is run in float32, and its weights are replaced in memory. An asset is run by Core AI as it computes,
    from a temporary copy for each recipe, on as many samples as take a minute.

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
    if not statistics.kept:
        return Checked(note="no samples were kept for choices, so that the recipe was not run; give calibration more")
    try:
        runs = _recipe_model(src, opened, statistics.function_name, free, num_threads)
    except (UnsupportedOperationError, MissingExtraError, AttributeError) as error:
        return Checked(note=f"the recipe was not run: {str(error).removeprefix('load: ')}")
    samples = Samples("allocate", list(statistics.kept), runs.model.description)  # labels are no inputs
    started = time.perf_counter()
    expected = _outputs(runs.model, samples, None, runs.most_seconds)
    seconds = time.perf_counter() - started
    if len(expected) == 1 and seconds > runs.most_seconds:
        return Checked(note=f"the recipe was not run on the kept samples: the first of them took {seconds:.0f} seconds")
    found = []
    tensors: dict[tuple[int, str], CompressedTensor] = {}  # recipes have most of them in common
    with opened.reading([free[number].weight for number in runs.numbers]):
        for number in runs.numbers:
            each = free[number]
            wanted = {options[number].key: options[number].steps for options in recipes if options[number].steps}
            stored = opened.stored(each.weight)
            known = statistics.weights.get(each.key)
            of_weight = made(stored, list(wanted.values()), known, num_threads)
            tensors |= {(number, key): tensor for key, tensor in zip(wanted, of_weight, strict=True)}
            opened.release(each.weight)
    for options in recipes:
        chosen = {number: tensors[number, options[number].key] for number in runs.numbers if options[number].steps}
        comparing = Comparing(Metric.of("allocate", "snr"))
        with runs.with_weights(chosen) as model:
            outputs = _outputs(model, samples, len(expected))
        for ours, theirs in zip(expected, outputs, strict=True):
            for first, second in zip(ours, theirs, strict=True):
                comparing.add(first, second)
        found.append(comparing.value)
    return Checked(tuple(found), len(expected), tensors=tensors)


def _recipe_model(
    src: StrPath, opened: OpenedModel, function_name: str | None, free: Sequence[FreeWeight], num_threads: int
) -> RecipeModel:
    if opened.runs_in_torch:
        return InMemory(src, function_name, free, num_threads)
    return InCopies(src, function_name, free)


def _outputs(
    model: Model, samples: Samples, count: int | None, most_seconds: float = math.inf
) -> list[list[dict[str, Any]]]:
    """What a model returns for the first samples, each as the outputs of its runs.

    A count of None is for as many as are held, and are run within some seconds, at least one.
    """
    found: list[list[dict[str, Any]]] = []
    started = time.perf_counter()
    held = 0
    for sample in islice(samples, count):
        state = model.make_state() if model.states else None
        outputs = [model.predict(samples.inputs_of(step), state) for step in steps_of(sample)]
        held += sum(getattr(value, "nbytes", 0) for run in outputs for value in run.values())
        is_late = time.perf_counter() - started > most_seconds
        if found and count is None and (held > _MOST_BYTES or is_late):
            break
        found.append(outputs)
    return found
