"""One look at the site: both agents of every host are asked at once, each with its deadline."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping

from orchestrator.agents import Agents, Side
from orchestrator.diagnosis.views import Copy, HostView, Leftover, SiteView, Told, copy_from, merged
from orchestrator.host_standing import CORRECT, somebody_else
from vm_migration.api.v1 import types_pb2
from vm_migration.errors import InvalidInput, MigrationError, Refused


async def look(agents: Agents, before: SiteView | None = None, clock: Callable[[], float] = time.time) -> SiteView:
    """Ask every configured host what it has; an agent that kept a look before waiting is not waited for again.

    `clock` tells seconds since 1970, and is compared with each host's own.

    Raises:
        InvalidInput: The own configuration is wrong: an address, or the TLS files.
    """
    hosts = await asyncio.gather(*(_host(agents, host, _slow(before, host), clock) for host in sorted(agents.hosts)))
    return SiteView({one.host: one for one in hosts})


def _slow(before: SiteView | None, host: str) -> dict[Side, Told]:
    if before is None:
        return {}
    sides: dict[Side, Told] = {"source": before.hosts[host].source, "dest": before.hosts[host].dest}
    return {side: told for side, told in sides.items() if told.error is not None and told.error.code == "deadline"}


async def _host(agents: Agents, host: str, slow: Mapping[Side, Told], clock: Callable[[], float]) -> HostView:
    source, dest = await asyncio.gather(
        _side(agents, host, "source", slow, clock), _side(agents, host, "dest", slow, clock)
    )
    reports = [report for _, report in (source, dest) if report is not None]
    copies: dict[str, Copy] = {}
    leftovers: dict[Leftover, None] = {}
    for report in reports:
        copies = merged(copies, {one.machine: copy_from(host, one) for one in report.custodies})
        leftovers |= dict.fromkeys(_leftovers(report.leftovers))
    return HostView(host, source[0], dest[0], copies, tuple(leftovers))


async def _side(
    agents: Agents, host: str, side: Side, slow: Mapping[Side, Told], clock: Callable[[], float]
) -> tuple[Told, types_pb2.CustodyReport | None]:
    if side in slow:
        return slow[side], None
    asked = clock()
    try:
        report = await agents.list_custodies(host, side)
    except InvalidInput:  # our own configuration, not the host
        raise
    except MigrationError as error:
        return Told(error), None
    if (stranger := somebody_else(host, side, report.host)) is not None:
        return Told(Refused(stranger.code, stranger.message, CORRECT.format(host=host))), None
    ahead = report.clock_s - (asked + clock()) / 2 if report.clock_s else 0.0
    return Told(version=report.version, ahead=ahead), report


def _leftovers(messages: Iterable[types_pb2.Leftover]) -> list[Leftover]:
    return [Leftover(one.machine, one.kind, one.pid, one.path) for one in messages]
