"""One calibration: the model run on samples, forward for second moments, then backward for sensitivities."""

from __future__ import annotations

import math
import platform
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..arrays import as_threads
from ..compression.matrix_view import MatrixView
from ..config.candidates import Steps
from ..coreml.format.values import ValueReader
from ..coreml.program.graph import Function, Operation
from ..coreml.program.identity import stored_digest, weight_keys
from ..coreml.program.program import Program
from ..coreml.program.weights import Weight, visible_weights
from ..engine.calibrated import feedback_data
from ..mapped_files import release_array
from ..runtime.features import Description
from ..runtime.torch.backend import TorchBackend
from ..runtime.torch.constants import Constants
from ..runtime.torch.schedule import Observer, Step, Values
from .activation_observer import RangeObserver
from .block_sums import BLOCK_COLUMNS, BLOCK_COLUMNS_OF_LARGE, LARGE, block_columns, within
from .block_sums import VECTORS as _VECTORS
from .block_sums import VECTORS_OF_COLUMN as _VECTORS_OF_COLUMN
from .moments import Moments
from .observers import InputObserver, Options
from .probes import Outputs, Probing
from .progress import Work
from .references import references_of
from .rows import JUDGED_ROWS, RowSquares, has_part
from .samples import DividedSamples
from .statistics import Sensitivity, Statistics, WeightStatistics
from .unfinished import Checkpoints, Unfinished
from .uses import NoView, Use, uses_of

GRADIENTS, GRADIENTS_OF_LARGE = 48, 16
_OF_ROWS = 1 << 20  # marks the random numbers by which rows are chosen
STEPS_TOGETHER = 16  # of a sequence, through which gradients go back


@dataclass(frozen=True)
class Settings:
    """How a calibration is done; see `corepress.coreml.calibrate`."""

    candidates: tuple[Steps, ...]
    probes: int | None
    importance: bool
    block_columns: int | None
    memory_limit: int
    weight_threshold: int
    seed: int
    num_threads: int | None


@dataclass
class _Known:
    """A weight, and what is known of it."""

    key: str
    weight: Weight
    digest: str
    uses: list[Use]
    parameter: str | None = None
    view: MatrixView | None = None
    size: int = 0  # columns of a block
    reason: str | None = None

    @property
    def count(self) -> int:
        return math.prod(self.weight.first.shape)

    @property
    def moment_bytes(self) -> int:
        assert self.view is not None
        return Moments.bytes_of(self.view.groups, self.view.columns, self.size)


