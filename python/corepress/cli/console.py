"""Text where not every character can be written, as in files and pipes under Windows."""

from __future__ import annotations

import codecs
import sys

_PLAIN = {"…": "...", "→": "->", **dict.fromkeys("─━═", "-"), **dict.fromkeys("│┃║", "|"), **dict.fromkeys("┼╪╇", "+")}
_NAME = "corepress"


def _plainly(error: UnicodeError) -> tuple[str, int]:
    """What to write instead of characters that an encoding lacks."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    plain = (_PLAIN.get(each) or each.encode("ascii", "backslashreplace").decode() for each in lacking)
    return "".join(plain), error.end


codecs.register_error(_NAME, _plainly)


def write_plainly() -> None:
    """Let the standard streams write characters that their encoding lacks in another way instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if getattr(stream, "errors", None) in ("strict", "backslashreplace") and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=_NAME)
