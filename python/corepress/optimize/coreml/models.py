"""From coremltools' ``MLModel`` to a package on disk, and back."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from coremltools.converters.mil.frontend.milproto import load as milproto
from coremltools.models import MLModel
from coremltools.models import utils as model_utils

from ...coreml.format.package import Package
from ...coreml.format.schema import serialize_model
from ...coreml.operations import FIRST_VERSION
from ...coreml.program.program import Program
from ...coreml.program.raising import OPSET, obstacle, raise_parts


class CompressedModel(MLModel):  # type: ignore[misc]
    """An ``MLModel`` whose program in memory, ``_mil_program``, is built on first access."""

    _program: Any = None
    _is_saving = False

    @property
    def _mil_program(self) -> Any:
        # `save` looks for the names of ExecuTorch's nodes, which no program out of a package has.
        if self._program is None and not self._is_saving:
            version = self._spec.specificationVersion
            self._program = model_utils._convert_model_spec_to_pymil_prog(self, version, milproto.load)
        return self._program

    @_mil_program.setter
    def _mil_program(self, program: Any) -> None:
        self._program = program

    def save(self, save_path: str) -> None:
        """Save the model as a package; see ``MLModel.save``."""
        self._is_saving = True
        try:
            super().save(save_path)
        finally:
            self._is_saving = False


def require_program(function: str, model: Any) -> None:
    """Refuse what coremltools refuses: neural networks, pipelines, and models with several functions."""
    if not isinstance(model, MLModel):
        raise TypeError(f"{function}: mlmodel must be a coremltools.models.MLModel, not {type(model).__name__}")
    if model._is_multifunction():
        raise ValueError(f"{function} is not supported for a multifunction model.")
    kind = model._spec.WhichOneof("Type")
    if kind != "mlProgram":
        raise TypeError(
            f"{function}: coremltools.optimize.coreml are meant to be used only with mlprogram typed coreml models. "
            f"This model has type {kind}."
        )


@contextmanager
def package_of(model: Any) -> Iterator[Path]:
    """The package with the current state of a model: its own, or a temporary one if it was changed in memory."""
    package = Package.open(model.package_path)
    if model_utils.load_spec(str(package.model_path)) == model._spec:
        yield package.root
        return
    with _with_model(package, model._spec.SerializeToString()) as root:
        yield root


@contextmanager
def package_to_compress(model: Any) -> Iterator[Path]:
    """The package with the current state of a model, raised to iOS 16 if it is older."""
    opsets = {function.opset for function in model._spec.mlProgram.functions.values()}
    if model._spec.specificationVersion < FIRST_VERSION or OPSET in opsets:
        with _raised_package_of(model) as root:
            yield root
    else:
        with package_of(model) as root:
            yield root


@contextmanager
def _raised_package_of(model: Any) -> Iterator[Path]:
    with package_of(model) as root:
        package = Package.open(root)
        program = Program(package)
        (part,) = program.parts
        if part.version < FIRST_VERSION and obstacle(part) is None:
            raise_parts(program, {part.prefix})
            with _with_model(package, serialize_model(program.model)) as raised:
                yield raised
            return
    # coremltools can raise more than this package can, but gives operations other names.
    with package_of(model_utils._apply_graph_pass(model, [])) as root:
        yield root


@contextmanager
def _with_model(package: Package, data: bytes) -> Iterator[Path]:
    """A temporary package with another model file, and links to all other files."""
    with tempfile.TemporaryDirectory() as folder:
        staged = Path(folder, "model.mlpackage")
        shutil.copytree(package.root, staged, copy_function=_link)
        model_path = staged / package.model_path.relative_to(package.root)
        model_path.unlink()
        model_path.write_bytes(data)
        yield staged


def _link(source: str, target: str) -> None:
    try:
        os.link(os.path.realpath(source), target)  # of what a link leads to: its text may be relative
    except OSError:  # another file system
        shutil.copy2(source, target)


@contextmanager
def new_package() -> Iterator[Path]:
    """The path of a package to write, which is gone if the block fails."""
    path = Path(tempfile.mkdtemp(suffix=".mlpackage"))
    try:
        yield path
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise


def model_of(path: Path, source: Any) -> CompressedModel:
    """The model of a temporary package, which is removed when Python ends; loaded for predictions if `source` was."""
    return CompressedModel(
        str(path),
        is_temp_package=True,
        skip_model_load=source.__proxy__ is None,
        compute_units=source.compute_unit,
        optimization_hints=source.optimization_hints,
    )
