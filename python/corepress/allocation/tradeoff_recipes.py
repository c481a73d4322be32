"""The recipes that a trade-off table measures."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..config import as_config
from ..config.candidates import CANDIDATE_SETS
from ..specs import PALETTE_BITS, in_bits
from ..suggestions import suggestion

DEFAULT_BITS = (2.5, 3, 4, 6, 8)
_PRUNED = {f"{sparsity:.0%} pruned": {"prune": {"target_sparsity": sparsity}} for sparsity in (0.1, 0.25, 0.5, 0.75)}


def _palettes(*widths: int) -> dict[str, Any]:
    return {f"palettes of {in_bits(nbits)}": {"palettize": {"nbits": nbits}} for nbits in widths}


PRESETS: dict[str, Mapping[str, Any]] = {
    "demonstration": {**_PRUNED, **_palettes(8, 6, 4, 2)},
    "sizes": {"int8": {"quantize": {}}, **_palettes(8, 6, 4, 2, 1)},
}
"""Tables by name: 10 to 75 % of the weights pruned and palettes of 8 to 2 bits; and what each width takes."""


@dataclass(frozen=True)
class Recipe:
    """One row of a table before it is measured.

    Attributes
    ----------
    name : str
        The recipe in words.
    kind : str
        As `TradeoffRow.kind`.
    calibrated : bool
        Whether calibration is used.
    config : object
        What to do to the weights, or None.
    target_bits : float or None
        What to choose the steps for: bits per weight.
    size_of : object
        If not None, the size of the package that this config makes instead.
    target_size : int or None
        That size in bytes, once it is known.
    """

    name: str
    kind: str
    calibrated: bool
    config: Any = None
    target_bits: float | None = None
    size_of: Any = None
    target_size: int | None = None

    def of_bits(self) -> Recipe:
        """The same for bits per weight, not for a size."""
        return replace(self, name=f"chosen, {in_bits(self.target_bits or 0)}", size_of=None)

    @property
    def key(self) -> str:
        """What identifies it in a file."""
        configs = [None if each is None else as_config(each).to_dict() for each in (self.config, self.size_of)]
        return json.dumps([self.kind, self.calibrated, configs, self.target_bits], sort_keys=True)


def recipes_of(
    bits: Iterable[float], preset: str | None, recipes: Mapping[str, Any] | None, *, allocated: bool
) -> tuple[Recipe, ...]:
    """The recipes that a user asks for, each without and with calibration.

    Parameters
    ----------
    bits : iterable of float
        Bits per weight: uniform palettes where there are some of that width, and an allocation of the same size.
    preset : str or None
        Name of a table of `PRESETS`, in place of these.
    recipes : mapping of str to config, or None
        Recipes by name, after the others.
    allocated : bool
        Whether steps are also chosen for each weight.

    Raises
    ------
    ValueError
        If there is no such preset, or bits are not positive numbers up to 16.
    TypeError
        If `recipes` is no mapping.
    """
    if recipes is not None and not isinstance(recipes, Mapping):
        raise TypeError(f"tradeoff: recipes must be a dict of configs by name, not {type(recipes).__name__}")
    own: list[tuple[str, Any]] = list((recipes or {}).items())
    found = list(_by_bits(bits, allocated)) if preset is None else []
    if preset is not None:
        if preset not in PRESETS:
            raise ValueError(
                f"tradeoff: no preset {preset!r}; there are {', '.join(PRESETS)}{suggestion(preset, PRESETS)}"
            )
        own = [*PRESETS[preset].items(), *own]
    found += [Recipe(name, "recipe", calibrated, config) for name, config in own for calibrated in (False, True)]
    if not found:
        raise ValueError("tradeoff: there is nothing to measure; give bits, a preset or recipes")
    for each in found:
        _ = each.key  # what is no config is refused before work starts
    return tuple(found)


def candidates_for(recipes: Iterable[Recipe], candidates: Any, target: str | None) -> Any:
    """What allocations choose from: where the default has nothing for so few bits, palettes of 1 bit too."""
    fewest = min((each.target_bits for each in recipes if each.target_bits is not None), default=math.inf)
    if candidates is not None or target in CANDIDATE_SETS or fewest >= 2:
        return candidates
    return (*PALETTE_BITS, None)


def _by_bits(bits: Iterable[float], allocated: bool) -> Iterable[Recipe]:
    for each in _checked(bits):
        config = {"palettize": {"nbits": int(each)}} if each in PALETTE_BITS else None
        for calibrated in (False, True) if config is not None else ():
            yield Recipe(f"palettes of {in_bits(each)}", "uniform", calibrated, config)
        for calibrated in (False, True) if allocated else ():
            # Tables take some space too: at equal bytes the two can be compared.
            chosen = Recipe(
                f"chosen, size of {in_bits(each)}", "allocated", calibrated, target_bits=each, size_of=config
            )
            yield chosen if config is not None else chosen.of_bits()


def _checked(bits: Iterable[float]) -> Sequence[float]:
    found = list(bits) if isinstance(bits, Iterable) and not isinstance(bits, str) else [bits]
    for each in found:
        if isinstance(each, bool) or not isinstance(each, int | float) or not 0 < each <= 16:
            raise ValueError(f"tradeoff: bits are numbers above 0 and up to 16, not {each!r}")
    return sorted({float(each) for each in found})
