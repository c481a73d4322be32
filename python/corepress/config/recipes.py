"""Mixed-bit recipes: weight name to bits, and the files of Apple's mixed-bit palettization.

That file, ``..._palettization_recipe.json``, is written by ``mixed_bit_compression_pre_analysis`` of
apple/ml-stable-diffusion: ``recipes`` holds, by keys such as ``recipe_4.50_bit_mixedpalette``, one dict of PyTorch
module name to bits each, and ``baselines`` the signal-to-noise ratio that each reached.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..intake import whole
from ..specs import PALETTE_BITS, Palettize
from ..suggestions import suggestion
from .patterns import MODULE

KEEP_BITS = (16, 32)
_BITS_IN_KEY = re.compile(r"recipe_(\d+(?:\.\d+)?)_bit")


def is_recipe(values: Mapping[Any, Any]) -> bool:
    """Whether a dict is a recipe, or holds several."""
    if isinstance(values.get("recipes"), Mapping):
        return True
    return bool(values) and all(whole(nbits) is not None for nbits in values.values())


def rules_of(recipe: Any, key: str | float | None, options: Mapping[str, Any]) -> list[tuple[str, Palettize | None]]:
    """Rules for weights by name, the most specific last.

    Parameters
    ----------
    recipe : dict
        Weight name to bits, or a dict whose ``recipes`` are such dicts.
    key : str, float or None
        Which of several recipes; None if there is one only.
    options : dict
        Further options of `Palettize`.
    """
    if not isinstance(recipe, Mapping) or not is_recipe(recipe):
        raise ValueError("recipe: must be a dict of weight names to bits, or have recipes")
    bits_by_name = _selected(recipe, key)
    specs: dict[int, Palettize | None] = dict.fromkeys(KEEP_BITS)
    specs |= {nbits: Palettize(**{"nbits": nbits, **options}) for nbits in PALETTE_BITS}
    for name, nbits in bits_by_name.items():
        if whole(nbits) not in specs:
            allowed = ", ".join(map(str, specs))
            raise ValueError(f"recipe: bits of {name!r} must be {allowed}, not {nbits!r}")
    names = sorted(map(str, bits_by_name), key=len)
    return [(MODULE + name, specs[bits_by_name[name]]) for name in names]


def _selected(recipe: Mapping[str, Any], key: str | float | None) -> Mapping[str, Any]:
    recipes = recipe.get("recipes")
    if not isinstance(recipes, Mapping):
        if key is not None:
            raise ValueError(f"recipe {key!r}: this file has one recipe, without a key")
        return recipe
    available = ", ".join(map(str, recipes)) or "none"
    if key is None and len(recipes) == 1:
        key = next(iter(recipes))
    if key is None:
        raise ValueError(f"recipe: choose one by its key or its bits; there are {available}")
    chosen = [key] if key in recipes else [each for each in recipes if _is_near(each, key)]
    if len(chosen) != 1:
        raise ValueError(f"recipe {key!r}: unknown; there are {available}{suggestion(key, recipes)}")
    found = recipes[chosen[0]]
    if not isinstance(found, Mapping):
        raise ValueError(f"recipe {key!r}: must be a dict of weight names to bits, not {found!r}")
    return found


def _is_near(name: str, key: str | float) -> bool:
    """Whether a recipe's name contains these bits per weight."""
    match = _BITS_IN_KEY.match(str(name))
    try:
        return match is not None and abs(float(match[1]) - float(key)) < 0.005
    except ValueError:
        return False
