"""Which mode and range suit a model: each is tried on samples."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..coreml.format.package import Package
from ..coreml.program.program import Program
from ..runtime.opening import open_model
from ..runtime.samples import Sample, steps_of
from .activation_config import AUTO, FITS, MODES, ActivationConfig, ActivationQuantizer
from .activation_pairs import ActivationQuantization
from .activation_ranges import ActivationRange
from .samples import is_kept

MOST_JUDGED = 32  # of the samples that are kept


def divided(samples: Iterable[Any]) -> tuple[list[Any], list[Any]]:
    """Samples for ranges, and those that are kept for the choice; both are all of them where there are too few."""
    given = list(samples)
    kept = [sample for index, sample in enumerate(given) if is_kept(index)]
    if not kept:
        return given, given
    return [sample for index, sample in enumerate(given) if not is_kept(index)], kept


def best_config(
    src: str | os.PathLike[str],
    function_name: str,
    ranges: Mapping[str, ActivationRange],
    config: ActivationConfig,
    mode: str,
    fit: str,
    samples: Sequence[Any],
    num_threads: int | None = None,
) -> tuple[ActivationConfig, str]:
    """The config with the mode and range whose outputs are closest to those of the model, weights unchanged.

    Parameters
    ----------
    src : path-like
        The package.
    function_name : str
        Its function.
    ranges : dict of str to ActivationRange
        By the name of the value.
    config : ActivationConfig
        What is quantized.
    mode, fit : str
        "auto", or the only one to try.
    samples : sequence of dict or of list of dict
        What to try them on; at most 32, evenly spread.
    num_threads : int, optional
        Threads to use.

    Returns
    -------
    config : ActivationConfig
        With the best quantizer, for all operations that no rule of the config names.
    note : str
        What was found.
    """
    from .threads import torch_threads

    chosen = spread(samples, MOST_JUDGED)
    with torch_threads(num_threads):
        expected = list(outputs_of(src, function_name, chosen, None))
        found: list[tuple[float, ActivationQuantizer]] = []
        modes, fits = (MODES if mode == AUTO else (mode,)), (FITS if fit == AUTO else (fit,))
        for each_mode, each_fit in itertools.product(modes, fits):
            quantizer = ActivationQuantizer(each_mode, each_fit, (config.quantizer or ActivationQuantizer()).dtype)
            error = error_with(src, function_name, ranges, replace(config, quantizer=quantizer), chosen, expected)
            found.append((error, quantizer))
    error, best = min(found, key=lambda pair: pair[0])
    told = ", ".join(f"{each.mode} {each.range} {decibels(value):.1f} dB" for value, each in found)
    note = f"mode {best.mode} with range {best.range} is best on {len(chosen)} samples, weights unchanged: {told}"
    return replace(config, quantizer=best), note


def spread(samples: Sequence[Any], most: int) -> list[Any]:
    """At most this many samples, evenly spread."""
    count = len(samples)
    return [samples[number * count // min(count, most)] for number in range(min(count, most))]


def error_with(
    src: str | os.PathLike[str],
    function_name: str,
    ranges: Mapping[str, ActivationRange],
    config: ActivationConfig,
    samples: Sequence[Any],
    expected: Sequence[Mapping[str, Any]],
) -> float:
    """What the outputs lose with a config, weights unchanged; `expected` is what they are without."""
    program = Program(Package.open(src))
    ActivationQuantization(function_name, ranges, config, required=False).edit(program)
    return error_of(expected, outputs_of(src, function_name, samples, program.model))


def outputs_of(
    src: str | os.PathLike[str], function_name: str, samples: Sequence[Any], model: Any
) -> Iterable[dict[str, Any]]:
    """What a function computes for each run, with another model in place of the package's."""
    from ..runtime.torch.backend import load_program

    package = Package.open(src)
    with open_model(src) as opened:
        description = opened.root.describe(function_name)
    backend = load_program(package, Program(package).model if model is None else model, function_name)
    for sample in samples:
        state = backend.make_state()
        for inputs in steps_of(sample):
            yield backend.predict(description.arguments("quantize_activations", _known(inputs, description)), state)


def _known(inputs: Sample, description: Any) -> Sample:
    names = {each.name for each in description.inputs}
    return {name: value for name, value in inputs.items() if name in names}


def error_of(expected: Sequence[Mapping[str, Any]], outputs: Iterable[Mapping[str, Any]]) -> float:
    """The power of the differences over that of the outputs, added up over all outputs."""
    noise: dict[str, float] = {}
    power: dict[str, float] = {}
    for run, other in zip(expected, outputs, strict=True):
        for name, value in run.items():
            array = np.asarray(value)
            if array.dtype.kind != "f":
                continue
            difference = np.asarray(other[name], np.float64) - array
            noise[name] = noise.get(name, 0.0) + float((difference**2).sum())
            power[name] = power.get(name, 0.0) + float((array.astype(np.float64) ** 2).sum())
    total = sum(noise[name] / power[name] for name in noise if power[name] > 0)
    return total if math.isfinite(total) else math.inf


def decibels(error: float) -> float:
    return math.inf if error == 0 else -10 * math.log10(error)
