"""Programs of Core AI, and the weights that stand in them, decoded in NumPy."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np

from helpers.processes import TIMEOUT

FLOATS = {"f16": np.float16, "f32": np.float32}
SMALL_FLOATS = {
    "f8E4M3FN": "float8_e4m3fn",
    "f8E5M2": "float8_e5m2",
    "f8E8M0FNU": "float8_e8m0fnu",
}


def program_of(model, *inputs):
    """Convert a PyTorch model."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import coreai_torch

    exported = torch.export.export(model.eval(), inputs).run_decompositions(coreai_torch.get_decomp_table())
    return coreai_torch.TorchConverter().add_exported_program(exported).to_coreai()


def linear_layers(weights):
    """A model of layers that follow each other, of weights ``[out, in]``, and an input for it."""
    import torch

    layers = []
    for weight in weights:
        layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        layer.weight = torch.nn.Parameter(torch.from_numpy(weight.copy()))
        layers += [layer, torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1]), torch.zeros(2, weights[0].shape[1], dtype=layers[0].weight.dtype)


def weights_of(program, least: int = 1024) -> list[np.ndarray]:
    """The weights of all matmuls and convolutions, decoded, in the program's order."""
    found = []

    def look(operation):
        from coreai._compiler.ir import WalkResult

        if operation.name in ("coreai.transpose", "coreai.conv2d"):
            for operand in operation.operands:
                value = decoded(operand)
                if value is not None and value.dtype.kind == "f" and value.size >= least:
                    found.append(value)
        return WalkResult.ADVANCE

    program._module._mlir_module.operation.walk(look)
    return found


def decoded(value):
    """The array that a value stands for; None if it is not a weight."""
    operation = getattr(value, "owner", None)
    name = getattr(operation, "name", "").removeprefix("coreai.")
    if name == "constant":
        return constant(operation)
    if name == "cast":
        inner = decoded(operation.operands[0])
        return None if inner is None else inner.astype(FLOATS[str(value.type.element_type)])
    if name == "lut_to_dense":
        codes, lut, axis = map(decoded, operation.operands)
        return looked_up(codes, lut, int(axis.reshape(-1)[0]))
    if name == "blockwise_shift_scale":
        data, scale, shift, offset = map(decoded, operation.operands)
        shape = data.shape
        scale, shift, offset = (spread(each.astype(np.float64), shape) for each in (scale, shift, offset))
        return (scale * (data.astype(np.float64) - shift) + offset).astype(np.float32)
    if name == "sparse_with_bitmask_to_dense":
        values, mask = map(decoded, operation.operands[0].owner.operands)
        dense = np.zeros(mask.shape, values.dtype)
        dense[mask != 0] = values.reshape(-1)
        return dense
    return None


def constant(operation) -> np.ndarray:
    from coreai._compiler._mlir_libs._coreaiIR import _bindings

    kind = operation.result.type
    element, shape = str(kind.element_type), tuple(kind.shape)
    if element in SMALL_FLOATS:
        return small_floats(operation, SMALL_FLOATS[element], shape)
    width = int(element.lstrip("fsui"))
    count = int(np.prod(shape))
    stored = np.zeros((count * width + 7) // 8, np.uint8)
    _bindings.compiler.copy_constant_value_to_array(constant_op=operation, destination=stored)
    if element in FLOATS:
        return stored.view(FLOATS[element]).reshape(shape)
    if width >= 8:
        return stored.view(f"{'u' if element[0] == 'u' else ''}int{width}").reshape(shape)
    bits = np.unpackbits(stored, bitorder="little")[: count * width].reshape(count, width)
    codes = (bits << np.arange(width, dtype=np.uint8)).sum(axis=1).astype(np.int8)
    return np.where(codes >> (width - 1) & (element[0] == "s"), codes - (1 << width), codes).reshape(shape)


def small_floats(operation, name: str, shape: tuple[int, ...]) -> np.ndarray:
    import ml_dtypes
    from coreai._compiler._mlir_libs._coreaiIR import _bindings

    stored = np.zeros(int(np.prod(shape)), np.uint8)
    _bindings.compiler.copy_constant_value_to_array(constant_op=operation, destination=stored)
    return stored.view(getattr(ml_dtypes, name)).astype(np.float32).reshape(shape)


def spread(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Repeat each element over its block."""
    for axis, length in enumerate(shape):
        array = np.repeat(array, length // array.shape[axis], axis=axis)
    return array


def looked_up(codes: np.ndarray, lut: np.ndarray, axis: int) -> np.ndarray:
    groups = [
        index // (length // count)
        for index, length, count in zip(np.indices(codes.shape), codes.shape, lut.shape[: codes.ndim], strict=True)
    ]
    vectors = lut[(*groups, codes)]
    if vectors.shape[-1] == 1:
        return vectors[..., 0]
    shape = list(codes.shape)
    shape[axis] *= vectors.shape[-1]
    return np.moveaxis(vectors, -1, axis + 1).reshape(shape)


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own, which Core AI's library may end."""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
