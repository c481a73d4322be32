"""Fields of configs."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from attrs import field, validators


def instance_of(kind: Any, default: Any) -> Any:
    """A field that takes values of a type."""
    return field(default=default, validator=validators.instance_of(kind))


def optional_instance_of(kind: Any, default: Any = None) -> Any:
    """A field that takes None or values of a type."""
    return field(default=default, validator=validators.optional(validators.instance_of(kind)))


def deprecated_field(message: str) -> Any:
    """A field whose use raises DeprecationWarning with this message."""

    def refuse(instance: Any, attribute: Any, value: Any) -> Any:
        if value is not None:
            raise DeprecationWarning(message)
        return value

    return field(default=None, validator=refuse, on_setattr=refuse)


def check_module_type(config: str, key: Any, supported: Collection[type[torch.nn.Module]]) -> None:
    """Raise ValueError unless a key of module_type_configs is one of these types, or the name of one."""
    names = sorted({kind.__name__ for kind in supported})
    if key not in names and key not in supported:
        raise ValueError(f"{config}: {key!r} in module_type_configs is not supported; these are: {', '.join(names)}")
