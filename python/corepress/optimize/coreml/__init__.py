"""Stands in for ``coremltools.optimize.coreml``: change the import, keep the script.

::

    import corepress.optimize.coreml as cto      # instead of: import coremltools.optimize.coreml as cto

    config = cto.OptimizationConfig(global_config=cto.OpPalettizerConfig(nbits=4))
    smaller = cto.palettize_weights(model, config)

The functions have coremltools' signatures and take and return its ``MLModel``; the config classes are coremltools' own.
The operations, names, axes, opsets, errors and warnings are coremltools' too. Work is done on packages, by the code of
`corepress.coreml.compress`: the program is edited, not rebuilt, and what ``_mil_program`` holds is made only when
somebody asks for it.

What differs, on purpose:

- Only the weights that the config means change. coremltools runs its whole pipeline of passes over the program: it
  merges constants that are nearly the same, adds operations around each ``gather``, and drops ``buildInfo``.
- ``mode="kmeans"`` gives the optimal table, ascending, for float16 and float32 and groups of every size, and unused
  entries repeat the largest; ``num_kmeans_workers`` has no effect, since all threads are used anyway.
- ``mode="uniform"`` has coremltools' tables, as NumPy 2 computes them (NumPy 1 rounds float16 differently), of which
  each weight takes the nearest entry. Where steps or entries of float16 overflow, or steps lose so many digits that the
  table misses the range of weights, there are better tables.
- ``enable_per_channel_scale`` scales each **output** channel, as documented; coremltools takes the largest magnitude
  over the output channels, one per place of the other axes. Below specification version 10 the scale is multiplied
  into the tables. A weight whose groups do not divide is left as it is, not divided by its scale.
- A weight with infinite or NaN values is left as it is, with a warning: coremltools gives tables and scales of NaN, or
  ends the whole call.
- Scales and zero points are found in double precision, so that float16 does not overflow or lose digits; sparsity by
  exact order of magnitudes, also where NumPy's percentile of float16 is NaN.
- ``lut_function`` is called with a copy of a weight (of a group, in the weight's own axes) and its table may have any
  length up to 256; tables are stored ascending. It makes no tables of vectors (`cluster_dim` above 1).
- Consumers that disagree on the output channel axis matter only where the axis does: not for one table per tensor.
- A constant that also leaves a block as its output is left as it is: Core ML does not take such compressed weights.
- Integer constants are left as they are.
- With ``joint_compression=True`` tables are fitted to the values that sparse weights store, without their zeros; tables
  that scales would make larger than the weight are not made; and the operations inside of a form have names of their
  own.
- Models older than iOS 16 are first raised to it, as there, but all operations keep their names, so that `verify`
  accepts the result; only programs that hold blocks for several systems are raised by coremltools.
- Deprecated configs with ``op_selector``, and whatever this version cannot read when it decompresses, are left to
  coremltools' own functions.
"""

from ...extras import load

load("corepress.optimize.coreml", "coremltools")

from coremltools.optimize.coreml import (  # noqa: E402
    CoreMLOpMetaData,
    CoreMLWeightMetaData,
    OpLinearQuantizerConfig,
    OpMagnitudePrunerConfig,
    OpPalettizerConfig,
    OpThresholdPrunerConfig,
    OptimizationConfig,
    experimental,
    linear_quantize_activations,
)

from .functions import decompress_weights, linear_quantize_weights, palettize_weights, prune_weights  # noqa: E402
from .metadata import get_weights_metadata  # noqa: E402

__all__ = [
    "CoreMLOpMetaData",
    "CoreMLWeightMetaData",
    "OpLinearQuantizerConfig",
    "OpMagnitudePrunerConfig",
    "OpPalettizerConfig",
    "OpThresholdPrunerConfig",
    "OptimizationConfig",
    "decompress_weights",
    "experimental",
    "get_weights_metadata",
    "linear_quantize_activations",
    "linear_quantize_weights",
    "palettize_weights",
    "prune_weights",
]
