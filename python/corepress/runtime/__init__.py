"""Run Core ML and Core AI models on any machine: ``runtime.load(path).predict(inputs)``.

ML programs and neural networks are run by PyTorch, or by Core ML itself on macOS; Core AI's assets by its own run-time.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..errors import UnsupportedOperationError
    from .backend import State
    from .features import Feature
    from .metrics import Metric, evaluate
    from .model import Model, load
    from .samples import Samples

__all__ = ["Feature", "Metric", "Model", "Samples", "State", "UnsupportedOperationError", "evaluate", "load"]

# Imported when they are used: models are described without NumPy's or torch's start-up.
_MODULE_OF = {
    "Feature": ".features",
    "Metric": ".metrics",
    "Model": ".model",
    "Samples": ".samples",
    "State": ".backend",
    "UnsupportedOperationError": "..errors",
    "evaluate": ".metrics",
    "load": ".model",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULE_OF[name], __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
