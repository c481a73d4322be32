"""Core AI assets of small PyTorch modules, as coreai-torch converts them."""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path
from typing import Any

import pytest


def require_coreai() -> None:
    """Skip where assets cannot be made and run."""
    for name in ("torch", "coreai", "coreai_torch"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # coreai-torch says which versions of PyTorch it was tried with
            pytest.importorskip(name)


def save_asset(path: Path, *functions: tuple[Any, ...], **names: Any) -> Path:
    """Convert modules to an asset.

    Parameters
    ----------
    path : pathlib.Path
        Where to, ending with ``.aimodel``.
    *functions : tuple
        A module, its example inputs and, for more than the module that ``names`` describe, a dict of options of
        coreai-torch; "dynamic" are the ``dynamic_shapes`` of ``torch.export``.
    """
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        import torch
        from coreai_torch import TorchConverter, get_decomp_table

        converter = TorchConverter()
        for module, inputs, *rest in functions:
            options = dict(rest[0]) if rest else dict(names)
            dynamic = options.pop("dynamic", None)
            exported = torch.export.export(module.eval(), tuple(inputs), dynamic_shapes=dynamic)
            converter.add_exported_program(exported.run_decompositions(get_decomp_table()), **options)
        converter.to_coreai().save_asset(path)
    return path
