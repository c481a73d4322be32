"""What an allocation asks of a model that has been opened, whatever its format."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from numpy.typing import NDArray

from ..config import Config
from ..specs import Spec
from ..tensors import CompressedTensor
from .decisions import Decisions
from .run import Form


class StoredSize(Protocol):
    """The size of a weight in a form."""

    @property
    def form(self) -> Form:
        """The form, without data."""

    @property
    def exact(self) -> bool:
        """Whether the size is certain; where it depends on the values, it is an estimate."""

    @property
    def nbytes(self) -> int:
        """Bytes of all that is stored: codes, tables, scales and masks."""


class OpenedModel(Protocol):
    """A model that has been opened; nothing is read but its program, until `reading`."""

    @property
    def what(self) -> str:
        """What the file is called in messages: "package", "asset"."""

    @property
    def runs_in_torch(self) -> bool:
        """Whether our runtime runs it, whose weights can be replaced in memory."""

    @property
    def model(self) -> Any:
        """The program, for what is known of it alone, such as statistics."""

    @property
    def keys(self) -> Mapping[Any, str]:
        """The weights, each with its name in files about the model."""

    def decisions(self, config: Config, *, strict: bool) -> Decisions[Any]:
        """What a config does to each weight; raises ValueError if a run cannot succeed."""

    def check_steps(self, steps: Sequence[Spec]) -> None:
        """Raise ValueError for steps that some part of the model cannot express."""

    def kind(self, weight: Any) -> Hashable:
        """Equal for weights whose sizes are the same after the same steps."""

    def size(self, weight: Any, steps: Sequence[Spec]) -> StoredSize:
        """The size of a weight after some steps; raises `Skip` if it has no form that is worth it."""

    def file_bytes(self, weight: Any, form: Any) -> int:
        """About the bytes that a weight takes in the file in another form, alignment and program included."""

    def bytes_now(self, weight: Any) -> int:
        """About the bytes that a weight takes in the file."""

    def counted_bytes(self, forms: Mapping[int, Any]) -> int:
        """The bytes of all files once some weights, by their numbers, have other forms."""

    def reading(self, weights: Sequence[Any]) -> AbstractContextManager[None]:
        """Opens the data of some weights for `stored`, and checks it; FormatError if it is damaged."""

    def memory(self, weight: Any) -> int:
        """Bytes of a weight in its larger form."""

    def stored(self, weight: Any) -> NDArray[Any] | CompressedTensor:
        """The values of a weight, or the tensor that it is stored as."""

    def release(self, weight: Any) -> None:
        """Let the system drop the pages of a weight's data."""

    def lower(self, weight: Any) -> Callable[[CompressedTensor], Any]:
        """What makes the form that stores a compressed tensor in place of a weight."""
