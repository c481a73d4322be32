"""Comparison of two models without their layers: what quantizing must leave unchanged."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator

from ..coreml.format.messages import parse_message
from ..coreml.format.schema import DescribedModel
from ..errors import FormatError
from .document import Document, ModelNode, Node
from .schema import Model

_DESCRIPTION = Model.DESCRIPTOR.fields_by_name["description"].number


def differences(first: Document, second: Document) -> Iterator[str]:
    """Descriptions of the differences between two models, except versions and the contents of layers."""
    yield from _of_nodes(first.root.in_words, first.root, second.root)


def _of_nodes(where: str, first: Node, second: Node) -> Iterator[str]:
    if isinstance(first, ModelNode):
        where = first.in_words
    fields, others = _digests(first), _digests(second)
    for number in sorted(fields.keys() | others.keys()):
        if fields.get(number) != others.get(number):
            yield f"{where}: its {'description' if _is_description(first, number) else f'field {number}'} differs"
    if first.layer_count != second.layer_count:
        yield f"{where}: {first.layer_count} layers became {second.layer_count}"
    if [child.tag for child in first.children] != [child.tag for child in second.children]:
        yield f"{where}: its parts are others"
        return
    for child, other in zip(first.children, second.children, strict=True):
        yield from _of_nodes(where, child, other)


def _is_description(node: Node, number: int) -> bool:
    return isinstance(node, ModelNode) and number == _DESCRIPTION


def _digests(node: Node) -> dict[int, list[bytes]]:
    """Digests of the fields of each number, in order; fields may be as large as a model."""
    found = defaultdict(list)
    for number, data in node.own_fields():
        known = _sorted_maps(data) if _is_description(node, number) else data
        found[number].append(hashlib.sha256(known).digest())
    return found


def _sorted_maps(description: bytes) -> bytes:
    """A description with its map sorted, since its order in a file has no meaning."""
    try:
        return bytes(parse_message(description, DescribedModel).SerializeToString(deterministic=True))
    except FormatError:
        return description
