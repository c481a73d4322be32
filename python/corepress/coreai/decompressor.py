"""Turning compressed weights of an asset back into plain ones."""

from __future__ import annotations

from ..arrays import as_threads
from ..engine.distances import Undecodable
from ..engine.report import Report
from ..engine.run import Outcome, ProgressCallback
from ..errors import Skip
from ..paths import StrPath
from ..tensors import CompressedTensor
from .compressor import Work, transform
from .decoded import stored_form
from .operations import Node
from .program.weights import Weight


def decompress(
    src: StrPath,
    dst: StrPath,
    *,
    progress: ProgressCallback | None = None,
    overwrite: bool = False,
    num_threads: int | None = None,
) -> Report:
    """Decompress the weights of an ``.aimodel``, compressed by any tool.

    They get the values that Core AI computes with. Forms that this version does not support are left unchanged and
    reported.

    Parameters
    ----------
    src, dst : path-like
        The asset to read and the asset to write.
    progress : callable, optional
        Called with a `Progress` at the start and after each weight.
    overwrite : bool
        Replace `dst` if it exists.
    num_threads : int, optional
        Threads to use; None for all CPUs this process may use, or `COREPRESS_NUM_THREADS`.

    Returns
    -------
    Report
        One record per weight, and totals.

    Raises
    ------
    FormatError
        If the asset is damaged.
    MissingExtraError
        If coreai-core is not installed.
    """
    num_threads = as_threads("decompress", num_threads)

    def decide(weight: Weight) -> Work:
        if not weight.is_compressed:
            raise Skip("not compressed", expected=True)

        def work(threads: int) -> Outcome[Node]:
            try:
                found = stored_form(weight)
                values = found.dense(num_threads=threads) if isinstance(found, CompressedTensor) else found
                return Outcome(weight.plain(values), "decompressed", weight.storage)
            except Undecodable as reason:
                raise Skip(str(reason)) from None
            finally:
                weight.release()

        return work

    return transform(
        src,
        dst,
        decide,
        prepare=lambda program: None,
        progress=progress,
        overwrite=overwrite,
        num_threads=num_threads,
    )
