"""Compressing Core AI assets, the ``.aimodel`` folders: paths in, paths out. Needs the extra for Core AI."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..engine.comparison import ComparedOutput, ComparedValue, ComparedWeight, Comparison
from ..engine.inspection import StoredWeight
from ..engine.planned import Plan, PlannedWeight
from ..engine.prediction import Expected, Prediction
from ..engine.report import Progress, Report, WeightRecord
from ..engine.targets import TargetWarning
from ..engine.verification import Verification, VerifiedWeight
from ..errors import FormatError
from .compressor import compress
from .decompressor import decompress
from .inspector import AssetInspection, inspect
from .plan import plan
from .verify import verify

if TYPE_CHECKING:
    from ..allocation.allocate import AllocatedWeight, Allocation, allocate
    from ..allocation.tradeoff import TradeoffProgress, tradeoff
    from ..allocation.tradeoff_table import Tradeoff, TradeoffRow
    from ..calibration.collect import calibrate
    from ..calibration.progress import CalibrationProgress
    from ..calibration.statistics import Statistics, WeightStatistics
    from ..runtime.compare import compare

__all__ = [
    "AllocatedWeight",
    "Allocation",
    "AssetInspection",
    "CalibrationProgress",
    "ComparedOutput",
    "ComparedValue",
    "ComparedWeight",
    "Comparison",
    "Expected",
    "FormatError",
    "Plan",
    "PlannedWeight",
    "Prediction",
    "Progress",
    "Report",
    "Statistics",
    "StoredWeight",
    "TargetWarning",
    "Tradeoff",
    "TradeoffProgress",
    "TradeoffRow",
    "Verification",
    "VerifiedWeight",
    "WeightRecord",
    "WeightStatistics",
    "allocate",
    "calibrate",
    "compare",
    "compress",
    "decompress",
    "inspect",
    "plan",
    "tradeoff",
    "verify",
]


# What runs models, or is above what does, is imported when it is used.
_MODULE_OF = {
    "AllocatedWeight": "..allocation.allocate",
    "Allocation": "..allocation.allocate",
    "CalibrationProgress": "..calibration.progress",
    "Statistics": "..calibration.statistics",
    "Tradeoff": "..allocation.tradeoff_table",
    "TradeoffProgress": "..allocation.tradeoff",
    "TradeoffRow": "..allocation.tradeoff_table",
    "WeightStatistics": "..calibration.statistics",
    "allocate": "..allocation.allocate",
    "calibrate": "..calibration.collect",
    "compare": "..runtime.compare",
    "tradeoff": "..allocation.tradeoff",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULE_OF[name], __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
