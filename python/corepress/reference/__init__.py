"""Slow, straightforward versions of the kernels in NumPy and plain Python; tests compare the native ones with them.

Where a kernel promises exact bits (codes, scales, zero points, masks, packed bytes, decompressed arrays), these give
the same bits. Each function takes one block or one group; callers divide tensors.
"""

from .affine import choose_scale, dequantize, dequantize_blocks, quantize
from .clustering import kmeans1d
from .errors import error_sums
from .even_steps import choose_even_steps, decode_even_steps, encode_even_steps
from .fake_quantize import fake_quantize, fake_quantize_gradient
from .float_codes import (
    choose_binary_scale,
    decode_floats,
    float_codes,
    float_values,
    quantize_binary,
    quantize_floats,
)
from .packing import pack_bits, unpack_bits
from .palettes import assign, block_parameters, look_up, look_up_groups, normalize, table_cuts, uniform_table
from .pruning import block_mask, decode_sparse, encode_sparse, magnitude_mask, magnitude_of_sparsity, n_m_mask
from .rounding import round_to, to_float16
from .vectors import assign_vectors, decode_palette, lloyd_step, vector_distances, vectors_of

__all__ = [
    "assign",
    "assign_vectors",
    "block_mask",
    "block_parameters",
    "choose_binary_scale",
    "choose_even_steps",
    "choose_scale",
    "decode_even_steps",
    "decode_floats",
    "decode_palette",
    "decode_sparse",
    "dequantize",
    "dequantize_blocks",
    "encode_even_steps",
    "encode_sparse",
    "error_sums",
    "fake_quantize",
    "fake_quantize_gradient",
    "float_codes",
    "float_values",
    "kmeans1d",
    "lloyd_step",
    "look_up",
    "look_up_groups",
    "magnitude_mask",
    "magnitude_of_sparsity",
    "n_m_mask",
    "normalize",
    "pack_bits",
    "quantize",
    "quantize_binary",
    "quantize_floats",
    "round_to",
    "table_cuts",
    "to_float16",
    "uniform_table",
    "unpack_bits",
    "vector_distances",
    "vectors_of",
]
