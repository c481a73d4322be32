"""What two programs have in common besides their weights."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice, zip_longest
from typing import Any

from ...arrays import same_bits
from ..operations.form import zeros
from .program import Program

_ALL = 1 << 40  # elements or characters: nothing is left out
_MOST_NAMED = 4
_RESOURCE = re.compile(r'dense_resource<("(?:[^"\\]|\\.)*"|[^>]+)>')


def differences(program: Program, result: Program) -> Iterator[str]:
    """What differs between two programs, apart from how the weights are stored; both are edited.

    Every weight is replaced by zeros of its type, then the text of the programs is compared, line by line, and the data
    of all other constants, byte by byte.
    """
    for each in (program, result):
        for weight in each.weights:
            weight.store(zeros(weight.dtype, weight.shape))
    ours, theirs = _text(program), _text(result)
    keys, other_keys = (dict.fromkeys(_keys_in(text)) for text in (ours, theirs))
    if len(keys) != len(other_keys):
        yield f"the program has {len(other_keys)} constants besides its weights, instead of {len(keys)}"
    # Keys of resources are of no importance, what they hold is.
    numbers, other_numbers = ({key: str(number) for number, key in enumerate(each)} for each in (keys, other_keys))
    changed = [
        (before, after)
        for before, after in zip_longest(_lines(ours, numbers), _lines(theirs, other_numbers))
        if before != after
    ]
    for before, after in islice(changed, _MOST_NAMED):
        yield f"the program differs: {_shortened(before)} became {_shortened(after)}"
    if len(changed) > _MOST_NAMED:
        yield f"the program differs in {len(changed)} lines"
    for key, other in zip(keys, other_keys, strict=False):
        data, other_data = program.constants.in_file(key), result.constants.in_file(other)
        if data is not None and other_data is not None and not same_bits(data, other_data):
            yield f"the data of {key}, which belongs to no weight, changed"


def _text(program: Program) -> str:
    text: str = program.module.operation.get_asm(large_elements_limit=_ALL, large_resource_limit=0)
    return text


def _keys_in(text: str) -> Iterator[str]:
    for found in _RESOURCE.finditer(text):
        yield _unquoted(found[1])


def _unquoted(key: str) -> str:
    return re.sub(r"\\(.)", r"\1", key[1:-1]) if key.startswith('"') else key


def _lines(text: str, numbers: dict[str, str]) -> list[str]:
    def numbered(found: Any) -> str:
        return f"dense_resource<{numbers[_unquoted(found[1])]}>"

    return _RESOURCE.sub(numbered, text).splitlines()


def _shortened(line: str | None) -> str:
    words = "nothing" if line is None else " ".join(line.split())
    return words if len(words) <= 100 else f"{words[:97]}..."
