"""Differentiable k-means compared with coremltools' layer: CPU time of a step, memory, and how exact the gradient is.

    python bench/soft_kmeans.py [--weights 1048576] [--repeat 3] [--first 65536] [--no-first] [--json FILE]

A step is the forward and the backward pass of one weight, on one thread, from the same entries; the least CPU time of
both in turn counts, in one process. Memory is the peak above that before the step, in bytes for each weight, in a new
process for each: what libraries keep between steps counts for none. The error is that of the gradient, relative to
PyTorch's own of the unrolled rounds in double precision, on 32,768 weights. The first forward pass, in which entries
are found, is compared with --first weights: coremltools' takes a minute for a million.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

os.environ["OMP_NUM_THREADS"] = os.environ["COREPRESS_NUM_THREADS"] = "1"  # before torch is imported

import torch
from rich.console import Console
from rich.table import Table

import documents
from corepress.benchmark.memory import PeakMeter
from corepress.training.soft_kmeans import initial_centroids, soft_kmeans

_EXACT = 1 << 15  # weights for which a number for each and each entry fits
_TEMPERATURE = 1e-4
Call = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Case:
    """A weight and its palette.

    Attributes
    ----------
    nbits : int
        Width of codes.
    cluster_dim : int
        Weights that share a code.
    dtype : str
        Of the weight.
    """

    nbits: int
    cluster_dim: int = 1
    dtype: str = "float32"

    def weight(self, count: int) -> torch.Tensor:
        """A weight matrix of normal numbers with so many elements."""
        generator = torch.Generator().manual_seed(7)
        return (torch.randn(count // 256, 256, generator=generator) * 0.05).to(getattr(torch, self.dtype))

    def groups(self, weight: torch.Tensor) -> torch.Tensor:
        """The weight as one group of values, or of vectors along its rows' axis."""
        if self.cluster_dim == 1:
            return weight.reshape(1, -1)
        return weight.transpose(0, -1).reshape(1, -1, self.cluster_dim)

    def entries(self, weight: torch.Tensor) -> torch.Tensor:
        """Those that both start with."""
        return initial_centroids(self.groups(weight)[:, : 1 << 14], 1 << self.nbits)


CASES = (
    Case(2),
    Case(4),
    Case(2, dtype="float16"),
    Case(4, dtype="float16"),
    Case(4, dtype="bfloat16"),
    Case(2, cluster_dim=2),
    Case(4, cluster_dim=2),
)


def ours(case: Case, entries: torch.Tensor | None) -> Call:
    """A layer's forward pass; without entries it finds them."""

    def forward(weight: torch.Tensor) -> torch.Tensor:
        groups = case.groups(weight)
        start = initial_centroids(groups, 1 << case.nbits) if entries is None else entries
        return soft_kmeans(groups, start, temperature=_TEMPERATURE)[0]

    return forward


