"""Tables of torchao's codebook quantizer for Core ML: found for all groups at once, and looked up. Imports torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode

from .. import kernels
from ..compression import palettize
from ..specs import PALETTE_BITS
from ..tensors import PalettizedTensor

Function = Callable[..., Any]
_FLOATS = (torch.float16, torch.bfloat16, torch.float32)
_BITS = {f"torch.uint{nbits}": nbits for nbits in PALETTE_BITS}


def choose_tables(original: Function) -> Function:
    """Replaces ``choose_qparams_and_quantize_codebook_coreml``: optimal tables of all groups in one call."""

    def accelerated(
        input_tensor: Any,
        code_dtype: Any,
        block_size: Any,
        force_kmeans1d: bool = False,
        cluster_dim: int = 1,
        vector_axis: int | None = None,
    ) -> Any:
        nbits = _BITS.get(str(code_dtype))
        groups = _groups(tuple(input_tensor.shape), block_size)
        fits = nbits and cluster_dim == 1 and groups is not None and _is_plain(input_tensor)
        if not fits or input_tensor.dtype not in _FLOATS:
            return original(input_tensor, code_dtype, block_size, force_kmeans1d, cluster_dim, vector_axis)
        assert nbits is not None
        assert groups is not None
        axis, size = groups
        weight = input_tensor.detach()
        array = np.ascontiguousarray((weight.float() if weight.dtype == torch.bfloat16 else weight).numpy())
        if not np.isfinite(array).all():
            return original(input_tensor, code_dtype, block_size, force_kmeans1d, cluster_dim, vector_axis)
        tensor = palettize(array, nbits=nbits, granularity="per_grouped_channel", group_size=size, channel_axis=axis)
        codes = tensor.codes()
        # torchao's tables are the means in double precision.
        of_channel = (np.arange(array.shape[axis]) // size << nbits).astype(np.int32)
        places = (codes + (of_channel[:, None] if axis == 0 else of_channel)).reshape(-1)
        counts = np.bincount(places, minlength=tensor.table.size)
        sums = np.bincount(places, array.reshape(-1), minlength=tensor.table.size)
        table = np.where(counts > 0, sums / np.maximum(counts, 1), tensor.table.reshape(-1).astype(np.float64))
        return torch.from_numpy(table.reshape(tensor.table.shape)), torch.from_numpy(codes)

    return accelerated


def dequantize(original: Function) -> Function:
    """Replaces ``dequantize_codebook``, outside of graphs that are captured."""

    def accelerated(codes: Any, codebook: Any, nbits: int, block_size: Any, output_dtype: Any = torch.float32) -> Any:
        arguments = (codes, codebook, nbits, block_size, output_dtype)
        groups = _groups(tuple(codes.shape), block_size)
        fits = (
            groups is not None
            and nbits in PALETTE_BITS
            and output_dtype in (torch.float16, torch.float32)
            and _is_plain(codes)
            and _is_plain(codebook)
            and codebook.ndim == 4
            and tuple(codebook.shape[2:]) == (1 << nbits, 1)
        )
        if not fits:
            return original(*arguments)
        assert groups is not None
        axis, size = groups
        counts = [1, 1]
        counts[axis] = codes.shape[axis] // size
        if tuple(codebook.shape[:2]) != tuple(counts):
            return original(*arguments)
        indices = codes.detach().numpy()
        if indices.size == 0 or indices.min() < 0 or indices.max() >= 1 << nbits:
            return original(*arguments)
        packed = kernels.pack_bits(np.ascontiguousarray(indices, np.uint8), nbits)
        table = np.ascontiguousarray(codebook.detach().to(output_dtype).numpy())
        return torch.from_numpy(PalettizedTensor(indices.shape, packed, table, nbits).dense())

    return accelerated


def _is_plain(tensor: Any) -> bool:
    """Whether it is a tensor in memory that no graph is captured of."""
    return (
        type(tensor) in (torch.Tensor, torch.nn.Parameter)
        and tensor.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and _get_current_dispatch_mode() is None
    )


def _groups(shape: tuple[int, ...], block_size: Any) -> tuple[int, int] | None:
    """The axis that is divided into groups, and their length; None if torchao would refuse them."""
    if len(shape) != 2 or len(block_size) != 2 or 0 in shape:
        return None
    rows, columns = (length if size == -1 else int(size) for length, size in zip(shape, block_size, strict=True))
    if min(rows, columns) < 1 or shape[0] % rows or shape[1] % columns:
        return None
    if rows == shape[0]:
        return 1, columns
    return (0, rows) if columns == shape[1] else None
