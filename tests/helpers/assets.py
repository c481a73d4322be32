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
        coreai-torch; "dynamic" are the ``dynamic_shapes`` of ``torch.export``, "apart" is a class of modules that
        become functions of their own.
    """
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        import torch
        from coreai_torch import ExternalizeSpec, TorchConverter, get_decomp_table

        converter = TorchConverter()
        for module, inputs, *rest in functions:
            options = dict(rest[0]) if rest else dict(names)
            dynamic, apart = options.pop("dynamic", None), options.pop("apart", None)

            def export(module: Any, inputs: Any = inputs, dynamic: Any = dynamic) -> Any:
                exported = torch.export.export(module, tuple(inputs), dynamic_shapes=dynamic)
                return exported.run_decompositions(get_decomp_table())

            if apart is None:
                converter.add_exported_program(export(module.eval()), **options)
            else:
                specs = [ExternalizeSpec(target_class=apart, composite_op_name="apart")]
                converter.add_pytorch_module(module.eval(), export_fn=export, externalize_modules=specs, **options)
        converter.to_coreai().save_asset(path)
    return path
