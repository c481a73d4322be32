"""Assets for tests, and their execution by Core AI's own run-time."""

from __future__ import annotations

import asyncio
import os
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from corepress.coreai.format.asset import Asset
from corepress.coreai.format.asset_writer import AssetWriter
from corepress.coreai.program.program import Program

PROGRAM_NAMES = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}


def save_text(text: str, path: Path) -> Path:
    """Save a program given as text."""
    import coreai.authoring as authoring
    from coreai._compiler.ir import Module

    with authoring.Context()._mlir_context:
        authoring.AIProgram._from_mlir_module(Module.parse(text)).save_asset(path)
    return path


def constant_asset(path: Path, shape: tuple[int, ...], dtype: str) -> Path:
    """An asset whose one output is its one weight; that of a bfloat16 weight is float32."""
    given = "x".join(map(str, (*shape, PROGRAM_NAMES[dtype])))
    result = given if dtype != "bfloat16" else "x".join(map(str, (*shape, "f32")))  # NumPy has no bfloat16
    cast, value = (
        ("", "%0") if dtype != "bfloat16" else (f"%1 = coreai.cast %0 : tensor<{given}> to tensor<{result}>", "%1")
    )
    return save_text(
        f"""module {{
          coreai.graph @main(%arg0: tensor<2xf32> {{coreai.name = "x"}}) -> (tensor<{result}> {{coreai.name = "w"}}) {{
            %0 = coreai.constant dense<0.5> : tensor<{given}>
            {cast}
            coreai.output {value} : tensor<{result}>
          }}
        }}""",
        path,
    )


def replace_all(source: Path, destination: Path, tensors) -> Path:
    """Write a copy of an asset with other weights, by name, or the same one for all."""
    asset = Asset.open(source)
    program = Program(asset)
    for weight in program.weights:
        weight.replace(tensors[weight.name] if isinstance(tensors, dict) else tensors)
    with AssetWriter(asset, destination, overwrite=True) as writer:
        program.save(writer)
        writer.finish()
    return destination


def run(path: Path, inputs: dict[str, np.ndarray] | None = None, function: str = "main") -> dict[str, np.ndarray]:
    """Run an asset by Core AI's run-time; what it prints is thrown away."""
    from coreai.authoring import AIModelAsset
    from coreai.runtime import NDArray

    inputs = {"x": np.zeros(2, np.float32)} if inputs is None else inputs

    async def ran():
        async with AIModelAsset.load(path).executable() as model:
            given = {name: NDArray(np.ascontiguousarray(array)) for name, array in inputs.items()}
            outputs = await model.load_function(function)(given)
            return {name: np.array(outputs[name].numpy()) for name in outputs}

    with quiet():
        return asyncio.run(ran())


@contextmanager
def quiet():
    """Keep what native code prints away from the standard output and errors."""
    saved = [os.dup(descriptor) for descriptor in (1, 2)]
    with open(os.devnull, "wb") as sink:
        for descriptor in (1, 2):
            os.dup2(sink.fileno(), descriptor)
    try:
        yield
    finally:
        for descriptor, old in zip((1, 2), saved, strict=True):
            os.dup2(old, descriptor)
            os.close(old)
