"""Core AI assets: beside coreai-opt's functions, beside Core AI's own saving, and what weights of small magnitude keep.

    python bench/coreai_assets.py [drop-ins] [small-weights] [assets] [--repeats 3] [--json FILE]

- drop-ins: the functions of ``coreai_opt.coreai_utils`` and those of `corepress.optimize.coreai` on one program of
  16.8 million float16 weights in memory; the least of the repeats, turn by turn, of seconds and of CPU seconds;
  conversion and imports do not count, and coreai-opt starts no worker processes, which may wait forever after threads
  were started.
- small-weights: signal-to-noise ratio of the output of a layer, as Core AI runs it, for weights of several magnitudes.
- assets: whole processes that compress an asset with the shapes of a language model and one with those of a diffusion
  UNet, beside a process that loads and saves it with coreai-core; seconds, CPU seconds, and peak memory without
  mapped files.

Needs coreai-torch and coreai-opt.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import documents

PARTS = ("drop-ins", "small-weights", "assets")
LAYERS, SIDE = 16, 1024
OF_OURS = 5  # calls in a turn, which are short
MAGNITUDES = (0.05, 1e-3, 1e-4, 2e-5)
CONFIGS = {
    "4 bits": {"palettize": {"nbits": 4}},
    "4 bits, groups of 8": {"palettize": {"nbits": 4, "granularity": "per_grouped_channel", "group_size": 8}},
    "int8": {"quantize": {}},
    "int4, blocks of 32": {"quantize": {"dtype": "int4", "granularity": "per_block", "block_size": 32}},
    "half sparse": {"prune": {"target_sparsity": 0.5}},
}
RUN = "4 bits, groups of 8"
# A process that loads an asset and saves it, as coreai-core does it.
COPY = """
import sys
from pathlib import Path
from coreai.authoring import AIModelAsset
AIModelAsset.load(Path(sys.argv[1])).program.save_asset(Path(sys.argv[2]))
"""
COMPRESS = """
import json, sys
from corepress import coreai
report = coreai.compress(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
"""
PEAK = """
import threading, time
peak = [0]
def watch():
    while True:
        with open("/proc/self/status", encoding="ascii") as file:
            lines = dict(line.split(":", 1) for line in file)
        peak[0] = max(peak[0], int(lines["RssAnon"].split()[0]))
        time.sleep(0.005)
threading.Thread(target=watch, daemon=True).start()
"""


def converted(module: Any, *inputs: Any) -> Any:
    """A program of Core AI."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        import torch
        from coreai_torch import TorchConverter, get_decomp_table

        converter = TorchConverter()
        exported = torch.export.export(module.eval(), inputs).run_decompositions(get_decomp_table())
        converter.add_exported_program(exported)
        return converter.to_coreai()


def drop_ins(repeats: int) -> list[dict[str, Any]]:
    """Seconds of each function, of coreai-opt and of corepress."""
    import coreai_opt.coreai_utils as theirs
    import torch
    from torch import nn

    import corepress.optimize.coreai as ours

    torch.manual_seed(0)
    layers = [nn.Linear(SIDE, SIDE, bias=False).half() for _ in range(LAYERS)]
    for layer in layers:
        nn.init.normal_(layer.weight, std=0.02)
    program = converted(nn.Sequential(*layers), torch.zeros(1, SIDE, dtype=torch.float16))
    kinds, dtypes = theirs.CompressionGranularity, theirs.DType
    jobs: dict[str, Callable[[Any], Any]] = {
        "4 bits": lambda module: module.palettize_weights(program, None, n_bits=4, num_kmeans_workers=1),
        "4 bits, exact mode": lambda module: module.palettize_weights(
            program, None, n_bits=4, num_kmeans_workers=1, enable_fast_kmeans_mode=False
        ),
        "4 bits, groups of 8": lambda module: module.palettize_weights(
            program, None, n_bits=4, granularity=kinds.PER_GROUPED_CHANNEL, group_size=8, num_kmeans_workers=1
        ),
        "int8": lambda module: module.quantize_weights(program, dtypes.INT8),
        "int4, blocks of 32": lambda module: module.quantize_weights(
            program, dtypes.INT4, granularity=kinds.PER_BLOCK, block_size=32
        ),
        "half sparse": lambda module: module.sparsify_weights(program, target_sparsity=0.5),
    }
    rows = []
    for name, job in jobs.items():
        seconds: dict[str, float] = {}
        cpu_seconds: dict[str, float] = {}
        for turn in range(repeats):
            for who, module in (*[("corepress", ours)] * OF_OURS, ("coreai-opt", theirs)):
                if who == "coreai-opt" and turn and seconds[who] > 30:
                    continue
                gc.collect()
                begin, cpu_begin = time.perf_counter(), time.process_time()
                job(module)
                took, cpu_took = time.perf_counter() - begin, time.process_time() - cpu_begin
                seconds[who] = min(took, seconds.get(who, took))
                cpu_seconds[who] = min(cpu_took, cpu_seconds.get(who, cpu_took))
        row = {"job": name, **seconds, "ratio": seconds["coreai-opt"] / seconds["corepress"]}
        row |= {f"CPU, {who}": found for who, found in cpu_seconds.items()}
        rows.append(row | {"ratio of CPU": cpu_seconds["coreai-opt"] / cpu_seconds["corepress"]})
    return rows


def run(path: Path, x: np.ndarray) -> np.ndarray:
    """The output of an asset with one input."""
    from corepress import runtime

    model = runtime.load(path)
    return next(iter(model.predict({model.inputs[0].name: x}).values()))


def small_weights() -> list[dict[str, Any]]:
    """What the outputs keep of layers whose weights are of several magnitudes."""
    import coreai_opt.coreai_utils as theirs
    import torch
    from torch import nn

    from corepress import coreai

    rows = []
    for deviation in MAGNITUDES:
        torch.manual_seed(0)
        layer = nn.Linear(128, 256, bias=False)
        nn.init.normal_(layer.weight, std=deviation)
        program = converted(layer, torch.zeros(64, 128))
        x = np.random.default_rng(0).standard_normal((64, 128)).astype(np.float32)
        expected = x @ layer.weight.detach().numpy().T
        row: dict[str, Any] = {"standard deviation": deviation}
        with tempfile.TemporaryDirectory() as folder:
            original = Path(folder) / "original.aimodel"
            program.save_asset(original)
            for nbits in (4, 8):
                for fast in (True, False):
                    made = theirs.palettize_weights(program, None, n_bits=nbits, enable_fast_kmeans_mode=fast)
                    path = Path(folder) / f"{nbits}{fast}.aimodel"
                    made.save_asset(path)
                    row[f"coreai-opt {nbits} bits, {'default' if fast else 'exact'}"] = snr_db(expected, run(path, x))
                path = Path(folder) / f"{nbits}.aimodel"
                coreai.compress(original, path, {"palettize": {"nbits": nbits}})
                row[f"corepress {nbits} bits"] = snr_db(expected, run(path, x))
        rows.append(row)
    return rows


def snr_db(expected: np.ndarray, found: np.ndarray) -> float:
    noise = float(np.square(expected.astype(np.float64) - found.astype(np.float64)).sum())
    return 10 * np.log10(float(np.square(expected.astype(np.float64)).sum()) / noise)


def language_model() -> tuple[Any, Any]:
    """A decoder's shapes: an embedding that is the head too, and twelve blocks; 100 million float16 weights."""
    import torch
    from torch import nn

    width = 768

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.qkv, self.out = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.second, self.up, self.down = (
                nn.LayerNorm(width),
                nn.Linear(width, 4 * width),
                nn.Linear(4 * width, width),
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            heads = [each.unflatten(-1, (12, 64)).transpose(1, 2) for each in self.qkv(self.norm(x)).chunk(3, -1)]
            attended = nn.functional.scaled_dot_product_attention(*heads, is_causal=True)
            x = x + self.out(attended.transpose(1, 2).flatten(2))
            return x + self.down(nn.functional.gelu(self.up(self.second(x))))

    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(20_000, width)
            self.blocks = nn.Sequential(*(Block() for _ in range(12)))

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.blocks(self.embedding(tokens)) @ self.embedding.weight.T

    torch.manual_seed(0)
    return Decoder().half(), torch.zeros(1, 16, dtype=torch.int32)


def diffusion_unet() -> tuple[Any, Any]:
    """A UNet's shapes: convolutions of 320 to 1,280 channels, and projections; 104 million float16 weights."""
    import torch
    from torch import nn

    class Residual(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.first = nn.Conv2d(channels, channels, 3, padding=1)
            self.second = nn.Conv2d(channels, channels, 3, padding=1)
            self.project = nn.Conv2d(channels, channels, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.project(nn.functional.silu(self.second(nn.functional.silu(self.first(x)))))

    torch.manual_seed(0)
    body = nn.Sequential(
        *(nn.Conv2d(4, 320, 3, padding=1), Residual(320), nn.Conv2d(320, 640, 3, stride=2, padding=1), Residual(640)),
        *(nn.Conv2d(640, 1280, 3, stride=2, padding=1), Residual(1280), Residual(1280)),
        *(nn.ConvTranspose2d(1280, 640, 2, stride=2), Residual(640), nn.ConvTranspose2d(640, 320, 2, stride=2)),
        *(Residual(320), nn.Conv2d(320, 4, 3, padding=1)),
    )
    return body.half(), torch.zeros(1, 4, 16, 16, dtype=torch.float16)


def process(code: str, *arguments: str) -> tuple[float, float, int]:
    """Seconds and CPU seconds of a process, and its peak memory in bytes."""
    program = PEAK + code + "\nprint(peak[0] * 1024)\n"
    begin, cpu_begin = time.perf_counter(), cpu_of_children()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, *arguments], capture_output=True, text=True, check=True
    )
    return time.perf_counter() - begin, cpu_of_children() - cpu_begin, int(done.stdout.split()[-1])


def cpu_of_children() -> float:
    times = os.times()
    return times.children_user + times.children_system


def assets(repeats: int) -> list[dict[str, Any]]:
    """Seconds and memory of whole processes."""
    from corepress import coreai

    rows = []
    for name, make in (("language model", language_model), ("diffusion UNet", diffusion_unet)):
        with tempfile.TemporaryDirectory() as folder:
            source, out = Path(folder) / "source.aimodel", Path(folder) / "out.aimodel"
            module, x = make()
            converted(module, x).save_asset(source)
            del module
            gc.collect()
            weights = coreai.inspect(source)
            for job in ("copied by coreai-core", *CONFIGS):
                found: list[tuple[float, float, int]] = []
                for _ in range(repeats):
                    subprocess.run(["rm", "-rf", out], check=True)
                    if job in CONFIGS:
                        found.append(process(COMPRESS, str(source), str(out), json.dumps(CONFIGS[job])))
                    else:
                        found.append(process(COPY, str(source), str(out)))
                size = sum(each.stat().st_size for each in out.iterdir())
                rows.append(
                    {
                        "asset": name,
                        "weights": weights.weight_count,
                        "job": job,
                        "seconds": min(each[0] for each in found),
                        "CPU seconds": min(each[1] for each in found),
                        "memory": min(each[2] for each in found),
                        "bytes": size,
                        "verified": None if job not in CONFIGS else coreai.verify(source, out).ok,
                    }
                )
                if job == RUN:  # by Core AI's run-time, which takes a minute
                    rows[-1]["outputs, dB"] = min(
                        each.snr_db for each in coreai.compare(source, out, predictions=True, draw=1).outputs
                    )
    return rows


def show(console: Console, rows: list[dict[str, Any]], title: str) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = Table(*names, title=title)
    for row in rows:
        table.add_row(
            *(f"{row[name]:.4g}" if isinstance(row.get(name), float) else str(row.get(name, "")) for name in names)
        )
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (all)")
    parser.add_argument("--repeats", type=int, default=3)
    documents.add_options(parser)
    options = parser.parse_args()
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"no part {', '.join(sorted(unknown))}")
    warnings.simplefilter("ignore")
    work: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "drop-ins": lambda: drop_ins(options.repeats),
        "small-weights": small_weights,
        "assets": lambda: assets(options.repeats),
    }
    console, results = Console(), {}
    for part in options.parts or PARTS:
        results[part] = work[part]()
        show(console, results[part], part)
    documents.save(options, {"repeats": options.repeats, "cpus": os.cpu_count()}, results)


if __name__ == "__main__":
    main()
