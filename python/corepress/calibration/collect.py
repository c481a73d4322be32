"""`calibrate`: run a model on samples and find out what each of its weights sees."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from ..arrays import as_threads
from ..config import DEFAULT_WEIGHT_THRESHOLD
from ..config.candidates import DEFAULT_CANDIDATES, Steps, candidate_key, parse_candidates
from ..coreai.format.asset import is_asset
from ..coreml.format.package import Package
from ..coreml.program.program import Program
from ..extras import require
from ..outputs import output_obstacle
from ..paths import user_path
from ..runtime.opening import open_model
from ..sources import unchanged
from ..system import current
from .progress import ProgressCallback, Work
from .statistics import Statistics

DEFAULT_MEMORY = 5 << 29
_PART_OF_MEMORY = 4
_MOST_SECONDS = 600.0  # for sensitivities of assets, unless candidates were asked for


@unchanged("src")
def calibrate(
    src: str | os.PathLike[str],
    samples: Any,
    output: str | os.PathLike[str] | None = None,
    *,
    function_name: str | None = None,
    candidates: Any = DEFAULT_CANDIDATES,
    probes: int | None = None,
    importance: bool = False,
    weight_threshold: int = DEFAULT_WEIGHT_THRESHOLD,
    block_columns: int | None = None,
    memory_limit: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    num_threads: int | None = None,
    progress: ProgressCallback | None = None,
    overwrite: bool = False,
    resume: bool = True,
) -> Statistics:
    """Run a model on samples, without labels, and find out what each of its weights sees.

    Every fourth sample is kept for choices. With the others the model is run once, in float32, to sum up the second
    moments ``E[x x^T]`` of what each weight is multiplied with. Then the candidates are made, with error feedback from
    these moments, and the model is run on the samples that were kept, and back from random probes of its outputs, to
    measure how much each candidate of each weight changes the outputs.

    Parameters
    ----------
    src : path-like
        An ``.mlpackage`` with an ML program, or an ``.aimodel``; it is not changed. Of assets second moments are found
        in the types that they compute in, and the ranges of what weights are multiplied with. Core AI, which runs them,
        has no gradients: an asset is run with one candidate in place of each weight, on at most 8 samples, and other
        candidates are judged in proportion to the errors at the layer's own outputs.
    samples : path-like, dict, or iterable of dict or of list of dict
        An ``.npz`` file, a folder of these or of images, or dicts by the names of inputs; see
        `corepress.runtime.Samples`. A list of dicts inside an iterable is one sequence whose runs share a state;
        gradients go back through 16 of its runs. Samples are read several times, so that an iterator is held in memory.
    output : path-like, optional
        A file to write the statistics to. What is done so far is then in a folder next to it, named after it with
        ``.unfinished``, and an interrupted calibration continues when it is called again.
    function_name : str, optional
        The function to run, for a model with several; None for its default. `Statistics.merge` joins those of several.
    candidates : str or sequence, optional
        The candidates to measure: the name of a set ("default", "ane", "gpu", "groups", "sparse"), or a list of steps
        or of bits of palettes, such as ``[2, 3, 4]``; palettes of 2, 3, 4, 6 and 8 bits by default. None measures none.
        Those of an asset are left out by default, with a note, if they would take more than ten minutes.
    probes : int, optional
        Random probes of the outputs for each sample that is kept. None for as many as make 48 gradients in all, 16 in
        models of more than 50 million weights; of more kept samples than that, as many are probed once.
    importance : bool
        Also sum up the squares of the gradients, ``E[g^2]``, for weighted k-means: as large as the weights in float32.
    weight_threshold : int
        Weights of this many elements or fewer are left out, as `compress` leaves them unchanged.
    block_columns : int, optional
        Largest block of second moments, in columns; correlations between blocks are not known to error feedback. None
        for 2048, and 1152 in models of more than 50 million weights.
    memory_limit : int, optional
        Bytes for second moments, and for candidates, in addition to the model and a run; more takes fewer passes
        over the samples. None for a quarter of the machine's memory, at most 2.5 GiB.
    seed : int
        For the probes.
    device : str
        A device of PyTorch.
    num_threads : int, optional
        Threads to use; None for all CPUs this process may use, or `COREPRESS_NUM_THREADS`.
    progress : callable, optional
        Called with a `CalibrationProgress` after each sample.
    overwrite : bool
        Replace `output` if it exists.
    resume : bool
        Continue an interrupted calibration of the same model with the same samples and options.

    Returns
    -------
    Statistics
        By weight; `Statistics.save` keeps them in a file. `compress` takes them as ``calibration=``.

    Raises
    ------
    ValueError
        If the samples do not fit the model, or an option has no such value.
    FileExistsError
        If `output` exists.
    UnsupportedOperationError
        If the model has an operation that cannot be run here.
    MissingExtraError
        If PyTorch is not installed.
    FormatError
        If the package is damaged.

    Notes
    -----
    The sums depend on the floating-point arithmetic of what runs the model, which `Statistics.library` names; what is
    compressed with saved statistics is the same everywhere.

    The second moments of a convolution are those of its windows, with padding, strides and dilation; of a convolution
    with groups, of each group. From one run of an operation at most 1024 vectors are taken, or as many as make 8 for
    each column of a block in all; they are spread evenly by a fixed rule. Weights that are looked up (embeddings), or
    used in a way that is no product with an activation, have sensitivities but no second moments.

    In models of more than 50 million weights, candidates with one palette, or with a scale for each row, are judged by
    128 rows of each weight that has twice as many: rows do not depend on each other when a weight is compressed. Rows
    with larger gradients, which one more backward pass for each kept sample finds, and with larger errors without
    second moments are taken with higher probability, and count less in return. The standard errors contain what this
    choice adds.
    """
    asset = is_asset(src)
    require("calibrate", "coreai" if asset else "torch")
    probes = _positive("probes", probes)
    block_columns = _positive("block_columns", block_columns)
    memory_limit = _positive("memory_limit", memory_limit) or _default_memory()
    if weight_threshold < 0:
        raise ValueError(f"calibrate: weight_threshold is {weight_threshold}, but must not be negative")
    threads = as_threads("calibrate", num_threads)
    chosen = () if candidates is None else tuple(filter(None, parse_candidates(candidates)))
    destination = None if output is None else _checked_output(user_path(output), user_path(src), overwrite)
    if asset:
        if probes is not None or importance:
            raise ValueError("calibrate: probes and importance need gradients, which Core AI has not; leave them out")
        options = (weight_threshold, block_columns, memory_limit)
        measured = chosen, _MOST_SECONDS if candidates == DEFAULT_CANDIDATES else None, threads
        return _calibrate_asset(src, samples, destination, function_name, device, options, measured, progress, resume)

    from ..runtime.torch.backend import function_of, load_program, require_device
    from .run import Calibration
    from .samples import DividedSamples
    from .settings import Settings
    from .threads import torch_threads
    from .unfinished import Unfinished

    require_device(device)
    program = _program(src)
    with open_model(src) as opened:
        named = opened.root.function(function_name)
        description = opened.root.describe(named)
    names = sorted(program.model.mlProgram.functions)
    name = named or ("main" if "main" in names or not names else names[0])
    work = Work(progress)
    work.begin("loading")
    backend = load_program(program.package, program.model, name, "float32", device, description, program)
    function = function_of(program, name)
    assert function is not None
    divided = DividedSamples(samples, description)
    settings = Settings(
        candidates=chosen,
        probes=probes,
        importance=importance,
        block_columns=block_columns,
        memory_limit=memory_limit,
        weight_threshold=weight_threshold,
        seed=seed,
        num_threads=num_threads,
    )
    with torch_threads(num_threads):
        calibration = Calibration(program, function, backend, description, divided, settings, work)
        identity = {
            "weights": calibration.digests,
            "samples": divided.digest,
            "function": name,
            "device": device,
            "candidates": list(map(candidate_key, chosen)),
            "settings": [probes, importance, block_columns, memory_limit, weight_threshold, seed],
        }
        fingerprint = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        unfinished = Unfinished(destination, fingerprint, resume=resume)
        return _kept_in(destination, unfinished, calibration)


def _calibrate_asset(
    src: str | os.PathLike[str],
    samples: Any,
    destination: Path | None,
    function_name: str | None,
    device: str,
    options: tuple[int, int | None, int],
    measured: tuple[tuple[Steps, ...], float | None, int],
    progress: ProgressCallback | None,
    resume: bool,
) -> Statistics:
    from ..coreai.program.program import Program as AssetProgram
    from ..runtime.coreai_asset import CoreAIAsset
    from ..runtime.coreai_backend import CoreAIBackend
    from .asset_run import AssetCalibration
    from .samples import DividedSamples
    from .unfinished import Unfinished

    if device != "cpu":
        raise ValueError(f"calibrate: device is {device!r}, but Core AI's assets are run on the CPU here; use 'cpu'")
    work = Work(progress)
    work.begin("loading")
    asset = CoreAIAsset(src, "calibrate")
    backend = CoreAIBackend(asset, asset.function(function_name))
    divided = DividedSamples(samples, backend.description)
    threshold, columns, memory = options
    candidates, most_seconds, threads = measured
    calibration = AssetCalibration(
        AssetProgram(src),
        backend,
        divided,
        block_columns_limit=columns,
        memory_limit=memory,
        weight_threshold=threshold,
        candidates=candidates,
        most_seconds=most_seconds,
        num_threads=threads,
        work=work,
    )
    identity = [
        *(calibration.digests, divided.digest, backend.function_name, *options),
        *map(candidate_key, candidates),
        most_seconds,
    ]
    fingerprint = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return _kept_in(destination, Unfinished(destination, fingerprint, resume=resume), calibration)


def _kept_in(destination: Path | None, unfinished: Any, calibration: Any) -> Statistics:
    """Run a calibration, and keep its statistics where they are wanted."""
    statistics: Statistics = calibration.run(unfinished)
    if destination is None:
        return statistics
    statistics.save(destination)
    statistics = Statistics.load(destination)
    unfinished.remove()
    return statistics


def _program(src: str | os.PathLike[str]) -> Program:
    program = Program(Package.open(src))
    if program.parts[0].prefix:
        raise ValueError(
            f"calibrate: {os.fspath(src)} is a pipeline, whose models are calibrated one by one; save each as a package"
        )
    return program


def _checked_output(path: Path, source: Path, overwrite: bool) -> Path:
    obstacle = output_obstacle(path, [source], None)
    if obstacle is not None:
        raise ValueError(f"calibrate: output {path} {obstacle}; name another file")
    if path.exists() and not overwrite:
        raise FileExistsError(f"calibrate: {path} exists; pass overwrite=True to replace it")
    return path


def _positive(name: str, value: int | None) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"calibrate: {name} is {value!r}, but must be a whole number from 1 on")
    return value


def _default_memory() -> int:
    return min(DEFAULT_MEMORY, (current.memory_bytes() or 4 * DEFAULT_MEMORY) // _PART_OF_MEMORY)
