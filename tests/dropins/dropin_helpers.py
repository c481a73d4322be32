"""Models of coremltools, and what stands in them."""

from __future__ import annotations

import numpy as np
from coreml_helpers import materialized, quiet

import corepress

TOLERANCE = 5e-4
TARGETS = ("iOS16", "iOS17", "iOS18", "iOS26")


def normal(*shape: int, seed: int = 0, scale: float = 0.05) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=scale, size=shape).astype(np.float32)


def operations(model) -> list[tuple[str, str]]:
    """Type and name of all operations but plain constants."""
    with quiet():
        program = model._mil_program
    return [(each.op_type, each.name) for each in program.functions["main"].operations if each.op_type != "const"]


def weights(model, function: str = "main") -> dict[tuple[str, str], np.ndarray]:
    """Constant operands by operation and operand, decompressed by coremltools."""
    with quiet():
        pending, found = [model._mil_program.functions[function]], {}
        while pending:
            for operation in pending.pop().operations:
                pending.extend(operation.blocks)
                if operation.op_type != "const" and not operation.op_type.startswith("constexpr_"):
                    for operand, var in operation.inputs.items():
                        value = _value(var)
                        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
                            found[operation.name, operand] = value
    return found


def _value(var):
    operation = getattr(var, "op", None)
    if operation is None or operation.op_type == "const":
        return None if operation is None else var.val
    return materialized(operation) if operation.op_type.startswith("constexpr_") else None


def squared_error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(((found.astype(np.float64) - expected.astype(np.float64)) ** 2).sum())


def both_ways(call):
    """What coremltools makes of a call, and what the kernels make of it."""
    with quiet(), np.errstate(all="ignore"):
        theirs = call()
        with corepress.accelerate():
            ours = call()
    return theirs, ours
