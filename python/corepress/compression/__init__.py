"""The verbs on arrays: a spec and an array in, a compressed tensor out."""

from .apply import apply, apply_measured, apply_steps
from .error_feedback import output_error
from .matrix_view import MatrixView
from .metrics import Error, error
from .palettization import palettize
from .pruning import prune
from .quantization import quantize
from .weight_data import WeightData

__all__ = [
    "Error",
    "MatrixView",
    "WeightData",
    "apply",
    "apply_measured",
    "apply_steps",
    "error",
    "output_error",
    "palettize",
    "prune",
    "quantize",
]
