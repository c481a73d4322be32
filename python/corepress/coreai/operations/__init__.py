"""The operations of Core AI that store weights: how each compressed tensor is a chain of them, and back.

`check` and `check_steps` refuse what has no form, `lower` turns a compressed tensor into a chain, `lift` does the
reverse, `evaluate` computes what any chain yields, in the arithmetic of Core AI's run-time. All are pure functions;
nothing here imports Core AI.
"""

from __future__ import annotations

from .checks import check, check_steps
from .evaluate import evaluate
from .form import Constant, Form, Node, UnsupportedForm
from .lifting import describe, lift
from .lowering import COMPRESSING, lower, rounded

__all__ = [
    "COMPRESSING",
    "Constant",
    "Form",
    "Node",
    "UnsupportedForm",
    "check",
    "check_steps",
    "describe",
    "evaluate",
    "lift",
    "lower",
    "rounded",
]
