"""Records of quantized activations."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class PairParameters:
    """What a pair has.

    Attributes
    ----------
    scale : float
        Step between two levels, as the value's type has it.
    zero_point : int or None
        The level of 0; None for level 0.
    dtype : {"int8", "uint8"}
        Type of the levels.
    """

    scale: float
    zero_point: int | None = None
    dtype: str = "int8"


@dataclass(frozen=True)
class ActivationRecord:
    """What was done to one operation.

    Attributes
    ----------
    name, type, function : str
        Name of the operation, its type, and its function.
    status : {"quantized", "kept"}
        Whether its inputs are quantized now.
    reason : str or None
        Why not.
    inputs : dict of str to PairParameters
        By the name of the value that is quantized before it.
    output : str or None
        Name of the value that is quantized after it, its own or that of the activation that follows.
    output_parameters : PairParameters or None
        How that is quantized.
    result_reason : str or None
        Why its inputs alone are quantized, where its result could be too.
    snr_db : float or None
        Signal-to-noise ratio of the outputs with this operation alone quantized, where that was measured.
    """

    name: str
    type: str
    function: str
    status: str
    reason: str | None = None
    inputs: dict[str, PairParameters] = field(default_factory=dict)
    output: str | None = None
    output_parameters: PairParameters | None = None
    result_reason: str | None = None
    snr_db: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        after = None if self.output_parameters is None else vars(self.output_parameters)
        values = vars(self) | {"inputs": {name: dict(vars(each)) for name, each in self.inputs.items()}}
        return values | {"output_parameters": None if after is None else dict(after)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ActivationRecord:
        """The reverse of `to_dict`."""
        inputs = {name: PairParameters(**each) for name, each in values["inputs"].items()}
        after = values["output_parameters"]
        return cls(
            **values | {"inputs": inputs, "output_parameters": None if after is None else PairParameters(**after)}
        )
