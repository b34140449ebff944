"""Attempts that the store does not know, learned from the hosts: an empty store is no proof of an empty site.

A record names its attempt, so that any host of an attempt is enough to know of it; its source tells the rest. What is
learned is looked at and steered, and driven by nobody here: whoever drives it goes on, and the source finishes alone.
A host whose agents are both silent is named; nothing is concluded about what it has. A list shows what is known after
LISTED_SECONDS; who looks for one attempt hears every host out.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final, TypeVar, get_args

import msgspec

from orchestrator.agents import Agents, Side, of_each
from orchestrator.attempt import Asked, Attempt, Outcome, Phase, with_report
from orchestrator.policy import MigrationPolicy
from orchestrator.surroundings import Surroundings
from vm_migration.api.v1.types_pb2 import CustodyReport, MachineCustody
from vm_migration.errors import InvalidInput, MigrationError, Unreachable
from vm_migration.handover.record import Record, decode
from vm_migration.handover.states import State
from vm_migration.handover.succession import update_of, went_over

_AT_SOURCE: Final = {
    State.OUTGOING: (Phase.BEGUN, None),
    State.STOPPED: (Phase.STOPPING, None),
    State.RELEASED: (Phase.HANDING_OVER, None),
    State.ABORTED: (Phase.ABORTED, Outcome.FAILED),
    State.RECLAIMED: (Phase.ABORTED, Outcome.FAILED),
    State.RETIRED: (Phase.COMPLETED, Outcome.COMPLETED),
}
_AT_DESTINATION: Final = {
    State.PREPARED: (Phase.PREPARING, None),
    State.READY: (Phase.VERIFYING, None),
    State.ACTIVATING: (Phase.HANDING_OVER, None),
    State.ACTIVE: (Phase.COMPLETED, Outcome.COMPLETED),
}

LISTED_SECONDS: Final = 3.0
"""A machine that is frozen keeps its host's answer for 2 s; a host that is frozen itself never answers."""
NOT_ANSWERED_YET: Final = "not-answered-yet"
_Answer = TypeVar("_Answer")
Wanted = Callable[[Sequence[Attempt]], Awaitable[frozenset[str]]]
"""Returns the identifiers of those attempts, as hosts' records tell them, that their sources are asked about."""


@dataclass(frozen=True, slots=True)
class Listing:
    """Attempts, and the hosts of which nothing is known."""

    attempts: tuple[Attempt, ...]
    silent: Mapping[str, MigrationError]


async def listing(around: Surroundings, *, everything: bool, hosts: bool = True) -> Listing:
    """Return the open attempts, or all, of the store and, if they are to be asked, of every host.

    Each host has LISTED_SECONDS to answer; one that has not by then is told as silent.
    """
    rows = await asyncio.to_thread(around.store.attempts, everything=everything)
    if not hosts:
        return Listing(rows, {})
    shown = {row.attempt for row in rows}

    async def unknown(drafts: Sequence[Attempt]) -> frozenset[str]:
        found = {one.attempt for one in drafts if everything or not one.ended} - shown
        return await asyncio.to_thread(lambda: frozenset(one for one in found if not around.store.has(one)))

    found = await learn(around.agents, around.clock(), unknown, patience=LISTED_SECONDS)
    learned = tuple(one for one in found.attempts if everything or not one.ended)
    return Listing((*rows, *learned), found.silent)


async def find(around: Surroundings, start: str) -> Attempt:
    """Return the one attempt whose identifier starts so: of the store, else of a host.

    Raises:
        InvalidInput: None does, or several do.
        Unreachable: None does of those that are known, and a host is silent.
    """
    try:
        return await asyncio.to_thread(around.store.find, start)
    except InvalidInput as error:
        if error.code != "unknown-attempt" or not start:
            raise
        unknown = error
    found = await learn(around.agents, around.clock())
    matches = [one for one in found.attempts if one.attempt.startswith(start.lower())]
    if len(matches) > 1:
        raise InvalidInput("ambiguous-attempt", f'Several attempts start with "{start}"', "Give more of it")
    if not matches and found.silent:
        silent = ", ".join(found.silent)
        raise Unreachable(
            "host-silent",
            f'No host that answers knows an attempt "{start}", and {silent} did not answer',
            f"Start the agents of {silent}, or correct [host] in the configuration",
        )
    if not matches:
        raise unknown
    return matches[0]


