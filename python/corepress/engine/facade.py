"""What the package of a format offers its users of the packages above it; a format's own modules reach these by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from .calibrated import as_calibration


class Facade(Protocol):
    """A format's package, such as `corepress.coreml`; both of these are imported when they are first asked for."""

    @property
    def allocate(self) -> Callable[..., Any]:
        """Chooses the steps of each weight; see `corepress.coreml.allocate`."""

    @property
    def Statistics(self) -> type[Any]:
        """What calibration found out about a model."""


def statistics_of(function: str, facade: Facade, calibration: Any) -> Any:
    """The statistics that a user gave, or that are in the file that was given; None for None."""
    return None if calibration is None else as_calibration(function, calibration, facade.Statistics)
