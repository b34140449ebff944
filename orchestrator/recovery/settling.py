"""Has both agents of every machine that is not settled go on now, and waits until each is, or says why not.

Nothing is decided here: an agent acts on its own journal, and what follows for it is what it would have done by itself
in a while. So this may be run at any time, by several people at once, and be stopped at any time.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from orchestrator.agents import Agents
from orchestrator.diagnosis.look import look
from orchestrator.diagnosis.views import MachineView, SiteView
from orchestrator.recovery.steps import Outcome, Step, Unsettled
from orchestrator.recovery.unsettled import Open, unsettled
from vm_migration.errors import MigrationError
from vm_migration.handover.record import Record
from vm_migration.handover.states import State

PATIENCE_SECONDS: Final = 45.0
_AGAIN_SECONDS: Final = 1.0
_WORDS: Final = {
    State.OWNER: "owns it",
    State.ACTIVE: "owns it",
    State.TAKEN: "owns it, by an operator's word",
    State.ABORTED: "keeps it: the attempt ended before the release",
    State.RECLAIMED: "took it back: the other copy was lost before it ran",
    State.RETIRED: "gave it up: it is the other host's",
    State.DISCARDED: "discarded its copy",
    State.LOST: "wrote down that it has no whole copy",
    State.RELEASED: "released it",
    State.READY: "holds it whole",
    State.ACTIVATING: "is starting it",
}

Wanted = Callable[[MachineView], bool]
Say = Callable[[str], None]


async def settle(
    agents: Agents, wanted: Wanted, say: Say, patience: float = PATIENCE_SECONDS, *, files_gone: str = ""
) -> Outcome:
    """Settle what can be, within `patience` seconds; `say` is told what is waited for.

    `files_gone` is who vouches that the files are gone in which these machines waited, empty where nobody does.

    Raises:
        InvalidInput: The own configuration is wrong.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + patience
    first = site = await look(agents)
    refused: dict[tuple[str, str], str] = {}
    asked: set[str] = set()
    while True:
        left = _open(site, wanted)
        fresh = [one for one in left if one.machine.machine not in asked]
        if not fresh and (loop.time() >= until or not any(one.waits for one in left)):
            break
        asked |= {one.machine.machine for one in left}
        say(_waits_for(left))
        refused |= dict(await _ask(agents, left, files_gone))
        await asyncio.sleep(_AGAIN_SECONDS)  # the hosts settle by themselves, and are asked again
        site = await look(agents, site)
    steps = [step for machine in site.machines for step in _changes(first, machine)]
    unresolved = [one for each in left for one in _unresolved(each, refused)]
    return Outcome(tuple(steps), tuple(unresolved), site.silent)


def _open(site: SiteView, wanted: Wanted) -> list[Open]:
    found = (unsettled(site, machine) for machine in site.machines if wanted(machine))
    return [one for one in found if one is not None]


async def _ask(agents: Agents, machines: Iterable[Open], files_gone: str) -> list[tuple[tuple[str, str], str]]:
    """Have the agents go on; return why one would not, by machine and host."""

    async def once(machine: str, host: str) -> tuple[tuple[str, str], str]:
        answers = await asyncio.gather(
            agents.recover_source(host, machine, files_gone),
            agents.recover_destination(host, machine),
            return_exceptions=True,
        )
        why = ""
        for answer in answers:
            if isinstance(answer, MigrationError):
                why = answer.message
            elif isinstance(answer, BaseException):
                raise answer
        return (machine, host), why

    return await asyncio.gather(*(once(one.machine.machine, host) for one in machines for host in one.hosts))


def _unresolved(one: Open, refused: dict[tuple[str, str], str]) -> list[Unsettled]:
    reasons = [f"{host}: {why}" for host in one.hosts if (why := refused.get((one.machine.machine, host)))]
    told = f" ({'; '.join(reasons)})" if reasons else ""
    return [Unsettled(each.machine, each.name, each.reason + told, each.hint) for each in one.unresolved]


def _changes(first: SiteView, machine: MachineView) -> list[Step]:
    before = next((one for one in first.machines if one.machine == machine.machine), None)
    steps = []
    for host, record in machine.records.items():
        old = None if before is None else before.records.get(host)
        if old is not None and _stands(old) != _stands(record):
            message = f"{host} {_WORDS.get(record.state, 'goes on')} ({old.state} -> {record.state})"
            steps.append(Step(machine.machine, machine.name, host, "go-on", message))
    return steps


def _stands(record: Record) -> tuple[State, bool, bool]:
    return (record.state, record.former_retired, record.run_confirmed)


def _waits_for(machines: Iterable[Open]) -> str:
    lines = [f"{one.machine.name}: {one.findings[0].message}" for one in machines]
    return "\n".join(lines[:8])
