"""Compressing Core ML packages: paths in, paths out."""

from ..errors import FormatError
from .compare import ComparedWeight, Comparison, compare
from .compressor import compress
from .decompressor import decompress
from .inspector import Inspection, StoredWeight, inspect
from .plan import Plan, PlannedWeight, plan
from .predictions import ComparedOutput
from .reports.report import Progress, Report, WeightRecord
from .reports.targets import TargetWarning
from .verify import Verification, VerifiedWeight, verify

__all__ = [
    "ComparedOutput",
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
