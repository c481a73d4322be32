"""How each weight of a model is compressed: a global config, and rules by operation type and by name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, TypeAlias

from ..intake import whole
from ..outputs import write_output
from ..paths import user_path
from ..specs import SPECS, Palettize, Prune, Quantize, Spec, spec_from_dict, spec_to_dict
from ..suggestions import suggestion
from . import from_coremltools as coremltools_config
from . import recipes
from .files import FILE_SUFFIXES, parse_json, parse_yaml, read_config_file, to_json, to_yaml
from .patterns import MODULE, NamePatterns
from .weight_config import KEEP, WeightConfig

__all__ = ["Config", "ConfigLike", "Rule", "WeightConfig", "as_config"]

DEFAULT_WEIGHT_THRESHOLD = 2048
_STEPS = "steps"
TARGETS = ("ios16", "ios17", "ios18", "ios26", "ane", "gpu")


@dataclass(frozen=True)
class Rule:
    """The config for every weight whose name matches `pattern`.

    Attributes
    ----------
    pattern : str
        An operation type; or for names a glob (``*``, ``?``, ``[...]``) or ``re:`` and a regular expression, which must
        match the whole name, or ``module:`` and the name of a PyTorch module: ``module:up.0.proj`` matches the weight
        ``unet_up_0_proj_weight_to_fp16``. After ``module:`` may be a glob, or ``re:`` and a regular expression:
        ``module:model.layers.*.mlp.*``. When a package is compressed, a module without a weight matches all modules
        inside it, and a dotted pattern that matches no name is read as a module name.
    config : WeightConfig
        Their steps and size threshold.
    """

    pattern: str
    config: WeightConfig


@dataclass(frozen=True, kw_only=True)
class Config:
    """How to compress the weights of a model.

    The steps for a weight are looked up as in coremltools: the last rule of `weights` that matches its name; else,
    for each operation that uses it, the last rule of `weights` that matches the operation's name, else the rule of
    `op_types` for its type, else `global_config`. Operations that use one weight must agree.

    Parameters
    ----------
    global_config : spec, dict, list of them, or None
        One step or the steps, in order, for all weights that no rule matches; None leaves them unchanged.
    op_types : dict of str to spec, dict, list of them, or None
        Steps for the weights that operations of a type use, for example ``{"conv": {"palettize": {"nbits": 6}}}``.
    weights : dict of str to spec, dict, list of them, or None
        Steps for weights by name, or by the name of the operation that uses them; see `Rule.pattern`. Later rules win
        over earlier ones.
    weight_threshold : int
        Weights of this many elements or fewer are left unchanged; 2048 unless given, as in coremltools. ``{"steps":
        ..., "weight_threshold": N}`` in place of steps sets another threshold for these weights, as does
        ``"weight_threshold": N`` next to a single step.
    joint_compression : bool
        Apply the steps to weights that are already compressed in the package too, instead of leaving them unchanged.
    keep_position_tables : bool
        Leave rotary tables (``cos``, ``sin``) and other position tables unchanged, which only look like weights because
        of their size; a rule of `weights` that matches one still applies.
    target : {"ios16", "ios17", "ios18", "ios26", "ane", "gpu"}, optional
        Warn of encodings known to be refused or slow on this target.
    calibrated : bool
        Whether its steps were chosen with calibration; reports then warn if it is applied without.

    Raises
    ------
    ValueError
        If a part is invalid; the message names it.
    """

    global_config: Any = None
    op_types: Any = ()
    weights: Any = ()
    weight_threshold: int = DEFAULT_WEIGHT_THRESHOLD
    joint_compression: bool = False
    keep_position_tables: bool = False
    target: str | None = None
    calibrated: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "global_config", _weight_config(self.global_config, ""))
        for name in ("op_types", "weights"):
            object.__setattr__(self, name, _rules(getattr(self, name), name))
        object.__setattr__(self, "weight_threshold", _checked_threshold(self.weight_threshold, "config: "))
        for name in ("joint_compression", "keep_position_tables", "calibrated"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"config: {name} must be true or false, not {getattr(self, name)!r}")
        if self.target is not None and self.target not in TARGETS:
            known = ", ".join(TARGETS)
            raise ValueError(f"config: target must be {known}, not {self.target!r}{suggestion(self.target, TARGETS)}")

    @classmethod
    def from_dict(cls, values: Any) -> Config:
        """Build a config from plain values.

        Parameters
        ----------
        values : dict or list
            One step, ``{"palettize": {"nbits": 4}}``; a list of steps; the long form with the keys ``global``,
            ``op_types``, ``weights``, ``weight_threshold``, ``joint_compression``, ``keep_position_tables``, ``target``
            and ``calibrated``, in which a single step may replace ``global``; the dict form of coremltools'
            ``OptimizationConfig``, which has ``config_type``; or a mixed-bit recipe, weight name to bits.

        Raises
        ------
        ValueError
            If the values are not valid.
        """
        if not isinstance(values, Mapping):
            return cls(global_config=_given(values))
        if "config_type" in values:
            return cls(**coremltools_config.parts_of_dict(values))
        keys = _long_form()
        if not values.keys() & (keys.keys() | SPECS.keys()) and recipes.is_recipe(values):
            return cls.from_recipe(values)
        known = (*keys, *SPECS)
        unknown = [key for key in values if key not in (*known, _STEPS)]
        if not values or (len(values) == 1 and unknown):
            return cls(global_config=_given(values))
        if unknown:
            hint = suggestion(unknown[0], known)
            raise ValueError(f"config: unknown key {unknown[0]!r}; known are {', '.join(known)}{hint}")
        values = _steps_under("global", values)
        return cls(**{keys[key]: value for key, value in values.items()})

    @classmethod
    def from_yaml(cls, text: str) -> Config:
        """Build a config from YAML text; see `from_dict`."""
        return cls.from_dict(parse_yaml(text))

    @classmethod
    def from_json(cls, text: str) -> Config:
        """Build a config from JSON text; see `from_dict`."""
        return cls.from_dict(parse_json(text))

    @classmethod
    def from_recipe(cls, recipe: Any, key: str | float | None = None, **options: Any) -> Config:
        """Build a config from a mixed-bit recipe.

        Parameters
        ----------
        recipe : dict
            Weight name to bits, 16 for weights to leave unchanged; or what Apple's mixed-bit pre-analysis writes, with
            several recipes. Names may be those of PyTorch modules, as in these files: ``down_blocks.0.resnets.0.conv1``
            matches the weight ``unet_down_blocks_0_resnets_0_conv1_weight_to_fp16``.
        key : str or float, optional
            Which of several recipes: its key, or its bits per weight, 4.5 for ``recipe_4.50_bit_mixedpalette``.
        **options
            Further options of `palettize`, such as ``granularity``.

        Raises
        ------
        ValueError
            If the recipe is invalid, has unsupported bits, or does not have such a key.
        """
        return cls(weights=[(name, spec) for name, spec in recipes.rules_of(recipe, key, options)])

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, recipe: str | float | None = None) -> Config:
        """Read a config from a ``.yaml``, ``.yml`` or ``.json`` file; errors name the file.

        Parameters
        ----------
        path : path-like
            The file; see `from_dict` for what it may contain.
        recipe : str or float, optional
            Which of the recipes of a file that has several.

        Raises
        ------
        ValueError
            If its content is invalid; the message begins with the path.
        FileNotFoundError
            If there is no such file.
        """
        try:
            values = read_config_file(user_path(path))
            return cls.from_recipe(values, recipe) if recipe is not None else cls.from_dict(values)
        except ValueError as error:
            message = str(error)
            raise ValueError(message if str(path) in message else f"{path}: {message}") from error

    def to_dict(self) -> dict[str, Any]:
        """The long form as plain values; `from_dict` restores the config from it."""
        values: dict[str, Any] = {}
        for key, name in _long_form().items():
            value = getattr(self, name)
            if name == "global_config":
                values[key] = _plain(value)
            elif name in ("op_types", "weights"):
                values[key] = {rule.pattern: _plain(rule.config) for rule in value}
            elif value != getattr(Config, name):
                values[key] = value
        return {key: value for key, value in values.items() if value not in ({}, None)}

    def to_yaml(self) -> str:
        """The long form as YAML; `from_yaml` restores the config from it."""
        return to_yaml(self.to_dict())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save to a ``.yaml``, ``.yml`` or ``.json`` file, which appears only when it is complete; `load` reads it.

        Raises
        ------
        ValueError
            If the file has another suffix, or a step has a function.
        """
        place = user_path(path)
        if place.suffix.lower() not in FILE_SUFFIXES:
            raise ValueError(f"{path}: a config file must end in {', '.join(FILE_SUFFIXES)}")
        values = self.to_dict()
        write_output(place, to_json(values) if place.suffix.lower() == ".json" else to_yaml(values))

    @cached_property
    def _patterns(self) -> NamePatterns:
        return NamePatterns([rule.pattern for rule in self.weights])

    def by_name(self, names: Iterable[str]) -> WeightConfig | None:
        """The config of the last rule of `weights` that matches any of these names; None if there is none."""
        last = max((number for name in names for number in self._patterns.matching(name)), default=None)
        return None if last is None else self.weights[last].config

    def for_weight(self, names: Iterable[str], operations: Iterable[tuple[str, str]]) -> tuple[WeightConfig, ...]:
        """The config of a weight: one, or several if the operations that use it disagree.

        Parameters
        ----------
        names : iterable of str
            Its names; several if constants share its data.
        operations : iterable of tuple of str
            Name and type of each operation that uses it.
        """
        named = self.by_name(names)
        if named is not None:
            return (named,)
        by_type = {rule.pattern: rule.config for rule in self.op_types}
        found = [self.by_name([name]) or by_type.get(kind, self.global_config) for name, kind in operations]
        return tuple(dict.fromkeys(found)) or (self.global_config,)

    def matched(self, names: Iterable[str]) -> set[int]:
        """The numbers of the rules of `weights` that match any of these names."""
        return {number for name in names for number in self._patterns.matching(name)}

    def unmatched(self, names: Sequence[str], op_types: Sequence[str]) -> tuple[str, ...]:
        """Descriptions of the rules that match none of these names and types, with the most similar name."""
        patterns = [
            f"op_types {rule.pattern!r}{suggestion(rule.pattern, op_types)}"
            for rule in self.op_types
            if rule.pattern not in op_types
        ]
        matched = self.matched(names)
        patterns += [
            f"weights {rule.pattern!r}{suggestion(rule.pattern, names) or _module_suggestion(rule.pattern, names)}"
            for number, rule in enumerate(self.weights)
            if number not in matched
        ]
        return tuple(patterns)

    def __repr__(self) -> str:
        rules = len(self.op_types) + len(self.weights)
        return f"<Config {self.global_config.description}, {rules} {'rule' if rules == 1 else 'rules'}>"


