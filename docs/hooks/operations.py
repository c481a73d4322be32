"""Fills the page of operations with those that can be run, out of the tables that run them."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

PLACE = "<!-- the operations that can be run -->"
PLACE_OF_LAYERS = "<!-- the layers that can be run -->"
SYSTEMS = {6: "iOS 15", 7: "iOS 16", 8: "iOS 17", 9: "iOS 18", 10: "iOS 26"}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the tables where a page asks for them."""
    for place, table in ((PLACE, operations), (PLACE_OF_LAYERS, layers)):
        markdown = markdown.replace(place, table()) if place in markdown else markdown
    return markdown


def operations() -> str:
    """A table of operations by family, with the versions at which they change."""
    from corepress.runtime.torch import ops  # noqa: F401  fills the table
    from corepress.runtime.torch.binding import CONSTANTS, STRUCTURES
    from corepress.runtime.torch.registry import implemented_operations

    families: dict[str, list[str]] = defaultdict(list)
    for name, found in implemented_operations().items():
        versions = [SYSTEMS[each.since] for each in found]
        since = "" if versions == ["iOS 15"] else f" ({', '.join(versions)})"
        families[found[0].function.__module__.rpartition(".")[2]].append(f"`{name}`{since}")
    families["control_flow"] += [f"`{name}`" for name in STRUCTURES]
    families["constants"] = [f"`{name}`" for name in CONSTANTS]
    rows = [["family", "operations"], ["---", "---"]]
    rows += [[name.replace("_", " "), ", ".join(sorted(found))] for name, found in sorted(families.items())]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def layers() -> str:
    """The types of layers, in one paragraph."""
    from corepress.runtime.torch import layers  # noqa: F401  fills the table
    from corepress.runtime.torch.layers.registry import layer_types

    return ", ".join(f"`{name}`" for name in sorted(layer_types()))
