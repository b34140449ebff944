"""Where an order goes that says `any`: hosts are ranked by what they say, and asked about the machine best first.

A source is asked about its machine once for each host that is asked, and an agent answers an identity only so often in
a second: of a thousand hosts a few are asked. What `viaduct preflight --to any` asks of all of them is for people.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from orchestrator.agents import Agents
from orchestrator.choice import Considered, Known, choose
from orchestrator.hearing import standings
from orchestrator.policy import MigrationPolicy
from orchestrator.preflight import Candidate, Preflight, ask, other_hosts, policies_to
from orchestrator.suitability import needs_of
from vm_migration.api.v1.types_pb2 import MachineStatus

AT_ONCE: Final = 4
"""Hosts that are asked about a machine side by side: one that hangs holds up few."""


@dataclass(frozen=True, slots=True)
class Beside:
    """What counts beside what hosts say: who is left out and why, the open attempts to each, where it failed before."""

    excluded: Mapping[str, str] = field(default_factory=dict)
    taking: Mapping[str, int] = field(default_factory=dict)
    failed_at: Sequence[str] = ()
    """The last failure at the end."""


async def find_destination(
    agents: Agents, machine: MachineStatus, policy: MigrationPolicy, beside: Beside, *, by_host: bool = False
) -> Preflight:
    """Return the destination that is chosen, first, and all that stand in no better place and cannot take the machine.

    Hosts that would pass, and did not have to be asked, are not among them.

    Raises:
        InvalidInput: No other host is configured.
        MigrationError: The machine's host failed otherwise than by not answering.
    """
    hosts = other_hosts(agents, machine)
    policies = policies_to(agents, hosts, policy, by_host=by_host)
    told = await standings(agents, [machine.host, *hosts])
    transports = {host: each.transport for host, each in policies.items()}
    known = Known(excluded=beside.excluded, transports=transports, taking=beside.taking)
    choice = choose(needs_of(machine, told[machine.host]), [told[host] for host in hosts], known)
    waiting, refused = in_turn(choice.considered, beside.failed_at), []
    for start in range(0, len(waiting), AT_ONCE):
        turn = waiting[start : start + AT_ONCE]
        asked = await asyncio.gather(*(ask(agents, machine, one.host, policies[one.host]) for one in turn))
        answered = [_with(one, considered) for one, considered in zip(asked, turn, strict=True)]
        refused += [one for one in answered if not one.passes]
        passing = next((one for one in answered if one.passes), None)
        if passing is not None:
            return Preflight(machine, (passing, *refused, *_unfit(choice.considered)))
    return Preflight(machine, (*refused, *_unfit(choice.considered)))


def in_turn(considered: Sequence[Considered], failed_at: Sequence[str]) -> list[Considered]:
    """Return the hosts that could take a machine as they are asked: best first, but after all others where it failed.

    Of those, the one that failed first comes first. Pure.
    """
    passing = (one for one in considered if one.passes)
    return sorted(passing, key=lambda one: failed_at.index(one.host) + 1 if one.host in failed_at else 0)


def _unfit(considered: Sequence[Considered]) -> tuple[Candidate, ...]:
    return tuple(
        Candidate(one.host, one.obstacles, (), None, shared_clock=False, considered=one)
        for one in considered
        if not one.passes
    )


def _with(candidate: Candidate, considered: Considered) -> Candidate:
    """Return a host that was asked; what its agents told against it counts from here on."""
    if candidate.passes:
        return replace(candidate, considered=replace(considered, verdict="chosen"))
    return replace(candidate, considered=replace(considered, verdict="blocked", obstacles=candidate.blockers))
