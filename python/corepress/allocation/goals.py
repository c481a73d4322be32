"""What a user asks for: a size, bits per weight, or a quality."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from numbers import Real
from typing import Any

from ..intake import whole
from ..suggestions import suggestion

_UNITS = {"B": 1} | {
    f"{prefix}{binary}B": (1024 if binary else 1000) ** power
    for power, prefix in enumerate("kMGT", 1)
    for binary in ("", "i")
}
_SIZE = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-zA-Z]*)\s*")
KINDS = ("target_size", "target_bits", "target_snr")


class OutOfReachError(ValueError):
    """No choice among the candidates reaches the target."""


@dataclass(frozen=True)
class Goal:
    """One of the targets.

    Attributes
    ----------
    kind : {"target_size", "target_bits", "target_snr"}
        Which.
    value : float
        Bytes, bits per weight, or dB.
    given : str
        The value as the user wrote it.
    """

    kind: str
    value: float
    given: str

    @classmethod
    def of(cls, function: str, **targets: Any) -> Goal:
        """The target that is not None.

        Raises
        ------
        ValueError
            If there is not exactly one, or its value is not valid.
        """
        given = {name: value for name, value in targets.items() if value is not None}
        if len(given) != 1:
            found = " and ".join(given) if given else "none"
            raise ValueError(f"{function}: give exactly one of {', '.join(KINDS)}, not {found}")
        ((kind, value),) = given.items()
        if kind == "target_size":
            return cls(kind, parse_size(value, f"{function}: {kind}"), str(value))
        if not isinstance(value, Real) or isinstance(value, bool) or not math.isfinite(value) or value <= 0:
            unit = "bits per weight" if kind == "target_bits" else "dB"
            raise ValueError(f"{function}: {kind} must be a positive number of {unit}, not {value!r}")
        return cls(kind, float(value), f"{float(value):g}")

    def __str__(self) -> str:
        return f"{self.kind} {self.given}{' dB' if self.kind == 'target_snr' else ''}"


def parse_size(given: Any, where: str = "size") -> int:
    """A number of bytes: a whole number, or text with a unit, such as "1.4GB" or "500 MiB".

    Parameters
    ----------
    given : int or str
        The size; 1 MB is 10**6 bytes, 1 MiB 2**20.
    where : str
        What messages begin with.

    Raises
    ------
    ValueError
        If it is neither, or not positive.
    """
    count = whole(given)
    if count is None and isinstance(given, str) and (match := _SIZE.fullmatch(given)):
        number, unit = match.groups()
        known = {name.lower(): name for name in _UNITS}
        if unit and unit.lower() not in known:
            raise ValueError(
                f"{where}: unit {unit!r} of {given!r} is not known; use {', '.join(_UNITS)}{suggestion(unit, _UNITS)}"
            )
        count = math.floor(float(number) * _UNITS[known[unit.lower()] if unit else "B"])
    if count is None or count <= 0:
        raise ValueError(f"{where} must be a positive number of bytes such as '1.4GB' or '500MiB', not {given!r}")
    return count
