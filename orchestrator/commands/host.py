"""`viaduct host list|show`: the configured hosts and what their agents say."""

import asyncio

import click
from rich.console import Console

from orchestrator.agents import Agents, Side
from orchestrator.commands.machine import machine_document
from orchestrator.documents.listings import HostDocument, HostsDocument, OneHostDocument, SideDocument
from orchestrator.documents.migration import FaultDocument
from orchestrator.render.listings import show_hosts, show_machines
from orchestrator.site import agents_of
from vm_migration.command_line.invocation import Answer, Invocation, answering
from vm_migration.errors import InvalidInput, MigrationError


@click.group("host")
def host() -> None:
    """Look at the hosts."""


@host.command("list")
@answering
async def list_hosts(call: Invocation) -> Answer:
    """List the configured hosts and whether their agents answer."""
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
    """Show HOST and its machines; exit code 3 when it does not answer."""
    async with agents_of(call.configuration()) as agents:
        agents.require(name)
        found = await _host(agents, name)
        machines = tuple(machine_document(one) for one in await agents.list_machines(name))
    document = OneHostDocument("viaduct.host.v1", found, machines)

    def show_it(console: Console) -> None:
        show_hosts(console, (document.host,))
        show_machines(console, document.machines)

    return Answer(document, show_it)


async def _host(agents: Agents, name: str) -> HostDocument:
    source, dest = await asyncio.gather(_side(agents, name, "source"), _side(agents, name, "dest"))
    return HostDocument(name, source, dest)


async def _side(agents: Agents, name: str, side: Side) -> SideDocument:
    address = agents.hosts[name].of(side)
    try:
        facts = await agents.describe_host(name, side)
    except InvalidInput:  # our own configuration, not the host
        raise
    except MigrationError as error:
        fault = FaultDocument(error.code, error.message, error.hint)
        return SideDocument(
            address,
            answers=False,
            version=None,
            boot_id=None,
            memory_budget_bytes=None,
            memory_in_use_bytes=None,
            features=(),
            error=fault,
        )
    return SideDocument(
        address=address,
        answers=True,
        version=facts.version,
        boot_id=facts.boot_id,
        memory_budget_bytes=facts.memory_budget_bytes,
        memory_in_use_bytes=facts.memory_in_use_bytes,
        features=tuple(facts.features),
        error=None,
    )
