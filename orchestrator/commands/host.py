"""`viaduct host list|show|maintenance`: the configured hosts and what their agents say."""

import asyncio

import click
from rich.console import Console

from orchestrator.agents import Agents
from orchestrator.commands.machine import machine_document
from orchestrator.documents.evacuation import MaintenanceDocument
from orchestrator.documents.listings import HostDocument, HostsDocument, OneHostDocument
from orchestrator.hearing import hear
from orchestrator.host_document import host_document
from orchestrator.render.hosts import show_host, show_hosts
from orchestrator.render.listings import show_machines
from orchestrator.site import agents_of, open_desk
from vm_migration.command_line.invocation import Answer, Invocation, answering


@click.group("host")
def host() -> None:
    """Look at the hosts, and say which of them are not to be chosen."""


@host.command("list")
@answering
async def list_hosts(call: Invocation) -> Answer:
    """List the configured hosts, what is left of each, and what it has to do."""
    async with agents_of(call.configuration()) as agents:
        hosts = await asyncio.gather(*(_host(agents, name) for name in sorted(agents.hosts)))
    document = HostsDocument("viaduct.hosts.v1", tuple(hosts))

    def show_them(console: Console) -> None:
        show_hosts(console, document.hosts)

    return Answer(document, show_them)


@host.command("show")
@click.argument("name", metavar="HOST")
@answering
async def show(call: Invocation, name: str) -> Answer:
    """Show all that HOST says of itself, and its machines; exit code 3 when it does not answer."""
    async with agents_of(call.configuration()) as agents:
        agents.require(name)
        found = await _host(agents, name)
        machines = tuple(machine_document(one) for one in await agents.list_machines(name))
    document = OneHostDocument("viaduct.host.v1", found, machines)

    def show_it(console: Console) -> None:
        show_host(console, document.host)
        show_machines(console, document.machines)

    return Answer(document, show_it)


@host.command("maintenance")
@click.argument("name", metavar="HOST", required=False)
@click.argument("state", type=click.Choice(["on", "off"]), required=False)
@answering
async def maintenance(call: Invocation, name: str | None, state: str | None) -> Answer:
    """Have HOST chosen no more as a destination (on), or again (off); without arguments, name those that are not.

    What runs there stays, and `--to HOST` still goes there. See `viaduct evacuate`, too.
    """
    if name is not None and state is None:
        raise click.UsageError("Say on or off")
    async with open_desk(call.configuration()) as desk:
        if name is None:
            hosts = await desk.evacuations.maintenance()
        else:
            hosts = await desk.evacuations.set_maintenance(name, on=state == "on")

    def show_them(console: Console) -> None:
        console.print(f"in maintenance: {', '.join(sorted(hosts)) or 'no host'}")

    return Answer(MaintenanceDocument("viaduct.maintenance.v1", tuple(sorted(hosts))), show_them)


async def _host(agents: Agents, name: str) -> HostDocument:
    return host_document(name, agents.hosts[name], await hear(agents, name))
