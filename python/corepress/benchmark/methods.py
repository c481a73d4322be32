"""The ways to compress that are measured on whole models."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..compression import apply_steps
from ..compression.weight_data import NO_DATA, WeightData
from ..specs import Palettize, Prune, Quantize, Spec
from ..tensors import CompressedTensor


@dataclass(frozen=True)
class Method:
    """One way to compress.

    Attributes
    ----------
    key, title : str
        Its short and its full name.
    steps : tuple of Spec
        What is done, one after the other.
    slow : bool
        Whether it takes so long that a sample of a model's layers must do.
    needs_moments : bool
        Whether it uses second moments of the inputs, for error feedback.
    """

    key: str
    title: str
    steps: tuple[Spec, ...]
    slow: bool = False
    needs_moments: bool = False

    def compress(
        self, weight: Any, num_threads: int | None = None, moments: NDArray[np.float32] | None = None
    ) -> CompressedTensor:
        """Apply the steps, one after the other; to a method that needs them, give the moments."""
        data = WeightData(hessian=moments) if self.needs_moments else NO_DATA
        tensor: CompressedTensor = apply_steps(weight, self.steps, data=data, num_threads=num_threads)
        return tensor


GROUPED = Palettize(nbits=4, granularity="per_grouped_channel")

METHODS: dict[str, Method] = {
    method.key: method
    for method in (
        Method("4bit", "4 bits", (Palettize(nbits=4),)),
        *(
            Method(key, f"4 bits, groups of {size}", (replace(GROUPED, group_size=size),))
            for key, size in (("4bit-groups", 16), ("4bit-groups-of-8", 8), ("4bit-groups-of-32", 32))
        ),
        Method("6bit", "6 bits", (Palettize(nbits=6),)),
        Method("8bit", "8 bits", (Palettize(nbits=8),)),
        Method("int8", "int8 per channel", (Quantize(dtype="int8"),)),
        Method(
            "int4-blocks",
            "int4, blocks of 32",
            (Quantize(dtype="int4", granularity="per_block", block_size=32),),
        ),
        Method("half-pruned", "half pruned", (Prune(target_sparsity=0.5),)),
        Method("half-pruned-4bit", "half pruned, then 4 bits", (Prune(target_sparsity=0.5), Palettize(nbits=4))),
        Method("4bit-feedback", "4 bits, error feedback", (Palettize(nbits=4),), slow=True, needs_moments=True),
        Method("4bit-vectors", "4 bits for vectors of 2", (Palettize(nbits=4, cluster_dim=2),), slow=True),
        Method("8bit-vectors", "8 bits for vectors of 4", (Palettize(nbits=8, cluster_dim=4),), slow=True),
    )
}
