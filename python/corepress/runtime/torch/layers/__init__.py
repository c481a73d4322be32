"""The layers of neural networks, one module for each family, on the functions of the operations of ML programs."""

from . import (  # noqa: F401
    activation,
    allocation,
    arrangement,
    conv,
    elementwise,
    linear,
    normalization,
    pool,
    recurrent,
    reduction,
    resize,
    selection,
    slicing,
)