def coremltools(case: Case, entries: torch.Tensor | None, count: int) -> Call:
    """The same in coremltools."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    from coremltools.optimize.torch.palettization import FakePalettize

    layer = FakePalettize(
        observer=torch.ao.quantization.MovingAveragePerChannelMinMaxObserver,
        quant_min=0,
        quant_max=255,
        n_bits=case.nbits,
        cluster_dim=case.cluster_dim,
        advanced_options={"palett_tau": _TEMPERATURE},
    )
    layer.enable_fake_palett(True)
    layer.train()
    if entries is None:
        return layer
    layer.create_partitions(case.weight(count))
    start = entries.reshape(-1, case.cluster_dim).to(getattr(torch, case.dtype))

    def forward(weight: torch.Tensor) -> torch.Tensor:
        layer.centroids = [start.clone()]  # a step moves them
        return case.groups(layer(weight))

    return forward


def made(name: str, case: Case, count: int, first: bool = False) -> tuple[Call, torch.Tensor, torch.Tensor]:
    """A forward pass, a weight for it and the gradient by its result."""
    weight = case.weight(count)
    entries = None if first else case.entries(weight)
    slopes = torch.randn(weight.shape, generator=torch.Generator().manual_seed(8)).to(weight.dtype)
    call = ours(case, entries) if name == "ours" else coremltools(case, entries, count)
    return call, weight, case.groups(slopes)


def step(call: Call, weight: torch.Tensor, slopes: torch.Tensor) -> torch.Tensor:
    """The gradient of a step."""
    given = weight.detach().requires_grad_()
    call(given).backward(slopes)
    assert given.grad is not None
    return given.grad


def seconds(function: Callable[[], Any]) -> float:
    """CPU time of a call."""
    begin = time.process_time()
    function()
    return time.process_time() - begin


def memory(name: str, case: Case, count: int) -> float:
    """Peak of the first step of a large weight, in bytes for each weight; the step before is of a small one."""
    small = made(name, case, 1 << 14)
    step(*small)
    given = made(name, case, count)
    return PeakMeter().call(lambda: step(*given))[1] / count


def apart(function: Callable[..., float], *arguments: Any) -> float:
    """What a function returns in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def error(name: str, case: Case) -> float:
    """Of a gradient, relative to that in double precision."""
    call, weight, slopes = made(name, case, _EXACT)
    found = step(call, weight, slopes).double()
    given = weight.double().requires_grad_()
    points = case.groups(given)[0].reshape(-1, case.cluster_dim)
    entries, last = case.entries(weight).double().reshape(-1, case.cluster_dim), None
    if case.dtype != "float32" and name != "ours":
        entries = entries.to(weight.dtype).double()  # it holds them so
    for _ in range(3):
        distances = (points[:, None] - entries).square().sum(-1)
        distances = torch.cat((distances[:, :1] - 1e-7, distances[:, 1:]), dim=1)
        shares = torch.softmax(-distances / _TEMPERATURE, dim=1).clamp(min=1e-7)
        entries = shares.T @ points / shares.sum(0)[:, None]
        inertia = distances.amin(1).sum()
        if last is not None and abs(float(last - inertia)) <= 1e-4:
            break
        last = inertia
    (shares @ entries).backward(slopes.double().reshape(-1, case.cluster_dim))
    assert given.grad is not None
    return float((found - given.grad).norm() / given.grad.norm())


def compared(case: Case, count: int, repeat: int) -> dict[str, Any]:
    """A row: both in turn."""
    both = {name: made(name, case, count) for name in ("ours", "coremltools")}
    times: dict[str, list[float]] = {name: [] for name in both}
    for given in both.values():
        step(*given)
    for _ in range(repeat):
        for name, given in both.items():
            times[name].append(seconds(lambda given=given: step(*given)))
    row: dict[str, Any] = asdict(case)
    for name in both:
        row[name] = {
            "seconds": min(times[name]),
            "bytes": apart(memory, name, case, count),
            "error": error(name, case),
        }
    return row


def first_forward(case: Case, count: int) -> dict[str, Any]:
    """The pass that finds entries, once each."""
    row: dict[str, Any] = asdict(case) | {"weights": count}
    for name in ("ours", "coremltools"):
        call, weight, _ = made(name, case, count, first=True)
        weight.requires_grad_()  # coremltools asserts it
        row[name] = seconds(lambda call=call, weight=weight: call(weight))
    return row


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=int, default=1 << 20)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--first", type=int, default=1 << 16)
    parser.add_argument("--no-first", action="store_true")
    documents.add_options(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows, firsts = [], []
    table = Table(
        "bits", "dim", "dtype", "ms", "coremltools", "ratio", "B/weight", "coremltools", "error", "coremltools"
    )
    for case in CASES:
        row = compared(case, arguments.weights, arguments.repeat)
        rows.append(row)
        mine, peer = row["ours"], row["coremltools"]
        table.add_row(
            str(case.nbits),
            str(case.cluster_dim),
            case.dtype,
            f"{mine['seconds'] * 1e3:.1f}",
            f"{peer['seconds'] * 1e3:.0f}",
            f"{peer['seconds'] / mine['seconds']:.1f}",
            f"{mine['bytes']:.1f}",
            f"{peer['bytes']:.0f}",
            f"{mine['error']:.1e}",
            f"{peer['error']:.1e}",
        )
    Console(width=120).print(table)
    if not arguments.no_first:
        table = Table("first forward: bits", "dim", "dtype", "ms", "coremltools", "ratio")
        for case in (Case(2), Case(4), Case(4, dtype="float16"), Case(4, cluster_dim=2)):
            row = first_forward(case, arguments.first)
            firsts.append(row)
            table.add_row(
                str(case.nbits),
                str(case.cluster_dim),
                case.dtype,
                f"{row['ours'] * 1e3:.1f}",
                f"{row['coremltools'] * 1e3:.0f}",
                f"{row['coremltools'] / row['ours']:.0f}",
            )
        Console(width=120).print(table)
    documents.save(arguments, {"weights": arguments.weights}, {"steps": rows, "first": firsts})


if __name__ == "__main__":
    main()
