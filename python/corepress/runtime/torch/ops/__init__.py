"""The operations of ML programs, in modules named as coremltools names theirs."""

from . import (  # noqa: F401
    activation,
    classify,
    control_flow,
    conv,
    elementwise_binary,
    elementwise_unary,
    image_resizing,
    linear,
    normalization,
    pool,
    quantization,
    random,
    recurrent,
    reduction,
    scatter_gather,
    tensor_operation,
    tensor_transformation,
    transformers,
)
