"""Packages that coremltools converts from PyTorch, run here and compared with the modules they came from.

    python tests/peers/converted.py [NAME ...] [--json FILE]

Needs coremltools with a NumPy that it can convert with, torch, torchvision, diffusers and transformers; architectures
whose package is missing are left out. The weights of the modules are rounded to float16, as those of the packages are.
Fails where the outputs in float32 differ by more than 1e-3 (norm of the difference over the norm of the output).
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from architectures import BUILDERS, Architecture, as_array, build

from corepress import runtime

LARGEST_DIFFERENCE = 1e-3
TURNS = 15


def convert(found: Architecture, path: Path) -> None:
    import coremltools as ct

    flexible, states = found.options.get("flexible", {}), found.options.get("states", {})
    example = tuple(found.inputs.values())
    with torch.no_grad():
        traced = torch.jit.trace(found.module, example, strict=False, check_trace=False)
    inputs = []
    for name, tensor in found.inputs.items():
        shape = list(tensor.shape)
        if name in flexible:
            first, last = flexible[name]
            shape[-1] = ct.RangeDim(first, last)
            if len(shape) == 4:
                shape[-2] = ct.RangeDim(first, 8)
        inputs.append(ct.TensorType(name, tuple(shape), dtype=np.int32 if tensor.dtype == torch.int32 else np.float32))
    wrapped = [ct.StateType(ct.TensorType(shape=shape, dtype=np.float16), name=name) for name, shape in states.items()]
    ct.convert(
        traced,
        inputs=inputs,
        states=wrapped or None,
        minimum_deployment_target=getattr(ct.target, found.target),
        compute_precision=ct.precision.FLOAT16,
        skip_model_load=True,
    ).save(str(path))


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def compare(name: str, place: Path) -> dict:
    """Convert one network, run both, and measure."""
    found = build(name)
    path = place / "converted.mlpackage"
    convert(found, path)
    inputs = {key: as_array(tensor) for key, tensor in found.inputs.items()}
    row: dict = {"name": name}
    with torch.inference_mode():
        for buffer in found.options.get("states", ()):
            getattr(found.module, buffer).zero_()
        expected = found.module(*found.inputs.values()).numpy()
        models = {precision: runtime.load(path, precision=precision) for precision in ("float32", "float16")}
        for precision, model in models.items():
            (output,) = model.predict(inputs, model.make_state()).values()
            row[precision] = difference(output.reshape(expected.shape), expected)
        times: dict[str, list[float]] = {"torch": [], **{precision: [] for precision in models}}
        for _ in range(TURNS):
            times["torch"].append(timed(lambda: found.module(*found.inputs.values())))
            for precision, model in models.items():
                state = model.make_state()
                times[precision].append(timed(lambda model=model, state=state: model.predict(inputs, state)))
    row["milliseconds"] = {key: 1000 * min(each) for key, each in times.items()}
    return row


def timed(function) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="networks (all)")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    rows, failed = [], []
    for name in arguments.names or BUILDERS:
        try:
            with tempfile.TemporaryDirectory() as place:
                rows.append(compare(name, Path(place)))
        except ModuleNotFoundError as error:
            print(f"{name:28} left out: {error.name} is not installed")
            continue
        row = rows[-1]
        times = row["milliseconds"]
        ratios = [times[precision] / times["torch"] for precision in ("float32", "float16")]
        print(
            f"{name:28} float32 {row['float32']:.1e}  float16 {row['float16']:.1e}  torch {times['torch']:7.2f} ms  "
            f"here {ratios[0]:.2f} and {ratios[1]:.2f} of it",
            flush=True,
        )
        if not row["float32"] <= LARGEST_DIFFERENCE:
            failed.append(name)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    if failed:
        print(f"differ by more than {LARGEST_DIFFERENCE}: {', '.join(failed)}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
