"""The demo's second part: a trained network, compressed with and without samples, run, and judged by what it reads."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..runtime.metrics import Comparing, Metric
from ..specs import Palettize, in_bits
from . import score
from .digits import Digits, build_digits, load_digits

if TYPE_CHECKING:
    from ..calibration.statistics import Statistics
    from ..coreml import Report

ORIGINAL, IMAGES, SCORE, STATISTICS = "Digits.mlpackage", "digits.npz", "score.py", "digits.calibration"
CANDIDATES = (1, 2, 3, 4)
Outputs = list[dict[str, Any]]


@dataclass(frozen=True)
class Version:
    """One way to compress the network.

    Attributes
    ----------
    slug, label : str
        Its file name and its name for people.
    calibrated : bool
        Whether it sees samples.
    options : dict
        For `coreml.compress`.
    """

    slug: str
    label: str
    calibrated: bool
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def package(self) -> str:
        return f"Digits-{self.slug}.mlpackage"


def _uniform(nbits: int, *, calibrated: bool = False) -> Version:
    slug = f"{nbits}bit-samples" if calibrated else f"{nbits}bit"
    return Version(slug, in_bits(nbits), calibrated, {"config": Palettize(nbits=nbits)})


VERSIONS = (
    _uniform(8),
    _uniform(4),
    _uniform(2),
    _uniform(2, calibrated=True),
    Version("chosen-samples", "1 to 4 bits, chosen", True, {"target_bits": 1.25, "candidates": CANDIDATES}),
    _uniform(1),
    _uniform(1, calibrated=True),
)
OUTPUTS = (ORIGINAL, *(version.package for version in VERSIONS), IMAGES, SCORE, STATISTICS)


@dataclass(frozen=True)
class Reading:
    """What became of the network.

    Attributes
    ----------
    package, label : str
        Its file, and its name for people.
    calibrated : bool
        Whether samples were used to compress it.
    bytes, bits_per_weight : int, float
        Size of the package, and stored bits over all weights.
    snr_db : float or None
        Signal-to-noise ratio of its outputs on the test images; None for the original.
    accuracy : float
        Test images that it reads right, in per cent.
    seconds : float or None
        Time of compressing; None for the original.
    seconds_per_image : float
        Time of one run on this machine.
    """

    package: str
    label: str
    calibrated: bool
    bytes: int
    bits_per_weight: float
    snr_db: float | None
    accuracy: float
    seconds: float | None
    seconds_per_image: float


@dataclass(frozen=True)
class Readings:
    """All of them.

    Attributes
    ----------
    samples, test_images : int
        Number of images that calibration saw, and that were read.
    original : Reading
        The network as trained.
    versions : list of Reading
        Compressed.
    shown : list of int
        One test image of each digit, the first.
    answers : dict of str to list of int
        What each package takes these for.
    """

    samples: int
    test_images: int
    original: Reading
    versions: list[Reading]
    shown: list[int]
    answers: dict[str, list[int]]

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Readings:
        """The reverse of `to_dict`."""
        original, *versions = (Reading(**each) for each in (values["original"], *values["versions"]))
        return cls(**{**values, "original": original, "versions": versions})


def read_digits(directory: Path, say: Callable[[str], None], report_to: Callable[[str, Report], None]) -> Readings:
    """Write the network to `directory`, compress it in every way, and run all that came of it on the test images.

    Parameters
    ----------
    directory : pathlib.Path
        Folder to write to.
    say : callable
        Called with what is done next, in words.
    report_to : callable
        Called with the name and the report of each package.
    """
    from .. import coreml

    say("building a network that reads digits")
    digits = load_digits()
    build_digits(directory / ORIGINAL)
    np.savez_compressed(directory / IMAGES, image=digits.tests, digit=digits.labels)
    (directory / SCORE).write_bytes(Path(score.__file__).read_bytes())
    expected, seconds = _run(directory / ORIGINAL, digits)
    shown = [int(np.flatnonzero(digits.labels == digit)[0]) for digit in range(10)]
    answers = {ORIGINAL: _answers(expected, shown)}

    say(f"calibrating with {len(digits.samples)} images")
    statistics = coreml.calibrate(directory / ORIGINAL, _inputs(digits.samples), candidates=CANDIDATES)
    statistics.save(directory / STATISTICS)

    found = []
    for version in VERSIONS:
        say(f"reading digits: {version.label}, {'with' if version.calibrated else 'without'} samples")
        started = time.perf_counter()
        report = _compress(directory, version, statistics)
        compressing = time.perf_counter() - started
        report_to(version.package, report)
        outputs, per_image = _run(directory / version.package, digits)
        answers[version.package] = _answers(outputs, shown)
        found.append(
            Reading(
                package=version.package,
                label=version.label,
                calibrated=version.calibrated,
                bytes=report.bytes_after,
                bits_per_weight=report.bits_per_weight,
                snr_db=_snr_db(expected, outputs),
                accuracy=_accuracy(digits, outputs),
                seconds=compressing,
                seconds_per_image=per_image,
            )
        )
    original = Reading(
        package=ORIGINAL,
        label="float16",
        calibrated=False,
        bytes=report.bytes_before,
        bits_per_weight=16.0,
        snr_db=None,
        accuracy=_accuracy(digits, expected),
        seconds=None,
        seconds_per_image=seconds,
    )
    return Readings(len(digits.samples), len(digits.tests), original, found, shown, answers)


def _compress(directory: Path, version: Version, statistics: Statistics) -> Report:
    from .. import coreml

    calibration = statistics if version.calibrated else None
    options: dict[str, Any] = dict(version.options)
    return coreml.compress(directory / ORIGINAL, directory / version.package, calibration=calibration, **options)


def _inputs(images: Any) -> list[dict[str, Any]]:
    return [{"image": image[None]} for image in images]


def _run(package: Path, digits: Digits) -> tuple[Outputs, float]:
    """The outputs for all test images, and the time of one run."""
    from .. import runtime

    model, inputs = runtime.load(package), _inputs(digits.tests)
    model.predict(inputs[0])
    started = time.perf_counter()
    outputs = model.predict(inputs)
    return outputs, (time.perf_counter() - started) / len(inputs)


def _answers(outputs: Outputs, shown: list[int]) -> list[int]:
    return [int(outputs[index]["scores"].argmax()) for index in shown]


def _accuracy(digits: Digits, outputs: Outputs) -> float:
    return score.accuracy([{"digit": digit} for digit in digits.labels], outputs)


def _snr_db(expected: Outputs, outputs: Outputs) -> float:
    comparing = Comparing(Metric("snr"))
    for before, after in zip(expected, outputs, strict=True):
        comparing.add(before, after)
    return comparing.value
