"""The group of all commands."""

from __future__ import annotations

from collections.abc import Sequence

import click

from ..suggestions import suggestion
from .commands import COMMANDS
from .session import Session


class WorkflowGroup(click.Group):
    """Lists its commands in the order in which people need them, not alphabetically."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.commands)

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = arguments[0]
        if name not in self.commands and not name.startswith("-"):
            raise click.UsageError(f"No such command {name!r}{suggestion(name, self.commands)}", context)
        return super().resolve_command(context, arguments)


@click.group(
    cls=WorkflowGroup,
    commands={command.name or "": command for command in COMMANDS},
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with 'corepress demo'; 'corepress COMMAND --help' explains a command.",
)
@click.version_option(package_name="corepress", message="corepress %(version)s")
@click.pass_context
def corepress(context: click.Context) -> None:
    """Make the weights of Core ML and Core AI models smaller.

    Packages (.mlpackage), neural networks (.mlmodel) and Core AI assets (.aimodel) go in, new ones come out. The source
    is never changed, and weights that can't be compressed are left unchanged, bit for bit, and listed in the report.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def run(arguments: Sequence[str], session: Session) -> int:
    """Run the command line and return its exit code; failures are raised."""
    try:
        status = corepress.main(arguments, prog_name="corepress", standalone_mode=False, obj=session)
    except click.Abort:
        raise KeyboardInterrupt from None
    return status if isinstance(status, int) else 0
