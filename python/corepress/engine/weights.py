"""What a run knows of a weight, whatever the format that stores it."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple, Protocol


class Consumer(NamedTuple):
    """An operand that a constant is used as.

    `axis` and `input_axis` are its output and input channel axes, None if unknown; `groups` is the number of
    convolution groups that axis 0 is divided into, None if unknown.
    """

    operation: str
    operand: str
    axis: int | None
    input_axis: int | None
    name: str
    groups: int | None = 1


class Weight(Protocol):
    """A constant as it is stored; what shares its data is one weight."""

    @property
    def key(self) -> Hashable:
        """Equal for equal weights of one model that has been read once."""

    @property
    def name(self) -> str:
        """Its name, in reports."""

    @property
    def names(self) -> tuple[str, ...]:
        """All its names, which rules may use."""

    @property
    def function(self) -> str:
        """Name of its function; of a shared constant, of the first."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape."""

    @property
    def dtype(self) -> str:
        """Element type of the decompressed values: "float16", …"""

    @property
    def float_dtypes(self) -> tuple[str, ...]:
        """The element types that can be compressed in its format."""

    @property
    def consumers(self) -> tuple[Consumer, ...]:
        """What it is used as, each once."""

    @property
    def consumer_types(self) -> tuple[str, ...]:
        """Types of the operations that use it, each once."""

    @property
    def axes(self) -> set[int | None]:
        """Output channel axes that the consumers require."""

    @property
    def input_axes(self) -> set[int | None]:
        """Input channel axes that the consumers require."""

    @property
    def groups(self) -> set[int | None]:
        """Numbers of groups that the consumers divide axis 0 into."""

    @property
    def is_compressed(self) -> bool:
        """Whether it is stored in another form than its plain values."""

    @property
    def stored_bytes(self) -> int:
        """Bytes that it takes, tables and scales included."""

    @property
    def storage(self) -> str:
        """How it is stored, in a few words."""

    @property
    def obstacle(self) -> str | None:
        """Why it is left unchanged whatever a config says; None if it may be compressed."""


class Uses:
    """What follows from the consumers of a weight."""

    consumers: tuple[Consumer, ...]

    @property
    def consumer_types(self) -> tuple[str, ...]:
        """Distinct operation types of the consumers."""
        return tuple(dict.fromkeys(consumer.operation for consumer in self.consumers))

    @property
    def axes(self) -> set[int | None]:
        """Output channel axes that the consumers require."""
        return {consumer.axis for consumer in self.consumers}

    @property
    def groups(self) -> set[int | None]:
        """Numbers of groups that the consumers divide axis 0 into."""
        return {consumer.groups for consumer in self.consumers}

    @property
    def input_axes(self) -> set[int | None]:
        """Input channel axes that the consumers require."""
        return {consumer.input_axis for consumer in self.consumers}
