"""One look at the site: both agents of every host are asked at once, each with its deadline."""

import asyncio
from collections.abc import Iterable, Mapping

from orchestrator.agents import Agents, Side
from orchestrator.diagnosis.views import Copy, HostView, Leftover, SiteView, Told, copy_from, merged
from vm_migration.api.v1 import types_pb2
from vm_migration.errors import InvalidInput, MigrationError


async def look(agents: Agents, before: SiteView | None = None) -> SiteView:
    """Ask every configured host what it has; an agent that kept a look before waiting is not waited for again.

    Raises:
        InvalidInput: The own configuration is wrong: an address, or the TLS files.
    """
    hosts = await asyncio.gather(*(_host(agents, host, _slow(before, host)) for host in sorted(agents.hosts)))
    return SiteView({one.host: one for one in hosts})


def _slow(before: SiteView | None, host: str) -> dict[Side, Told]:
    if before is None:
        return {}
    sides: dict[Side, Told] = {"source": before.hosts[host].source, "dest": before.hosts[host].dest}
    return {side: told for side, told in sides.items() if told.error is not None and told.error.code == "deadline"}


async def _host(agents: Agents, host: str, slow: Mapping[Side, Told]) -> HostView:
    source, dest = await asyncio.gather(_side(agents, host, "source", slow), _side(agents, host, "dest", slow))
    reports = [report for _, report in (source, dest) if report is not None]
    copies: dict[str, Copy] = {}
    leftovers: dict[Leftover, None] = {}
    for report in reports:
        copies = merged(copies, {one.machine: copy_from(host, one) for one in report.custodies})
        leftovers |= dict.fromkeys(_leftovers(report.leftovers))
    return HostView(host, source[0], dest[0], copies, tuple(leftovers))


async def _side(
    agents: Agents, host: str, side: Side, slow: Mapping[Side, Told]
) -> tuple[Told, types_pb2.CustodyReport | None]:
    if side in slow:
        return slow[side], None
    try:
        report = await agents.list_custodies(host, side)
    except InvalidInput:  # our own configuration, not the host
        raise
    except MigrationError as error:
        return Told(error), None
    return Told(version=report.version), report


def _leftovers(messages: Iterable[types_pb2.Leftover]) -> list[Leftover]:
    return [Leftover(one.machine, one.kind, one.pid, one.path) for one in messages]
