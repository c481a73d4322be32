"""Data types and module types by name; shapes and states of modules."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_DTYPES = {
    "quint8": torch.quint8,
    "qint8": torch.qint8,
    "quint4": torch.quint8,  # PyTorch has no types of 4 and 3 bits: their number is a value of its own
    "qint4": torch.qint8,
    "int8": torch.int8,
    "uint8": torch.uint8,
    "int4": torch.int8,
    "uint4": torch.uint8,
    "int3": torch.int8,
    "uint3": torch.uint8,
    "float16": torch.float16,
    "float32": torch.float32,
    "fp8_e4m3": torch.float8_e4m3fn,
    "fp8_e4m3fn": torch.float8_e4m3fn,
    "fp8_e5m2": torch.float8_e5m2,
}


def transform_to_ch_axis(x: torch.Tensor, ch_axis: int) -> torch.Tensor:
    """Return a tensor as rows, one a channel: the axis exchanged with the first, all others in one."""
    return x.transpose(0, ch_axis).flatten(1)


def get_n_bits_from_dtype(dtype: str | torch.dtype) -> int:
    """Return the bits of a data type, given itself or by name: 4 for ``"uint4"``."""
    if isinstance(dtype, torch.dtype):
        return (torch.finfo(dtype) if dtype.is_floating_point else torch.iinfo(dtype)).bits
    if isinstance(dtype, str):
        found = re.search(r"\d+", dtype)
        if found is None:
            raise ValueError(f"get_n_bits_from_dtype: {dtype!r} names no data type with a number of bits")
        return int(found.group())
    raise TypeError(f"get_n_bits_from_dtype: dtype must be a torch.dtype or its name, not {dtype!r}")


def is_signed_dtype(dtype: str | torch.dtype) -> bool:
    """Whether a data type, given itself or by name, has negative values."""
    if isinstance(dtype, torch.dtype):
        return dtype.is_signed
    if isinstance(dtype, str):
        return not dtype.startswith(("u", "qu"))
    raise TypeError(f"is_signed_dtype: dtype must be a torch.dtype or its name, not {dtype!r}")


def maybe_convert_str_to_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """Return the data type of a name; data types are returned as they are."""
    if isinstance(dtype, torch.dtype):
        return dtype
    if isinstance(dtype, str) and dtype.lower() in _DTYPES:
        return _DTYPES[dtype.lower()]
    raise ValueError(f"dtype must be one of {', '.join(_DTYPES)}, or a torch.dtype, not {dtype!r}")


def maybe_convert_str_to_mod_type(mod_type: Any) -> Any:
    """Return the module class or function of a name: of ``torch.nn``, its functional part, or ``operator.add``."""
    if not isinstance(mod_type, str):
        return mod_type
    package, _, name = mod_type.rpartition(".")
    for prefix, home in (("operator", operator), ("torch", torch)):
        if package == prefix and hasattr(home, name):
            return getattr(home, name)
    for module in (torch.nn, torch.nn.functional):
        if hasattr(module, mod_type):
            return getattr(module, mod_type)
    return mod_type


def list_or_str_to_tensor(steps: Any) -> torch.Tensor:
    """Return numbers as a tensor of float32: a sequence, a tensor, or a text such as ``"range(0, 100, 10)"``."""
    if isinstance(steps, torch.Tensor):
        return steps
    if isinstance(steps, str):
        found = re.fullmatch(r"range\(\s*(\d+(?:\s*,\s*\d+){0,2})\s*\)", steps)
        if found is None:
            raise ValueError(f'a text for numbers must be as "range(0, 100, 10)", not {steps!r}')
        steps = range(*map(int, found.group(1).split(",")))
    return torch.tensor(list(steps), dtype=torch.float32)


@contextmanager
def get_eval_model(model: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """The model in evaluation mode; after the block all its modules are in the modes that they were in."""
    modes = {module: module.training for module in model.modules()}
    try:
        yield model.eval()
    finally:
        for module, training in modes.items():
            module.training = training


def get_parent_child_name(name: str) -> tuple[str, str]:
    """Return the name of a module's parent, and its own in there."""
    parent, _, child = name.rpartition(".")
    return parent, child


def normalize_fsdp_module_name(module_name: str) -> str:
    """Return the name that a module had before FSDP wrapped modules around it."""
    return re.sub(r"_fsdp_\w+.", "", module_name)
