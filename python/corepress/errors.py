"""Exceptions of corepress beyond Python's own."""

from __future__ import annotations


class FormatError(ValueError):
    """A file is damaged, hostile, or not in a format that corepress reads.

    Raised by everything that opens a package, a program or a weight file. The message names the file, the
    value found and the rule it breaks.
    """


class SourceChangedError(OSError):
    """A file changed while it was read: it was written to, cut short, replaced or removed.

    The message names the file. Nothing was written; run again once the file is complete.
    """


class MissingExtraError(ModuleNotFoundError):
    """A function needs a package that an extra of corepress installs.

    The message names the function, the package and the command that installs it.
    """


class UnsuitableWeightError(ValueError):
    """A weight cannot be compressed as asked because of its shape or of the values it holds.

    Attributes
    ----------
    reason : str
        The reason in a few words, the same for every such weight.
    """

    reason = "does not suit what was asked"


class IndivisibleError(UnsuitableWeightError):
    """Groups, blocks or vectors of the size asked for do not divide an axis of a weight."""

    reason = "its groups do not divide the axis"


class NonFiniteError(UnsuitableWeightError):
    """A weight that is to be compressed holds NaN or infinite values."""

    reason = "contains infinite or NaN values"


class TooFewZerosError(UnsuitableWeightError):
    """Pruning would zero less of a weight than makes it worth it."""

    reason = "fewer zeros than minimum_sparsity_percentile asks for"


class TooLargeTablesError(UnsuitableWeightError):
    """A weight's scales would need tables larger than the weight itself, as specification version 9 has them."""

    reason = "its tables would be larger than the weight at this specification version"


class TooManyValuesError(UnsuitableWeightError):
    """A weight that is to become a table of its distinct values has more of them than a table holds."""

    reason = "more distinct values than a table holds"


class Skip(Exception):
    """A weight is left unchanged; the message is the reason that its record gives.

    Parameters
    ----------
    reason : str
        Why.
    expected : bool
        Whether no config asks for such a weight, so that nobody needs to be warned.
    """

    def __init__(self, reason: str, *, expected: bool = False) -> None:
        super().__init__(reason)
        self.expected = expected
