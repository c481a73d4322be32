"""Replacement for ``coremltools.optimize.coreml``: change the import, keep the script.

::

    import corepress.optimize.coreml as cto      # instead of: import coremltools.optimize.coreml as cto

    config = cto.OptimizationConfig(global_config=cto.OpPalettizerConfig(nbits=4))
    smaller = cto.palettize_weights(model, config)

The functions have coremltools' signatures and take and return its ``MLModel``; the config classes are coremltools' own.
The operations, names, axes, opsets, errors and warnings are coremltools' too. The functions work on packages, with the
code of `corepress.coreml.compress`: the program is edited, not rebuilt, and ``_mil_program`` is built only on first
access.

Intentional differences:

- Only the weights that the config selects change. coremltools runs its whole pipeline of passes over the program: it
  merges constants that are nearly the same, adds operations around each ``gather``, and drops ``buildInfo``.
- ``mode="kmeans"`` gives the optimal palette (lookup table, LUT), ascending, for float16 and float32 and groups of
  every size, and unused entries repeat the largest; ``num_kmeans_workers`` has no effect, since all threads are used
  anyway.
- ``mode="uniform"`` gives coremltools' palettes, as NumPy 2 computes them (NumPy 1 rounds float16 differently), and
  assigns each weight to the nearest entry. If steps or entries of float16 overflow, or steps lose so much precision
  that the palette misses the range of weights, corepress computes better palettes.
- ``enable_per_channel_scale`` scales each **output** channel, as documented; coremltools takes the largest magnitude
  over the output channels, one per place of the other axes. Below specification version 10 the scale is multiplied into
  the palettes. A weight whose groups do not divide is left unchanged, not divided by its scale.
- A weight with infinite or NaN values is left unchanged, with a warning: coremltools gives palettes and scales of NaN,
  or aborts the whole call.
- Scales and zero points are computed in double precision, so that float16 does not overflow or lose precision; sparsity
  by the exact order of magnitudes, even where NumPy's percentile of float16 is NaN.
- ``lut_function`` is called with a copy of a weight (of a group, in the weight's own axes) and its palette may have any
  length up to 256; palettes are stored ascending. It cannot make palettes of vectors (`cluster_dim` above 1).
- Consumers that disagree on the output channel axis matter only where the axis does: not for one palette per tensor.
- A constant that is also an output of a block is left unchanged: Core ML does not accept such compressed weights.
- Integer constants are left unchanged.
- With ``joint_compression=True`` palettes are fitted to the values that sparse weights store, without their zeros;
  palettes that scales would make larger than the weight are not made; and the inner operations of a joint form have
  different names.
- Models older than iOS 16 are first raised to it, as in coremltools, but all operations keep their names, so that
  `verify` accepts the result; only programs with blocks for several systems are raised by coremltools.
- ``linear_quantize_activations`` runs on every system, without temporary packages for its samples, and takes ranges
  over **all** samples: coremltools overwrites the range of each value with that of the next sample, so that only the
  last one counts. Scales and zero points are computed in double precision, not float16, which overflows. The scales of
  an addition are not divided by that of its second input, which computes the same. Operations whose inputs are
  quantized already are left alone, and so are results that are outputs of the model. Control flow and float32 programs
  work.
- Deprecated configs with ``op_selector``, and forms that this version cannot decompress, are left to coremltools' own
  functions.
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
)

from .activations import linear_quantize_activations  # noqa: E402
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
