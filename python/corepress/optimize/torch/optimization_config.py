"""Which modules are compressed, and how: what the configs of all optimizers have in common."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, ClassVar, TypeVar

import torch
from attrs import define, field

from ._utils.python_utils import DictableDataClass

__all__ = ["ModuleOptimizationConfig", "OptimizationConfig", "PalettizationGranularity", "QuantizationGranularity"]


def __dir__() -> list[str]:
    return __all__


_Self = TypeVar("_Self", bound="OptimizationConfig")


class QuantizationGranularity(Enum):
    """What shares a scale: the whole weight, a channel, or a block."""

    per_tensor = "per_tensor"
    per_channel = "per_channel"
    per_block = "per_block"


class PalettizationGranularity(Enum):
    """What shares a palette (lookup table): the whole weight, or a group of channels."""

    per_tensor = "per_tensor"
    per_grouped_channel = "per_grouped_channel"


class ModuleOptimizationConfig(DictableDataClass):
    """Options for a module; the base of those of each optimizer."""


@define
class OptimizationConfig(DictableDataClass):
    """Options for the modules of a model.

    A module has the first that is given of: the options of a name that matches its own (a regular expression that
    matches the whole name), of its type, of its type's name, and the global ones.

    Attributes
    ----------
    global_config : ModuleOptimizationConfig or None
        For all supported modules that nothing else is said of. None leaves them unchanged.
    module_type_configs : dict of type or str to ModuleOptimizationConfig or None
        By the class of a module, or its name, such as ``"Linear"``. None leaves modules of this type unchanged.
    module_name_configs : dict of str to ModuleOptimizationConfig or None
        By the name of a module, or a regular expression for names. None leaves these modules unchanged.
    """

    # Of each subclass: the class of its options, and whether a module may have a list of them.
    _module_config: ClassVar[type[ModuleOptimizationConfig]] = ModuleOptimizationConfig
    _lists: ClassVar[bool] = False

    global_config: Any = field(default=None)
    module_type_configs: dict[Any, Any] = field(factory=OrderedDict)
    module_name_configs: dict[str, Any] = field(factory=OrderedDict)

    def __attrs_post_init__(self) -> None:
        own = type(self).__name__
        for name in ("module_type_configs", "module_name_configs"):
            given = getattr(self, name)
            if not isinstance(given, Mapping):
                raise TypeError(f"{own}: {name} must be a mapping, not a {type(given).__name__}")
        self.global_config = self._checked("global_config", self.global_config)
        for key in self.module_type_configs:
            if not (isinstance(key, str) or callable(key)):
                raise TypeError(f"{own}: a key of module_type_configs is a class or its name, not {key!r}")
            self._check_module_type(key)
        for key in self.module_name_configs:
            if not isinstance(key, str):
                raise TypeError(f"{own}: a key of module_name_configs is a name or an expression, not {key!r}")
        self.module_type_configs = self._table("module_type_configs")
        self.module_name_configs = self._table("module_name_configs")
        if self.global_config is None and not self.module_type_configs and not self.module_name_configs:
            self._set_defaults()

    def set_global(self: _Self, global_config: ModuleOptimizationConfig | None) -> _Self:
        """Set the options of all modules that nothing else is said of.

        Returns
        -------
        OptimizationConfig
            This one.
        """
        self.global_config = self._checked("global_config", global_config)
        return self

    def set_module_type(
        self: _Self, object_type: Callable[..., Any] | str, opt_config: ModuleOptimizationConfig | None
    ) -> _Self:
        """Set the options of a type of modules, instead of what it had.

        Returns
        -------
        OptimizationConfig
            This one.
        """
        self._check_module_type(object_type)
        self.module_type_configs[object_type] = self._checked("module_type_configs", opt_config)
        return self

    def set_module_name(self: _Self, module_name: str, opt_config: ModuleOptimizationConfig | None) -> _Self:
        """Set the options of the modules whose name the expression matches, instead of what it had.

        Returns
        -------
        OptimizationConfig
            This one.
        """
        self.module_name_configs[module_name] = self._checked("module_name_configs", opt_config)
        return self

    def get_module_config(self, name: str, module: torch.nn.Module) -> Any:
        """Return the options of a module, or None.

        Parameters
        ----------
        name : str
            Of the module, as `torch.nn.Module.named_modules` has it.
        module : torch.nn.Module
        """
        for expression, config in self.module_name_configs.items():
            if re.fullmatch(expression, name):
                return config
        kinds = self.module_type_configs
        for key in (type(module), type(module).__name__):
            if key in kinds:
                return kinds[key]
        return self.global_config

    @classmethod
    def from_dict(cls: type[_Self], config_dict: Mapping[str, Any]) -> _Self:
        cls._validate_dict(config_dict)
        values = dict(config_dict)
        if values.get("global_config") is not None:
            values["global_config"] = cls._structured(values["global_config"])
        for name in ("module_type_configs", "module_name_configs"):
            if name in values:
                if not isinstance(values[name], Mapping):
                    raise TypeError(f"{cls.__name__}.from_dict: {name} must be a mapping, not {values[name]!r}")
                values[name] = OrderedDict((key, cls._structured(value)) for key, value in values[name].items())
        return cls(**values)

    @classmethod
    def _structured(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            return cls._module_config.from_dict(value)
        if isinstance(value, list | tuple):
            return [cls._structured(each) for each in value]
        return value

    @classmethod
    def _checked(cls, name: str, config: Any) -> Any:
        if cls._lists and isinstance(config, list | tuple):
            return [cls._checked(name, each) for each in config]
        if config is not None and not isinstance(config, cls._module_config):
            raise TypeError(
                f"{cls.__name__}: {name} takes {cls._module_config.__name__} or None, not {type(config).__name__}"
            )
        return config

    def _table(self, name: str) -> OrderedDict[Any, Any]:
        return OrderedDict((key, self._checked(name, value)) for key, value in getattr(self, name).items())

    @classmethod
    def _check_module_type(cls, key: Any) -> None:
        """Raise ValueError if modules of this type cannot be compressed; optimizers that know all types override it."""

    def _set_defaults(self) -> None:
        self.global_config = self._module_config()

    def _validate_same_params(self, param_names: list[str]) -> None:
        """Raise ValueError unless all module configs agree on these fields."""
        configs = {
            "global_config": self.global_config,
            **self.module_type_configs,
            **self.module_name_configs,
        }
        given = {name: config for name, config in configs.items() if config is not None}
        for param_name in param_names:
            values = [(name, getattr(config, param_name)) for name, config in given.items()]
            for name, value in values[1:]:
                if value != values[0][1]:
                    raise ValueError(
                        f"{type(self).__name__}: {param_name} must be the same for all modules; it is "
                        f"{values[0][1]!r} for {values[0][0]} and {value!r} for {name}"
                    )
