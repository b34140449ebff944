"""`viaduct host list|show|maintenance`: the configured hosts and what their agents say."""

import asyncio
from collections.abc import Mapping, Sequence

import click
from rich.console import Console

from orchestrator.agents import ASK_SECONDS, Agents
from orchestrator.commands.machine import machine_document
from orchestrator.documents.evacuation import MaintenanceDocument
from orchestrator.documents.listings import HostsDocument, OneHostDocument
from orchestrator.hearing import hear
from orchestrator.host_document import host_document
from orchestrator.host_standing import Heard
from orchestrator.render.hosts import show_host, show_hosts
from orchestrator.render.listings import show_machines
from orchestrator.site import agents_of, hosts_in_maintenance, open_desk
from vm_migration.command_line.invocation import Answer, Invocation, answering
from vm_migration.daemon.configuration import Configuration
from vm_migration.errors import Refused


@click.group("host")
def host() -> None:
    """Look at the hosts, and say which of them are not to be chosen."""


@host.command("list")
@answering
async def list_hosts(call: Invocation) -> Answer:
    """List the configured hosts, what is left of each, and what it has to do."""
    configuration = call.configuration()
    async with agents_of(configuration) as agents:
        kept, heard = await asyncio.gather(_in_maintenance(configuration), _heard(agents, sorted(agents.hosts)))
    hosts = (host_document(name, agents.hosts[name], told, kept) for name, told in heard.items())
    document = HostsDocument("viaduct.hosts.v1", tuple(hosts))

    def show_them(console: Console) -> None:
        show_hosts(console, document.hosts)

    return Answer(document, show_them)


@host.command("show")
@click.argument("name", metavar="HOST")
@answering
async def show(call: Invocation, name: str) -> Answer:
    """Show all that HOST says of itself, and its machines; exit code 3 when it does not answer."""
    configuration = call.configuration()
    async with agents_of(configuration) as agents:
        agents.require(name)
        kept, heard = await asyncio.gather(_in_maintenance(configuration), _heard(agents, [name]))
        found = host_document(name, agents.hosts[name], heard[name], kept)
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


async def _heard(agents: Agents, names: Sequence[str]) -> Mapping[str, Heard]:
    return dict(zip(names, await asyncio.gather(*(hear(agents, name) for name in names)), strict=True))


async def _in_maintenance(configuration: Configuration) -> frozenset[str] | None:
    """Return the hosts in maintenance; None where nobody tells, which is no reason not to show the hosts."""
    try:
        async with asyncio.timeout(ASK_SECONDS):
            return await hosts_in_maintenance(configuration)
    except (TimeoutError, Refused):
        return None
