"""Asks the hosts how they stand: both agents of each, many hosts at a time, every call with its deadline."""

import asyncio
from collections.abc import Iterable
from typing import Final

from orchestrator.agents import Agents, Side, asked_again, of_each
from orchestrator.host_standing import CORRECT, Heard, HostStanding, somebody_else, standing
from vm_migration.api.v1.types_pb2 import HostFacts
from vm_migration.errors import InvalidInput, MigrationError, Refused, Unreachable

_BESIDE_OTHERS: Final = 16
"""Hosts at a time that are asked for a choice: attempts are followed meanwhile, and a handshake is milliseconds."""
_NOT_ASKED: Final = Unreachable("not-asked", "The source agent was not asked", "")


async def standings(agents: Agents, hosts: Iterable[str]) -> dict[str, HostStanding]:
    """Ask some hosts, many at a time; raises as `hear` does."""
    names = list(hosts)
    told = await of_each(names, lambda host: hear(agents, host))
    return {host: standing(host, heard) for host, heard in zip(names, told, strict=True)}


async def standings_to_take(agents: Agents, hosts: Iterable[str]) -> dict[str, HostStanding]:
    """Ask only the agents that would take a machine in, many at a time; raises as `hear` does."""
    names = list(hosts)
    told = await of_each(names, lambda host: _facts(agents, host, "dest"), at_once=_BESIDE_OTHERS)
    return {host: standing(host, Heard(_NOT_ASKED, facts)) for host, facts in zip(names, told, strict=True)}


async def hear(agents: Agents, host: str) -> Heard:
    """Ask both agents of a host.

    Raises:
        InvalidInput: The own configuration is wrong: an address, or the TLS files.
    """
    return Heard(*await asyncio.gather(_facts(agents, host, "source"), _facts(agents, host, "dest")))


async def _facts(agents: Agents, host: str, side: Side) -> HostFacts | MigrationError:
    try:
        return await asked_again(lambda: agents.describe_host(host, side))
    except InvalidInput:  # our own configuration, not the host
        raise
    except MigrationError as error:
        return error


async def require_itself(agents: Agents, host: str, side: Side) -> None:
    """Accept an agent as the one that it is configured as, before it is told to do anything.

    Raises:
        Refused: It says that it is another host's.
        MigrationError: It does not answer.
    """
    facts = await asked_again(lambda: agents.describe_host(host, side))
    if (stranger := somebody_else(host, side, facts.host)) is not None:
        raise Refused(stranger.code, stranger.message, CORRECT.format(host=host))
