"""Which modules `DKMPalettizer` palettizes, and which of their parameters."""

from __future__ import annotations

from typing import Any

import torch

from .._utils.python_utils import ClassRegistryMixin


class DKMPalettizerModule:
    """A module type whose parameter ``weight`` is palettized."""

    @classmethod
    def get_palettizable_parameters(cls, module: torch.nn.Module) -> list[tuple[torch.Tensor, str]]:
        """Return the parameters, with their names from the module on; LayerNorm may have none."""
        weight: Any = module.weight
        return [] if weight is None else [(weight, "weight")]


class DKMPalettizerModulesRegistry(ClassRegistryMixin):
    """How modules are palettized, by their exact types."""

    @classmethod
    def get_palettizer_module(cls, module: torch.nn.Module) -> Any:
        """Return that of a module, or None; those of its subclasses are not palettized."""
        return cls.REGISTRY.get(type(module))

    @classmethod
    def get_supported_modules(cls) -> tuple[type[torch.nn.Module], ...]:
        """Return the types."""
        return tuple(cls.REGISTRY)


for _kind in (
    torch.nn.Conv2d,
    torch.nn.Conv3d,
    torch.nn.Linear,
    torch.nn.Conv1d,
    torch.nn.LayerNorm,
    torch.nn.Embedding,
):
    DKMPalettizerModulesRegistry.register(_kind)(DKMPalettizerModule)


@DKMPalettizerModulesRegistry.register(torch.nn.MultiheadAttention)
class MultiheadAttention(DKMPalettizerModule):
    """Attention: the projections of its inputs, in one parameter or three, and that of its output."""

    @classmethod
    def get_palettizable_parameters(cls, module: Any) -> list[tuple[torch.Tensor, str]]:
        """Return the parameters, with their names from the module on."""
        names = (
            ["in_proj_weight", "out_proj.weight"]
            if module._qkv_same_embed_dim
            else ["out_proj.weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"]
        )
        return [(module.get_parameter(name), name) for name in names]
