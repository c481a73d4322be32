"""Models in: paths, specs and MLModel objects; out: the like object, or a file that appears only when it is whole."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from ..coreml.package_writer import sync
from ..errors import FormatError
from .network import require_network
from .schema import Model, read_model

StrPath = str | os.PathLike[str]
SUFFIX = ".mlmodel"


@dataclass(frozen=True)
class GivenModel:
    """A model, parsed.

    Attributes
    ----------
    message : protobuf message
        Of the class `corepress.neural_network.schema.Model`.
    source : str
        Its path, or what kind of object it is.
    nbytes : int
        Bytes of it in a file.
    given : object
        What the caller gave.
    """

    message: Any
    source: str
    nbytes: int
    given: Any

    @property
    def is_path(self) -> bool:
        """Whether it is a file."""
        return is_path(self.given)

    def like_given(self, data: bytes) -> Any:
        """Another serialized model as an object of the kind that was given."""
        if hasattr(self.given, "get_spec"):
            spec = type(self.given.get_spec()).FromString(data)
            return type(self.given)(spec, compute_units=self.given.compute_unit)
        return type(self.given).FromString(data)


def is_path(model: Any) -> bool:
    """Whether a model is given by its path."""
    return isinstance(model, str | os.PathLike)


def open_model(function: str, model: Any) -> GivenModel:
    """Parse a model that has neural networks.

    Parameters
    ----------
    function : str
        The caller's name, for messages.
    model : path-like, protobuf message or coremltools MLModel
        The model. It is never changed.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is a package, or holds no neural network.
    TypeError
        If it is no model at all.
    FormatError
        If it is damaged.
    """
    if is_path(model):
        path = Path(model)
        if not path.exists():
            raise FileNotFoundError(f"{function}: {path}: no such file")
        if not path.is_file():
            raise ValueError(f"{function}: {path} is a package; corepress.coreml.compress is for packages")
        given = GivenModel(read_model(path), os.fspath(path), path.stat().st_size, model)
    else:
        spec = model.get_spec() if hasattr(model, "get_spec") else model
        if not hasattr(spec, "SerializeToString"):
            raise TypeError(f"{function}: model must be a path, a spec or an MLModel, not {type(model).__name__}")
        data = spec.SerializeToString()
        try:
            given = GivenModel(Model.FromString(data), type(model).__name__, len(data), model)
        except DecodeError as error:
            raise FormatError(f"{function}: not a Core ML model ({error})") from error
    require_network(function, given.message, given.source)
    return given


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
        self.destination = Path(destination)
        self._check(None if source is None else Path(source))

    def _check(self, source: Path | None) -> None:
        destination = self.destination
        if destination.suffix != SUFFIX:
            raise ValueError(f"{self._function}: destination {destination} must end in {SUFFIX}")
        if not destination.parent.is_dir():
            raise FileNotFoundError(f"destination {destination}: there is no directory {destination.parent}")
        if source is not None and destination.exists() and destination.samefile(source):
            raise ValueError(f"{self._function}: destination {destination} must not be the source")
        if destination.is_dir():
            raise ValueError(f"{self._function}: destination {destination} is a directory")
        if os.path.lexists(destination) and not self._overwrite:
            raise FileExistsError(f"destination {destination} exists; pass overwrite=True to replace it")

    def write(self, data: bytes) -> None:
        """Have the file appear with this content."""
        destination = self.destination
        temporary = destination.absolute().parent / f".{destination.name}.{os.urandom(8).hex()}.partial"
        try:
            temporary.write_bytes(data)
            sync(temporary)
            self._check(None)
            os.replace(temporary, destination)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync(destination.absolute().parent)
