"""An asset for an allocation: its weights, and the bytes that they take in each form."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from numpy.typing import NDArray

from ..config import Config
from ..paths import StrPath
from ..specs import Spec
from ..tensors import CompressedTensor
from .compressor import memory_of, stored_values
from .decisions import AssetDecisions
from .format.asset import Asset
from .operations import Node, check_steps, lower
from .program.program import Program
from .program.weights import Weight
from .program.written_size import written_size
from .sizes import StoredSize, file_bytes, stored_size


class OpenedAsset:
    """An asset that has been opened; see `corepress.engine.opened.OpenedModel`.

    Parameters
    ----------
    src : path-like
        The asset.
    """

    what, runs_in_torch = "asset", False

    def __init__(self, src: StrPath) -> None:
        self._asset = Asset.open(src)
        self.model = Program(self._asset)
        self.keys = {weight: weight.name for weight in self.model.weights}

    def decisions(self, config: Config, *, strict: bool) -> AssetDecisions:
        """What a config does to each weight."""
        found = AssetDecisions(config, strict=strict)
        found.prepare(self.model)
        return found

    def check_steps(self, steps: Sequence[Spec]) -> None:
        """Raise ValueError for steps that have no form in Core AI."""
        check_steps(steps)

    def kind(self, weight: Weight) -> Hashable:
        """Equal for weights whose sizes are the same after the same steps."""
        return weight.shape, weight.dtype, weight.is_compressed

    def size(self, weight: Weight, steps: Sequence[Spec]) -> StoredSize:
        """The size of a weight after some steps."""
        return stored_size(weight, steps)

    def file_bytes(self, weight: Weight, form: Node) -> int:
        """The most bytes that a weight takes in the file in another form."""
        return file_bytes(form)

    def bytes_now(self, weight: Weight) -> int:
        """About the bytes that a weight takes in the file."""
        return file_bytes(weight.node)

    def counted_bytes(self, forms: Mapping[int, Node]) -> int:
        """The bytes of the asset once some weights have other forms."""
        return written_size(self._asset, Program(self._asset), forms)

    @contextmanager
    def reading(self, weights: Sequence[Weight]) -> Iterator[None]:
        """Nothing to open: the file is mapped, and its sizes have been checked."""
        yield

    def memory(self, weight: Weight) -> int:
        """Bytes of a weight in its larger form."""
        return memory_of(weight)

    def stored(self, weight: Weight) -> NDArray[Any] | CompressedTensor:
        """The values of a weight, or the tensor that it is stored as."""
        return stored_values(weight)

    def release(self, weight: Weight) -> None:
        """Let the system drop the pages of a weight's data."""
        weight.release()

    def lower(self, weight: Weight) -> Callable[[CompressedTensor], Node]:
        """What makes the form that stores a compressed tensor in place of a weight."""
        return partial(lower, dtype=weight.dtype)
