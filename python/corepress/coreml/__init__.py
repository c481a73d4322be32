"""Compressing Core ML packages: paths in, paths out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import FormatError
from .comparison import ComparedOutput, ComparedValue, ComparedWeight, Comparison
from .compressor import compress
from .decompressor import decompress
from .inspector import Inspection, StoredWeight, inspect
from .plan import Plan, PlannedWeight, plan
from .reports.report import Progress, Report, WeightRecord
from .reports.targets import TargetWarning
from .verify import Verification, VerifiedWeight, verify

if TYPE_CHECKING:
    from ..runtime.compare import compare

__all__ = [
    "ComparedOutput",
    "ComparedValue",
    "ComparedWeight",
    "Comparison",
    "FormatError",
    "Inspection",
    "Plan",
    "PlannedWeight",
    "Progress",
    "Report",
    "StoredWeight",
    "TargetWarning",
    "Verification",
    "VerifiedWeight",
    "WeightRecord",
    "compare",
    "compress",
    "decompress",
    "inspect",
    "plan",
    "verify",
]


def __getattr__(name: str) -> Any:
    """What needs the runtime is imported when it is used."""
    if name != "compare":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ..runtime.compare import compare

    globals()[name] = compare
    return compare


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
