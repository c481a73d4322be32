"""Open models (path, spec or MLModel) and write results of the same kind."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from .. import system
from ..coreml.format.kinds import refuse_foreign
from ..coreml.format.package import Package
from ..coreml.format.package_writer import PackageWriter
from ..outputs import remove_partials, write_output
from ..paths import StrPath, user_path
from .document import Document
from .network import require_network

SUFFIX = ".mlmodel"


def is_path(model: Any) -> bool:
    """Whether a model is given by its path."""
    return isinstance(model, str | os.PathLike)


def name_of(model: Any) -> str:
    """The path of a model, or what kind of object it is."""
    return os.fspath(model) if is_path(model) else type(model).__name__


def open_model(function: str, model: Any) -> Document:
    """Open a model that contains neural networks.

    Parameters
    ----------
    function : str
        The caller's name, for messages.
    model : path-like, protobuf message or coremltools MLModel
        The model, an ``.mlmodel`` or an ``.mlpackage`` that contains one. It is never changed.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it holds no neural network.
    TypeError
        If it is not a model.
    FormatError
        If it is of another kind, or damaged.
    """
    if is_path(model):
        path = user_path(model)
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file")
        refuse_foreign(path)
        document = Document(Package.open(path).model_path if path.is_dir() else path)
    else:
        spec = model.get_spec() if hasattr(model, "get_spec") else model
        if not hasattr(spec, "SerializeToString"):
            raise TypeError(f"{function}: model must be a path, a spec or an MLModel, not {type(model).__name__}")
        document = Document(spec.SerializeToString())
    try:
        require_network(function, document, name_of(model))
    except BaseException:
        document.close()
        raise
    return document


def holds_network(path: Path) -> bool:
    """Whether there is a neural network at a path; False for what is damaged."""
    try:
        open_model("holds_network", path).close()
    except (ValueError, OSError):
        return False
    return True


def size_of(path: StrPath) -> int:
    """Bytes of a file, or of all files of a package."""
    path = user_path(path)
    return Package.open(path).size if path.is_dir() else path.stat().st_size


def like_given(model: Any, data: bytes) -> Any:
    """A serialized model as an object of the same kind as `model`."""
    if hasattr(model, "get_spec"):
        spec = type(model.get_spec()).FromString(data)
        return type(model)(spec, compute_units=model.compute_unit)
    return type(model).FromString(data)


class PackageModelWriter:
    """Writes a copy of a package with another model file.

    Parameters
    ----------
    source, destination : path-like
        The packages; checked at once.
    overwrite : bool
        Replace an existing package.
    """

    def __init__(self, source: StrPath, destination: StrPath, *, overwrite: bool) -> None:
        self._package = Package.open(source)
        self._writer = PackageWriter(self._package, destination, overwrite=overwrite)
        self.destination = self._writer.destination

    def write(self, pieces: Iterable[bytes]) -> None:
        """Write the package with this content of its model file."""
        with self._writer as output:
            path = output.path(self._package.model_path)
            with open(path, "wb") as file:
                file.writelines(pieces)
            system.current.sync(path)
            output.finish()


class ModelFileWriter:
    """Writes a file in a hidden sibling of its destination and renames it into place.

    Parameters
    ----------
    function : str
        The caller's name, for messages.
    destination : path-like
        Must end in ``.mlmodel``; checked at once.
    source : path-like or None
        File that must not be replaced.
    overwrite : bool
        Replace an existing file.
    """

    def __init__(self, function: str, destination: StrPath, source: StrPath | None, *, overwrite: bool) -> None:
        self._function, self._overwrite = function, overwrite
        self.destination = user_path(destination)
        remove_partials(self.destination)
        self._check(None if source is None else user_path(source))

    def _check(self, source: Path | None) -> None:
        destination = self.destination
        if destination.suffix != SUFFIX:
            raise ValueError(f"{self._function}: destination {destination} must end in {SUFFIX}")
        if not destination.parent.is_dir():
            raise FileNotFoundError(f"destination {destination}: there is no directory {destination.parent}")
        if source is not None and system.current.is_same(destination, source):
            raise ValueError(f"{self._function}: destination {destination} must not be the source")
        if destination.is_dir():
            raise ValueError(f"{self._function}: destination {destination} is a directory")
        if os.path.lexists(destination) and not self._overwrite:
            raise FileExistsError(f"destination {destination} exists; pass overwrite=True to replace it")

    def write(self, pieces: Iterable[bytes]) -> None:
        """Write the file with this content."""
        write_output(self.destination, self._checked(pieces))

    def _checked(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        yield from pieces
        self._check(None)  # it may have appeared meanwhile


def open_writer(
    function: str, destination: StrPath, model: Any, *, overwrite: bool
) -> ModelFileWriter | PackageModelWriter:
    """The writer for a result: a package if the model is one, else a file."""
    if is_path(model) and user_path(model).is_dir():
        return PackageModelWriter(model, destination, overwrite=overwrite)
    return ModelFileWriter(function, destination, model if is_path(model) else None, overwrite=overwrite)
