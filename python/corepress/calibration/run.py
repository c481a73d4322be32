"""One calibration: the model run on samples, forward for second moments, then backward for sensitivities."""

from __future__ import annotations

import platform

import torch

from ..coreml.program.graph import Function
from ..coreml.program.program import Program
from ..runtime.features import Description
from ..runtime.torch.backend import TorchBackend
from ..runtime.torch.constants import Constants
from .activation_observer import RangeObserver
from .block_sums import within
from .known_weight import Moments
from .model_runs import ModelRuns
from .observers import Options
from .package_weights import package_weights
from .progress import Work
from .samples import DividedSamples
from .second_moments import SecondMoments
from .sensitivities import Sensitivities
from .settings import Settings
from .statistics import Statistics
from .unfinished import Unfinished


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
        self._function, self._model = function, ModelRuns(backend, description)
        self._samples, self._settings, self._work = samples, settings, work
        constants = Constants(program.package, program)
        self._options = Options(constants)
        self._weights = package_weights(
            program,
            function,
            backend,
            self._options,
            weight_threshold=settings.weight_threshold,
            block_columns=settings.block_columns,
        )
        constants.close()

    @property
    def digests(self) -> dict[str, str]:
        """The digest of each weight, by name."""
        return {each.name: each.digest for each in self._weights}

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
        second_moments = SecondMoments(self._model, self._samples, self._options, self._work, unfinished)
        sensitivities = Sensitivities(self._model, self._samples, self._settings, self._weights, self._work, unfinished)
        self._work.total = max(1, len(groups)) * self._samples.fitted_count + sensitivities.passes
        moments: Moments = {}
        ranges = RangeObserver(self._function)
        for number, group in enumerate(groups or [[]]):
            moments |= second_moments.of(f"moments-{number:04}", group, None if number else ranges)
        found = sensitivities.measure(moments)
        if found is None:
            notes.append("no output is a floating-point number, so that sensitivities could not be measured")
        measured, fishers = found or ({}, {})
        return Statistics(
            weights={
                each.name: each.statistics(moments, measured.get(each.name), fishers.get(each.name))
                for each in self._weights
            },
            function_name=self._function.name,
            library=f"torch {torch.__version__} on {self._model.module.device.type} ({platform.machine()})",
            sample_count=self._samples.count,
            kept=self._samples.kept,
            ranges={name: each.to_arrays() for name, each in ranges.ranges.items()},
            notes=tuple(notes),
        )
