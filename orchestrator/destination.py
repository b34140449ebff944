"""Where an order goes that says `any`: hosts are ranked by what they say, and asked about the machine best first.

::

    a hundred hosts, of all in turn   ->  ranked  ->  one could take it, and takes nothing else in: asked, best first
           ^                                              |
           '------------- the next hundred ---------------'  none, or all that were asked refuse it

A source is asked about its machine once for each host that is asked, and an agent answers an identity only so often in
a second: of a thousand hosts a few are asked. Nor are all of them looked at while a hundred offer a good one; the next
order begins where this one found it. What `viaduct preflight --to any` asks of all of them is for people.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from orchestrator.agents import Agents
from orchestrator.choice import Considered, Known, choose
from orchestrator.host_standing import HostStanding
from orchestrator.known_hosts import KnownHosts
from orchestrator.policy import MigrationPolicy
from orchestrator.preflight import Candidate, Preflight, ask, other_hosts, policies_to
from orchestrator.suitability import needs_of
from vm_migration.api.v1.types_pb2 import MachineStatus

AT_ONCE: Final = 2
"""Hosts that are asked about a machine side by side: one that hangs holds up few."""
LOOKED_AT: Final = 100
"""Hosts that are ranked together; each is two connections, and a tenth of a millisecond."""


@dataclass(frozen=True, slots=True)
class Beside:
    """What counts beside what hosts say: who is left out and why, open attempts to each and from it, past failures."""

    excluded: Mapping[str, str] = field(default_factory=dict)
    taking: Mapping[str, int] = field(default_factory=dict)
    sending: Mapping[str, int] = field(default_factory=dict)
    failed_at: Sequence[str] = ()
    """The last failure at the end."""
    known: KnownHosts | None = None
    """What whoever chooses often knows of hosts; without it all of them are asked."""


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
    known_hosts = KnownHosts(agents) if beside.known is None else beside.known
    search = _Search(agents, machine, policies_to(agents, hosts, policy, by_host=by_host), beside, known_hosts)
    left = known_hosts.in_rotation(host for host in hosts if host not in beside.excluded)
    while left:
        part, left = left[:LOOKED_AT], left[LOOKED_AT:]
        await search.look_at(part)
        if left and not has_idle(one for one in search.waiting if one.host not in beside.failed_at):
            known_hosts.begin_at(left[0])
        elif (passing := await search.ask()) is not None:
            return Preflight(machine, (passing, *search.refused, *search.unfit))
    search.leave_out(host for host in hosts if host in beside.excluded)
    return Preflight(machine, (*search.refused, *search.unfit))


class _Search:
    """One machine's destination, looked for in more and more hosts."""

    def __init__(
        self,
        agents: Agents,
        machine: MachineStatus,
        policies: Mapping[str, MigrationPolicy],
        beside: Beside,
        known_hosts: KnownHosts,
    ) -> None:
        self._agents = agents
        self._machine = machine
        self._policies = policies
        self._beside = beside
        self._hosts = known_hosts
        self._told: dict[str, HostStanding] = {}
        self.waiting: list[Considered] = []
        self.refused: list[Candidate] = []
        self.unfit: tuple[Candidate, ...] = ()

    async def look_at(self, hosts: Sequence[str]) -> None:
        """Rank these hosts with those that were looked at before."""
        self._told |= await self._hosts.standings([self._machine.host, *hosts])
        self._rank()

    def leave_out(self, hosts: Iterable[str]) -> None:
        """Have these among the unfit, for they are excluded; they are not asked how they stand."""
        self._told.setdefault(self._machine.host, HostStanding(self._machine.host))
        self._told |= {host: HostStanding(host) for host in hosts}
        self._rank()

    def _rank(self) -> None:
        source = self._machine.host
        transports = {host: self._policies[host].transport for host in self._told if host != source}
        beside = self._beside
        known = Known(beside.excluded, transports=transports, taking=beside.taking, sending=beside.sending)
        others = [standing for host, standing in self._told.items() if host != source]
        considered = choose(needs_of(self._machine, self._told[source]), others, known).considered
        asked = {one.host for one in self.refused}
        self.waiting = [one for one in in_turn(considered, beside.failed_at) if one.host not in asked]
        self.unfit = _unfit(considered)

    async def ask(self) -> Candidate | None:
        """Ask those that could take it, best first, and return the first that does."""
        while self.waiting:
            turn, self.waiting = self.waiting[:AT_ONCE], self.waiting[AT_ONCE:]
            with self._hosts.considering([one.host for one in turn], self._machine.ram_bytes) as take:
                asked = await asyncio.gather(*(self._asked(one) for one in turn))
                self.refused += [one for one in asked if not one.passes]
                passing = next((one for one in asked if one.passes), None)
                if passing is not None:
                    take(passing.host)
                    return passing
        return None

    async def _asked(self, considered: Considered) -> Candidate:
        candidate = await ask(self._agents, self._machine, considered.host, self._policies[considered.host])
        return _with(candidate, considered)


def has_idle(could: Iterable[Considered]) -> bool:
    """Say whether one of them takes no other machine in, as far as it says. Pure."""
    return any(not one.figures.attempts_in for one in could)


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
