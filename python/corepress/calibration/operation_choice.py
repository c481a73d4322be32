"""Which operations to quantize so that the outputs stay near: those that do the most harm are left out.

What single operations do to the outputs nearly adds up, since rounding errors of different values have nothing to do
with each other. So each is measured alone, the sum says which have to be left out, and the result is run to see
whether that was enough.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..coreml.format.package import Package
from ..coreml.program.program import Program
from ..coreml.program.quantize_pairs import WITH_RESULT
from .activation_choice import MOST_JUDGED, decibels, error_with, outputs_of, spread
from .activation_config import ActivationConfig, ActivationQuantizer
from .activation_pairs import ActivationQuantization
from .activation_ranges import ActivationRange

TARGET_SNR = 20.0  # dB: a hundredth of the power of the outputs
_MOST_RUNS = 1024  # of the model, for what each operation does alone, and as many for its inputs
_MOST_SAMPLES = 8  # for that
_MOST_CHECKS = 12  # of what is left
_MULTIPLYING = ("conv", "conv_transpose", "linear", "matmul", "scaled_dot_product_attention")
_PRICE = 16.0  # of a multiplication of integers; of a sum, a pooling or a result it is 1
_NOTABLE = 0.25  # of an even share of the error that is allowed, from which on inputs are measured alone
_HARMFUL, _RESULT_HARMFUL = "too harmful to the outputs", "its result is too harmful to the outputs"
_WHOLE, _INPUTS, _NOTHING = 2, 1, 0


@dataclass(frozen=True)
class OperationChoice:
    """What was chosen.

    Attributes
    ----------
    config : ActivationConfig
        A rule for each operation.
    snr_db : dict of str to float
        What each leaves of the outputs alone, in dB, by its name; empty if nothing had to be left out.
    note : str
        What was found.
    """

    config: ActivationConfig
    snr_db: Mapping[str, float]
    note: str


@dataclass(eq=False)
class _Group:
    """Operations that are quantized or left out together.

    Attributes
    ----------
    names : tuple of str
        The operations.
    price : float
        What is lost without them.
    has_result : bool
        Whether results are quantized too.
    errors : list of float
        Of the outputs with nothing quantized, with the inputs alone, and with all.
    state : int
        What is quantized: the place among the errors.
    """

    names: tuple[str, ...]
    price: float
    has_result: bool
    errors: list[float]
    state: int = _WHOLE

    @property
    def error(self) -> float:
        return self.errors[self.state]

    def steps(self) -> Iterator[tuple[float, int]]:
        """What can be given up: how much error that takes away for its price, and the state after it."""
        if self.state == _WHOLE and self.errors[_INPUTS] < self.errors[_WHOLE]:
            yield self.errors[_WHOLE] - self.errors[_INPUTS], _INPUTS
        if self.state != _NOTHING:
            yield self.error / self.price, _NOTHING


def choose_operations(
    src: str | os.PathLike[str],
    function_name: str,
    ranges: Mapping[str, ActivationRange],
    config: ActivationConfig,
    samples: Sequence[Any],
    target_snr: float | None = None,
    num_threads: int | None = None,
) -> OperationChoice:
    """What to quantize of a function so that its outputs have a signal-to-noise ratio; see `OperationSearch`.

    Raises
    ------
    ValueError
        If it cannot be reached with any operation quantized.
    """
    from .threads import torch_threads

    with torch_threads(num_threads):
        search = OperationSearch(src, function_name, ranges, config, samples)
        return search.run(TARGET_SNR if target_snr is None else target_snr)


class OperationSearch:
    """Leaves out operations of a function until its outputs are near enough to the model's.

    Parameters
    ----------
    src : path-like
        The package.
    function_name : str
        Its function.
    ranges : dict of str to ActivationRange
        By the name of the value.
    config : ActivationConfig
        What may be quantized, and how.
    samples : sequence of dict or of list of dict
        What to judge by, with no part in the ranges: 32 for what is left, 8 for each operation alone, evenly spread.
    """

    def __init__(
        self,
        src: str | os.PathLike[str],
        function_name: str,
        ranges: Mapping[str, ActivationRange],
        config: ActivationConfig,
        samples: Sequence[Any],
    ) -> None:
        self._src, self._function, self._ranges, self._config = src, function_name, ranges, config
        self._samples = spread(samples, MOST_JUDGED)
        self._expected = list(outputs_of(src, function_name, self._samples, None))
        self._quantizers: dict[str, ActivationQuantizer] = {}

    def run(self, target: float) -> OperationChoice:
        """Reach a signal-to-noise ratio in dB of all outputs together, each by its own power.

        Raises
        ------
        ValueError
            If it cannot be reached with any operation quantized.
        """
        limit = 10 ** (-target / 10)
        before = self._error(self._config)
        count = len(self._samples)
        if before <= limit:
            note = f"all operations that can be are quantized: {decibels(before):.1f} dB on {count} samples"
            return OperationChoice(self._config, {}, f"{note}, weights unchanged, {target:g} dB are enough")
        groups = self._groups(limit)
        snr_db = {name: decibels(group.errors[_WHOLE]) for group in groups for name in group.names}
        budget, found = limit, math.inf
        for _ in range(_MOST_CHECKS):
            _give_up(groups, budget)
            if all(group.state == _NOTHING for group in groups):
                break
            found = self._error(self._chosen(groups))
            if found <= limit:
                break
            budget = min(budget, sum(group.error for group in groups)) * min(0.8, limit / found)
        if found > limit:
            best = max(snr_db.values(), default=-math.inf)
            raise ValueError(
                f"quantize_activations: target_snr {target:g} dB is out of reach; the operation that does the least "
                f"harm leaves {best:.1f} dB alone; ask for less, or try mode and range 'auto'"
            )
        left_out, inputs_only = (
            sum(len(group.names) for group in groups if group.state == state) for state in (_NOTHING, _INPUTS)
        )
        note = (
            f"{left_out} of {len(snr_db)} operations are left out and {inputs_only} have their inputs quantized alone: "
            f"{decibels(found):.1f} dB on {count} samples, weights unchanged, "
            f"instead of {decibels(before):.1f} dB with all"
        )
        return OperationChoice(self._chosen(groups), snr_db, note)

    def _groups(self, limit: float) -> list[_Group]:
        """Each operation with its error, or neighbours together where there are too many."""
        program = Program(Package.open(self._src))
        quantization = ActivationQuantization(self._function, self._ranges, self._config, required=False)
        quantization.edit(program)
        records = {each.name: each for each in quantization.records if each.status == "quantized"}
        graphs = (graph for some in program.graphs.values() for graph in some if graph.name == self._function)
        for operation in (each for graph in graphs for each in graph.operations()):
            quantizer = self._config.quantizer_of(operation)
            if operation.name in records and quantizer is not None:
                self._quantizers[operation.name] = quantizer
        names = [name for name in records if name in self._quantizers]
        together = -(-len(names) // _MOST_RUNS)
        parts = [tuple(names[start : start + together]) for start in range(0, len(names), max(1, together))]
        samples = max(1, min(_MOST_SAMPLES, _MOST_RUNS // max(1, len(parts))))
        groups = []
        for part in parts:
            price = _PRICE * sum(records[name].type in _MULTIPLYING for name in part) or 1.0
            has_result = any(records[name].type in WITH_RESULT for name in part)
            error = self._alone(part, _WHOLE, samples)
            groups.append(_Group(part, price, has_result, [0.0, error, error]))
        for group in groups:
            if group.has_result and group.error > _NOTABLE * limit / len(groups):
                group.errors[_INPUTS] = min(group.error, self._alone(group.names, _INPUTS, samples))
        return groups

    def _alone(self, names: tuple[str, ...], state: int, samples: int) -> float:
        """The error with these operations quantized, and no others."""
        return self._error(self._with(dict.fromkeys(names, state)), samples)

    def _chosen(self, groups: Sequence[_Group]) -> ActivationConfig:
        return self._with({name: group.state for group in groups for name in group.names})

    def _with(self, states: Mapping[str, int]) -> ActivationConfig:
        """The config that quantizes this much of each operation, and nothing of the others."""
        rules: dict[str, ActivationQuantizer | None] = {}
        reasons = {}
        for name, quantizer in self._quantizers.items():
            state = states.get(name, _NOTHING)
            rules[name] = None if state == _NOTHING else replace(quantizer, result=quantizer.result and state == _WHOLE)
            if state != _WHOLE:
                reasons[name] = _HARMFUL if state == _NOTHING else _RESULT_HARMFUL
        return replace(self._config, op_names={**self._config.op_names, **rules}, reasons=reasons)

    def _error(self, config: ActivationConfig, samples: int | None = None) -> float:
        count = len(self._samples) if samples is None else samples
        places = spread(range(len(self._samples)), count)
        some = [self._samples[place] for place in places]
        expected = self._expected_of(places)
        return error_with(self._src, self._function, self._ranges, config, some, expected)

    def _expected_of(self, places: Sequence[int]) -> list[Mapping[str, Any]]:
        """The runs of some samples, of which sequences have several."""
        lengths = [len(each) if isinstance(each, list) else 1 for each in self._samples]
        starts = [sum(lengths[:place]) for place in range(len(lengths))]
        return [self._expected[starts[place] + step] for place in places for step in range(lengths[place])]


def _give_up(groups: Sequence[_Group], budget: float) -> None:
    """Leave out what takes away the most error for its price, until the errors add up to no more than a budget."""
    while sum(group.error for group in groups) > budget:
        steps = ((gain, number, state) for number, group in enumerate(groups) for gain, state in group.steps())
        best = max(steps, key=lambda step: (step[0], -step[1]), default=None)
        if best is None:
            return
        groups[best[1]].state = best[2]
