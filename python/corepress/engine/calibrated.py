"""What compressing a model takes from calibration."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..compression.matrix_view import MatrixView
from ..compression.weight_data import NO_DATA, WeightData
from ..specs import Spec
from .weights import Weight

WAYS = ("error_feedback", "diagonal", "fisher")
DAMPENING = 0.01
_LISTED = 4


class KnownWeight(Protocol):
    """What is known of a weight; see `corepress.coreml.WeightStatistics`."""

    view: MatrixView | None
    hessian: NDArray[np.float32] | None
    fisher: NDArray[np.float32] | None
    reason: str | None

    def diagonal(self) -> NDArray[np.float32]:
        """``E[x^2]`` in the weight's shape."""


class Calibration(Protocol):
    """The statistics of a model; see `corepress.coreml.Statistics`."""

    @property
    def weights(self) -> Mapping[str, Any]:
        """What is known of each weight, by its name."""

    def require_model(self, model: Any) -> None:
        """Raise ValueError if they are those of another model."""

    def find(self, model: Any) -> Mapping[str, Weight]:
        """The weights of a model that has been read, such as a program, that they have, by name."""


def as_calibration(function: str, given: Any, statistics: type[Any]) -> Any:
    """Statistics, of a path or of what `calibrate` returned; None for None. `statistics` is their class.

    Raises
    ------
    TypeError
        If it is neither.
    FileNotFoundError, FormatError
        If there is no such file, or it is damaged.
    """
    if given is None or isinstance(given, statistics):
        return given
    if not isinstance(given, str | os.PathLike):
        raise TypeError(
            f"{function}: calibration must be what calibrate returned or the path of its file, "
            f"not {type(given).__name__}"
        )
    return statistics.load(given)


class _Made:
    """An array that is made when it is used, as those of all weights together may not fit into memory."""

    def __init__(self, make: Callable[[], NDArray[np.float32]]) -> None:
        self._make = make

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self._make() if dtype is None else self._make().astype(dtype)


class CalibrationData:
    """The data of each weight of a model, and the weights that there is none for.

    Parameters
    ----------
    calibration : Calibration
        The statistics.
    way : {"error_feedback", "diagonal", "fisher"}
        What they are used for.
    dampening : float
        For error feedback: this share of the mean diagonal is added to the diagonal.

    Raises
    ------
    ValueError
        If there is no such way.
    """

    def __init__(self, calibration: Calibration, way: str, dampening: float) -> None:
        if way not in WAYS:
            raise ValueError(f"compress: calibration_use is {way!r}, but must be one of {', '.join(WAYS)}")
        self._calibration, self._way, self._dampening = calibration, way, dampening
        self._known: dict[Hashable, KnownWeight] = {}
        self._without: dict[str, list[str]] = {}

    def prepare(self, model: Any) -> None:
        """Find the weights; raises ValueError if the statistics are of another model."""
        self._calibration.require_model(model)
        found = self._calibration.find(model)
        self._known = {weight.key: self._calibration.weights[name] for name, weight in found.items()}

    def data_of(self, weight: Weight, steps: Sequence[Spec]) -> WeightData:
        """What the steps know of a weight; weights of which nothing is known are remembered."""
        data, reason = self._data_of(self._known.get(weight.key), weight, steps)
        if reason is not None:
            names = self._without.setdefault(reason, [])
            if weight.name not in names:
                names.append(weight.name)
        return data

    def _data_of(
        self, known: KnownWeight | None, weight: Weight, steps: Sequence[Spec]
    ) -> tuple[WeightData, str | None]:
        if known is None:
            return NO_DATA, "calibration did not look at it"
        if weight.is_compressed:
            return NO_DATA, "it is already compressed"
        if self._way == "fisher":
            if known.fisher is None:
                return NO_DATA, "there are no squared gradients of it (calibrate with importance=True)"
            data = WeightData(importance=known.fisher)
        elif known.hessian is None:
            return NO_DATA, known.reason
        elif self._way == "diagonal":
            data = WeightData(importance=_Made(known.diagonal))
        else:
            data = feedback_data(known.hessian, known.view, self._dampening)
        try:
            data.check("compress", weight.name, weight.shape)
            if data.hessian is None or not any(step.hessian_needs is None for step in steps):
                data.require_use(steps[0])
        except ValueError as error:
            return NO_DATA, str(error).partition(": ")[2] or str(error)
        return data, None

    @property
    def notes(self) -> Iterator[str]:
        """The weights that were compressed without calibration, and why."""
        for reason, names in self._without.items():
            more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
            count = f"{len(names)} weight{'' if len(names) == 1 else 's'}"
            yield f"compressed without calibration: {count}, {', '.join(names[:_LISTED])}{more}: {reason}"


def feedback_data(
    hessian: NDArray[np.float32] | None, view: MatrixView | None, dampening: float = DAMPENING
) -> WeightData:
    """What error feedback knows of a weight; nothing if nothing is known."""
    if hessian is None or view is None:
        return NO_DATA
    return WeightData(hessian=hessian, view=view, dampening=dampening)
