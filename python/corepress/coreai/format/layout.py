"""The bytes of a program whose resources have other sizes, without writing them."""

from __future__ import annotations

from collections.abc import Mapping

from .bytecode import Bytecode, Resource

_LARGEST_IN_BYTES = 1 << 56  # of integers that take up to eight bytes


def varint_size(value: int) -> int:
    """Bytes of an integer in bytecode: seven bits each, or nine bytes."""
    return max(1, -(-value.bit_length() // 7)) if value < _LARGEST_IN_BYTES else 9


def size_with(bytecode: Bytecode, others: Mapping[str, tuple[str, int]]) -> int:
    """Bytes of a bytecode file once some of its resources have other keys and sizes.

    Parameters
    ----------
    bytecode : Bytecode
        The file.
    others : dict of str to (str, int)
        By the keys of resources, their new keys, and the bytes that they hold.
    """
    position = bytecode.header_size
    for name, section in bytecode.sections.items():
        size, alignment = section.size, section.alignment
        if name == "String":
            size = _size_of_strings(bytecode, others)
        elif name == "ResourceOffset":
            size += sum(
                varint_size(_entry_size(each, others)) - varint_size(each.entry_size) for each in bytecode.resources
            )
        start = position + 1
        if name == "Resource":
            size = _size_of_resources(bytecode, others, alignment)
        start += varint_size(size)
        if alignment is not None:
            start += varint_size(alignment)
            start += -start % alignment
        position = start + size
    return position


def _size_of_strings(bytecode: Bytecode, others: Mapping[str, tuple[str, int]]) -> int:
    new = {key: name for key, (name, _) in others.items()}
    lengths = [len(new.get(each, each).encode()) + 1 for each in bytecode.strings]
    return varint_size(len(lengths)) + sum(varint_size(length) + length for length in lengths)


def _size_of_resources(bytecode: Bytecode, others: Mapping[str, tuple[str, int]], alignment: int | None) -> int:
    """Its entries follow each other; the section starts at a multiple of the largest alignment."""
    position = 0
    for each in bytecode.resources:
        position += _entry_size(each, others, position)
    return position


def _entry_size(each: Resource, others: Mapping[str, tuple[str, int]], position: int | None = None) -> int:
    """Bytes of a resource, at a position in the section; with None at that where it is."""
    if each.blob is None:
        return each.entry_size
    size = others[each.key][1] if each.key in others else each.blob.size
    head = varint_size(each.blob.alignment) + varint_size(size)
    return head + -(position + head) % each.blob.alignment + size
