"""Products with matrices, and their rows looked up by number."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from ..limits import limited
from .registry import Given, Run, layer, operation
from .shapes import require_rank

_LARGEST_CODE = 127


def _quantized(x: Tensor) -> Tensor:
    """Rounded as the layer does it in a run: to 8 bits, symmetric, with one scale for the whole tensor."""
    scale = x.detach().abs().amax() / _LARGEST_CODE if x.numel() else x.new_ones(())
    return torch.where(scale > 0, torch.round(x / scale) * scale, x)


def _product(x: Tensor, weights: Tensor, bias: Tensor | None) -> Tensor:
    limited((*x.shape[:-1], weights.shape[0]))
    return functional.linear(x, weights, bias)


def _rounding(given: Given) -> Callable[[Tensor], Tensor]:
    return _quantized if given.params.int8DynamicQuantize else lambda x: x


@layer("innerProduct")
def inner_product(given: Given) -> Run:
    """Of the last axis up to rank 3, and of the last three axes of tensors of rank 4 and 5."""
    rounded = _rounding(given)

    def run(x: Tensor, *, weights: Tensor, bias: Tensor | None = None) -> Tensor:
        if x.dim() <= 3:
            return _product(rounded(x), weights, bias)
        flat = x.reshape(*x.shape[:-3], x.shape[-3] * x.shape[-2] * x.shape[-1])
        return _product(rounded(flat), weights, bias)[..., None, None]

    return run


@layer("batchedMatmul")
def batched_matmul(given: Given) -> Run:
    """Of two tensors, or of one with a matrix, which is stored by columns."""
    params = given.params
    if given.inputs == 1:
        rounded = _rounding(given)
        return lambda x, *, weights, bias=None: _product(rounded(x), weights, bias)
    compute, transpose_x, transpose_y = operation("matmul"), params.transposeA, params.transposeB

    def run(x: Tensor, y: Tensor) -> Tensor:
        x, y = x[None] if x.dim() == 1 else x, y[:, None] if y.dim() == 1 else y
        return torch.as_tensor(compute(x, y, transpose_x=transpose_x, transpose_y=transpose_y))

    return run


def _rows(table: Tensor, numbers: Tensor, bias: Tensor | None) -> Tensor:
    """Columns of the matrix, by number; numbers outside of it are clamped."""
    limited((*numbers.shape, table.shape[0]))
    rows = functional.embedding(numbers.long().clamp(0, table.shape[1] - 1), table.t())
    return rows if bias is None else rows + bias


@layer("embedding")
def embedding(given: Given) -> Run:
    """A vector for each number, along the channels; numbers outside of the table are clamped."""

    def run(x: Tensor, *, weights: Tensor, bias: Tensor | None = None) -> Tensor:
        require_rank(x, 4)
        return _rows(weights, x.reshape(x.shape[:-3]), bias)[..., None, None]

    return run


@layer("embeddingND")
def embedding_nd(given: Given) -> Run:
    """A vector for each number, instead of the last axis; numbers outside of the table are clamped."""
    return lambda x, *, weights, bias=None: _rows(weights, x.squeeze(-1), bias)
