"""Output in encodings that lack some characters, such as files and pipes on Windows."""

from __future__ import annotations

import codecs
import io
import sys

_PLAIN = {"…": "...", "→": "->", **dict.fromkeys("─━═", "-"), **dict.fromkeys("│┃║", "|"), **dict.fromkeys("┼╪╇", "+")}
_NAME = "corepress"
_REPLACED = ("strict", "surrogateescape", "backslashreplace")  # the defaults of standard streams


def _plainly(error: UnicodeError) -> tuple[str | bytes, int]:
    """What to write instead of a character that an encoding lacks; undecodable bytes in names are unchanged."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    if "\udc80" <= character <= "\udcff":
        return character.encode("utf-8", "surrogateescape"), error.start + 1
    return _PLAIN.get(character) or character.encode("ascii", "backslashreplace").decode(), error.start + 1


codecs.register_error(_NAME, _plainly)


def write_plainly() -> None:
    """Let the standard streams replace characters that their encoding lacks instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in _REPLACED:
            stream.reconfigure(errors=_NAME)
