"""Entry point: the command group, exit codes, and errors as one line."""

from __future__ import annotations

import re
import signal
import traceback
from collections.abc import Sequence

import click

from ..interrupts import interrupts_as_exceptions
from ..suggestions import suggestion
from .commands import COMMANDS
from .options import Session
from .wording import describe_error

DONE, FAILED, WRONG_USAGE = 0, 1, 2
INTERRUPTED = 128 + signal.SIGINT


class WorkflowGroup(click.Group):
    """Lists its commands in the order in which people need them instead of the alphabet's."""

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
    """Make the weights of Core ML models smaller.

    Packages (.mlpackage) and neural networks (.mlmodel) go in, new ones come out. The source is never changed, and
    what can't be compressed stays bit for bit as it was and is named in the report.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        Arguments after the program's name; None for the process's own.

    Returns
    -------
    int
        0 done, 1 failed, 2 wrong usage, 130 interrupted. SIGTERM leaves through `SystemExit` with 143.
    """
    session = Session()
    arrived: list[int] = []
    try:
        with interrupts_as_exceptions(arrived):
            status = corepress.main(arguments, prog_name="corepress", standalone_mode=False, obj=session)
    except (click.Abort, KeyboardInterrupt):
        return _fail(session, INTERRUPTED, f"{session.command}: interrupted")
    except Exception as error:
        if arrived:
            return _fail(session, 128 + arrived[0], f"{session.command}: interrupted")
        return _fail(session, *_status_and_message(session, error))
    return status if isinstance(status, int) else DONE


def _status_and_message(session: Session, error: Exception) -> tuple[int, str]:
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx else "corepress"
        return WRONG_USAGE, f"{command}: {error.format_message().rstrip('.')} (see '{command} --help')"
    if isinstance(error, click.ClickException):
        return FAILED, f"corepress: {error.format_message()}"
    return FAILED, f"{session.command}: {describe_error(error)}"


def _fail(session: Session, status: int, message: str) -> int:
    if session.debug:
        traceback.print_exc()
    click.echo(re.sub(r"\s*\n\s*", " ", message.strip()), err=True)
    return status
