"""Which weights of a neural network are quantized."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..config.patterns import NamePatterns
from ..intake import as_whole
from ..suggestions import suggestion
from .layers import QUANTIZABLE_LAYER_TYPES
from .network import NetworkWeight

_WITH_BIAS = ("convolution", "innerProduct", "batchedMatmul")  # where coremltools asks for biases too


@dataclass(frozen=True)
class WeightSelector:
    """Selects weights by layer type, size and name; all conditions must hold.

    Parameters
    ----------
    layer_types : sequence of str, optional
        Types of layers, named as in Core ML's format: ``convolution``, ``innerProduct``, ...; None for all.
    skip_layer_types : sequence of str
        Types of layers to leave unchanged.
    weight_threshold : int
        Leave weights of this many elements or fewer unchanged.
    names : sequence of str, optional
        Names of layers, or of weights as the report has them (``conv1.weights``): globs, or ``re:`` and a regular
        expression; None for all.
    skip_names : sequence of str
        The same, for those to leave unchanged.
    """

    layer_types: tuple[str, ...] | None = None
    skip_layer_types: tuple[str, ...] = ()
    weight_threshold: int = 0
    names: tuple[str, ...] | None = None
    skip_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for field in ("layer_types", "skip_layer_types", "names", "skip_names"):
            given = getattr(self, field)
            if isinstance(given, str):
                raise TypeError(f"WeightSelector: {field} must be a list of strings, not {given!r}")
            object.__setattr__(self, field, None if given is None else tuple(given))
        for layer_type in (*(self.layer_types or ()), *self.skip_layer_types):
            if layer_type not in QUANTIZABLE_LAYER_TYPES:
                known = ", ".join(QUANTIZABLE_LAYER_TYPES)
                hint = suggestion(layer_type, QUANTIZABLE_LAYER_TYPES)
                raise ValueError(f"WeightSelector: no layer type {layer_type!r}; there are {known}{hint}")
        threshold = as_whole("WeightSelector", "weight_threshold", self.weight_threshold, 0)
        object.__setattr__(self, "weight_threshold", threshold)
        _ = self._wanted, self._unwanted

    @cached_property
    def _wanted(self) -> NamePatterns | None:
        return None if self.names is None else NamePatterns(self.names)

    @cached_property
    def _unwanted(self) -> NamePatterns:
        return NamePatterns(self.skip_names)

    def obstacle(self, weight: NetworkWeight) -> str | None:
        """Why a weight is left unchanged, or None."""
        layer_type = weight.weight.layer_type
        if layer_type in self.skip_layer_types or (self.layer_types is not None and layer_type not in self.layer_types):
            return f"layers of type {layer_type} are not selected"
        if weight.weight.size <= self.weight_threshold:
            return f"has weight_threshold {self.weight_threshold} elements or fewer"
        names = (weight.name, weight.weight.layer.name)
        if self._wanted is not None and not _matches(self._wanted, names):
            return "its name is not selected"
        return "its name is skipped" if _matches(self._unwanted, names) else None


def _matches(patterns: NamePatterns, names: tuple[str, ...]) -> bool:
    return any(True for name in names for _ in patterns.matching(name))


def obstacle_of(selector: Any, weight: NetworkWeight) -> str | None:
    """Why a selector leaves a weight unchanged, or None.

    Parameters
    ----------
    selector : WeightSelector, object with ``do_quantize``, or None
        The second is one of coremltools' selectors, whose ``do_quantize(layer)``, and for biases of layers that
        have weights ``do_quantize(layer, weight_param="bias")``, must be true.
    weight : NetworkWeight
        The weight.
    """
    if selector is None:
        return None
    if isinstance(selector, WeightSelector):
        return selector.obstacle(weight)
    layer = weight.weight.layer
    chosen = selector.do_quantize(layer)
    if chosen and weight.weight.field == "bias" and weight.weight.layer_type in _WITH_BIAS:
        chosen = selector.do_quantize(layer, weight_param="bias")
    return None if chosen else "the selector does not select it"
