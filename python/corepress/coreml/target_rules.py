"""Encodings of Core ML known to fail or be slow, by target, with sources."""

from __future__ import annotations

from ..engine.targets import Encoding, Rule, TargetLint, TargetWarning
from .format.versions import IOS16, IOS17, IOS18, IOS26

_OVERVIEW = "coremltools guide, Optimization Overview"
_AVAILABILITY = "coremltools guide, What's New in optimization"
_QUANTIZATION = "coremltools guide, Quantization Performance"
_PALETTIZATION = "coremltools guide, Palettization Performance"
_FORGE = "Anemll/anemll-forge QUANTIZATION_NOTES, one laboratory's measurements on M6"
_EXPORTER = "coremltools' exporter, which moves such a scale before the look-up"
_PER_CHANNEL_SCALE = "https://github.com/apple/coremltools/pull/2688"

# The newest specification version that a system loads.
NEWEST_VERSION = {"ios16": IOS16, "ios17": IOS17, "ios18": IOS18, "ios26": IOS26}


def version_target(specification_version: int) -> str:
    """The target for problems of all packages of a version."""
    return f"specification version {specification_version}"


def _across_inputs(encoding: Encoding) -> bool:
    palette = encoding.palette
    grouped = encoding.grouped or encoding.cluster_dim > 1
    return palette is not None and grouped and not encoding.is_output_axis(palette.channel_axis)


def _table_values(encoding: Encoding) -> int:
    palette = encoding.palette
    return 0 if palette is None or palette.nbits is None else 2**palette.nbits * encoding.cluster_dim


RULES = (
    Rule(
        (version_target(9),),
        lambda encoding: encoding.palette is not None and encoding.palette.enable_per_channel_scale,
        "a per-channel scale is stored as a table per channel before specification version 10; "
        "granularity='per_grouped_channel' with group_size=1 takes the same number of bytes and loses less",
        _EXPORTER,
    ),
    Rule(
        ("ane", "ios26"),
        lambda encoding: encoding.palette is not None and encoding.palette.enable_per_channel_scale,
        "a per-channel scale around a table fails to load on the Neural Engine of macOS 26; "
        "use enable_per_channel_scale=False",
        _PER_CHANNEL_SCALE,
    ),
    Rule(
        ("ane",),
        lambda encoding: _table_values(encoding) > 256,
        "a table of more than 256 values (entries times cluster_dim) does not run on the Neural Engine; "
        "use fewer bits or a smaller cluster_dim",
        _FORGE,
    ),
    Rule(
        ("ane",),
        lambda encoding: encoding.cluster_dim > 1 and encoding.grouped,
        "several tables of vectors fall back to the CPU; use granularity='per_tensor'",
        _FORGE,
    ),
    Rule(
        ("ane",),
        _across_inputs,
        "groups and vectors along other axes than the output channels fall back to the CPU; leave channel_axis to "
        "the operation",
        _FORGE,
    ),
    Rule(
        ("ane",),
        lambda encoding: encoding.grouped and encoding.cluster_dim == 1,
        "several tables cost 20 to 47 % of the time that one table takes",
        _FORGE,
    ),
    Rule(
        ("ane",),
        lambda encoding: encoding.palette is not None and encoding.palette.nbits in (3, 6),
        "3 and 6 bits are read as 4 and 8: smaller, but no faster",
        _FORGE,
    ),
    Rule(
        ("ane",),
        lambda encoding: encoding.integers is not None and encoding.integers.granularity == "per_block",
        "scales per block suit the GPU; on the Neural Engine use granularity='per_channel'",
        _QUANTIZATION,
    ),
    Rule(
        ("gpu",),
        lambda encoding: encoding.palette is not None,
        "tables save memory on the GPU but speed up the Neural Engine; for speed on the GPU quantize to int4 with "
        "granularity='per_block'",
        _OVERVIEW,
    ),
    Rule(
        ("gpu",),
        lambda encoding: encoding.pruned,
        "sparse weights gain speed on the Neural Engine and the CPU, not on the GPU",
        _OVERVIEW,
    ),
    Rule(
        ("ios16",),
        lambda encoding: True,
        "weights are decompressed to float16 before the model runs: smaller files, but the same memory and speed",
        _AVAILABILITY,
    ),
)


class PackageLint(TargetLint):
    """Collects the known problems of the encodings of a run on a package, for one target or none."""

    def __init__(self, target: str | None) -> None:
        super().__init__(target, RULES)

    def check_version(self, specification_version: int) -> None:
        """Check the package."""
        self._names.add(version_target(specification_version))
        newest = NEWEST_VERSION.get(self._target or "", specification_version)
        if self._target and specification_version > newest:
            message = (
                f"the package has specification version {specification_version}, but {self._target} loads versions up "
                f"to {newest}; convert with an older minimum_deployment_target"
            )
            self._model.append(TargetWarning(self._target, message, "specification versions of Core ML"))
