"""The config of a call: given, or found for a target."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from ..config import ConfigLike
from ..paths import StrPath
from ..specs import Spec
from ..tensors import CompressedTensor
from .prediction import Prediction

Made: TypeAlias = tuple[tuple[Spec, ...], CompressedTensor]
"""Steps, and the weight after these."""


@dataclass(frozen=True)
class Choice:
    """The config of a call, and what is expected of it if it was chosen for a target."""

    config: ConfigLike
    predicted: Prediction | None = None
    notes: tuple[str, ...] = ()
    made: Mapping[tuple[str, str], Made] = field(default_factory=dict)


def choose(
    function: str,
    allocate: Callable[..., Any],
    src: StrPath,
    config: ConfigLike | None,
    targets: Mapping[str, Any],
    *,
    candidates: Any,
    **options: Any,
) -> Choice:
    """The config of a call: the one that is given, or for a target the one that `allocate` finds.

    Parameters
    ----------
    function : str
        The caller, for messages.
    allocate : callable
        Finds a config for a target.
    src : path-like
        The model.
    config : Config or what becomes one, or None
        What was given.
    targets : dict of str to object
        The targets, None for those that were not given.
    candidates : str, list or None
        As for `allocate`.
    **options
        Others of `allocate`.

    Raises
    ------
    ValueError
        If there is neither a config nor a target, or candidates without a target.
    """
    if all(each is None for each in targets.values()):
        if config is None:
            raise ValueError(f"{function}: give a config, or one of {', '.join(targets)}")
        if candidates is not None:
            raise ValueError(f"{function}: candidates are for a target; give one of {', '.join(targets)}")
        predicted = getattr(config, "predicted", None)  # of an allocation
        if isinstance(predicted, Prediction):
            return Choice(config, predicted, tuple(getattr(config, "notes", ())))
        return Choice(config)
    found = allocate(src, **targets, config=config, candidates=candidates, **options)
    return Choice(found.config, found.predicted, found.notes, found.made)
