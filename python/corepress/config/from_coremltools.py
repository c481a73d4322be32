"""coremltools' ``OptimizationConfig``, as an object or in its dict form, converted to the specs of this package.

coremltools is never imported: its objects are recognized by their class, and read by their attributes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from ..specs import Palettize, Prune, Quantize, Spec
from ..suggestions import suggestion
from .weight_config import WeightConfig

# The fields of coremltools' classes with their defaults (coremltools 9.0, optimize/coreml/_config.py).
_DEFAULTS: dict[str, dict[str, Any]] = {
    "OpPalettizerConfig": {
        "mode": "kmeans",
        "nbits": None,
        "lut_function": None,
        "granularity": "per_tensor",
        "group_size": 32,
        "channel_axis": None,
        "cluster_dim": 1,
        "enable_per_channel_scale": False,
        "num_kmeans_workers": 1,
        "weight_threshold": 2048,
    },
    "OpLinearQuantizerConfig": {
        "mode": "linear_symmetric",
        "dtype": "int8",
        "granularity": "per_channel",
        "block_size": 32,
        "weight_threshold": 2048,
    },
    "OpThresholdPrunerConfig": {
        "threshold": 1e-12,
        "minimum_sparsity_percentile": 0.5,
        "weight_threshold": 2048,
    },
    "OpMagnitudePrunerConfig": {
        "target_sparsity": None,
        "block_size": None,
        "n_m_ratio": None,
        "dim": None,
        "weight_threshold": 2048,
    },
}
_PARTS = ("global_config", "op_type_configs", "op_name_configs")
_KEYS = ("config_type", *_PARTS)
# What has no bearing on the result.
_IGNORED = ("num_kmeans_workers",)


def is_optimization_config(config: Any) -> bool:
    """Whether this is an object of coremltools' class, or one that looks like it."""
    return all(hasattr(config, name) for name in _PARTS)


def parts_of_object(config: Any) -> dict[str, Any]:
    """The arguments of `Config` that correspond to a coremltools ``OptimizationConfig``."""
    if getattr(config, "_op_selector", None) is not None:
        raise ValueError("config: op_selector is a function of coremltools' operations, which are not used here")
    return _parts(config.global_config, config.op_type_configs, config.op_name_configs, _of_object)


def parts_of_dict(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same from the dict form, which ``OptimizationConfig.from_dict`` and ``from_yaml`` take."""
    for key in values:
        if key not in _KEYS:
            raise ValueError(f"config: unknown key {key!r}; known are {', '.join(_KEYS)}{suggestion(key, _KEYS)}")
    default_type = values["config_type"]

    def of_dict(options: Any) -> WeightConfig:
        if not isinstance(options, Mapping):
            raise ValueError(f"must be a dict of options, not {options!r}")
        options = dict(options)
        return _weight_config(options.pop("config_type", default_type), options)

    global_config, by_type, by_name = (values.get(key) for key in _PARTS)
    return _parts(global_config, by_type, by_name, of_dict)


def _parts(global_config: Any, by_type: Any, by_name: Any, convert: Callable[[Any], WeightConfig]) -> dict[str, Any]:
    def converted(where: str, value: Any) -> WeightConfig | None:
        if value is None:
            return None
        try:
            return convert(value)
        except ValueError as error:
            raise ValueError(f"config: {where}: {error}") from error

    def rules(key: str, given: Any) -> list[tuple[str, WeightConfig | None]]:
        if given is not None and not isinstance(given, Mapping):
            raise ValueError(f"config: {key} must be a dict, not {given!r}")
        return [(name, converted(f"{key} {name!r}", value)) for name, value in (given or {}).items()]

    return {
        "global_config": converted("global_config", global_config),
        "op_types": rules("op_type_configs", by_type),
        # coremltools compares names as they are.
        "weights": [(f"re:{re.escape(name)}", value) for name, value in rules("op_name_configs", by_name)],
    }


def _of_object(config: Any) -> WeightConfig:
    name = type(config).__name__
    if name not in _DEFAULTS:
        raise ValueError(f"{name} is not known; known are {', '.join(_DEFAULTS)}")
    options = {field: getattr(config, field) for field in _DEFAULTS[name] if hasattr(config, field)}
    if "dtype" in options and hasattr(config, "nbits"):
        options["dtype"] = f"{'' if config.signed else 'u'}int{config.nbits}"
    if hasattr(options.get("granularity"), "name"):
        options["granularity"] = options["granularity"].name.lower()
    return _weight_config(name, options)


def _weight_config(name: Any, given: dict[str, Any]) -> WeightConfig:
    if not isinstance(name, str) or name not in _DEFAULTS:
        raise ValueError(f"config_type must be {', '.join(_DEFAULTS)}, not {name!r}{suggestion(name, _DEFAULTS)}")
    defaults = _DEFAULTS[name]
    for option in given:
        if option not in defaults:
            known = ", ".join(defaults)
            raise ValueError(f"{name} has no option {option!r}; it has {known}{suggestion(option, defaults)}")
    options = defaults | given
    threshold = options.pop("weight_threshold")
    if threshold is None:
        raise ValueError(f"{name}: weight_threshold must be a whole number, not None")
    return WeightConfig((_spec(name, options, defaults),), threshold)


def _spec(name: str, options: dict[str, Any], defaults: dict[str, Any]) -> Spec:
    if "mode" in options:
        options["mode"] = str(options["mode"]).lower()
    if name == "OpPalettizerConfig":
        if options["granularity"] == "per_tensor":
            options["channel_axis"] = None  # which is for groups only
        elif options["group_size"] == 0:
            options |= {"granularity": "per_tensor", "group_size": 32}  # a group of the whole axis
        return _build(Palettize, options, defaults)
    if name == "OpLinearQuantizerConfig":
        if options["granularity"] == "per_block" and options["block_size"] == 0:
            options |= {"granularity": "per_channel", "block_size": 32}  # blocks of the whole axis
        options["dtype"] = options["dtype"] if isinstance(options["dtype"], str) else options["dtype"].__name__
        return _build(Quantize, options, defaults)
    if options.get("dim") is None and (options.get("n_m_ratio") or options.get("block_size")):
        options["dim"] = 1 if options["n_m_ratio"] else 0  # as its objects say
    return _build(Prune, options, defaults)


def _build(spec: type[Spec], options: dict[str, Any], defaults: dict[str, Any]) -> Spec:
    """A spec with these options; options that it does not have must have no effect."""
    known = [field.name for field in fields(spec)]
    for name in [name for name in options if name not in known]:
        if name not in _IGNORED and options[name] != defaults[name]:
            raise ValueError(f"{spec.verb}: {name} {options[name]!r} is not supported by this version")
        del options[name]
    return spec(**options)
