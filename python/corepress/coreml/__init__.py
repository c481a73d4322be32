"""Compressing Core ML packages: paths in, paths out."""

from ..errors import FormatError
from .compressor import compress
from .decompressor import decompress
from .inspector import Inspection, StoredWeight, inspect
from .plan import Plan, PlannedWeight, plan
from .report import Progress, Report, WeightRecord
from .targets import TargetWarning

__all__ = [
    "FormatError",
    "Inspection",
    "Plan",
    "PlannedWeight",
    "Progress",
    "Report",
    "StoredWeight",
    "TargetWarning",
    "WeightRecord",
    "compress",
    "decompress",
    "inspect",
    "plan",
]
