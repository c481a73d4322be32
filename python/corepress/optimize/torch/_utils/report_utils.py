"""The report of compressed weights."""

from __future__ import annotations

from typing import Any

import torch

from ....training import metadata as _metadata
from ....training import quality
from ....training.metadata import CompressionType
from .reports import Report


def compute_post_training_report(
    uncompressed_model: torch.nn.Module,
    compressed_model: torch.nn.Module,
    supported_modules: tuple[type[torch.nn.Module], ...],
) -> Report:
    """Return a row for each weight that has buffers for conversion.

    Parameters
    ----------
    uncompressed_model, compressed_model : torch.nn.Module
        With the same names of modules and parameters.
    supported_modules : tuple of types
        Modules of other types are left out.

    Returns
    -------
    dict of str to dict
        ``error`` is the root mean square error; -1 is not applicable.
    """
    report = Report()
    for name, module in compressed_model.named_modules():
        if not isinstance(module, supported_modules):
            continue
        original = uncompressed_model.get_submodule(name)
        for parameter, metadata in _metadata.of_module(module).items():
            weight = module.get_parameter(parameter).detach()
            row = _row(weight, original.get_parameter(parameter).detach(), metadata)
            report[f"{name}.{parameter}" if name else parameter] = row
    columns = list(dict.fromkeys(column for row in report.values() for column in row))
    for row in report.values():
        for column in columns:
            row.setdefault(column, -1)
    return report


def _row(weight: torch.Tensor, original: torch.Tensor, metadata: _metadata.ParameterMetadata) -> dict[str, Any]:
    row: dict[str, Any] = {"error": quality.rmse(weight, original), "#params": weight.numel()}
    steps = metadata.compression_type
    if CompressionType.pruning in steps:
        row["structured_weight_sparsity"] = quality.structured_sparsity(weight)
        row["unstructured_weight_sparsity"] = quality.unstructured_sparsity(weight)
        row["block2_weight_sparsity"] = quality.block2_sparsity(weight) if len(weight) % 2 == 0 else -1
    if CompressionType.quantization in steps:
        row["dtype"] = f"dtype=int{metadata.quantization_n_bits}"
    if CompressionType.palettization in steps and metadata.lut is not None:
        entries, length = metadata.lut.shape[-2:]
        row["palettization_mode"] = f"num_clusters={entries}, cluster_dim={length}"
    return row