class Calibration:
    """A model, its samples, and the weights to look at.

    Parameters
    ----------
    program, function : Program, Function
        The program and the function that is run.
    backend : TorchBackend
        The function, loaded in float32.
    description : Description
        What it takes and returns.
    samples : DividedSamples
        The samples.
    settings : Settings
        How it is done.
    work : Work
        Counts what is done.
    """

    def __init__(
        self,
        program: Program,
        function: Function,
        backend: TorchBackend,
        description: Description,
        samples: DividedSamples,
        settings: Settings,
        work: Work,
    ) -> None:
        self._program, self._backend, self._description = program, backend, description
        self._samples, self._settings, self._work = samples, settings, work
        self._function = function
        self._threads = as_threads("calibrate", settings.num_threads)
        self._row_squares: dict[str, NDArray[np.float64]] = {}  # of gradients, in large models
        self._takes_rows = False
        self._outputs = Outputs(backend, description)
        constants = Constants(program.package, program)
        self._options = Options(constants)
        with ValueReader(program.package) as values:
            self._weights = list(self._find(values))
        constants.close()

    @property
    def digests(self) -> dict[str, str]:
        """The digest of each weight, by name."""
        return {each.key: each.digest for each in self._weights}

    def _find(self, values: ValueReader) -> Iterator[_Known]:
        keys = weight_keys(visible_weights(self._program))
        chosen = {weight: key for weight, key in keys.items() if _is_candidate(weight, self._settings.weight_threshold)}
        count = sum(math.prod(weight.first.shape) for weight in chosen)
        self._block_columns = self._settings.block_columns or (
            BLOCK_COLUMNS if count <= LARGE else BLOCK_COLUMNS_OF_LARGE
        )
        by_weight: dict[Weight, list[Use]] = defaultdict(list)
        for use in uses_of(self._program, self._function, list(chosen), self._options):
            by_weight[use.weight].append(use)
        for weight, key in chosen.items():
            known = _Known(key, weight, stored_digest(weight, values), by_weight[weight])
            self._settle(known)
            yield known

    def _settle(self, known: _Known) -> None:
        """Find how a weight is read, and which parameter of the module it is."""
        uses = known.uses
        if not uses:
            known.reason = f"function {self._function.name} does not use it"
            return
        known.parameter = next(filter(None, (self._backend.bound.weight_name(use.constant) for use in uses)), None)
        reasons = [use.reason for use in uses if use.view is None]
        views = {use.view for use in uses}
        if known.weight.feeds_output:
            known.reason = "it is an output of a block"
        elif reasons:
            known.reason = reasons[0]
        elif len(views) > 1:
            known.reason = "the operations that use it read it in different ways"
        else:
            (known.view,) = views
            assert known.view is not None
            of_channel = math.prod(max(use.kernel for use in uses))
            known.size = block_columns(known.view.columns, of_channel, self._block_columns)
            try:
                for use in uses:
                    InputObserver(use, Moments(1, 1, 1), 1, self._options)
            except NoView as reason:
                known.reason, known.view = str(reason), None

    def run(self, unfinished: Unfinished) -> Statistics:
        """Do it; each part is kept once it is finished."""
        notes = []
        if not self._samples.kept_count:
            notes.append(
                f"only {self._samples.count} samples, of which none is kept for choices: sensitivities are those of "
                "the samples that error feedback knows; give at least 4"
            )
        observed = [each for each in self._weights if each.view is not None]
        groups = within(observed, self._settings.memory_limit, lambda each: each.moment_bytes)
        fit_count = self._samples.count - self._samples.kept_count
        judged = [each for each in self._weights if each.parameter is not None and not each.weight.is_compressed]
        count = sum(each.count for each in judged)
        self._takes_rows = bool(self._settings.candidates) and count > LARGE
        wanted = bool(self._settings.candidates) or self._settings.importance
        probing_groups = within(judged, self._settings.memory_limit, self._reference_bytes) if wanted else []
        runs, probes = self._plan_probes(count)
        self._work.total = max(1, len(groups)) * fit_count
        self._work.total += len(probing_groups) * runs * (1 + 2 * probes)
        self._work.total += bool(probing_groups) * runs * (3 if self._takes_rows else 1)
        moments: dict[str, tuple[NDArray[np.float32] | None, int]] = {}
        ranges = RangeObserver(self._function)
        for number, group in enumerate(groups or [[]]):
            moments |= self._moments(f"moments-{number:04}", group, unfinished, None if number else ranges)
        if self._takes_rows:
            self._choose_rows("rows", judged, unfinished, runs)
        elif probing_groups:
            self._measure_outputs("outputs", unfinished, runs)
        sensitivities: dict[str, dict[str, Sensitivity]] = {}
        fishers: dict[str, NDArray[np.float32]] = {}
        for number, group in enumerate(probing_groups):
            found_group = self._probe(f"probes-{number:04}", group, moments, unfinished, runs, probes)
            if found_group is None:
                notes.append("no output is a floating-point number, so that sensitivities could not be measured")
                break
            sensitivities |= found_group[0]
            fishers |= found_group[1]
        return Statistics(
            weights={each.key: self._statistics(each, moments, sensitivities, fishers) for each in self._weights},
            function_name=self._function.name,
            library=_library(self._backend),
            sample_count=self._samples.count,
            kept=self._samples.kept,
            ranges={name: each.to_arrays() for name, each in ranges.ranges.items()},
            notes=tuple(notes),
        )

    def _statistics(
        self,
        known: _Known,
        moments: dict[str, tuple[NDArray[np.float32] | None, int]],
        sensitivities: dict[str, dict[str, Sensitivity]],
        fishers: dict[str, NDArray[np.float32]],
    ) -> WeightStatistics:
        hessian, count = moments.get(known.key, (None, 0))
        reason = known.reason
        if hessian is None and reason is None:
            reason = "its inputs were not finite" if count else "no sample reached it"
        return WeightStatistics(
            digest=known.digest,
            shape=known.weight.first.shape,
            view=None if hessian is None else known.view,
            count=count,
            hessian=hessian,
            fisher=fishers.get(known.key),
            sensitivities=sensitivities.get(known.key, {}),
            reason=None if hessian is not None else reason,
        )

    def _plan_probes(self, count: int) -> tuple[int, int]:
        """How many of the samples are probed, and how often each."""
        available = self._samples.kept_count or self._samples.count
        if self._settings.probes is not None:
            return available, self._settings.probes
        wanted = GRADIENTS if count <= LARGE else GRADIENTS_OF_LARGE
        return min(available, wanted), max(1, -(-wanted // available))

    # Second moments

    def _moments(
        self, name: str, group: Sequence[_Known], unfinished: Unfinished, ranges: RangeObserver | None
    ) -> dict[str, tuple[NDArray[np.float32] | None, int]]:
        """The second moments of some weights, and how many vectors they are of; the first time, also ranges."""
        fit_count = self._samples.count - self._samples.kept_count
        kept = unfinished.read(name)
        if kept is None:
            self._sum_up(name, group, unfinished, fit_count, ranges)
            kept = unfinished.read(name)
            assert kept is not None
        else:
            self._work.add(fit_count, skipped=True)
        arrays, counts = kept
        if ranges is not None:
            ranges.restore(arrays)
        return {key: (arrays.get(key), count) for key, count in counts.items()}

    def _sum_up(
        self,
        name: str,
        group: Sequence[_Known],
        unfinished: Unfinished,
        fit_count: int,
        ranges: RangeObserver | None,
    ) -> None:
        sums = {each.key: _moments_of(each) for each in group}
        observers: dict[Operation, list[InputObserver]] = defaultdict(list)
        for each in group:
            most = max(_VECTORS, -(-_VECTORS_OF_COLUMN * each.size // fit_count))
            for use in each.uses:
                observers[use.operation].append(InputObserver(use, sums[each.key], most, self._options))

        def observe(step: Step, values: Values) -> None:
            for observer in observers.get(step.operation, ()):
                observer(step, values)
            if ranges is not None:
                ranges(step, values)

        self._work.begin("second moments")
        checkpoint = f"{name}-begun"
        done = self._continue(checkpoint, sums, unfinished, ranges) if unfinished.folder is not None else 0
        self._work.add(done, skipped=True)
        due = Checkpoints(unfinished)
        for number, steps in enumerate(self._samples.fitted()):
            if number < done:
                continue
            with torch.no_grad():
                for _ in self._forward(steps, observe, ranges):
                    pass
            done = number + 1
            self._work.add(1)
            with due.now() as is_due:
                if is_due and done < fit_count:
                    self._begun(checkpoint, sums, done, unfinished, ranges)
        arrays, counts = {}, {key: each.count for key, each in sums.items()}
        for key in counts:
            found = sums.pop(key)  # so that sums and means are not all in memory
            if found.count and found.is_finite:
                arrays[key] = found.mean()
        if ranges is not None:
            arrays |= ranges.state()
        unfinished.write(name, arrays, counts)
        unfinished.forget(checkpoint)

    def _begun(
        self, name: str, sums: dict[str, Moments], done: int, unfinished: Unfinished, ranges: RangeObserver | None
    ) -> None:
        arrays: dict[str, NDArray[Any]]
        arrays = {f"{key}/{part}": array for key, each in sums.items() for part, array in each.state().items()}
        if ranges is not None:
            arrays |= ranges.state()
        unfinished.write(name, arrays, {"done": done, "counts": {key: each.count for key, each in sums.items()}})

    def _continue(
        self, name: str, sums: dict[str, Moments], unfinished: Unfinished, ranges: RangeObserver | None
    ) -> int:
        """Take up what an interrupted run had summed up, and return how many samples that are."""
        kept = unfinished.read(name)
        if kept is None:
            return 0
        arrays, document = kept
        for key, each in sums.items():
            parts = (*each.state(), *Moments.WAITING)
            state = {part: np.asarray(arrays[f"{key}/{part}"]) for part in parts if f"{key}/{part}" in arrays}
            each.restore(state, document["counts"][key])
        if ranges is not None:
            ranges.restore(arrays)
        return int(document["done"])

    def _forward(
        self, steps: Sequence[Any], observe: Observer, ranges: RangeObserver | None = None
    ) -> Iterator[Mapping[str, Any]]:
        state = self._backend.make_state()
        for step in steps:
            if ranges is not None:
                ranges.begin_run()
            arguments = self._description.arguments("calibrate", step)
            yield self._backend.module.observe(observe, self._backend.tensors(arguments), state)

    # Sensitivities

    def _measure_outputs(self, name: str, unfinished: Unfinished, runs: int) -> None:
        """Find the power of each output in the runs that are probed."""
        kept = unfinished.read(name)
        if kept is None:
            self._work.begin("outputs")
            for steps in self._samples.judging(runs):
                with torch.no_grad():
                    for index, outputs in enumerate(self._forward(steps, self._outputs.observe)):
                        self._outputs.add_power(outputs, begins=index % STEPS_TOGETHER == 0)
                self._work.add(1)
            unfinished.write(name, {}, self._outputs.mean_powers())
            kept = unfinished.read(name)
            assert kept is not None
        else:
            self._work.add(runs, skipped=True)
        self._outputs.powers = kept[1]

    def _reference_bytes(self, known: _Known) -> int:
        bits = sum(min((getattr(step, "nbits", 8) or 8) for step in steps) for steps in self._settings.candidates)
        of_candidates = known.count * bits
        if self._takes_rows and has_part(known.view):
            assert known.view is not None  # and what they are compared with, which is a copy
            of_candidates = known.count * JUDGED_ROWS // known.view.shape[known.view.row_axes[0]] * (bits + 16)
        return (of_candidates + known.count * (32 if self._settings.importance else 0)) // 8

    def _probe(
        self,
        name: str,
        group: Sequence[_Known],
        moments: dict[str, tuple[NDArray[np.float32] | None, int]],
        unfinished: Unfinished,
        runs: int,
        probes: int,
    ) -> tuple[dict[str, dict[str, Sensitivity]], dict[str, NDArray[np.float32]]] | None:
        """The sensitivities of some weights, and their Fisher diagonals; None if there is no output to judge by."""
        kept = unfinished.read(name)
        if kept is None:
            probing = self._probing(group, moments)
            if not self._backpropagate(name, probing, unfinished, runs, probes):
                return None
            document = {"squares": probing.squares, "variances": probing.variances()}
            unfinished.write(name, probing.fishers(), document)
            unfinished.forget(f"{name}-begun")
            kept = unfinished.read(name)
            assert kept is not None
        else:
            self._work.add(runs * (1 + 2 * probes), skipped=True)
        arrays, document = kept
        found = {
            key: {
                name: Sensitivity.of(each, document["variances"].get(key, {}).get(name, 0.0))
                for name, each in squares.items()
                if each
            }
            for key, squares in document["squares"].items()
        }
        return found, dict(arrays)

    def _probing(self, group: Sequence[_Known], moments: Any) -> Probing:
        probing = Probing(self._settings.importance, self._threads)
        parameters = dict(self._backend.module.named_parameters())
        for number, each in enumerate(group, 1):
            assert each.parameter is not None
            self._work.begin(f"candidates ({number} of {len(group)})")
            stored = parameters[each.parameter].detach().cpu().numpy()
            hessian, _ = moments.get(each.key, (None, 0))
            data = feedback_data(hessian, each.view)
            references = references_of(
                each.weight, stored, self._settings.candidates, data, self._threads, self._row_squares.get(each.key)
            )
            probing.add(each.key, each.parameter, stored.shape, references)
            if hessian is not None:
                release_array(hessian)
        return probing

    def _backpropagate(self, name: str, probing: Probing, unfinished: Unfinished, runs: int, probes: int) -> bool:
        """Probe the outputs for all samples that judge; False if no output can be probed."""
        self._work.begin("sensitivities")
        checkpoint, done = f"{name}-begun", 0
        begun = unfinished.read(checkpoint) if unfinished.folder is not None else None
        if begun is not None:
            done = begun[1]["done"]
            probing.restore(begun[1]["squares"], begun[0])
            self._work.add(done * (1 + 2 * probes), skipped=True)
        due = Checkpoints(unfinished)
        for number, steps in enumerate(self._samples.judging(runs)):
            if number < done:
                continue
            state = self._backend.make_state()
            for start in range(0, len(steps), STEPS_TOGETHER):
                _detach(state)
                seed = (self._settings.seed, number, start)
                if not self._probe_run(probing, steps[start : start + STEPS_TOGETHER], state, seed, probes):
                    return False
            done = number + 1
            self._work.add(1 + 2 * probes)
            with due.now() as is_due:
                if is_due and done < runs:
                    document = {"done": done, "squares": probing.squares}
                    unfinished.write(checkpoint, probing.state(), document)
        return True

    def _probe_run(
        self, probing: Probing, steps: Sequence[Any], state: Any, seed: tuple[int, ...], probes: int
    ) -> bool:
        with probing.watching(self._backend.module):
            return self._go_back(steps, state, seed, probes, probing.end_of_gradient)

    def _go_back(
        self,
        steps: Sequence[Any],
        state: Any,
        seed: tuple[int, ...],
        probes: int,
        end: Callable[[], None],
        *,
        finds_power: bool = False,
    ) -> bool:
        """Run some steps, and go back from probes of their outputs; False if no output can be probed.

        With `finds_power` the outputs' power is that of all runs so far.
        """
        found = []
        for index, step in enumerate(steps):
            arguments = self._description.arguments("calibrate", step)
            outputs = self._backend.module.observe(self._outputs.observe, self._backend.tensors(arguments), state)
            probed = self._outputs.tensors(outputs)
            if finds_power:
                self._outputs.add_power_of(probed, begins=index == 0)
            found += probed
        if finds_power:
            self._outputs.powers = self._outputs.mean_powers()
        if not found:
            return False
        reached = [(tensor, metric) for tensor, metric in found if tensor.requires_grad]
        for probe in range(probes):
            if reached:
                generator = torch.Generator().manual_seed(_seed(*seed, probe))
                vectors = [self._outputs.vector(tensor, metric, generator) for tensor, metric in reached]
                tensors = [tensor for tensor, _ in reached]
                torch.autograd.backward(tensors, vectors, retain_graph=probe + 1 < probes)
            end()
        return True

    def _choose_rows(self, name: str, judged: Sequence[_Known], unfinished: Unfinished, runs: int) -> None:
        """Choose the rows by which candidates are judged, by one probe of the beginning of each run.

        The power of each output is found by the way.
        """
        wanted = {each.parameter: each for each in judged if each.parameter is not None and has_part(each.view)}
        kept = unfinished.read(name)
        if kept is None:
            self._work.begin("rows")
            axes = {key: each.view.row_axes[0] for key, each in wanted.items() if each.view is not None}
            squares = RowSquares(axes)
            for number, steps in enumerate(self._samples.judging(runs)):
                with squares.watching(self._backend.module):
                    seed = (self._settings.seed, number, 0, _OF_ROWS)
                    some, state = steps[:STEPS_TOGETHER], self._backend.make_state()
                    self._go_back(some, state, seed, 1, lambda: None, finds_power=True)
                self._work.add(3)
            unfinished.write(name, dict(squares.sums), self._outputs.mean_powers())
            kept = unfinished.read(name)
            assert kept is not None
        else:
            self._work.add(3 * runs, skipped=True)
        self._outputs.powers = kept[1]
        for parameter, each in wanted.items():
            assert each.view is not None
            length = each.view.shape[each.view.row_axes[0]]
            self._row_squares[each.key] = np.asarray(kept[0].get(parameter, np.zeros(length)))


def _moments_of(known: _Known) -> Moments:
    assert known.view is not None
    return Moments(known.view.groups, known.view.columns, known.size)


def _is_candidate(weight: Weight, threshold: int) -> bool:
    """Whether compression would look at a weight."""
    first = weight.first
    return bool(
        first.data_type.name in ("float16", "float32")
        and len(first.shape) >= 2
        and math.prod(first.shape) > threshold
        and weight.consumers
        and not weight.feeds_definition
    )


def _detach(state: Any) -> None:
    if state is not None:
        for cell in state.cells.values():
            cell.value = cell.value.detach()


def _seed(*numbers: int) -> int:
    """A seed of several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _library(backend: TorchBackend) -> str:
    """What runs the model."""
    return f"torch {torch.__version__} on {backend.module.device.type} ({platform.machine()})"
