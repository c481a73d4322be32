"""Differentiable k-means in PyTorch's own operations, for devices that the native kernels do not know.

A block of values is assigned at a time, so that memory does not grow with values times entries.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

Tensor = torch.Tensor
Options = tuple[float, float, float, float, int, bool, bool]  # as `corepress._core.soft_kmeans` takes them

NUMBERS_OF_BLOCK = 1 << 24  # of values times entries


def dtype_of_tape(device: torch.device) -> torch.dtype:
    """The type of entries between rounds; Metal has no double precision."""
    return torch.float32 if device.type == "mps" else torch.float64


def blocks_of(values: Tensor, entries: int) -> Iterator[slice]:
    """Slices of values so short that each has few enough numbers."""
    step = max(1, NUMBERS_OF_BLOCK // max(1, entries))
    for begin in range(0, len(values), step):
        yield slice(begin, begin + step)


def distances_to(points: Tensor, entries: Tensor, prune_threshold: float) -> Tensor:
    """Squared distances (n, k), those to the first entry less a threshold."""
    distances = torch.zeros(len(points), len(entries), dtype=points.dtype, device=points.device)
    for component in range(points.shape[1]):  # differences, not products: these would cancel
        distances += (points[:, component, None] - entries[None, :, component]).square()
    if prune_threshold:
        distances[:, 0] -= prune_threshold
    return distances


def nearest_codes(weight: Tensor, centroids: Tensor, prune_threshold: float) -> Tensor:
    """The place of the nearest entry (groups, n); weight (groups, n, d), centroids (groups, k, d); the first of equal.

    Distances are in float32, and for numbers, where that is possible, in double.
    """
    dtype = dtype_of_tape(weight.device) if weight.shape[2] == 1 else torch.float32
    found = torch.empty(weight.shape[:2], dtype=torch.int64, device=weight.device)
    for group, entries in enumerate(centroids):
        table = entries.float().to(dtype)
        for block in blocks_of(weight[group], len(table)):
            found[group, block] = distances_to(weight[group, block].to(dtype), table, prune_threshold).argmin(1)
    return found


def shares_of(points: Tensor, entries: Tensor, options: Options) -> tuple[Tensor, Tensor]:
    """Softmax over entries (n, k), and the least squared distances (n)."""
    distances = distances_to(points, entries, options[2])
    least = distances.amin(1)
    return torch.softmax((least[:, None] - distances) / options[0], dim=1), least


def means(weight: Tensor, centroids: Tensor, options: Options) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What `corepress._core.soft_kmeans` writes: means, entries of all rounds, sums of weights, rounds."""
    _, smallest, _, tolerance, iterations, enforce_zero, _ = options
    dtype = dtype_of_tape(weight.device)
    groups, entries, length = centroids.shape
    found = torch.empty_like(weight)
    tape = torch.zeros(groups, iterations + 1, entries, length, dtype=dtype, device=weight.device)
    sums = torch.zeros(groups, iterations, entries, dtype=dtype, device=weight.device)
    rounds = torch.zeros(groups, dtype=torch.int64, device=weight.device)
    tape[:, 0] = centroids
    for group in range(groups):
        last_inertia, used = None, 0
        for step in range(iterations):
            now = tape[group, step]
            moments = torch.zeros_like(now)
            inertia = torch.zeros((), dtype=dtype, device=weight.device)
            for block in blocks_of(weight[group], entries):
                points = weight[group, block].to(dtype)
                shares, least = shares_of(points, now, options)
                shares = shares.clamp_min(smallest)
                sums[group, step] += shares.sum(0)
                moments += shares.T @ points
                inertia += least.sum()
            weights = sums[group, step, :, None]
            moved = torch.where(weights > 0, moments / weights, now)
            if enforce_zero:
                moved[0] = 0
            tape[group, step + 1] = moved
            used = step + 1
            if last_inertia is not None and bool((last_inertia - inertia).abs() <= tolerance):
                break
            last_inertia = inertia
        rounds[group] = used
        before, after = tape[group, used - 1], tape[group, used]
        for block in blocks_of(weight[group], entries):
            shares, _ = shares_of(weight[group, block].to(dtype), before, options)
            found[group, block] = (shares.clamp_min(smallest) @ after).to(weight.dtype)
    return found, tape, sums, rounds


def gradient(weight: Tensor, slopes: Tensor, tape: Tensor, sums: Tensor, rounds: Tensor, options: Options) -> Tensor:
    """What `corepress._core.soft_kmeans_gradient` writes; the formulas are in csrc/algo/soft_kmeans."""
    temperature, smallest, _, _, _, enforce_zero, _ = options
    dtype = tape.dtype
    found = torch.zeros(weight.shape, dtype=torch.float32, device=weight.device)
    entries = tape.shape[2]
    for group, used in enumerate(rounds.tolist()):
        pulls = torch.zeros_like(tape[group, 0])
        for block in blocks_of(weight[group], entries):
            shares, _ = shares_of(weight[group, block].to(dtype), tape[group, used - 1], options)
            pulls += shares.clamp_min(smallest).T @ slopes[group, block].to(dtype)
        for step in reversed(range(used)):
            now, after = tape[group, step], tape[group, step + 1]
            weights = sums[group, step, :, None]
            pulls = torch.where(weights > 0, pulls / weights, torch.zeros_like(pulls))
            if enforce_zero:
                pulls[0] = 0
            new_pulls = torch.zeros_like(pulls)
            for block in blocks_of(weight[group], entries):
                points = weight[group, block].to(dtype)
                shares, _ = shares_of(points, now, options)
                change = points @ pulls.T - (pulls * after).sum(1)
                if step == used - 1:
                    change = change + slopes[group, block].to(dtype) @ after.T
                change = torch.where(shares >= smallest, change, torch.zeros_like(change))
                factor = shares * (change - (shares * change).sum(1, keepdim=True)) * (2 / temperature)
                own = shares.clamp_min(smallest) @ pulls - (factor.sum(1, keepdim=True) * points - factor @ now)
                found[group, block] += own.to(torch.float32)
                new_pulls += factor.T @ points - factor.sum(0)[:, None] * now
            pulls = new_pulls
    return found.to(weight.dtype)
