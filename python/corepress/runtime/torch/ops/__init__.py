"""The operations of ML programs, in modules named as coremltools names theirs."""

from . import (
    activation,  # noqa: F401
    classify,  # noqa: F401
    control_flow,  # noqa: F401
    elementwise_binary,  # noqa: F401
    elementwise_unary,  # noqa: F401
    reduction,  # noqa: F401
    scatter_gather,  # noqa: F401
    tensor_operation,  # noqa: F401
    tensor_transformation,  # noqa: F401
)
