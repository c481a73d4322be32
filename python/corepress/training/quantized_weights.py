"""Weights in quantization-aware training: fake quantization as a parametrization, and what becomes of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from . import batch_norm, metadata, parametrized
from .batch_norm import FoldedFakeQuantize, FrozenStatistics
from .fake_quantize import FakeQuantize
from .metadata import CompressionType, ParameterMetadata

WEIGHT = "weight"


def attach(
    module: torch.nn.Module,
    fake_quantize: FakeQuantize,
    norm: torch.nn.Module | None = None,
    out_axis: int = 0,
    groups: int = 1,
) -> None:
    """Quantize the weight of a module in training.

    Parameters
    ----------
    module : torch.nn.Module
        Changed: it also gets the properties ``weight_fake_quant`` and ``freeze_bn``, and a transposed convolution
        ``conv``, the module itself: in coremltools it is part of one with its batch normalization.
    fake_quantize : FakeQuantize
    norm : torch.nn.Module, optional
        The batch normalization that is folded into the weight.
    out_axis, groups : int
        Of the weight, as in `batch_norm.scaled`.
    """
    aliases: dict[str, Any] = {"weight_fake_quant": fake_quantize_of}
    parametrization: torch.nn.Module = fake_quantize
    if norm is not None:
        parametrization = FoldedFakeQuantize(fake_quantize, norm, out_axis, groups)
        aliases["freeze_bn"] = _frozen
        if out_axis == 1:
            aliases["conv"] = _itself
    parametrized.attach(module, WEIGHT, parametrization, aliases)


def fake_quantize_of(module: torch.nn.Module) -> FakeQuantize | None:
    """Return the fake quantization of a module's weight, or None."""
    folded = folded_of(module)
    return folded.fake_quantize if folded is not None else parametrized.find(module, WEIGHT, FakeQuantize)


def folded_of(module: torch.nn.Module) -> FoldedFakeQuantize | None:
    """Return the parametrization of a weight with batch normalization folded in, or None."""
    return parametrized.find(module, WEIGHT, FoldedFakeQuantize)


def _frozen(module: torch.nn.Module) -> bool:
    folded = folded_of(module)
    return folded is not None and bool(getattr(folded.batch_norm, batch_norm.CHILD).frozen)


def _itself(module: torch.nn.Module) -> torch.nn.Module:
    return module


def quantized_modules(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
    """Yield names and modules whose weights are quantized."""
    for name, module in model.named_modules():
        if fake_quantize_of(module) is not None:
            yield name, module


def as_folded(module: torch.nn.Module, weight: torch.Tensor) -> torch.Tensor:
    """Return a weight of a module with its batch normalization folded in, if it has one."""
    folded = folded_of(module)
    if folded is None:
        return weight
    return batch_norm.scaled(weight, batch_norm.factors(folded.batch_norm), folded.out_axis, folded.groups)


@torch.no_grad()
def finalize(module: torch.nn.Module) -> torch.nn.Module | None:
    """Set the weight to its quantized values, and the buffers that say so; fold batch normalization in.

    Other parametrizations of the weight, such as masks, are applied and are gone as well; what has an attribute
    ``compression_type`` is named in the buffers.

    Parameters
    ----------
    module : torch.nn.Module
        Changed.

    Returns
    -------
    torch.nn.Module or None
        The batch normalization that is in the weight and the bias now.
    """
    fake_quantize, folded = fake_quantize_of(module), folded_of(module)
    assert fake_quantize is not None
    fake_quantize.disable_observer()  # what removes parametrizations computes the weight once more
    before = metadata.of_module(module).get(WEIGHT)
    done = list(before.compression_type) if before is not None else []
    chain: Any = module.parametrizations[WEIGHT]  # type: ignore[index]
    weight = chain.original
    for each in chain:
        if each is fake_quantize or each is folded:
            weight = fake_quantize.quantized(as_folded(module, weight))
            continue
        weight = each(weight)
        step = getattr(each, "compression_type", None)
        if step is not None and step not in done:
            done.append(step)
    weight = weight.detach().clone()
    parametrized.detach(module, WEIGHT)
    module.get_parameter(WEIGHT).copy_(weight)
    scale, zero_point = fake_quantize.calculate_qparams()
    shape = [1] * weight.ndim
    if fake_quantize.per_channel:
        shape[fake_quantize.ch_axis] = -1
    described = ParameterMetadata(
        compression_type=(*done, CompressionType.quantization),
        quantization_n_bits=(fake_quantize.quant_max - fake_quantize.quant_min).bit_length(),
        quantization_scale=scale.detach().reshape(shape).clone(),
        zero_point=zero_point.detach().reshape(shape).to(torch.int8 if fake_quantize.quant_min < 0 else torch.uint8),
    )
    metadata.register(module, WEIGHT, described)
    if folded is None:
        return None
    batch_norm.fold_bias(module, folded.batch_norm)
    return folded.batch_norm


def remove_batch_norms(model: torch.nn.Module, folded: set[torch.nn.Module]) -> None:
    """Replace batch normalizations that are folded by `torch.nn.Identity`; the others can no longer be frozen."""
    identities = {each: _identity(each) for each in folded}
    for module in list(model.modules()):
        for name, child in list(module._modules.items()):
            if child in identities:
                module._modules[name] = identities[child]
            elif isinstance(child, FrozenStatistics):
                batch_norm.detach_freezing(module)


def _identity(norm: torch.nn.Module) -> torch.nn.Module:
    """Return what takes the place of a batch normalization: its result may be quantized still."""
    identity = torch.nn.Identity()
    for name in ("_forward_hooks", "_forward_hooks_with_kwargs"):
        setattr(identity, name, getattr(norm, name))
    for name, child in norm.named_children():
        if not isinstance(child, FrozenStatistics):
            identity.add_module(name, child)
    return identity.eval()
