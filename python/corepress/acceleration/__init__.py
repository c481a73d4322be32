"""The native kernels inside other libraries: `corepress.accelerate`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..extras import installed

if TYPE_CHECKING:
    from .hosts import ImportWatch
    from .swaps import Swaps

__all__ = ["Accelerate", "accelerate"]


class Accelerate:
    """Make coremltools, coreai-opt and torchao use the native kernels.

    ::

        with corepress.accelerate():
            smaller = coremltools.optimize.coreml.palettize_weights(model, config)

    or `install` and, later, `uninstall`. Passes, operations and names are still those of the libraries, but the kernels
    compute palettes (lookup tables, LUTs), codes and scales, masks, packing, and decompressed weights:

    coremltools
        In ``coremltools.optimize.coreml``, in the operations' own decompression, and in
        ``_get_kmeans_lookup_table_and_weight`` of its neural networks, which Apple's Stable Diffusion scripts call.
        Where PyTorch is installed, also in ``coremltools.optimize.torch``: k-means, masks, the loops of GPTQ and
        SparseGPT, and steps of differentiable k-means on the CPU.
    coreai-opt
        In ``coreai_opt.coreai_utils``, which compresses programs of Core AI, and in ``KMeansPalettizer`` and
        ``MagnitudePruner`` of PyTorch models.
    torchao
        In ``torchao.prototype.quantization.codebook_coreml``.

    coreai-opt and torchao are not imported for this, but accelerated whenever they are. Input that the kernels do not
    support, such as float64 or a ``lut_function``, is left to the libraries.

    Results differ from coremltools' where those of `corepress.optimize.coreml` do for the same numbers: k-means
    palettes are optimal, float16 does not overflow, and a weight with infinite or NaN values, or whose groups do not
    divide, is left unchanged. ``num_kmeans_workers`` starts no processes: all threads are used anyway. The axis that
    coremltools scales for ``enable_per_channel_scale`` does not change; `corepress.optimize.coreml` uses the right one.

    Of coreai-opt, ``enable_fast_kmeans_mode`` does not round weights to ``rounding_precision`` decimals, which leaves
    nothing of small ones; scales have no ``1e-6`` added, and those of fp4 are powers of two before codes are found; fp4
    is packed, without which programs do not run; ``n_bits=3`` works; and ``num_workers`` starts no processes.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._users = 0
        self._swaps: Swaps | None = None
        self._watch: ImportWatch | None = None

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Accelerate the libraries inside a ``with`` block; blocks can be nested, and apply to all threads.

        Raises
        ------
        MissingExtraError
            If there is none of them.
        RuntimeError
            If the internals of this coremltools are not known.
        """
        self.install()
        try:
            yield
        finally:
            self.uninstall()

    def install(self) -> None:
        """Accelerate the libraries until `uninstall` has been called as often.

        Warns
        -----
        RuntimeWarning
            If the internals of this coreai-opt or torchao are not known; it is then not changed.

        Raises
        ------
        MissingExtraError
            If there is none of them.
        RuntimeError
            If the internals of this coremltools are not known. Nothing has changed then.
        """
        from . import hosts, internals
        from .swaps import Swaps

        with self._lock:
            if self._users == 0:
                swaps, others = Swaps(), hosts.installed()
                if installed("coremltools") or not others:
                    internals.replace(swaps)
                self._swaps, self._watch = swaps, hosts.replace(swaps, others)
            self._users += 1

    def uninstall(self) -> None:
        """Undo one `install`; undoing the last restores the libraries. Without any, do nothing."""
        with self._lock:
            self._users = max(0, self._users - 1)
            if self._users or self._swaps is None:
                return
            if self._watch is not None:
                self._watch.end()
            self._swaps.undo()
            self._swaps = self._watch = None

    @property
    def is_installed(self) -> bool:
        """Whether the libraries use the kernels now."""
        return self._users > 0

    def __repr__(self) -> str:
        return f"<corepress.accelerate, {'installed' if self.is_installed else 'not installed'}>"


accelerate = Accelerate()
