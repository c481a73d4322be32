"""The operations of ML programs, in modules named as coremltools names theirs."""

from . import activation  # noqa: F401
