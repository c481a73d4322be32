"""Which config belongs to which optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..optimization_config import ModuleOptimizationConfig
from .python_utils import Class, ClassRegistryMixin


class ModuleToOptConfigRegistry(ClassRegistryMixin):
    """Config classes of models by those of modules."""

    @classmethod
    def register_module_cfg(cls, module_opt_cfg: type[ModuleOptimizationConfig]) -> Callable[[Class], Class]:
        return cls.register(module_opt_cfg)

    @classmethod
    def get_opt_cfg(cls, module_opt_cfg: type[ModuleOptimizationConfig]) -> Any:
        for key in cls.REGISTRY:
            if issubclass(module_opt_cfg, key):
                return cls.REGISTRY[key]
        return cls.get_class(module_opt_cfg)


class ConfigToOptimizerRegistry(ClassRegistryMixin):
    """Optimizers by their config classes."""

    @classmethod
    def register_config(cls, config: Any) -> Callable[[Class], Class]:
        return cls.register(config)

    @classmethod
    def get_optimizer(cls, config: Any) -> Any:
        return cls.get_class(config)


def is_supported_module_for_config(module: torch.nn.Module, module_config_cls: type[ModuleOptimizationConfig]) -> bool:
    """Whether the optimizer of a config class compresses modules of this type."""
    config = ModuleToOptConfigRegistry.get_opt_cfg(module_config_cls)
    return type(module) in ConfigToOptimizerRegistry.get_optimizer(config)._supported_modules


# coremltools' names
_ModuleToOptConfigRegistry = ModuleToOptConfigRegistry
_ConfigToOptimizerRegistry = ConfigToOptimizerRegistry
