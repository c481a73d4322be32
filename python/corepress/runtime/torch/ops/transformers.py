"""Attention."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ....coreml.format.versions import IOS18
from ..registry import implements


@implements("scaled_dot_product_attention", since=IOS18)
def scaled_dot_product_attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None) -> Tensor:
    """A mask of booleans is true where a key takes part, one of numbers is added to the scores.

    A query that no key takes part in gives zeros.
    """
    if attn_mask is not None and attn_mask.dim() == 1:
        attn_mask = attn_mask.unsqueeze(0)
    return F.scaled_dot_product_attention(query, key, value, attn_mask)
