"""Buffers for conversion, under coremltools' names; `corepress.training.metadata` has what they hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from attrs import define, field, validators

from ....training import metadata as _metadata
from ....training.metadata import CompressionType
from .python_utils import DictableDataClass

__all__ = [
    "METADATA_VERSION",
    "METADATA_VERSION_BUFFER",
    "CompressionMetadata",
    "CompressionType",
    "register_metadata_version",
]

STATE_DICT_METADATA_BUFFER_PREFIX = _metadata.PREFIX
BUFFER_NAME_SEPARATOR = "/"
METADATA_VERSION_BUFFER = _metadata.VERSION_BUFFER
METADATA_VERSION = _metadata.VERSION


_TENSOR = validators.optional(validators.instance_of(torch.Tensor))
_INTEGER = validators.optional(validators.instance_of(int))


def _numbers(names: list[str] | None) -> list[int] | None:
    return [CompressionType[name].value for name in names] if names else None


@define
class CompressionMetadata(DictableDataClass):
    """How one parameter of a module is compressed.

    Attributes
    ----------
    param_name : str
    quantization_n_bits : int, optional
    quantization_scale, zero_point, lut, palettization_scale : torch.Tensor, optional
    vector_axis : int, optional
    compression_type : list of str, optional
        ``"pruning"``, ``"palettization"``, ``"quantization"``, in the order in which they were applied; read, it has
        their numbers.
    """

    param_name: str = field(validator=validators.instance_of(str))
    quantization_n_bits: Any = field(default=None, validator=_INTEGER)
    quantization_scale: Any = field(default=None, validator=_TENSOR)
    zero_point: Any = field(default=None, validator=_TENSOR)
    lut: Any = field(default=None, validator=_TENSOR)
    palettization_scale: Any = field(default=None, validator=_TENSOR)
    vector_axis: Any = field(default=None, validator=_INTEGER)
    compression_type: Any = field(default=None, converter=_numbers)

    def register(self, module: torch.nn.Module, override_compression_type: bool = False) -> None:
        """Set the module's buffers.

        Parameters
        ----------
        module : torch.nn.Module
        override_compression_type : bool
            Whether the steps replace those that the module has; otherwise they follow them.
        """
        for key, value in self.as_dict().items():
            if key == "param_name" or value is None:
                continue
            name = self._get_metadata_buffer_name(key)
            if key == "compression_type" and not override_compression_type and name in module._buffers:
                value = module.get_buffer(name).tolist() + value
            module.register_buffer(name, torch.as_tensor(value))

    def _get_metadata_buffer_name(self, metadata_key: str) -> str:
        return _metadata.buffer_name(self.param_name, metadata_key)

    @classmethod
    def from_dict(cls, config_dict: Mapping[str, Any]) -> CompressionMetadata:
        cls._validate_dict(config_dict)
        return cls(**config_dict)

    @classmethod
    def from_state_dict(cls, prefixed_dict: Mapping[str, torch.Tensor]) -> dict[str, CompressionMetadata]:
        """Return what the state dict of one module says of its parameters, by their names."""
        return {
            parameter: cls(
                parameter,
                each.quantization_n_bits,
                each.quantization_scale,
                each.zero_point,
                each.lut,
                each.palettization_scale,
                each.vector_axis,
                [str(step) for step in each.compression_type],
            )
            for parameter, each in _metadata.read(prefixed_dict).items()
        }


def register_metadata_version(model: torch.nn.Module) -> None:
    """Set the buffer of the format's version on the model."""
    _metadata.register_version(model)
