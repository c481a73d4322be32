"""Exceptions of corepress beyond Python's own."""

from __future__ import annotations


class FormatError(ValueError):
    """A file is damaged, hostile, or not in a format that corepress reads.

    Raised by everything that opens a package, a program or a weight file. The message names the file, the
    value found and the rule it breaks.
    """


class SourceChangedError(OSError):
    """A file changed while it was read: it was written to, truncated, replaced or removed.

    The message names the file. Nothing was written; run again once the file is complete.
    """


class MissingExtraError(ModuleNotFoundError):
    """A function needs a package that an extra of corepress installs.

    The message names the function, the package and the command that installs it.
    """


class UnsuitableWeightError(ValueError):
    """A weight cannot be compressed as requested because of its shape or its values.

    Attributes
    ----------
    reason : str
        The reason in a few words, the same for every such weight.
    """

    reason = "cannot be compressed as requested"


class IndivisibleError(UnsuitableWeightError):
    """Groups, blocks or vectors of the requested size do not divide an axis of a weight."""

    reason = "its groups do not divide the axis"


class NonFiniteError(UnsuitableWeightError):
    """A weight to be compressed contains NaN or infinite values."""

    reason = "contains infinite or NaN values"


class TooFewZerosError(UnsuitableWeightError):
    """Pruning would zero too little of a weight to be worthwhile."""

    reason = "fewer zeros than minimum_sparsity_percentile asks for"


class TooLargeTablesError(UnsuitableWeightError):
    """A weight's scales would need tables larger than the weight itself at specification version 9."""

    reason = "its tables would be larger than the weight at this specification version"


class TooManyValuesError(UnsuitableWeightError):
    """A weight to be stored by its distinct values has more of them than a palette (lookup table, LUT) holds."""

    reason = "more distinct values than a table holds"


class Skip(Exception):
    """A weight is left unchanged; the message is the reason that its record gives.

    Parameters
    ----------
    reason : str
        Why.
    expected : bool
        Whether no config selects such a weight, so that no warning is needed.
    """

    def __init__(self, reason: str, *, expected: bool = False) -> None:
        super().__init__(reason)
        self.expected = expected


class OperationError(RuntimeError):
    """An operation or a layer of a model cannot be computed for the values that a run gives it.

    The message names the operation and where it is in the model.
    """


class UnsupportedOperationError(NotImplementedError):
    """A model contains an operation or a layer that cannot be run here.

    Raised when the model is loaded. The message names the operation, its version, and where it is in the model.
    """