ConfigLike: TypeAlias = Config | Spec | Mapping[str, Any] | Sequence[Any] | os.PathLike[str] | Any


def as_config(config: ConfigLike, **overrides: Any) -> Config:
    """Build a config from whatever a caller passes.

    Parameters
    ----------
    config : Config, Allocation, spec, dict, list, path or coremltools.optimize.coreml.OptimizationConfig
        A string is the path of a ``.yaml``, ``.yml`` or ``.json`` file.
    **overrides
        Fields to set; None keeps the config's own. A `weight_threshold` overrides those of all rules.
    """
    if coremltools_config.is_optimization_config(config):
        config = Config(**coremltools_config.parts_of_object(config))
    elif isinstance(config, os.PathLike) or (isinstance(config, str) and config.endswith(FILE_SUFFIXES)):
        config = Config.load(config)
    elif not isinstance(config, Config):
        held = getattr(config, "config", None)  # an allocation's, which is above this
        config = held if isinstance(held, Config) else Config.from_dict(config)
    given = {name: value for name, value in overrides.items() if value is not None}
    if "weight_threshold" in given:
        given["global_config"] = replace(config.global_config, weight_threshold=None)
        given["op_types"] = tuple(map(_without_threshold, config.op_types))
        given["weights"] = tuple(map(_without_threshold, config.weights))
    return replace(config, **given) if given else config


