"""What the demo does to its model, and what it measures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..specs import Palettize, Prune, Quantize, Spec

if TYPE_CHECKING:
    from ..coreml import Report


@dataclass(frozen=True)
class Variant:
    """One way to compress the model: its file name, its label, and the family that the plot joins by a line."""

    slug: str
    label: str
    family: str
    spec: Spec


VARIANTS = (
    Variant("8bit", "8 bits", "palette", Palettize(nbits=8)),
    Variant("6bit", "6 bits", "palette", Palettize(nbits=6)),
    Variant("4bit", "4 bits", "palette", Palettize(nbits=4)),
    Variant("2bit", "2 bits", "palette", Palettize(nbits=2)),
    Variant(
        "4bit-groups",
        "4 bits, groups of 16",
        "grouped palette",
        Palettize(nbits=4, granularity="per_grouped_channel", group_size=16),
    ),
    Variant("int8", "int8 per channel", "integer", Quantize(dtype="int8")),
    Variant("sparse", "half pruned", "pruned", Prune(target_sparsity=0.5)),
)


@dataclass(frozen=True)
class Original:
    """The model before compression."""

    package: str
    bytes: int
    weights: int


@dataclass(frozen=True)
class Result:
    """The result of one variant.

    Attributes
    ----------
    bits_per_weight : float
        Stored bits per weight of all weights of the model, including those left in float16.
    snr_db : float
        Energy of the compressed weights divided by the energy of their error, over the whole model.
    worst_snr_db, worst_weight : float, str
        The compressed weight that lost most.
    seconds : float
        Time of the call that read the package, compressed it and wrote the new one.
    """

    package: str
    label: str
    family: str
    bytes: int
    ratio: float
    bits_per_weight: float
    snr_db: float
    worst_snr_db: float
    worst_weight: str
    seconds: float
    weights_per_second: float
    weights_kept: int


def measure(variant: Variant, package: str, report: Report, energies: dict[str, float]) -> Result:
    """Summarize a report.

    `energies` has the energy of every original weight, so that the SNR of each weight gives back its squared error
    and these add up to the SNR of the model.
    """
    compressed = [(record.name, record.snr_db) for record in report.weights if record.snr_db is not None]
    signal = math.fsum(energies[name] for name, _ in compressed)
    noise = math.fsum(energies[name] * 10 ** (-snr / 10) for name, snr in compressed)
    worst_weight, worst_snr = min(compressed, key=lambda item: item[1])
    return Result(
        package=package,
        label=variant.label,
        family=variant.family,
        bytes=report.bytes_after,
        ratio=report.bytes_before / report.bytes_after,
        bits_per_weight=report.bits_per_weight,
        snr_db=10 * math.log10(signal / noise),
        worst_snr_db=worst_snr,
        worst_weight=worst_weight,
        seconds=report.seconds,
        weights_per_second=report.weights_per_second,
        weights_kept=sum(record.status == "kept" for record in report.weights),
    )
