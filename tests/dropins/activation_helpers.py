"""Networks to quantize, what coremltools predicts with, and the shape of what comes out."""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from pathlib import Path

import numpy as np
from coreml_helpers import quiet
from dropin_helpers import normal

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "peers"))
import corepress_predictor


def chain(mb, x):
    """Convolutions, a pool and linear layers, one with an activation that is not quantized with it."""
    x = mb.relu(x=mb.conv(x=x, weight=normal(16, 8, 3, 3, seed=1, scale=0.2), pad_type="same"))
    x = mb.max_pool(x=x, kernel_sizes=[2, 2], strides=[2, 2], pad_type="valid")
    x = mb.sigmoid(x=mb.conv(x=x, weight=normal(16, 16, 3, 3, seed=2), bias=normal(16), pad_type="same"))
    x = mb.reduce_mean(x=x, axes=[2, 3])
    x = mb.gelu(x=mb.linear(x=x, weight=normal(32, 16, seed=3)), mode="EXACT")
    return mb.linear(x=x, weight=normal(10, 32, seed=4), name="out")


def residual(mb, x):
    """A value that two operations take, and an addition."""
    x = mb.relu(x=mb.conv(x=x, weight=normal(8, 8, 3, 3, seed=1, scale=0.2), pad_type="same"))
    y = mb.leaky_relu(x=mb.conv(x=x, weight=normal(8, 8, 3, 3, seed=2, scale=0.2), pad_type="same"), alpha=0.1)
    z = mb.conv(x=y, weight=normal(8, 8, 1, 1, seed=3, scale=0.3))
    w = mb.relu(x=mb.add(x=x, y=z))
    w = mb.add(x=w, y=np.float32(0.25))
    w = mb.avg_pool(x=w, kernel_sizes=[2, 2], strides=[2, 2], pad_type="valid")
    return mb.softmax(x=mb.reduce_mean(x=w, axes=[2, 3]), axis=-1, name="out")


def joined(mb, x):
    """Concatenations, whose inputs have ranges that differ."""
    y = mb.relu(x=mb.conv(x=x, weight=normal(8, 8, 1, 1, seed=1, scale=2.0)))
    z = mb.conv(x=x, weight=normal(8, 8, 3, 3, seed=2), pad_type="same")
    w = mb.concat(values=[y, z], axis=1)
    w = mb.tanh(x=mb.conv(x=w, weight=normal(8, 16, 1, 1, seed=3)))
    v = mb.concat(values=[w, z], axis=1)
    return mb.conv(x=v, weight=normal(4, 16, 3, 3, seed=4), name="out")


NETWORKS = {"chain": chain, "residual": residual, "joined": joined}
SHAPE = (1, 8, 12, 12)


def samples(count: int = 3, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """All alike, so that the last is enough for coremltools: the same values, in another order."""
    values = np.random.default_rng(seed).standard_normal(SHAPE).astype(np.float16).astype(np.float32)
    return [{"x": values.copy()} for _ in range(count)]


def predicting(monkeypatch, ct):
    """Let coremltools predict here, with the runtime in place of Core ML."""

    def predict(self, data, state=None):
        return corepress_predictor.load(self._spec, self.weights_dir).predict(data)

    monkeypatch.setattr(ct.models.MLModel, "predict", predict)


def shape_of(model) -> tuple[Counter, dict[str, list[tuple[float, int]]]]:
    """Every operation by its type and what it is computed from; the scales and zero points of those that quantize."""
    with quiet():
        operations = model._mil_program.functions["main"].operations
    known, count, scales = {}, Counter(), {}
    for each in operations:
        if each.op_type == "const":
            continue
        taken = [
            f"{parameter}={var.name if var.op is None else known[var]}"
            for parameter, given in sorted(each.inputs.items())
            for var in (given if isinstance(given, list | tuple) else [given])
            if var is not None and not (var.op is not None and var.op.op_type == "const")
        ]
        text = f"{each.op_type}({', '.join(taken)})"
        known |= dict.fromkeys(each.outputs, f"{each.op_type}-{hashlib.sha256(text.encode()).hexdigest()[:12]}")
        count[known[each.outputs[0]]] += 1
        if each.op_type in ("quantize", "dequantize"):
            zero_point = 0 if each.zero_point is None else int(each.zero_point.val)
            # The same levels as uint8 without a zero point; coremltools misses some.
            scales.setdefault(known[each.outputs[0]], []).append((float(each.scale.val), zero_point % -128))
    return count, scales
