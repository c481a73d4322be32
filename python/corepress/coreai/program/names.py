"""Names of weights. Programs have none, only where operations came from; of that, what users recognize."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from .modules import short_name
from .uses import WEIGHT_OPERATIONS, Use

_CALL_STACK = re.compile(r'"call_stack": \[([^\]]*)\]')
_SOURCES = re.compile(r'"sources": \[\{[^\]]*?identifiers = \[([^\]]*)\]')
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
# Nodes that only rearrange what others compute.
_REARRANGING = re.compile(
    r"_?(unsafe_)?(view|reshape|permute|transpose|t|expand|(un)?squeeze|clone|slice|select)(_copy)?(_\d+)?"
)
_ROLES = {"broadcasting_add": "bias", "add": "bias", "broadcasting_mul": "scale", "mul": "scale"}


def names_of(uses: Sequence[Use]) -> list[str]:
    """Names for a weight, the best one first, before they are made unique.

    Parameters
    ----------
    uses : sequence of Use
        Its uses; the names are those of the first one.

    Returns
    -------
    list of str
        Where the program tells it, the path of modules and the role in the last one, such as
        ``Block_2.Linear_7.weight``; the function and the consumer, such as ``main.conv2d_3.weight``; the names that
        torch gave the consumers.
    """
    names = []
    for use in uses:
        role, graph = _role(use), use.direct_graph
        path = module_path(use.direct) or module_path(use.operation)
        if path:
            names.append(f"{graph.label}.{path}.{role}" if graph.is_called else f"{path}.{role}")
        names.append(f"{graph.label}.{graph.name_of(use.direct)}.{role}")
        names += [f"{each}.{role}" for each in torch_names(use.operation)]
    return list(dict.fromkeys(names))


def module_path(operation: Any) -> str:
    """The modules, without the outermost one, that an operation came from; empty if the program does not say."""
    found = _CALL_STACK.search(str(operation.location))
    if not found:
        return ""
    stack = [each.replace("$", "_") for each in _QUOTED.findall(found[1])][::-1]
    return ".".join(stack[1:] or stack)


def torch_names(operation: Any) -> list[str]:
    """The names of the nodes that an operation came from."""
    names = [name for names in _SOURCES.findall(str(operation.location)) for name in _QUOTED.findall(names)]
    return [name for name in names if not _REARRANGING.fullmatch(name)]


def _role(use: Use) -> str:
    if use.argument is not None:
        return use.argument
    operation = use.consumer.operation
    if operation in WEIGHT_OPERATIONS:
        return "weight"
    return _ROLES.get(operation, short_name(use.operation))


def made_unique(candidates: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """The names of all weights, in order: first names that others have get a number, other such names are dropped."""
    firsts = Counter(names[0] for names in candidates)
    everywhere = Counter(name for names in candidates for name in dict.fromkeys(names))
    taken, seen = set(everywhere), Counter[str]()
    result: list[tuple[str, ...]] = []
    for names in candidates:
        name = names[0]
        number = seen[name]
        seen[name] += 1
        if firsts[name] > 1 and number:
            while f"{name}_{number}" in taken:
                number += 1
            name = f"{name}_{number}"
            taken.add(name)
        result.append((name, *(each for each in names[1:] if everywhere[each] == 1)))
    return result
