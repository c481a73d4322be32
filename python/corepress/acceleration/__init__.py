"""The native kernels inside of coremltools: `corepress.accelerate`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Accelerate", "accelerate"]


class Accelerate:
    """Have coremltools' own passes use the native kernels.

    ::

        with corepress.accelerate():
            smaller = coremltools.optimize.coreml.palettize_weights(model, config)

    or `install` and, later, `uninstall`. Passes, operations and names stay coremltools' own; what changes is who
    computes: tables, codes and scales, masks, packing, and decompressed weights, in ``coremltools.optimize.coreml``, in
    the operations' own decompression, and in ``_get_kmeans_lookup_table_and_weight`` of its neural networks, which
    torchao and Apple's Stable Diffusion scripts call. What the kernels do not take, such as float64 or a
    ``lut_function``, is left to coremltools.

    Results differ where `corepress.optimize.coreml` differs for the same numbers: k-means tables are optimal, float16
    does not overflow, and a weight with infinite or NaN values, or whose groups do not divide, is skipped as it was.
    ``num_kmeans_workers`` starts no processes: all threads are used anyway. Where coremltools puts the scales of
    ``enable_per_channel_scale`` does not change; `corepress.optimize.coreml` puts them right.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._undo: list[tuple[Any, str, Any]] = []

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Accelerate coremltools inside of a ``with`` block; blocks can be nested, and count for all threads.

        Raises
        ------
        MissingExtraError
            If there is no coremltools.
        RuntimeError
            If this coremltools is not one whose internals are known.
        """
        self.install()
        try:
            yield
        finally:
            self.uninstall()

    def install(self) -> None:
        """Accelerate coremltools until `uninstall`, which must be called as often.

        Raises
        ------
        MissingExtraError
            If there is no coremltools.
        RuntimeError
            If this coremltools is not one whose internals are known. Nothing has changed then.
        """
        from .internals import replacements

        with self._lock:
            if self._users == 0:
                for owner, name, new in replacements():
                    self._undo.append((owner, name, vars(owner)[name]))
                    setattr(owner, name, new)
            self._users += 1

    def uninstall(self) -> None:
        """Take back one `install`; the last one leaves coremltools as it was. Without any, nothing happens."""
        with self._lock:
            self._users = max(0, self._users - 1)
            if self._users == 0:
                while self._undo:
                    setattr(*self._undo.pop())

    @property
    def is_installed(self) -> bool:
        """Whether coremltools uses the kernels now."""
        return self._users > 0

    def __repr__(self) -> str:
        return f"<corepress.accelerate, {'installed' if self.is_installed else 'not installed'}>"


accelerate = Accelerate()
