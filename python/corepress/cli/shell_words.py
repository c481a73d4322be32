"""Messages of the library in terms of the shell: flags for parameters, without the leading function name."""

from __future__ import annotations

import re
from collections.abc import Mapping

import click

from ..errors import MissingExtraError, OperationError, UnsupportedOperationError

# What messages of the library begin with; some begin with the name of a weight instead.
_FUNCTION = re.compile(
    "(?:palettize|quantize|prune|compress|decompress|allocate|calibrate|calibration|inspect|plan|verify|compare|error|config|recipe|bench"
    "|quantize_weights|convert_to_fp16|compare_models|load|predict|tradeoff|Config|WeightSelector): "
)
_VALUE = r"=(?:(?P<true>True)\b|'(?P<text>[^']*)'|\"(?P<quoted>[^\"]*)\"|(?P<plain>[\w.:]+))"


def flags_of(command: click.Command) -> dict[str, str]:
    """The flags of a command's options, by the names of the parameters that they set."""
    flags = {each.name or "": each.opts[0] for each in command.params if isinstance(each, click.Option)}
    if "mode" in flags:
        flags["quantization_mode"] = flags["mode"]  # as neural_network calls it
    return flags


def in_shell_words(text: str, flags: Mapping[str, str]) -> str:
    """Replace parameters in a message by flags.

    Parameters
    ----------
    text : str
        The message.
    flags : dict of str to str
        Flags by parameters, as `flags_of` gives them. ``strict=True`` and the like are always replaced, a bare name
        only if it cannot be an ordinary word: ``group_size``.
    """
    names = "|".join(sorted(map(re.escape, flags), key=len, reverse=True))
    if not names:
        return text

    def with_value(match: re.Match[str]) -> str:
        value = next((found for found in (match["text"], match["quoted"], match["plain"]) if found is not None), None)
        return flags[match["name"]] if value is None else f"{flags[match['name']]} {value}"

    text = re.sub(rf"\b(?P<name>{names}){_VALUE}", with_value, text)
    compound = "|".join(name for name in names.split("|") if "_" in name)
    return re.sub(rf"(?<![\w-])({compound})\b(?!=)", lambda match: flags[match[1]], text) if compound else text


def without_function(text: str) -> str:
    """Remove the name of the Python function from the beginning of a message."""
    match = _FUNCTION.match(text)
    return text[match.end() :] if match else text


_EXPECTED = (ValueError, TypeError, OSError, MissingExtraError, OperationError, UnsupportedOperationError)


def describe_error(error: Exception, flags: Mapping[str, str]) -> str:
    """One line that says what went wrong and what to do, with the command's flags in place of parameters."""
    if isinstance(error, MemoryError):
        return "not enough memory" + ("; try fewer threads with --num-threads" if "num_threads" in flags else "")
    if isinstance(error, OSError) and error.strerror and error.filename:
        text = f"{error.filename}: {error.strerror[0].lower()}{error.strerror[1:]}"
        if isinstance(error, FileExistsError):
            text += "; choose another -o or pass --overwrite"
        return text
    of_native_module = isinstance(error, ImportError) and error.name is None  # a wrong COREPRESS_SIMD, say
    if (isinstance(error, _EXPECTED) or of_native_module) and str(error):
        return in_shell_words(without_function(str(error)), flags)
    return f"unexpected {type(error).__name__}: {error}; --debug shows the traceback to report"
