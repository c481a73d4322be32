"""Reading configs from YAML and JSON: strict where a mistake would go unnoticed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from ..suggestions import suggestion

FILE_SUFFIXES = (".yaml", ".yml", ".json")
_MOST_DIGITS = 1_000  # of a whole number: Python's reading takes time with their square
_MOST_VALUES = 1_000_000  # counting each repetition by YAML's aliases
_DEEPEST = 50


def read_config_file(path: Path) -> Any:
    """The plain values of a config file.

    Raises
    ------
    FileNotFoundError
        If there is none; the message names a similar file in the same folder.
    ValueError
        If it is not valid YAML or JSON, naming the file and the place.
    """
    suffix = path.suffix.lower()
    if suffix not in FILE_SUFFIXES:
        raise ValueError(f"{path}: a config file must end in {', '.join(FILE_SUFFIXES)}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        near = [each.name for each in path.parent.glob("*") if each.suffix.lower() in FILE_SUFFIXES]
        raise FileNotFoundError(f"{path}: no such config file{suggestion(path.name, near)}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from error
    return parse_json(text) if suffix == ".json" else parse_yaml(text)


def parse_json(text: str) -> Any:
    """Values of JSON in which no key occurs twice."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, value in pairs:
            if key in values:
                raise ValueError(f"config: key {key!r} occurs twice")
            values[key] = value
        return values

    try:
        return _modest(json.loads(text, object_pairs_hook=unique, parse_int=_whole_number))
    except json.JSONDecodeError as error:
        raise ValueError(f"config: line {error.lineno}: not valid JSON ({error.msg})") from error
    except RecursionError:
        raise ValueError("config: not valid JSON (nested too deeply)") from None


def parse_yaml(text: str) -> Any:
    """Values of YAML in which no key occurs twice; ``1e-3`` is a number, as in YAML 1.2."""
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc, unused-ignore]  # its types are not installed everywhere
        pass

    def mapping(loader: Loader, node: Any) -> dict[Any, Any]:
        values: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = loader.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if not isinstance(key, str | int | float | bool | None):
                raise ValueError(f"config: line {line}: a key must be a string")
            if key in values:
                raise ValueError(f"config: line {line}: key {key!r} occurs twice")
            values[key] = loader.construct_object(value_node, deep=True)
        return values

    def whole_number(loader: Loader, node: Any) -> Any:
        _require_digits(node.value)
        return loader.construct_yaml_int(node)

    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    Loader.add_constructor("tag:yaml.org,2002:int", whole_number)
    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), "-+0123456789"
    )
    try:
        return _modest(yaml.load(text, Loader))  # derived from SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f"line {mark.line + 1}: "
        problem = " ".join((getattr(error, "problem", None) or str(error)).split())
        raise ValueError(f"config: {line}not valid YAML ({problem})") from error
    except RecursionError:
        raise ValueError("config: not valid YAML (nested too deeply)") from None
    except (ValueError, LookupError, AttributeError, TypeError) as error:  # of numbers and dates that are none, say
        if str(error).startswith("config: "):
            raise
        raise ValueError(f"config: not valid YAML ({error})") from error


def to_yaml(values: Any) -> str:
    """Plain values as YAML, in their order."""
    import yaml

    text: str = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=1_000, default_flow_style=None)
    return text


def to_json(values: Any) -> str:
    """Plain values as JSON, in their order."""
    return json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _whole_number(text: str) -> int:
    _require_digits(text)
    return int(text)


def _require_digits(text: str) -> None:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"config: a number has at most {_MOST_DIGITS} digits, not {len(text)}")


def _modest(values: Any) -> Any:
    """The values, if their number and depth are those of a config; what aliases repeat is counted each time."""
    level, count = [values], 1
    for _ in range(_DEEPEST):
        level = list(islice(_children(level), _MOST_VALUES - count + 1))
        if not level:
            return values
        count += len(level)
        if count > _MOST_VALUES:
            raise ValueError(f"config: more than {_MOST_VALUES} values")
    raise ValueError(f"config: nested more than {_DEEPEST} deep")


def _children(level: list[Any]) -> Iterator[Any]:
    for each in level:
        if isinstance(each, dict):
            yield from each.values()
        elif isinstance(each, list | tuple | set):
            yield from each
