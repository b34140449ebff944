"""The `viaduct` command. Its subcommands are found through the entry points `viaduct.commands`, one a noun or verb.

An entry point names a click command; other packages add theirs in the same way, without being imported from here.
"""

import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import Final

import click

from orchestrator.errors import complaint
from orchestrator.invocation import Invocation, print_document
from vm_migration.errors import InternalError

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


@click.group(cls=Subcommands, invoke_without_command=False, context_settings={"help_option_names": ["-h", "--help"]})
def viaduct() -> None:
    """Move running virtual machines with VFIO devices between hosts."""


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; whatever goes wrong is two lines on stderr."""
    invocation = Invocation(json="--json" in arguments, debug="--debug" in arguments)
    try:
        result: object = viaduct.main(list(arguments), prog_name="viaduct", standalone_mode=False, obj=invocation)
    except click.exceptions.NoArgsIsHelpError as error:
        sys.stderr.write(error.ctx.get_help() + "\n" if error.ctx is not None else "")
        return 2
    except (Exception, KeyboardInterrupt, click.Abort) as error:  # noqa: BLE001 - the last place that can say it
        if invocation.debug:
            traceback.print_exc()
        said = complaint(error)
        if invocation.json:
            print_document(said.document())
        said.write(sys.stderr)
        return said.exit_code
    return result if isinstance(result, int) and result else invocation.exit_code


def main() -> None:
    """Run the command line of this process."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