async def every(drafts: Sequence[Attempt]) -> frozenset[str]:
    """Return the identifiers of all of them."""
    return frozenset(one.attempt for one in drafts)


async def learn(agents: Agents, now: float, wanted: Wanted = every, *, patience: float | None = None) -> Listing:
    """Ask every host, and return the attempts that are wanted, each as its source tells it where that answers.

    The times of an attempt that is learned are those of now. `patience` is how many seconds a host has for an answer,
    since it was asked; without, as many as each call has.
    """
    hosts = sorted(agents.hosts)

    async def custodies(host: str) -> CustodyReport | MigrationError:
        return await _within(patience, _custodies(agents, host), _not_yet(host))

    reports = await of_each(hosts, custodies)
    silent: dict[str, MigrationError] = {}
    drafts: dict[str, Attempt] = {}
    for host, told in zip(hosts, reports, strict=True):
        if isinstance(told, MigrationError):
            silent[host] = told
            continue
        for one in told.custodies:
            draft, by_source = _draft(one, host, now)
            if draft is not None and (by_source or draft.attempt not in drafts):
                drafts[draft.attempt] = draft
    asked = await wanted(tuple(drafts.values()))
    chosen = (one for one in drafts.values() if one.attempt in asked)
    attempts = await asyncio.gather(*(_within(patience, _told(agents, one, silent), one) for one in chosen))
    return Listing(tuple(sorted(attempts, key=lambda one: one.attempt)), silent)


async def _custodies(agents: Agents, host: str) -> CustodyReport | MigrationError:
    """Ask both agents, who read the same journals; one answer is enough."""

    async def ask(side: Side) -> CustodyReport | MigrationError:
        try:
            return await agents.list_custodies(host, side)
        except InvalidInput:  # our own configuration, not the host
            raise
        except MigrationError as error:
            return error

    asked = [asyncio.create_task(ask(side), name=f"custodies of {host}") for side in get_args(Side)]
    try:
        done, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        if not any(isinstance(task.result(), CustodyReport) for task in done):
            done, _ = await asyncio.wait(asked)
        told = [task.result() for task in done]
    finally:
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
    return next((one for one in told if isinstance(one, CustodyReport)), told[0])


def _not_yet(host: str) -> MigrationError:
    hint = f"Look whether its agents run: viaduct host show {host}; or ask again"
    return Unreachable(NOT_ANSWERED_YET, f"{host} has not answered within {LISTED_SECONDS:g} s", hint)


async def _within(seconds: float | None, asking: Awaitable[_Answer], late: _Answer) -> _Answer:
    try:
        async with asyncio.timeout(seconds):
            return await asking
    except TimeoutError:
        return late


def _draft(custody: MachineCustody, host: str, now: float) -> tuple[Attempt | None, bool]:
    """Return the attempt that a host's last record names, and whether that host is its source."""
    record = _record(custody)
    if record is None or not record.attempt:
        return None, False
    by_source = record.state in _AT_SOURCE
    stands = _AT_SOURCE.get(record.state) or _AT_DESTINATION.get(record.state)
    if stands is None:
        return None, False
    source, destination = (host, record.peer) if by_source else (record.peer, host)
    update = update_of(record)
    if went_over(record):
        stands = (Phase.COMPLETED, Outcome.COMPLETED)
    attempt = Attempt(
        attempt=record.attempt,
        machine=record.machine,
        name=custody.name or record.machine,
        source=source,
        destination=destination,
        policy=MigrationPolicy(),
        created_at=now,
        updated_at=now,
        epoch=record.epoch,
        term=record.term,
        phase=stands[0],
        outcome=stands[1],
        reason=f"learned from {host}",
        asked=Asked() if update is None else Asked(update=update.mode),
    )
    return attempt, by_source


async def _told(agents: Agents, draft: Attempt, silent: Collection[str]) -> Attempt:
    """Return an attempt as its source tells it, where it is a configured host and answers."""
    if draft.source in silent:
        return draft
    with suppress(MigrationError):
        report = await agents.get_attempt(draft.source, draft.key())
        base = replace(draft, phase=Phase.QUEUED, outcome=None) if draft.ended else draft
        told = with_report(base, report)
        return told if told.ended or not draft.ended else draft
    return draft


def _record(custody: MachineCustody) -> Record | None:
    try:
        return decode(custody.record.encode())
    except msgspec.DecodeError:  # unreadable, or a newer version's
        return None