def _without_threshold(rule: Rule) -> Rule:
    return replace(rule, config=replace(rule.config, weight_threshold=None))


def _long_form() -> dict[str, str]:
    """The keys of the long form, and their fields."""
    return {"global" if field.name == "global_config" else field.name: field.name for field in fields(Config)}


def _given(values: Any) -> Any:
    """Steps that are required: None, which leaves weights unchanged in a long form, is not a config on its own."""
    return values if values is not None else spec_from_dict(values)


def _located(where: str, parse: Callable[[], Any]) -> Any:
    try:
        return parse()
    except ValueError as error:
        if not where:
            raise
        raise ValueError(f"config: {where}: {str(error).removeprefix('config: ')}") from error


def _weight_config(value: Any, where: str) -> WeightConfig:
    if value is None:
        return KEEP
    if isinstance(value, WeightConfig):
        return value
    threshold = None
    if isinstance(value, Mapping) and (len(value) > 1 or _STEPS in value or "weight_threshold" in value):
        value, threshold = _steps_and_threshold(value, where)
        if value is None:
            return WeightConfig((), threshold)
    steps = value if isinstance(value, list | tuple) else [value]
    if not steps:
        raise ValueError(
            f"config: {where + ': ' if where else ''}0 steps; give at least one, or null to leave weights unchanged"
        )
    parsed = tuple(_located(where, lambda step=step: _step(step)) for step in steps)  # type: ignore[misc]
    return WeightConfig(parsed, threshold)


