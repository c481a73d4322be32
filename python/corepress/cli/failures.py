"""Why a command failed, as text and as a JSON document."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .session import Session

FAILED, WRONG_USAGE = 1, 2


@dataclass(frozen=True)
class Failure:
    """Why a command failed: its exit status, the class of the error, who reports it, the message and the next step."""

    status: int
    kind: str
    speaker: str
    message: str
    next_step: str | None = None
    reference: str | None = None  # to what explains more

    def __str__(self) -> str:
        next_step = f"; {self.next_step}" if self.next_step else ""
        return f"{self.speaker}: {self.message}{next_step}{f' ({self.reference})' if self.reference else ''}"

    def to_json(self) -> str:
        """The document for other programs."""
        from ..reporting.documents import to_json

        error = {"type": self.kind, "message": self.message, "next_step": self.next_step or self.reference}
        return to_json({"error": error})


def interruption(session: Session, signal_number: int) -> Failure:
    """The failure of a command that a signal ended."""
    return Failure(128 + signal_number, "Interrupted", session.command, "interrupted")


def failure_of(session: Session, error: Exception) -> Failure:
    """The failure of a command that raised an error."""
    import click

    from .shell_words import describe_error

    kind = type(error).__name__
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx else "corepress"
        parts = _parts(error.format_message().rstrip("."))
        return Failure(WRONG_USAGE, kind, command, *parts, reference=f"see '{command} --help'")
    if isinstance(error, click.ClickException):
        return Failure(FAILED, kind, session.command, *_parts(error.format_message()))
    return Failure(FAILED, kind, session.command, *_parts(describe_error(error, session.flags)))


def _parts(text: str) -> tuple[str, str | None]:
    """Split a message by convention: value and rule, and the next step after a semicolon."""
    message, _, next_step = _one_line(text).rpartition("; ")
    return (message, next_step) if message else (next_step, None)


def _one_line(text: str) -> str:
    return re.sub(r"\s*\n\s*", " ", text.strip())
