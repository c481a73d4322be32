"""A package for an allocation: its weights, and the bytes that they take in each form."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from math import prod
from typing import Any

from numpy.typing import NDArray

from ..config import Config
from ..paths import StrPath
from ..specs import Spec
from ..tensors import CompressedTensor
from .compressor import stored_values
from .decisions import PackageDecisions
from .decompressor import release
from .format.package import Package
from .format.values import Tensor, ValueReader, blob_value, inline_value, tensor_type
from .format.weight_file import WeightFileLayout
from .operations import OperationForm, check_steps, lower_to
from .plan import counted_bytes
from .program.identity import weight_keys
from .program.program import Program
from .program.raising import obstacle
from .program.storage import steps as definitions_of
from .program.weights import Weight, check_stored, visible_weights
from .sizes import StoredSize, stored_size

_ANYWHERE = 1 << 28  # an offset in a weight file, for the bytes of its number
_PRODUCER = 150  # an operation that another one builds on, with its name and type


class OpenedPackage:
    """A package that has been opened; see `corepress.engine.opened.OpenedModel`.

    Parameters
    ----------
    src : path-like
        The package.
    """

    what, runs_in_torch = "package", True

    def __init__(self, src: StrPath) -> None:
        self._src = src
        self._package = Package.open(src)
        self.model = Program(self._package)
        self._values: ValueReader | None = None

    @cached_property
    def keys(self) -> dict[Weight, str]:
        """The weights, each with its name in files about the model."""
        return weight_keys(visible_weights(self.model))

    def decisions(self, config: Config, *, strict: bool) -> PackageDecisions:
        """What a config does to each weight."""
        found = PackageDecisions(config, strict=strict)
        found.prepare(self.model)
        for part in self.model.parts:
            if (reason := obstacle(part)) is not None:
                raise ValueError(f"allocate: {reason}")
        return found

    def check_steps(self, steps: Sequence[Spec]) -> None:
        """Raise ValueError for steps that the version of some part cannot express."""
        for part in self.model.parts:
            check_steps(steps, part.version, part.model.specificationVersion)

    def kind(self, weight: Weight) -> Hashable:
        """Equal for weights whose sizes are the same after the same steps."""
        first = weight.first
        return first.shape, first.data_type, first.version, weight.is_compressed

    def size(self, weight: Weight, steps: Sequence[Spec]) -> StoredSize:
        """The size of a weight after some steps."""
        return stored_size(weight, steps)

    def file_bytes(self, weight: Weight, form: OperationForm) -> int:
        """About the bytes that a weight takes in the package in another form, alignment and program included."""
        files = sum(WeightFileLayout.footprint(tensor.nbytes) for tensor in form.tensors() if tensor.is_blob)
        return files + _program_bytes(form) * len(weight.definitions)

    def bytes_now(self, weight: Weight) -> int:
        """About the bytes that a weight takes in the package."""
        files, program, seen = 0, 0, set()
        for step in definitions_of(weight.first):
            keys = {reference.parameter: reference.key for reference in step.references}
            for name, value in step.parameters.items():
                program += value.ByteSize() + _overhead(name)
                if name in keys and keys[name] not in seen:
                    seen.add(keys[name])
                    files += WeightFileLayout.footprint(_payload(value))
        return files + program * len(weight.definitions)

    def counted_bytes(self, forms: Mapping[int, OperationForm]) -> int:
        """The bytes of the package once some weights have other forms."""
        return counted_bytes(self._src, forms)

    @contextmanager
    def reading(self, weights: Sequence[Weight]) -> Iterator[None]:
        """Opens the weight files."""
        with ValueReader(self._package) as values:
            check_stored(weights, values)
            self._values = values
            try:
                yield
            finally:
                self._values = None

    def memory(self, weight: Weight) -> int:
        """Bytes of a weight in its larger form."""
        return max(weight.stored_bytes, weight.first.data_type.byte_count(prod(weight.shape)))

    def stored(self, weight: Weight) -> NDArray[Any] | CompressedTensor:
        """The values of a weight, or the tensor that it is stored as."""
        return stored_values(weight, self._reader)

    def release(self, weight: Weight) -> None:
        """Let the system drop the pages of a weight's data."""
        release(weight.first, self._reader)

    @property
    def _reader(self) -> ValueReader:
        assert self._values is not None, "within reading()"
        return self._values

    def lower(self, weight: Weight) -> Callable[[CompressedTensor], OperationForm]:
        """What makes the operation that stores a compressed tensor in place of a weight."""
        return lower_to(weight.first.version)


def _payload(value: Any) -> int:
    declared = tensor_type(value.type, "")
    assert declared is not None
    data_type, shape = declared
    return data_type.byte_count(prod(shape))


def _program_bytes(form: OperationForm) -> int:
    """About the bytes that a form takes in the program."""
    return sum(
        _overhead(name) + (_value_bytes(given) if isinstance(given, Tensor) else _overhead(""))
        for each in form.chain()
        for name, given in each.parameters.items()
    ) + sum(_PRODUCER for each in form.chain() if each is not form)


def _overhead(name: str) -> int:
    """Tags and lengths around a parameter."""
    return len(name) + 8


def _value_bytes(tensor: Tensor) -> int:
    if tensor.is_blob:
        return int(blob_value(tensor, "@model_path/weights/weight.bin", _ANYWHERE).ByteSize())
    return int(inline_value(tensor).ByteSize())
