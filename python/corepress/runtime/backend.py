"""What runs a model: the protocol of all backends. Nothing here knows PyTorch or Core ML."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from numpy.typing import NDArray


class State(Protocol):
    """The state of a model between runs, such as the keys and values of a language model; its parts have names."""

    def read_state(self, name: str) -> NDArray[Any]:
        """A copy of a state."""

    def write_state(self, name: str, value: NDArray[Any]) -> None:
        """Replace a state."""


class Backend(Protocol):
    """A loaded model that takes and returns arrays.

    Inputs are complete and checked: an array for each input of the description, in its declared shape and type; images
    are float32 arrays of shape (1, channels, height, width) with values from 0 to 255 in the declared order of colours.
    Outputs are arrays (images in the same layout), text, whole numbers, or dictionaries of classes and probabilities.

    Attributes
    ----------
    name : str
        Name as in ``backend=`` and in reports: "torch", "coreml", "coreai".
    module : torch.nn.Module or None
        The model as a module, where the backend has one.
    """

    name: str
    module: Any

    def predict(self, inputs: Mapping[str, Any], state: State | None) -> dict[str, Any]:
        """Run once."""

    def values(self, inputs: Mapping[str, Any], state: State | None) -> Iterator[tuple[str, Any]]:
        """Run once, and yield every intermediate result, by the name of the operation's output, as it is computed."""

    def make_state(self) -> State | None:
        """A fresh state, all zeros; None for a model without states."""
