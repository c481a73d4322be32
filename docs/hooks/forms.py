"""Fills the page of formats with the operations of each result and the inputs that newer systems add, from the code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from corepress.compression import apply
from corepress.coreml.operations import check_steps, lower
from corepress.coreml.program.raising import ADDED_INPUTS
from corepress.coreml.program.raising_ios17 import ADDED_INPUTS_IOS17
from corepress.specs import Palettize, Prune, Quantize, Spec

PLACE = "<!-- the operations of every form -->"
PLACE_OF_INPUTS = "<!-- the inputs that iOS 16 adds -->"
PLACE_OF_IOS17 = "<!-- the inputs that iOS 17 adds -->"
VERSIONS = {"7, 8 (iOS 16, 17)": 7, "9 (iOS 18)": 9, "10 (iOS 26)": 10}
_HALF, _GROUPED = Prune(target_sparsity=0.5), {"granularity": "per_grouped_channel", "group_size": 8}
FORMS: dict[str, tuple[Spec, ...]] = {
    "palette": (Palettize(nbits=4),),
    "palette of 3 bits": (Palettize(nbits=3),),
    "palettes of groups": (Palettize(nbits=4, **_GROUPED),),
    "palette of vectors": (Palettize(nbits=4, cluster_dim=2),),
    "palette with scales": (Palettize(nbits=4, enable_per_channel_scale=True),),
    "palette of vectors with scales": (Palettize(nbits=4, cluster_dim=2, enable_per_channel_scale=True),),
    "int8 or uint8": (Quantize(),),
    "int4 or uint4": (Quantize(dtype="int4"),),
    "blocks": (Quantize(granularity="per_block", block_size=8),),
    "pruned": (_HALF,),
    "pruned, then palettized": (_HALF, Palettize(nbits=4)),
    "pruned, then quantized": (_HALF, Quantize()),
    "palette, then its table quantized": (Palettize(nbits=4), Quantize()),
    "quantized, then palettized": (Quantize(), Palettize(nbits=4)),
    "pruned, palettized, table quantized": (_HALF, Palettize(nbits=4), Quantize()),
    "pruned, quantized, then palettized": (_HALF, Quantize(), Palettize(nbits=4)),
}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the tables where a page asks for them."""
    for place, table in (
        (PLACE, _table),
        (PLACE_OF_INPUTS, lambda: _table_of_inputs(ADDED_INPUTS)),
        (PLACE_OF_IOS17, lambda: _table_of_inputs(ADDED_INPUTS_IOS17)),
    ):
        markdown = markdown.replace(place, table()) if place in markdown else markdown
    return markdown


def _table_of_inputs(added: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [["operation", "input", "default"], ["---"] * 3]
    for operation, inputs in added.items():
        rows += [[f"`{operation}`", f"`{name}`", str(default).lower()] for name, default in inputs.items()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _table() -> str:
    rows = [["", *VERSIONS], ["---"] * (1 + len(VERSIONS))]
    rows += [[name, *(_chain(steps, version) for version in VERSIONS.values())] for name, steps in FORMS.items()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _chain(steps: tuple[Spec, ...], version: int) -> str:
    """The operations of a weight after these steps, or that there are none."""
    try:
        check_steps(steps, version)
    except ValueError:
        return "refused"
    tensor: Any = np.random.default_rng(0).standard_normal((16, 64, 3, 3)).astype(np.float16)
    for step in steps:
        tensor = apply(tensor, step)
    return " → ".join(f"`{each.type.removeprefix('constexpr_')}`" for each in lower(tensor, version).chain())
