"""Fills the page of the command line with what ``--help`` prints."""

from __future__ import annotations

from typing import Any

import click

from corepress.cli.commands import COMMANDS

PLACE = "<!-- the help of every command -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the help texts where a page asks for them."""
    return markdown.replace(PLACE, "\n\n".join(map(_section, COMMANDS))) if PLACE in markdown else markdown


def _section(command: click.Command) -> str:
    settings = {"help_option_names": ["-h", "--help"], "max_content_width": 100, "terminal_width": 100}
    context = click.Context(command, info_name=f"corepress {command.name}", **settings)
    return f"## corepress {command.name}\n\n```text\n{command.get_help(context)}\n```"
