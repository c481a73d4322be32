"""Sizes after conversion, and the cost of a step of training: what coremltools' reports do not say."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator

import torch
from torch.nn.utils import parametrize

from ...training import metadata as metadata_of
from ...training import parametrized, quality
from ._utils.reports import Report

__all__ = ["estimate", "summarize"]

BITS_OF_FLOATS = 16  # as conversion stores what is not compressed


def _stored_weights(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor, metadata_of.ParameterMetadata | None]]:
    """Yield the parameters of a finalized model, each once, with what conversion is to know of them."""
    seen: set[int] = set()
    for name, module in model.named_modules():
        found = metadata_of.of_module(module)
        for parameter, value in module.named_parameters(recurse=False):
            if id(value) not in seen:
                seen.add(id(value))
                yield f"{name}.{parameter}" if name else parameter, value.detach(), found.get(parameter)


def summarize(model: torch.nn.Module) -> Report:
    """Return what conversion stores of a finalized model, as a table.

    Parameters
    ----------
    model : torch.nn.Module
        As the optimizers' `finalize` and `compress` return it.

    Returns
    -------
    dict of str to dict
        For each parameter, and for all of them as ``"total"``: ``compression``, the steps; ``#params``;
        ``bits_per_weight``, with palettes, scales and masks; ``bytes``. What is not compressed is stored as float16.
    """
    rows = Report()
    elements = bits = 0
    for name, value, found in _stored_weights(model):
        own = quality.compressed_bits(value, found) if found is not None else value.numel() * BITS_OF_FLOATS
        steps = " + ".join(map(str, found.compression_type)) if found is not None else "-"
        rows[name] = _row(steps, value.numel(), own)
        elements, bits = elements + value.numel(), bits + own
    rows["total"] = _row("", elements, bits)
    return rows


def _row(steps: str, elements: int, bits: int) -> dict[str, object]:
    return {
        "compression": steps,
        "#params": elements,
        "bits_per_weight": bits / elements if elements else 0.0,
        "bytes": -(-bits // 8),
    }


def estimate(model: torch.nn.Module) -> Report:
    """Measure what compression adds to a step of training, before the training.

    A copy of what computes each weight is run once, forward and backward, without the rest of the model.

    Parameters
    ----------
    model : torch.nn.Module
        As the optimizers' `prepare` returns it; it is not changed.

    Returns
    -------
    dict of str to dict
        For each weight, and for all of them as ``"total"``: ``#params``; ``seconds``, of a step; ``bytes``, what is
        held in addition to the weight and its gradient until the step ends.
    """
    rows = Report()
    elements = held = 0
    seconds = 0.0
    for name, module in model.named_modules():
        if not parametrize.is_parametrized(module):
            continue
        for parameter in module.parametrizations:
            weight = parametrized.original(module, parameter).detach().clone().requires_grad_()
            chain = [copy.deepcopy(each) for each in parametrized.chain(module, parameter)]
            for each in chain:
                getattr(each, "enable_fake_palett", lambda: None)()
            _run(chain, weight)  # the first call makes palettes
            begin = time.perf_counter()
            _run(chain, weight)
            own = time.perf_counter() - begin
            state = sum(buffer.numel() * buffer.element_size() for each in chain for buffer in each.buffers())
            size = state + len(chain) * weight.numel() * weight.element_size()
            rows[f"{name}.{parameter}" if name else parameter] = {
                "#params": weight.numel(),
                "seconds": own,
                "bytes": size,
            }
            elements, seconds, held = elements + weight.numel(), seconds + own, held + size
    rows["total"] = {"#params": elements, "seconds": seconds, "bytes": held}
    return rows


def _run(chain: list[torch.nn.Module], weight: torch.Tensor) -> None:
    value = weight
    for each in chain:
        value = each(value)
    value.sum().backward()  # type: ignore[no-untyped-call]
    weight.grad = None
