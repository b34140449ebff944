"""The course of a recovery: what is looked at, planned, asked, done, and then closed in the orchestrator's store."""

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from orchestrator.agents import Agents
from orchestrator.diagnosis.look import look
from orchestrator.diagnosis.views import MachineView
from orchestrator.recovery.fenced_plan import plan
from orchestrator.recovery.fenced_steps import Fencing
from orchestrator.recovery.fenced_word import Plan, Word
from orchestrator.recovery.request import Request, chosen
from orchestrator.recovery.rows import close_rows
from orchestrator.recovery.settling import Say, settle
from orchestrator.recovery.steps import Outcome, Unsettled
from orchestrator.recovery.vouching import vouched
from orchestrator.site import open_store, own_name, store_is_there, surroundings
from orchestrator.store.store import Ownership
from vm_migration.daemon.configuration import Configuration
from vm_migration.errors import MigrationError, Refused, Unreachable
from vm_migration.handover.headings import name_in
from vm_migration.handover.record import Record

Machines = frozenset[str] | None
"""UUIDs, or all."""

_ENOUGH: Final = 3


@dataclass(frozen=True, slots=True)
class Recovered:
    """What came of the agents' half; `owners` are machines that live elsewhere since."""

    outcome: Outcome
    machines: Machines
    owners: tuple[Ownership, ...] = ()


async def named(agents: Agents, request: Request) -> Machines:
    """Look which machines were named: before anybody vouches for anything of them.

    Raises:
        InvalidInput: Nobody has the machine that was named.
        Refused: Several have that name, and one is to be given up.
    """
    return None if request.machine is None else chosen(request, await look(agents), {})


async def go_on(agents: Agents, machines: Machines, say: Say, files_gone: str = "") -> Recovered:
    """Have everybody go on, and wait until everything is settled or says why not.

    `files_gone` is who vouches that the files are gone in which the machine waited, empty where nobody does.

    Raises:
        Unreachable: No host told anything.
    """

    def wanted(one: MachineView) -> bool:
        return machines is None or one.machine in machines

    outcome = await settle(agents, wanted, say, files_gone=files_gone)
    _require_heard(agents.hosts, outcome.unheard)
    return Recovered(outcome, machines)


@dataclass(frozen=True, slots=True)
class Planning:
    """What follows for these machines from an operator's word."""

    plan: Plan
    word: Word
    machines: Machines
    unheard: tuple[str, ...]
    """Hosts that told nothing, and of which nobody vouches that they are off."""


async def plan_without(agents: Agents, request: Request, configuration: Configuration, fenced: str) -> Planning:
    """Plan without the host that is said to be off.

    Raises:
        InvalidInput: Nobody has the machine that was named.
        Refused: The host is not off, or nothing that waits for it can be decided.
        Unreachable: No other host told anything.
    """
    folder = request.folder
    journals = None if folder is None else await asyncio.to_thread(folder.read)
    owners = await asyncio.to_thread(_owners, configuration)
    owned = {**_names(journals or {}), **{one.machine: one.name for one in owners if one.host == fenced}}
    epochs = {one.machine: one.epoch for one in owners}
    word = Word(fenced, request.also_off, request.may_miss_writes, journals, epochs, owned)
    site = await look(agents)
    off = {fenced, *request.also_off}
    unheard = tuple(host for host in site.silent if host not in off)
    _require_heard(agents.hosts.keys() - off, unheard)
    machines = chosen(request, site, owned)
    planned = plan(site, word, machines)
    if planned.refused and not planned.acts:
        raise _refusal(planned)
    return Planning(planned, word, machines, unheard)


async def act_on(agents: Agents, request: Request, planning: Planning, say: Say, now: float) -> Recovered:
    """Do what was planned, on the word of whoever runs this at `now`, in seconds since 1970."""
    word, planned = planning.word, planning.plan
    unresolved = tuple(Unsettled(one.machine, one.name, one.reason, one.hint) for one in planned.refused)
    done = await Fencing(agents, word, vouched(word, now), request.folder).carry_out(planned, say)
    return Recovered(Outcome(done.steps, unresolved, planning.unheard), planning.machines, done.owners)


async def close(configuration: Configuration, recovered: Recovered) -> Outcome:
    """Return all that came of it, after the orchestrator's own rows have been closed too."""
    found = recovered.outcome
    try:
        rows = await _closed(configuration, recovered)
    except MigrationError as error:
        rows = Outcome((), (Unsettled("", "the store", error.message, error.hint),))
    told = {one.machine for one in found.unresolved}  # a machine that is open keeps its attempt open: told once
    unresolved = tuple(one for one in rows.unresolved if one.machine not in told)
    return Outcome(found.steps + rows.steps, found.unresolved + unresolved, found.unheard)


async def _closed(configuration: Configuration, recovered: Recovered) -> Outcome:
    if not store_is_there(configuration):
        return Outcome()
    machines = recovered.machines
    async with surroundings(configuration, own_name()) as around:
        for owner in recovered.owners:
            await asyncio.to_thread(around.store.record_owner, owner, around.driver)
        return await close_rows(around, lambda row: machines is None or row.machine in machines)


def _require_heard(hosts: Collection[str], unheard: Collection[str]) -> None:
    if hosts and len(unheard) == len(hosts):
        text = f"{', '.join(sorted(unheard))} did not answer: nothing is known of what is open"
        raise Unreachable("host-silent", text, "Start their agents; see why they are silent: viaduct doctor")


def _refusal(planned: Plan) -> Refused:
    told = [f"{one.name}: {one.reason}" for one in planned.refused]
    more = f"; and {len(told) - _ENOUGH} more" if len(told) > _ENOUGH else ""
    return Refused("not-decided", f"{'; '.join(told[:_ENOUGH])}{more}", planned.refused[0].hint)


def _names(journals: Mapping[str, Record | MigrationError]) -> dict[str, str]:
    """Return the machines that a host owns by its own journals."""
    records = {machine: found for machine, found in journals.items() if isinstance(found, Record)}
    return {machine: name_in(record) or machine[:8] for machine, record in records.items() if record.owns}


def _owners(configuration: Configuration) -> tuple[Ownership, ...]:
    """Return where machines lived when that was last recorded; none where the store cannot tell."""
    try:
        if not store_is_there(configuration):
            return ()
        with open_store(configuration) as store:
            return store.owners()
    except MigrationError:
        return ()
