"""The weights of a package that calibration looks at: how operations read them, and which parameters they are."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass

from ..coreml.format.values import ValueReader
from ..coreml.program.graph import Function
from ..coreml.program.identity import stored_digest, weight_keys
from ..coreml.program.program import Program
from ..coreml.program.weights import Weight, visible_weights
from ..runtime.torch.backend import TorchBackend
from .block_sums import BLOCK_COLUMNS, BLOCK_COLUMNS_OF_LARGE, LARGE
from .known_weight import KnownWeight
from .moments import Moments
from .observers import InputObserver, Options
from .uses import NoView, Use, uses_of


@dataclass(kw_only=True)
class PackageWeight(KnownWeight):
    """A weight of a package, the operations that use it, and the parameter of the module that it is."""

    weight: Weight
    uses: list[Use]
    parameter: str | None = None

    @property
    def count(self) -> int:
        """Number of its elements."""
        return math.prod(self.shape)


def package_weights(
    program: Program,
    function: Function,
    backend: TorchBackend,
    options: Options,
    *,
    weight_threshold: int,
    block_columns: int | None,
) -> list[PackageWeight]:
    """The weights that compression would look at.

    Parameters
    ----------
    program, function : Program, Function
        The program and the function that is run.
    backend : TorchBackend
        The function, loaded.
    options : Options
        Those of its operations.
    weight_threshold : int
        Weights of this many elements or fewer are left out.
    block_columns : int or None
        Largest block of second moments, in columns; None for the default.
    """
    keys = weight_keys(visible_weights(program))
    chosen = {weight: key for weight, key in keys.items() if _is_candidate(weight, weight_threshold)}
    count = sum(math.prod(weight.first.shape) for weight in chosen)
    most = block_columns or (BLOCK_COLUMNS if count <= LARGE else BLOCK_COLUMNS_OF_LARGE)
    by_weight: dict[Weight, list[Use]] = defaultdict(list)
    for use in uses_of(program, function, list(chosen), options):
        by_weight[use.weight].append(use)
    found = []
    with ValueReader(program.package) as values:
        for weight, key in chosen.items():
            digest = stored_digest(weight, values)
            known = PackageWeight(
                name=key, shape=weight.first.shape, digest=digest, weight=weight, uses=by_weight[weight]
            )
            _settle(known, function, backend, options, most)
            found.append(known)
    return found


def _is_candidate(weight: Weight, threshold: int) -> bool:
    """Whether compression would look at a weight."""
    first = weight.first
    return bool(
        first.data_type.name in ("float16", "float32")
        and len(first.shape) >= 2
        and math.prod(first.shape) > threshold
        and weight.consumers
        and not weight.feeds_definition
    )


def _settle(known: PackageWeight, function: Function, backend: TorchBackend, options: Options, most: int) -> None:
    """Find how a weight is read, and which parameter of the module it is."""
    uses = known.uses
    if not uses:
        known.reason = f"function {function.name} does not use it"
        return
    known.parameter = next(filter(None, (backend.bound.weight_name(use.constant) for use in uses)), None)
    if known.weight.feeds_output:
        known.reason = "it is an output of a block"
        return
    known.settle(uses, most)
    if known.view is None:
        return
    try:
        for use in uses:
            InputObserver(use, Moments(1, 1, 1), 1, options)
    except NoView as reason:
        known.reason, known.view = str(reason), None
