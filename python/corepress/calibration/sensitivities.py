"""How much errors of each weight cost at the outputs: samples that are run, and gone back from random probes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..arrays import as_threads
from ..engine.calibrated import feedback_data
from ..mapped_files import release_array
from .block_sums import LARGE, within
from .known_weight import Moments
from .model_runs import ModelRuns
from .package_weights import PackageWeight
from .probes import Outputs, Probing
from .progress import Work
from .references import references_of
from .rows import JUDGED_ROWS, RowSquares, has_part
from .samples import DividedSamples
from .settings import Settings
from .statistics import Sensitivity
from .unfinished import Checkpoints, Unfinished

GRADIENTS, GRADIENTS_OF_LARGE = 48, 16
_OF_ROWS = 1 << 20  # marks the random numbers by which rows are chosen
STEPS_TOGETHER = 16  # of a sequence, through which gradients go back


class Sensitivities:
    """The samples that sensitivities are measured on, and the weights that are parameters of the model.

    Parameters
    ----------
    model : ModelRuns
        The model.
    samples : DividedSamples
        The samples.
    settings : Settings
        How it is done.
    weights : sequence of PackageWeight
        The weights; those that are stored compressed, or are no parameters, are left out.
    work : Work
        Counts what is done.
    unfinished : Unfinished
        What an interrupted calibration left, and where this one keeps what is finished.
    """

    def __init__(
        self,
        model: ModelRuns,
        samples: DividedSamples,
        settings: Settings,
        weights: Sequence[PackageWeight],
        work: Work,
        unfinished: Unfinished,
    ) -> None:
        self._model, self._samples, self._settings = model, samples, settings
        self._work, self._unfinished = work, unfinished
        self._threads = as_threads("calibrate", settings.num_threads)
        self._row_squares: dict[str, NDArray[np.float64]] = {}  # of gradients, in large models
        self._outputs = Outputs(model.backend, model.description)
        self._judged = [each for each in weights if each.parameter is not None and not each.weight.is_compressed]
        count = sum(each.count for each in self._judged)
        self._takes_rows = bool(settings.candidates) and count > LARGE
        is_wanted = bool(settings.candidates) or settings.importance
        self._groups = within(self._judged, settings.memory_limit, self._reference_bytes) if is_wanted else []
        self._runs, self._probes = self._plan_probes(count)

    @property
    def passes(self) -> int:
        """How often a sample is run, or gone back from."""
        each = self._runs * (1 + 2 * self._probes)
        return len(self._groups) * each + bool(self._groups) * self._runs * (3 if self._takes_rows else 1)

    def measure(
        self, moments: Moments
    ) -> tuple[dict[str, dict[str, Sensitivity]], dict[str, NDArray[np.float32]]] | None:
        """The sensitivities of each weight, and its Fisher diagonal; None if there is no output to judge by."""
        if self._takes_rows:
            self._choose_rows("rows")
        elif self._groups:
            self._measure_outputs("outputs")
        sensitivities: dict[str, dict[str, Sensitivity]] = {}
        fishers: dict[str, NDArray[np.float32]] = {}
        for number, group in enumerate(self._groups):
            found = self._probe(f"probes-{number:04}", group, moments)
            if found is None:
                return None
            sensitivities |= found[0]
            fishers |= found[1]
        return sensitivities, fishers

    def _plan_probes(self, count: int) -> tuple[int, int]:
        """How many of the samples are probed, and how often each."""
        available = self._samples.kept_count or self._samples.count
        if self._settings.probes is not None:
            return available, self._settings.probes
        wanted = GRADIENTS if count <= LARGE else GRADIENTS_OF_LARGE
        return min(available, wanted), max(1, -(-wanted // available))

    def _reference_bytes(self, known: PackageWeight) -> int:
        bits = sum(min((getattr(step, "nbits", 8) or 8) for step in steps) for steps in self._settings.candidates)
        of_candidates = known.count * bits
        if self._takes_rows and has_part(known.view):
            assert known.view is not None  # and what they are compared with, which is a copy
            of_candidates = known.count * JUDGED_ROWS // known.view.shape[known.view.row_axes[0]] * (bits + 16)
        return (of_candidates + known.count * (32 if self._settings.importance else 0)) // 8

    def _measure_outputs(self, name: str) -> None:
        """Find the power of each output in the runs that are probed."""
        kept = self._unfinished.read(name)
        if kept is None:
            self._work.begin("outputs")
            for steps in self._samples.judging(self._runs):
                with torch.no_grad():
                    for index, outputs in enumerate(self._model.forward(steps, self._outputs.observe)):
                        self._outputs.add_power(outputs, begins=index % STEPS_TOGETHER == 0)
                self._work.add(1)
            self._unfinished.write(name, {}, self._outputs.mean_powers())
            kept = self._unfinished.read(name)
            assert kept is not None
        else:
            self._work.add(self._runs, skipped=True)
        self._outputs.powers = kept[1]

    def _probe(
        self,
        name: str,
        group: Sequence[PackageWeight],
        moments: Moments,
    ) -> tuple[dict[str, dict[str, Sensitivity]], dict[str, NDArray[np.float32]]] | None:
        """The sensitivities of some weights, and their Fisher diagonals; None if there is no output to judge by."""
        kept = self._unfinished.read(name)
        if kept is None:
            probing = self._probing(group, moments)
            if not self._backpropagate(name, probing):
                return None
            document = {"squares": probing.squares, "variances": probing.variances()}
            self._unfinished.write(name, probing.fishers(), document)
            self._unfinished.forget(f"{name}-begun")
            kept = self._unfinished.read(name)
            assert kept is not None
        else:
            self._work.add(self._runs * (1 + 2 * self._probes), skipped=True)
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

    def _probing(self, group: Sequence[PackageWeight], moments: Moments) -> Probing:
        probing = Probing(self._settings.importance, self._threads)
        parameters = dict(self._model.module.named_parameters())
        for number, each in enumerate(group, 1):
            assert each.parameter is not None
            self._work.begin(f"candidates ({number} of {len(group)})")
            stored = parameters[each.parameter].detach().cpu().numpy()
            hessian, _ = moments.get(each.name, (None, 0))
            data = feedback_data(hessian, each.view)
            references = references_of(
                each.weight, stored, self._settings.candidates, data, self._threads, self._row_squares.get(each.name)
            )
            probing.add(each.name, each.parameter, stored.shape, references)
            if hessian is not None:
                release_array(hessian)
        return probing

    def _backpropagate(self, name: str, probing: Probing) -> bool:
        """Probe the outputs for all samples that judge; False if no output can be probed."""
        self._work.begin("sensitivities")
        checkpoint, done = f"{name}-begun", 0
        begun = self._unfinished.read(checkpoint) if self._unfinished.folder is not None else None
        if begun is not None:
            done = begun[1]["done"]
            probing.restore(begun[1]["squares"], begun[0])
            self._work.add(done * (1 + 2 * self._probes), skipped=True)
        due = Checkpoints(self._unfinished)
        for number, steps in enumerate(self._samples.judging(self._runs)):
            if number < done:
                continue
            state = self._model.backend.make_state()
            for start in range(0, len(steps), STEPS_TOGETHER):
                _detach(state)
                seed = (self._settings.seed, number, start)
                if not self._probe_run(probing, steps[start : start + STEPS_TOGETHER], state, seed):
                    return False
            done = number + 1
            self._work.add(1 + 2 * self._probes)
            with due.now() as is_due:
                if is_due and done < self._runs:
                    document = {"done": done, "squares": probing.squares}
                    self._unfinished.write(checkpoint, probing.state(), document)
        return True

    def _probe_run(self, probing: Probing, steps: Sequence[Any], state: Any, seed: tuple[int, ...]) -> bool:
        with probing.watching(self._model.module):
            return self._go_back(steps, state, seed, self._probes, probing.end_of_gradient)

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
            outputs = self._model.step(step, self._outputs.observe, state)
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

    def _choose_rows(self, name: str) -> None:
        """Choose the rows by which candidates are judged, by one probe of the beginning of each run.

        The power of each output is found by the way.
        """
        wanted = {each.parameter: each for each in self._judged if each.parameter is not None and has_part(each.view)}
        kept = self._unfinished.read(name)
        if kept is None:
            self._work.begin("rows")
            axes = {key: each.view.row_axes[0] for key, each in wanted.items() if each.view is not None}
            squares = RowSquares(axes)
            for number, steps in enumerate(self._samples.judging(self._runs)):
                with squares.watching(self._model.module):
                    seed = (self._settings.seed, number, 0, _OF_ROWS)
                    some, state = steps[:STEPS_TOGETHER], self._model.backend.make_state()
                    self._go_back(some, state, seed, 1, lambda: None, finds_power=True)
                self._work.add(3)
            self._unfinished.write(name, dict(squares.sums), self._outputs.mean_powers())
            kept = self._unfinished.read(name)
            assert kept is not None
        else:
            self._work.add(3 * self._runs, skipped=True)
        self._outputs.powers = kept[1]
        for parameter, each in wanted.items():
            assert each.view is not None
            length = each.view.shape[each.view.row_axes[0]]
            self._row_squares[each.name] = np.asarray(kept[0].get(parameter, np.zeros(length)))


def _detach(state: Any) -> None:
    if state is not None:
        for cell in state.cells.values():
            cell.value = cell.value.detach()


def _seed(*numbers: int) -> int:
    """A seed of several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
