"""The `viaduct` command. Its subcommands are found through the entry points `viaduct.commands`, one a noun or verb.

An entry point names a click command; other packages add theirs in the same way, without being imported from here.
"""

import asyncio
import gc
import sys
import traceback
from collections.abc import Coroutine, Sequence
from importlib.metadata import entry_points
from typing import Final

import click

from orchestrator.commands.version import version_line
from orchestrator.errors import USAGE, complaint, error_document
from vm_migration.command_line.invocation import Invocation, print_document
from vm_migration.errors import InternalError, innermost
from vm_migration.telemetry import logs

GROUP: Final = "viaduct.commands"


class Subcommands(click.Group):
    """A group whose commands are the installed entry points."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name every installed command."""
        del ctx
        return sorted({point.name for point in entry_points(group=GROUP)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load one command."""
        del ctx
        for point in entry_points(group=GROUP, name=cmd_name):
            loaded: object = point.load()
            if not isinstance(loaded, click.Command):
                raise InternalError("not-a-command", f"Entry point {point.value} is not a command")
            return loaded
        return None


def _show_version(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    """Print the version, as `viaduct version` does for people."""
    if value and not context.resilient_parsing:
        click.echo(version_line())
        context.exit()


@click.group(cls=Subcommands, invoke_without_command=False, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Print the version."
)
def viaduct() -> None:
    """Move running virtual machines with VFIO devices between hosts."""


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; whatever goes wrong is two lines on stderr."""
    invocation = _invocation(arguments)
    try:
        pending = _read(arguments, invocation)
        if pending is not None:
            asyncio.run(pending)
    except (Exception, KeyboardInterrupt, asyncio.CancelledError) as error:  # noqa: BLE001 - the last that can say it
        return _said(invocation, error, arguments)
    return invocation.exit_code


async def run_here(arguments: Sequence[str]) -> int:
    """Run one command line as `run` does, in the event loop that is running."""
    invocation = _invocation(arguments)
    try:
        pending = _read(arguments, invocation)
        if pending is not None:
            await pending
    except Exception as error:  # noqa: BLE001 - as above
        return _said(invocation, error, arguments)
    return invocation.exit_code


def _invocation(arguments: Sequence[str]) -> Invocation:
    """Return a fresh invocation; what a broken command line can still say is seen before it is read."""
    return Invocation(json="--json" in arguments, debug="--debug" in arguments)


def _read(arguments: Sequence[str], invocation: Invocation) -> Coroutine[object, object, None] | None:
    """Read a command line; return what is left to await of its command, if anything."""
    try:
        result: object = viaduct.main(list(arguments), prog_name="viaduct", standalone_mode=False, obj=invocation)
    except click.exceptions.NoArgsIsHelpError as error:
        sys.stderr.write(f"{error.format_message()}\n")
        invocation.exit_code = USAGE
        return None
    if asyncio.iscoroutine(result):
        return result
    if isinstance(result, int) and result:
        invocation.exit_code = result
    return None


def _said(invocation: Invocation, error: BaseException, arguments: Sequence[str]) -> int:
    if invocation.debug:
        traceback.print_exception(error)
    cause = innermost(error)
    if isinstance(cause, click.UsageError) and cause.ctx is None:  # a parser's errors do not say which command it was
        cause.ctx = _context_of(arguments)
    said = complaint(error)
    if invocation.json:
        print_document(error_document(said))
    said.write(sys.stderr)
    return said.exit_code


def _context_of(arguments: Sequence[str]) -> click.Context:
    """Return the context of the command that a command line is about, as far as it names one."""
    command: click.Command = viaduct
    context = click.Context(command, info_name="viaduct")
    for word in arguments:
        found = command.get_command(context, word) if isinstance(command, click.Group) else None
        if found is None:
            break
        command, context = found, click.Context(found, info_name=word, parent=context)
    return context


def main() -> None:
    """Run the command line of this process; what is logged goes to stderr, as stdout is for the answer alone."""
    debug = "--debug" in sys.argv
    logs.configure("viaduct", "debug" if debug else "warning", traces=debug)
    exit_code = run(sys.argv[1:])
    gc.freeze()  # the interpreter's last collections would look at everything that goes anyway
    sys.exit(exit_code)


if __name__ == "__main__":
    main()
