"""The native kernels inside coremltools: `corepress.accelerate`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Accelerate", "accelerate"]


class Accelerate:
    """Make coremltools' own passes use the native kernels.

    ::

        with corepress.accelerate():
            smaller = coremltools.optimize.coreml.palettize_weights(model, config)

    or `install` and, later, `uninstall`. Passes, operations and names are still coremltools' own, but the kernels
    compute palettes (lookup tables, LUTs), codes and scales, masks, packing, and decompressed weights: in
    ``coremltools.optimize.coreml``, in the operations' own decompression, and in
    ``_get_kmeans_lookup_table_and_weight`` of its neural networks, which torchao and Apple's Stable Diffusion scripts
    call. Where PyTorch is installed, also in ``coremltools.optimize.torch``: k-means, masks, the loops of GPTQ and
    SparseGPT, and steps of differentiable k-means on the CPU. Input that the kernels do not support, such as float64 or
    a ``lut_function``, is left to coremltools.

    Results differ where those of `corepress.optimize.coreml` do for the same numbers: k-means palettes are optimal,
    float16 does not overflow, and a weight with infinite or NaN values, or whose groups do not divide, is left
    unchanged. ``num_kmeans_workers`` starts no processes: all threads are used anyway. The axis that coremltools scales
    for ``enable_per_channel_scale`` does not change; `corepress.optimize.coreml` uses the right one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._undo: list[tuple[Any, str, Any]] = []

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Accelerate coremltools inside a ``with`` block; blocks can be nested, and apply to all threads.

        Raises
        ------
        MissingExtraError
            If there is no coremltools.
        RuntimeError
            If the internals of this coremltools are not known.
        """
        self.install()
        try:
            yield
        finally:
            self.uninstall()

    def install(self) -> None:
        """Accelerate coremltools until `uninstall` has been called as often.

        Raises
        ------
        MissingExtraError
            If there is no coremltools.
        RuntimeError
            If the internals of this coremltools are not known. Nothing has changed then.
        """
        from .internals import replacements

        with self._lock:
            if self._users == 0:
                for owner, name, new in replacements():
                    self._undo.append((owner, name, vars(owner)[name]))
                    setattr(owner, name, new)
            self._users += 1

    def uninstall(self) -> None:
        """Undo one `install`; undoing the last restores coremltools. Without any, do nothing."""
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
