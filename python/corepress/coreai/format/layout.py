"""The bytes of a program whose resources have other sizes, without writing them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .bytecode import Bytecode

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
        size, alignment = section.size, 1
        if name == "String":
            size = _size_of_strings(bytecode, others)
        elif name == "ResourceOffset":
            new, now = (_entry_sizes(bytecode, each) for each in (others, {}))
            size += sum(map(varint_size, new)) - sum(map(varint_size, now))
        elif name == "Resource":
            size = sum(_entry_sizes(bytecode, others))
            alignment = max((each.blob.alignment for each in bytecode.resources if each.blob is not None), default=1)
        start = position + 1 + varint_size(size)
        if start % alignment:
            start += varint_size(alignment)
            start += -start % alignment
        position = start + size
    return position


def _size_of_strings(bytecode: Bytecode, others: Mapping[str, tuple[str, int]]) -> int:
    new = {key: name for key, (name, _) in others.items()}
    lengths = [len(new.get(each, each).encode()) + 1 for each in bytecode.strings]
    return varint_size(len(lengths)) + sum(varint_size(length) + length for length in lengths)


def _entry_sizes(bytecode: Bytecode, others: Mapping[str, tuple[str, int]]) -> Iterator[int]:
    """Bytes of each resource: they follow each other, from a multiple of the largest alignment on."""
    position = 0
    for each in bytecode.resources:
        entry = each.entry_size
        if each.blob is not None:
            size = others[each.key][1] if each.key in others else each.blob.size
            head = varint_size(each.blob.alignment) + varint_size(size)
            entry = head + -(position + head) % each.blob.alignment + size
        position += entry
        yield entry
