"""Compressing Core ML packages: paths in, paths out."""

from ..errors import FormatError
from .compressor import compress
from .decompressor import decompress
from .inspector import Inspection, StoredWeight, inspect
from .report import Progress, Report, WeightRecord

__all__ = [
    "FormatError",
    "Inspection",
    "Progress",
    "Report",
    "StoredWeight",
    "WeightRecord",
    "compress",
    "decompress",
    "inspect",
]
