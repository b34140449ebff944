"""`viaduct orchestrator`: the daemon."""

import functools

import click

from orchestrator.daemon import serve
from vm_migration.command_line.invocation import Invocation, common_options
from vm_migration.daemon.life import run


@click.command("orchestrator")
@click.option("--listen", metavar="HOST:PORT", help="Where to listen; `[site] orchestrator` when left out.")
@click.option("--insecure", is_flag=True, envvar="VIADUCT_INSECURE", help="Plaintext, on loopback only.")
@common_options
@click.pass_obj
def orchestrator(call: Invocation, listen: str | None, *, insecure: bool) -> None:
    """Run the site's orchestrator until SIGTERM."""
    configuration = call.configuration(insecure=insecure)
    call.exit_code = run("viaduct-orchestrator", functools.partial(serve, configuration, listen), debug=call.debug)
