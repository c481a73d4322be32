"""What the checks of every format share: how far compressed weights are from their source, and what else changed."""

from __future__ import annotations

import filecmp
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._core import count_nonfinite
from ..compression.metrics import Error
from .distances import Pair, comparable, distance


class Wrong(Exception):
    """A weight is wrong; the message says why."""


def compressed_error(
    pairs: Iterable[tuple[NDArray[Any], ...]], min_snr_db: float | None, num_threads: int | None
) -> Error:
    """How far the pieces of a weight are from what they were compressed to.

    Parameters
    ----------
    pairs : iterable of tuple of numpy.ndarray
        Pieces of the source, each with what it became.
    min_snr_db : float or None
        The lowest signal-to-noise ratio that is right.
    num_threads : int or None
        Threads to use.

    Raises
    ------
    Wrong
        If values became NaN or infinite, or the signal-to-noise ratio is too low.
    """
    lost = size = 0

    def counted() -> Iterator[Pair]:
        nonlocal lost, size
        for before, after in pairs:
            size += after.size
            if count_nonfinite(comparable(after), num_threads):
                lost += int(np.count_nonzero(~np.isfinite(after) & ~(before == after)))
            yield before, after

    error = distance(counted(), num_threads)
    if lost:
        raise Wrong(f"{lost} of {size} values decode to NaN or infinity")
    require_snr(error, min_snr_db)
    return error


def require_snr(error: Error, min_snr_db: float | None) -> None:
    """Raise `Wrong` if the signal-to-noise ratio is lower than a user wants."""
    if min_snr_db is not None and not error.snr_db >= min_snr_db:
        raise Wrong(f"its signal-to-noise ratio is {error.snr_db:.1f} dB, less than {min_snr_db:g} dB")


def same_bytes(name: str, first: Path, second: Path) -> bool:
    """Whether two files of a name have the same bytes."""
    return filecmp.cmp(first, second, shallow=False)


def changed_files(
    ours: Mapping[str, Path],
    theirs: Mapping[str, Path],
    same: Callable[[str, Path, Path], bool] = same_bytes,
) -> Iterator[str]:
    """Differences between files that compressing does not write, by their names."""
    for name in sorted(ours.keys() | theirs.keys()):
        if name not in theirs:
            yield f"file {name} is missing"
        elif name not in ours:
            yield f"file {name} was added"
        elif not same(name, ours[name], theirs[name]):
            yield f"file {name} differs"
