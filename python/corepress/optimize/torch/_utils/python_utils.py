"""Configs from and to dictionaries and YAML, and registries."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import IO, Any, ClassVar, TypeVar

import attrs
import cattrs
import torch
import yaml
from cattrs.errors import AttributeValidationNote, ClassValidationError

Self = TypeVar("Self", bound="DictableDataClass")
Class = TypeVar("Class", bound=type)


class ConfigError(ClassValidationError, ValueError):
    """Values that a config does not take."""

    def __str__(self) -> str:
        return str(self.message)


class DictableDataClass:
    """A class of attrs that is made from dictionaries and YAML files."""

    @classmethod
    def from_dict(cls: type[Self], config_dict: Mapping[str, Any]) -> Self:
        """Make an instance from a dictionary.

        Parameters
        ----------
        config_dict : mapping of str to values
            Fields that are missing have their default.

        Raises
        ------
        ValueError
            If a key is not a field, a value is not of the field's type, or the field's rules do not allow it. The
            errors are also those of cattrs: ``cattrs.errors.ClassValidationError``.
        """
        cls._validate_dict(config_dict)
        converter = cattrs.Converter(forbid_extra_keys=True)
        for unchanged in (torch.Tensor, torch.dtype):
            converter.register_structure_hook(unchanged, lambda value, _: value)
        cls._register_hooks(converter)
        try:
            return converter.structure(dict(config_dict), cls)
        except ClassValidationError as error:
            for each in error.exceptions:
                if isinstance(each, DeprecationWarning | ConfigError):
                    raise each from None
            reasons = "; ".join(map(_reason, error.exceptions))
            raise ConfigError(f"{cls.__name__}.from_dict: {reasons}", error.exceptions, cls) from None

    @classmethod
    def from_yaml(cls: type[Self], yml: IO[str] | str | os.PathLike[str]) -> Self:
        """Make an instance from YAML.

        Parameters
        ----------
        yml : path or readable text file
            Its content is a mapping, as for `from_dict`; an empty file is an empty mapping.

        Raises
        ------
        ValueError
            If the content is not a mapping, or as `from_dict`.
        """
        if isinstance(yml, str | os.PathLike):
            with open(yml, encoding="utf-8") as file:
                content = yaml.safe_load(file)
        else:
            content = yaml.safe_load(yml)
        if content is None:
            content = {}
        if not isinstance(content, dict):
            raise ValueError(f"{cls.__name__}.from_yaml: the file must hold a mapping, not a {type(content).__name__}")
        return cls.from_dict(content)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as a dictionary, nested configs as dictionaries too.

        Returns
        -------
        dict of str to values
        """
        return attrs.asdict(self)  # type: ignore[arg-type]

    @classmethod
    def _validate_dict(cls, config_dict: Mapping[str, Any]) -> None:
        fields = [each.name for each in attrs.fields(cls)]  # type: ignore[arg-type]
        for key in config_dict:
            if key not in fields:
                reason = f"Found unrecognized key {key!r}; the fields are {', '.join(fields)}"
                raise ConfigError(f"{cls.__name__}.from_dict: {reason}", [ValueError(reason)], cls)

    @classmethod
    def _register_hooks(cls, converter: cattrs.Converter) -> None:
        """Tell cattrs how fields of types of their own are made."""


def _reason(error: Exception) -> str:
    """The error of a field, after the field's name."""
    names = [note.name for note in getattr(error, "__notes__", ()) if isinstance(note, AttributeValidationNote)]
    return ": ".join((*names, str(error)))


class ClassRegistryMixin:
    """Classes by key; each subclass has its own table."""

    REGISTRY: ClassVar[dict[Any, type]]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.REGISTRY = {}

    @classmethod
    def register(cls, key: Any) -> Callable[[Class], Class]:
        """Return a decorator that enters a class under `key`."""

        def enter(registered: Class) -> Class:
            cls.REGISTRY[key] = registered
            return registered

        return enter

    @classmethod
    def get_class(cls, key: Any) -> type:
        """Return the class of `key`; NotImplementedError without one."""
        if key not in cls.REGISTRY:
            raise NotImplementedError(f"{cls.__name__}: no object is registered with key {key}")
        return cls.REGISTRY[key]
