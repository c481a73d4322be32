"""What layers of several families share: axes, batches, and sizes that are known only in a run."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from torch import Tensor

from ..limits import ELEMENT_LIMIT as ELEMENT_LIMIT
from ..limits import limited as limited

CHANNEL, HEIGHT, WIDTH, SEQUENCE = -3, -2, -1, -5


def require_rank(x: Tensor, least: int) -> None:
    """Raise ValueError if a tensor has fewer axes."""
    if x.dim() < least:
        raise ValueError(f"its input must have rank {least} at least, not {x.dim()} (shape {tuple(x.shape)})")


def batched(compute: Callable[[Tensor], Tensor], x: Tensor, trailing: int = 3) -> Tensor:
    """Compute with all axes before the last `trailing` ones as one batch."""
    rank = x.dim()
    if rank == trailing + 1:
        return compute(x)
    if rank == trailing + 2 and x.shape[0] == 1:
        return compute(x.squeeze(0)).unsqueeze(0)
    require_rank(x, trailing)
    leading = x.shape[:-trailing]
    result = compute(x.reshape(prod(leading), *x.shape[-trailing:]))
    return result.reshape(*leading, *result.shape[1:])


def integers(x: Tensor) -> list[int]:
    """The values of a tensor as integers; ValueError if some are not finite."""
    values = x.detach().reshape(-1).tolist()
    try:
        return [int(value) for value in values]
    except (OverflowError, ValueError):
        raise ValueError(f"indices and sizes must be finite, not {values}") from None


def integer(x: Tensor) -> int:
    """The only value of a tensor as an integer; ValueError if there is not exactly one."""
    values = integers(x)
    if len(values) != 1:
        raise ValueError(f"an input must have one value, not {len(values)}")
    return values[0]


def axis_of(axis: int, rank: int) -> int:
    """An axis counted from the front; ValueError if there is no such axis."""
    if not -rank <= axis < rank:
        raise ValueError(f"axis {axis} does not exist in a tensor of rank {rank}")
    return axis % rank
