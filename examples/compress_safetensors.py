"""Compresses the tensors of a safetensors file, as models on Hugging Face have them, and writes a safetensors file.

Every float tensor of two axes or more, and of more than --threshold elements, is palettized in groups of rows. In the
place of a tensor NAME the new file has

    NAME.indices   uint8: indices of `nbits` bits in row-major order, packed least significant bit first, without gaps
    NAME.lut       the tables, in the tensor's dtype: [groups, 1, ..., 2**nbits, 1]; a group is rows / groups rows
    metadata       "corepress": JSON, {NAME: {"shape": [...], "nbits": ...}}

and all other tensors and metadata as they were. --expand makes such a file a plain one again.

Needs two packages: pip install safetensors ml_dtypes
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import ml_dtypes  # noqa: F401  # NumPy learns of bfloat16
from safetensors import safe_open
from safetensors.numpy import save_file

import corepress as cp

KEY = "corepress"
FLOATS = ("F16", "BF16", "F32")


def compress(source: Path, destination: Path, nbits: int, group_size: int, threshold: int) -> None:
    """Palettize the large float tensors of a file."""
    tensors, layouts = {}, {}
    with safe_open(source, framework="numpy") as file:
        metadata = file.metadata() or {}
        for name in file.keys():  # noqa: SIM118  # this is no dict
            tensor = file.get_tensor(name)
            is_float = file.get_slice(name).get_dtype() in FLOATS
            if not is_float or tensor.ndim < 2 or tensor.size <= threshold:
                tensors[name] = tensor
                continue
            palettized = cp.palettize(
                tensor,
                nbits=nbits,
                granularity="per_grouped_channel",
                group_size=group_size,
                indivisible="nearest_divisor",
            )
            tensors |= {f"{name}.indices": palettized.indices, f"{name}.lut": palettized.lut}
            layouts[name] = {"shape": palettized.shape, "nbits": nbits}
            error = cp.error(tensor, palettized)
            print(f"{name}: {palettized.bits_per_weight:.2f} bits per weight, {error.snr_db:.1f} dB")
    save_file(tensors, destination, metadata | {KEY: json.dumps(layouts)})


def expand(source: Path, destination: Path) -> None:
    """Undo `compress`."""
    with safe_open(source, framework="numpy") as file:
        metadata = dict(file.metadata())
        layouts = json.loads(metadata.pop(KEY))
        parts = {f"{name}.{part}" for name in layouts for part in ("indices", "lut")}
        tensors = {name: file.get_tensor(name) for name in file.keys() if name not in parts}  # noqa: SIM118
        for name, layout in layouts.items():
            indices, lut = file.get_tensor(f"{name}.indices"), file.get_tensor(f"{name}.lut")
            tensors[name] = cp.PalettizedTensor(tuple(layout["shape"]), indices, lut, layout["nbits"]).dense()
    save_file(tensors, destination, metadata)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="the .safetensors file to read")
    parser.add_argument("destination", type=Path, help="the .safetensors file to write")
    parser.add_argument("--nbits", type=int, default=4, help="1, 2, 3, 4, 6 or 8 (default: 4)")
    parser.add_argument("--group-size", type=int, default=16, help="rows that share a table (default: 16)")
    parser.add_argument("--threshold", type=int, default=2048, help="leave smaller tensors alone (default: 2048)")
    parser.add_argument("--expand", action="store_true", help="turn a compressed file back into a plain one")
    options = parser.parse_args()
    if options.expand:
        expand(options.source, options.destination)
    else:
        compress(options.source, options.destination, options.nbits, options.group_size, options.threshold)
    before, after = (path.stat().st_size for path in (options.source, options.destination))
    print(f"{before:,} -> {after:,} bytes")


if __name__ == "__main__":
    main()
