"""Replacement for ``coreai_opt.coreai_utils``: change the import, keep the script.

::

    import corepress.optimize.coreai as coreai_utils      # instead of: import coreai_opt.coreai_utils as coreai_utils

    program = AIModelAsset.load(Path("Model.aimodel")).program
    smaller = coreai_utils.palettize_weights(program, lut_dtype=None, n_bits=4)

The functions have coreai-opt's signatures, and take and return Core AI's ``AIProgram``. They need coreai-core, but
neither coreai-opt nor PyTorch; enumerations of coreai-opt, and their values as strings, are accepted too.

Intentional differences:

- Palettes are optimal, of the weights as they are: not rounded to ``rounding_precision`` decimals, nor to float16.
  ``num_kmeans_workers``, ``enable_fast_kmeans_mode`` and ``rounding_precision`` have no effect.
- ``n_bits=3`` works, and so do programs with weights of fp4, which coreai-opt does not pack.
- Scales have no ``1e-6`` added, which small weights suffer from; those of fp4, and of fp8 with ``scale_dtype``, are
  powers of two before codes are found, not afterwards.
- ``enable_per_channel_scale`` scales each output channel. Scales of coreai-opt run over the input channels.
- Weights of all operations that `corepress.coreai.compress` knows are compressed: transposed and
  three-dimensional convolutions, experts, bfloat16, and weights behind casts are too, and weights of several axes only.
- A weight that several operations or functions share is compressed once. If they disagree about the axes, it is left
  unchanged.
- A weight that would not become smaller, or has infinite or NaN values, is left unchanged, with a warning of the logger
  ``corepress``.
- ``in_place=True`` gives the program another module; references to operations of the old one are not updated.

As with coreai-opt, a result shares memory with the program that it was made from: what the results of a program store
is let go with the last of them and the program itself.
"""

from .choices import CompressionGranularity, DType, QScheme
from .functions import palettize_weights, quantize_weights, sparsify_weights

__all__ = [
    "CompressionGranularity",
    "DType",
    "QScheme",
    "palettize_weights",
    "quantize_weights",
    "sparsify_weights",
]
