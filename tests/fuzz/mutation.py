"""Damage that keeps most of a package sound, so that it gets past the first checks: fields, records, paths, bytes."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from random import Random
from typing import Any

from seeds import Parts

from corepress.coreml.format import schema
from corepress.coreml.format.data_types import DATA_TYPES

_NUMBERS = (0, 1, 2, 3, 7, 8, 9, 10, 16, 31, 32, 63, 64, 65, 127, 128, 255, 256, 2**15, 2**16, 2**24, 2**28, 2**31 - 1)
_NUMBERS += (2**31, 2**32 - 1, 2**32, 2**40, 2**53, 2**56, 2**62, 2**63 - 1, 2**63, 2**64 - 64, 2**64 - 1)
_NUMBERS += (-1, -2, -64, -(2**31), -(2**63), *(data_type.program_number for data_type in DATA_TYPES))
_TEXTS = (
    *("", ".", "..", "/", "/etc/passwd", "../../x", "a/../../x", "a\\b", "\0", "@model_path", "@model_path/", "\ud800"),
    *(
        "@model_path/../x",
        "@model_path/weights",
        "@model_path/weights/weight.bin",
        "@model_path/model.mlmodel",
        "x" * 5000,
    ),
    *("com.apple.CoreML/model.mlmodel", "com.apple.CoreML", "Manifest.json", "../Manifest.json", "1.0.0", "9.9.9"),
    *("const", "constexpr_lut_to_dense", "constexpr_lut_to_sparse", "constexpr_sparse_to_dense", "constexpr_cast"),
    *("constexpr_blockwise_shift_scale", "constexpr_sparse_blockwise_shift_scale", "constexpr_affine_dequantize"),
    *("data", "lut", "indices", "mask", "shape", "scale", "offset", "vector_axis", "axis", "zero_point", "val", "name"),
    *("x", "kernel", "matrix", "inner", "CoreML6", "CoreML8", "CoreML9", "linear", "conv"),
)
_JSON = (None, True, 0, -1, 2**70, 1.5, "", [], {}, [[]], {"path": "x"}, *_TEXTS)
_RECORD = struct.Struct("<IIQQQ")
_SENTINEL = struct.pack("<I", 0xDEADBEEF)


def mutate(parts: Parts, rng: Random, donor: Parts | None = None) -> Parts:
    """Damage the files of a package in a few places; messages and records may come from `donor`, another package."""
    for _ in range(rng.choice((1, 1, 1, 2, 3, 5))):
        (damage,) = rng.choices(_KINDS, _WEIGHTS)
        parts = damage(parts, rng, donor or parts)
    return parts


def _mutate_bytes(parts: Parts, rng: Random, donor: Parts) -> Parts:
    part = rng.choice(("manifest", "model", "weights"))
    return replace(parts, **{part: mutate_bytes(getattr(parts, part), rng, getattr(donor, part))})


def mutate_bytes(given: bytes, rng: Random, donor: bytes) -> bytes:
    """Damage one place of any bytes."""
    data = bytearray(given)
    start = rng.randrange(len(data) + 1)
    length = min(rng.choice((1, 1, 2, 4, 8, 64, 500)), len(data) - start)
    kind = rng.randrange(5)
    if kind == 0:
        del data[start : start + length]
    elif kind == 1:
        del data[start:]
    elif kind == 2:
        data[start:start] = rng.randbytes(length)
    elif kind == 3:
        data[start : start + length] = donor[start : start + length]
    else:
        data[start : start + length] = rng.randbytes(length)
    return bytes(data)


def _mutate_manifest(parts: Parts, rng: Random, donor: Parts) -> Parts:
    try:
        root = json.loads(parts.manifest)
    except (ValueError, RecursionError):
        return _mutate_bytes(parts, rng, donor)
    places, pending = [], [root]
    while pending:
        each = pending.pop()
        keys = list(each) if isinstance(each, dict) else range(len(each)) if isinstance(each, list) else ()
        places += [(each, key) for key in keys]
        pending += [each[key] for key in keys]
    if not places:
        return replace(parts, manifest=json.dumps(rng.choice(_JSON)).encode())
    holder, key = rng.choice(places)
    if rng.random() < 0.2:
        del holder[key]
    else:
        holder[key] = rng.choice(_JSON)
    return replace(parts, manifest=json.dumps(root).encode())


def _mutate_records(parts: Parts, rng: Random, donor: Parts) -> Parts:
    data = bytearray(parts.weights)
    starts, start = [], data.find(_SENTINEL)
    while start >= 0:
        if start + 64 <= len(data):
            starts.append(start)
        start = data.find(_SENTINEL, start + 1)
    if not starts or rng.random() < 0.1:
        if len(data) >= 8:
            data[:4] = struct.pack("<I", rng.choice((0, 1, 2, 3, 5, 100, 2**31, 2**32 - 1)))
        return replace(parts, weights=bytes(data))
    start = rng.choice(starts)
    fields = list(_RECORD.unpack_from(data, start))
    index = rng.choice((1, 2, 2, 3, 3, 4))
    near = (fields[index] + rng.choice((-64, -8, -2, -1, 1, 2, 8, 64)), rng.choice(starts), start, len(data) - start)
    fields[index] = rng.choice((*near, rng.choice(_NUMBERS), rng.randrange(1, 20)))
    fields = [field % 2 ** (32 if place < 2 else 64) for place, field in enumerate(fields)]
    _RECORD.pack_into(data, start, *fields)
    return replace(parts, weights=bytes(data))


def messages_of(message: Any) -> list[Any]:
    """A message and all in it."""
    found, pending = [], [message]
    while pending:
        each = pending.pop()
        found.append(each)
        for field, value in each.ListFields():
            if field.message_type is None:
                continue
            if _is_map(field):
                pending += [value[key] for key in sorted(value)]  # maps have no order of their own
            else:
                pending += list(value) if _is_repeated(field) else [value]
    return found


def _is_map(field: Any) -> bool:
    return bool(field.message_type is not None and field.message_type.GetOptions().map_entry)


def _is_repeated(field: Any) -> bool:
    return isinstance(field.default_value, list)


def _mutate_model(parts: Parts, rng: Random, donor: Parts) -> Parts:
    try:
        model = schema.Model.FromString(parts.model)
        lent = messages_of(schema.Model.FromString(donor.model))
    except Exception:  # protobuf's errors differ between its implementations
        return _mutate_bytes(parts, rng, donor)
    mutate_message(rng.choice(messages_of(model)), rng, lent)
    try:
        return replace(parts, model=model.SerializeToString(deterministic=True))
    except Exception:  # text that is not Unicode, say
        return parts


def mutate_message(message: Any, rng: Random, lent: list[Any]) -> None:
    """Change one field of a message; messages in it may become some of those lent."""
    fields = message.DESCRIPTOR.fields
    if not fields:
        return
    present = [field for field, _ in message.ListFields()]
    field = rng.choice(present) if present and rng.random() < 0.9 else rng.choice(fields)
    if rng.random() < 0.06:
        message.ClearField(field.name)
    elif _is_map(field):
        _mutate_map(getattr(message, field.name), rng, lent)
    elif _is_repeated(field):
        _mutate_list(message, field, rng, lent)
    elif field.message_type is not None:
        same = [each for each in lent if each.DESCRIPTOR.name == field.message_type.name]
        if same:
            getattr(message, field.name).CopyFrom(rng.choice(same))
    else:
        setattr(message, field.name, _scalar(field, getattr(message, field.name), rng))


def _mutate_type(parts: Parts, rng: Random, donor: Parts) -> Parts:
    """Change a type wherever it stands, which checks of one declaration against another do not see."""
    try:
        model = schema.Model.FromString(parts.model)
    except Exception:  # as above
        return _mutate_bytes(parts, rng, donor)
    types = [each for each in messages_of(model) if each.DESCRIPTOR.name == "TensorType"]
    if not types:
        return parts
    before = rng.choice(types).SerializeToString(deterministic=True)
    shape = [each.constant.size for each in rng.choice(types).FromString(before).dimensions]
    data_type = rng.choice(DATA_TYPES).program_number if rng.random() < 0.3 else None
    for _ in range(rng.randrange(1, 4)):
        place = rng.randrange(len(shape)) if shape else 0
        kind = rng.randrange(6)
        if kind == 0:
            shape.insert(place, 1)
        elif kind == 1:
            rng.shuffle(shape)
        elif kind == 2 and len(shape) > 1:
            shape[place - 1] = shape[place - 1] * shape.pop(place) % 2**64
        elif kind == 3 and shape and shape[place] % 2 == 0:
            shape[place] //= 2
            shape.insert(rng.randrange(len(shape) + 1), 2)
        elif kind == 4 and shape and shape[place] == 1:
            del shape[place]
        elif kind == 5 and shape and rng.random() < 0.3:
            shape[place] = rng.choice(_NUMBERS) % 2**64
    for each in types:
        if each.SerializeToString(deterministic=True) != before:
            continue
        each.dataType = data_type or each.dataType
        each.rank = len(shape)
        del each.dimensions[:]
        for size in shape:
            each.dimensions.add().constant.size = size
    return replace(parts, model=model.SerializeToString(deterministic=True))


def _mutate_map(values: Any, rng: Random, lent: list[Any]) -> None:
    keys = sorted(values)
    kind = values.GetEntryClass().DESCRIPTOR.fields_by_name["value"].message_type.name
    same = [each for each in lent if each.DESCRIPTOR.name == kind]
    key, other = (rng.choice((*keys, rng.choice(_TEXTS).encode("utf-8", "replace").decode())) for _ in range(2))
    if key in values and rng.random() < 0.3:
        del values[key]
    elif same:
        values[other].CopyFrom(values[key] if key in values and rng.random() < 0.5 else rng.choice(same))


def _mutate_list(message: Any, field: Any, rng: Random, lent: list[Any]) -> None:
    values = getattr(message, field.name)
    place, other = (rng.randrange(len(values)) if values else 0 for _ in range(2))
    kind = rng.randrange(4)
    if values and kind == 0:
        del values[place]
    elif field.message_type is not None:
        same = [each for each in lent if each.DESCRIPTOR.name == field.message_type.name]
        if values and kind == 1:
            values.add().CopyFrom(values[place])
        elif values and kind == 2:
            kept = [type(each).FromString(each.SerializeToString()) for each in values]
            kept[place], kept[other] = kept[other], kept[place]
            del values[:]
            values.extend(kept)
        elif same:
            values.add().CopyFrom(rng.choice(same))
    elif values and kind < 3:
        values[place] = _scalar(field, values[place], rng)
    else:
        values.append(_scalar(field, field.default_value and field.default_value[0], rng))


def _scalar(field: Any, value: Any, rng: Random) -> Any:
    if field.cpp_type == field.CPPTYPE_STRING:
        if field.type == field.TYPE_BYTES:
            data = bytearray(value or b"")
            if data and rng.random() < 0.5:
                data[rng.randrange(len(data))] = rng.randrange(256)
                return bytes(data)
            return bytes(data) + rng.randbytes(rng.randrange(9))
        return rng.choice(_TEXTS).encode("utf-8", "replace").decode()
    if field.cpp_type == field.CPPTYPE_BOOL:
        return rng.random() < 0.5
    if field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        return rng.choice((0.0, -0.0, 1e-45, 1e30, float("inf"), float("nan")))
    number = rng.choice((rng.choice(_NUMBERS), rng.randrange(40), (value or 0) + rng.choice((-64, -1, 1, 2, 64))))
    signed = field.cpp_type in (field.CPPTYPE_INT32, field.CPPTYPE_INT64)
    bits = 32 if field.cpp_type in (field.CPPTYPE_INT32, field.CPPTYPE_UINT32) else 64
    number %= 2**bits
    return number - 2**bits if signed and number >= 2 ** (bits - 1) else number


_KINDS = (_mutate_model, _mutate_type, _mutate_records, _mutate_manifest, _mutate_bytes)
_WEIGHTS = (12, 6, 4, 1, 2)
