"""Low-level building blocks for tools with their own file formats."""

from .clustering import Clusters, kmeans, kmeans1d, kmeans1d_sweep
from .nearest import assign, to_float16
from .packing import pack_bits, pack_mask, unpack_bits, unpack_mask
from .sparsity import decode_sparse, encode_sparse, magnitude_mask, n_m_mask

__all__ = [
    "Clusters",
    "assign",
    "decode_sparse",
    "encode_sparse",
    "kmeans",
    "kmeans1d",
    "kmeans1d_sweep",
    "magnitude_mask",
    "n_m_mask",
    "pack_bits",
    "pack_mask",
    "to_float16",
    "unpack_bits",
    "unpack_mask",
]
