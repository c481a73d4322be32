"""JSON documents for other programs: strict JSON, with the number of their schema."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

SCHEMA = 1  # goes up when a field changes or goes; new fields do not change it


def to_json(values: Mapping[str, Any]) -> str:
    """A document as text.

    Parameters
    ----------
    values : dict
        Plain values; NaN and infinity do not exist in JSON and are an error.
    """
    return json.dumps({"schema": SCHEMA, **values}, indent=2, allow_nan=False)


def from_json(text: str) -> dict[str, Any]:
    """Parse a document.

    Parameters
    ----------
    text : str
        What `to_json` returned.

    Raises
    ------
    ValueError
        If it is not such a document, or has another schema.
    """
    values = json.loads(text)
    schema = values.pop("schema", None) if isinstance(values, dict) else None
    if schema != SCHEMA:
        raise ValueError(f"this document has schema {schema!r}, but this version of corepress reads {SCHEMA}")
    return dict(values)