def _steps_and_threshold(values: Mapping[str, Any], where: str) -> tuple[Any, int | None]:
    """The steps and the size threshold of the form that has both; the steps are not parsed yet."""
    values = _located(where, lambda: _steps_under(_STEPS, values))
    unknown = [key for key in values if key not in (_STEPS, "weight_threshold")]
    if unknown or _STEPS not in values:
        rule = f"must have steps, or one of {', '.join(SPECS)}, and weight_threshold"
        hint = suggestion(unknown[0], (*SPECS, _STEPS, "weight_threshold")) if unknown else ""
        raise ValueError(f"config: {where or 'global'}: {rule}, not {list(values)}{hint}")
    threshold = values.get("weight_threshold")
    if threshold is not None:
        threshold = _checked_threshold(threshold, f"config: {where}: " if where else "config: ")
    return values[_STEPS], threshold


def _steps_under(key: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Move a step that is given next to other keys under `key`, where steps are looked up."""
    given = [each for each in values if each != key and (each in SPECS or each == _STEPS)]
    if not given:
        return values
    if key in values:
        raise ValueError(f"config: {given[0]!r} cannot be given next to {key!r}; list the steps in order under {key!r}")
    if len(given) > 1:
        raise ValueError(f"config: steps {', '.join(map(repr, given))} must be a list, in order")
    steps = values[_STEPS] if given[0] == _STEPS else {given[0]: values[given[0]]}
    return {key: steps} | {name: value for name, value in values.items() if name != given[0]}


def _step(step: Any) -> Spec:
    return step if isinstance(step, Palettize | Quantize | Prune) else spec_from_dict(step)


def _rules(given: Any, key: str) -> tuple[Rule, ...]:
    pairs = list(given.items()) if isinstance(given, Mapping) else given
    if pairs is None:
        return ()
    if not isinstance(pairs, list | tuple):
        raise ValueError(f"config: {key} must be a dict, not {given!r}")
    rules = []
    for pair in pairs:
        if isinstance(pair, Rule):
            rules.append(pair)
            continue
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise ValueError(f"config: {key}: each entry must be a pair (pattern, steps), not {pair!r}")
        pattern, value = pair
        if not isinstance(pattern, str) or not pattern:
            raise ValueError(f"config: {key}: a name must be a string, not {pattern!r}")
        _located(f"{key} {pattern!r}", lambda pattern=pattern: NamePatterns([pattern]))  # type: ignore[misc]
        rules.append(Rule(pattern, _weight_config(value, f"{key} {pattern!r}")))
    return tuple(rules)


def _checked_threshold(value: Any, where: str) -> int:
    threshold = whole(value)
    if threshold is None or threshold < 0:
        raise ValueError(f"{where}weight_threshold must be a whole number of at least 0, not {value!r}")
    return threshold


def _module_suggestion(pattern: str, names: Iterable[str]) -> str:
    """The hint that a pattern would match as a module name."""
    module = MODULE + pattern
    matches = not pattern.startswith(MODULE) and Config(weights={module: None}).matched(names)
    return f"; did you mean {module!r}?" if matches else ""


def _plain(config: WeightConfig) -> Any:
    steps = [spec_to_dict(step) for step in config.steps]
    value = None if not steps else steps[0] if len(steps) == 1 else steps
    return value if config.weight_threshold is None else {"steps": value, "weight_threshold": config.weight_threshold}
