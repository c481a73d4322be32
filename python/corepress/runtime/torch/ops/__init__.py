"""The operations of ML programs, in modules named as coremltools names theirs."""

from . import (  # noqa: F401
    activation,
    conv,
    image_resizing,
    linear,
    normalization,
    pool,
    quantization,
    random,
    recurrent,
    transformers,
)
