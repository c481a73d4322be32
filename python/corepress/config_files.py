"""Reading configs from YAML and JSON: strict where a slip would go unnoticed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from .suggestions import suggestion

FILE_SUFFIXES = (".yaml", ".yml", ".json")


def read_config_file(path: Path) -> Any:
    """The plain values of a config file.

    Raises
    ------
    FileNotFoundError
        If there is none; with the name of a similar file beside it.
    ValueError
        If it is not valid YAML or JSON, naming the file and the place.
    """
    suffix = path.suffix.lower()
    if suffix not in FILE_SUFFIXES:
        raise ValueError(f"{path}: a config file must end in {', '.join(FILE_SUFFIXES)}")
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = [each.name for each in path.parent.glob("*") if each.suffix.lower() in FILE_SUFFIXES]
        raise FileNotFoundError(f"{path}: no such config file{suggestion(path.name, near)}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a text in UTF-8 ({error.reason} at byte {error.start})") from error
    return parse_json(text) if suffix == ".json" else parse_yaml(text)


def parse_json(text: str) -> Any:
    """Values of JSON in which no key stands twice."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):
            names = [name for name, _ in pairs]
            raise ValueError(f"config: key {next(n for n in names if names.count(n) > 1)!r} stands twice")
        return values

    try:
        return json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise ValueError(f"config: line {error.lineno}: not valid JSON ({error.msg})") from error
    except RecursionError:
        raise ValueError("config: not valid JSON (nested too deeply)") from None


def parse_yaml(text: str) -> Any:
    """Values of YAML in which no key stands twice; ``1e-3`` is a number, as in YAML 1.2."""
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc, unused-ignore]  # its types are not installed everywhere
        pass

    def mapping(loader: Loader, node: Any) -> dict[Any, Any]:
        values: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = loader.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if not isinstance(key, str | int | float | bool | None):
                raise ValueError(f"config: line {line}: a key must be a text")
            if key in values:
                raise ValueError(f"config: line {line}: key {key!r} stands twice")
            values[key] = loader.construct_object(value_node, deep=True)
        return values

    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), "-+0123456789"
    )
    try:
        return yaml.load(text, Loader)  # derived from SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f"line {mark.line + 1}: "
        problem = getattr(error, "problem", None) or str(error)
        raise ValueError(f"config: {line}not valid YAML ({problem})") from error
    except RecursionError:
        raise ValueError("config: not valid YAML (nested too deeply)") from None
