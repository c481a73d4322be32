"""corepress in the place of coremltools' functions, each call compared with what coremltools makes of it."""

from __future__ import annotations

import functools
import traceback
from typing import Any

import numpy as np
from coreml_helpers import materialized

TOLERANCE = 5e-4  # how much larger a squared error may be, relative to coremltools'
FUNCTIONS = ("palettize_weights", "linear_quantize_weights", "prune_weights", "decompress_weights")

calls: list[dict[str, Any]] = []
current_test = ""
_inside = False  # a call of corepress or of coremltools for comparison, which may call others


def replace_functions() -> None:
    """Put the functions of `corepress.optimize.coreml` where coremltools' are."""
    import coremltools.optimize.coreml as peer

    import corepress.optimize.coreml as ours

    for name in FUNCTIONS:
        setattr(peer, name, _compared(name, getattr(ours, name), getattr(peer, name)))
    peer.get_weights_metadata = ours.get_weights_metadata


def _compared(name, ours, theirs):
    @functools.wraps(ours)
    def call(model, *arguments, **options):
        global _inside
        if _inside:
            return ours(model, *arguments, **options)
        _inside = True
        record: dict[str, Any] = {"test": current_test, "function": name, "status": "refused"}
        try:
            result = ours(model, *arguments, **options)
            try:
                record.update(_comparison(model, result, theirs(model, *arguments, **options)))
            except Exception:
                record.update(status="not compared", reason=traceback.format_exc(limit=-2)[-600:])
            return result
        finally:
            calls.append(record)
            _inside = False

    return call


def _comparison(source, ours, theirs) -> dict[str, Any]:
    originals, mine, peers = (weights_of(model._mil_program) for model in (_with_program(source), ours, theirs))
    found: dict[str, Any] = {"status": "compared", "weights": 0, "larger": [], "sparser": [], "missing": []}
    for key, original in originals.items():
        if key not in mine or key not in peers or mine[key].shape != original.shape:
            found["missing"].append(" ".join(key))
            continue
        found["weights"] += 1
        error, allowed = squared_error(mine[key], original), squared_error(peers[key], original)
        if not error <= allowed * (1 + TOLERANCE) and not np.isnan(allowed):
            found["larger"].append([" ".join(key), error, allowed])
        if (mine[key] == 0).sum() < (peers[key] == 0).sum():
            found["sparser"].append([" ".join(key), int((mine[key] == 0).sum()), int((peers[key] == 0).sum())])
    return found


def _with_program(model):
    if model._mil_program is not None:
        return model
    from coremltools.converters.mil.frontend.milproto import load
    from coremltools.models import utils

    version = model._spec.specificationVersion
    model._mil_program = utils._convert_model_spec_to_pymil_prog(model, version, load.load)
    return model


def squared_error(found, original) -> float:
    with np.errstate(all="ignore"):
        return float(((found.astype(np.float64) - original.astype(np.float64)) ** 2).sum())


def weights_of(program) -> dict[tuple[str, str, str], np.ndarray]:
    """Constant operands of some size, decompressed by coremltools, by function, operation and operand."""
    found: dict[tuple[str, str, str], np.ndarray] = {}
    for function_name, function in program.functions.items():
        pending = [function]
        while pending:
            for operation in pending.pop().operations:
                pending.extend(operation.blocks)
                if operation.op_type == "const" or operation.op_type.startswith("constexpr_"):
                    continue
                for operand, var in operation.inputs.items():
                    for index, each in enumerate(var if isinstance(var, (list, tuple)) else [var]):
                        value = _value(each)
                        if isinstance(value, np.ndarray) and value.ndim > 1 and value.dtype.kind == "f":
                            found[function_name, operation.name, f"{operand}{index}"] = value
    return found


def _value(var):
    if var is None or var.op is None:
        return None
    if var.op.op_type == "const":
        return var.op.outputs[0].val
    if var.op.op_type.startswith("constexpr_"):
        value = materialized(var.op)
        return value[var.op.outputs.index(var)] if isinstance(value, tuple) else value
    return None


def accelerate() -> None:
    """Put the native kernels below coremltools' own passes."""
    import corepress

    corepress.accelerate.install()
