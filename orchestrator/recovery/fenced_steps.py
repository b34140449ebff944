"""Carries a plan out, step by step: each is refused by the agent, or by the journal, that it no longer fits.

A secret goes from the journal of the host that is off to the destination, and nowhere else.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from orchestrator.agents import Agents
from orchestrator.diagnosis.pairs import Pair
from orchestrator.recovery.fenced_word import Act, Plan, Planned, Word
from orchestrator.recovery.journal_folder import JournalFolder
from orchestrator.recovery.steps import Step
from orchestrator.store.store import Ownership
from vm_migration.api.v1 import destination_pb2, source_pb2, types_pb2
from vm_migration.errors import InternalError, MigrationError, Refused
from vm_migration.handover.evidence import Process, SideView
from vm_migration.handover.record import Record, encode
from vm_migration.handover.states import State

_OWNED: Final = frozenset({State.ACTIVE, State.TAKEN})


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a plan; `owners` is where machines live since."""

    steps: tuple[Step, ...]
    owners: tuple[Ownership, ...]


class Fencing:
    """One operator's word, being acted upon. `vouched` says who gave it and when; journals keep it."""

    def __init__(self, agents: Agents, word: Word, vouched: str, folder: JournalFolder | None) -> None:
        self._agents: Final = agents
        self._word: Final = word
        self._vouched: Final = vouched
        self._folder: Final = folder
        self._owners: Final[list[Ownership]] = []

    async def carry_out(self, plan: Plan, say: Callable[[str], None]) -> Done:
        """Do every step in order; one that fails leaves the others to be done."""
        steps = []
        for planned in plan.steps:
            say(f"{planned.name}: {planned.act} on {planned.host}")
            message, error = planned.message, ""
            try:
                message = await self._do(planned)
            except MigrationError as failure:
                error = failure.message
            steps.append(Step(planned.machine, planned.name, planned.host, planned.act, message, error))
        return Done(tuple(steps), tuple(self._owners))

    async def _do(self, planned: Planned) -> str:
        pair = planned.pair
        if planned.act is Act.NOTHING or pair is None:
            return planned.message
        match planned.act:
            case Act.GO_ON:
                return await self._go_on(planned)
            case Act.NOTE_RETIRED:
                await self._note_retired(planned, pair)
            case Act.DISCARD:
                await self._discard(planned, pair)
            case Act.HAND_OFF:
                await self._hand_off(planned, pair, _journalled(planned))
            case Act.RELEASE_AND_HAND_OFF:
                await self._release_and_hand_off(planned, pair)
            case Act.TAKE_AT_SOURCE:
                self._taken(planned, await self._agents.take_at_source(planned.host, self._take(planned, pair)))
            case Act.TAKE_AT_DESTINATION | Act.WRITE_OFF:
                self._taken(planned, await self._agents.take_at_destination(planned.host, self._take(planned, pair)))
        return planned.message

    async def _release_and_hand_off(self, planned: Planned, pair: Pair) -> None:
        """The source's own order: the destination is READY, RELEASED is durable, then the secret leaves."""
        stopped, key = _journalled(planned), _key(planned, pair)
        if self._folder is None:
            raise InternalError("no-journals", "A release was planned without a journal", "Please report this")
        if pair.destination.sight is State.PREPARED:  # as the source asks: finish, or say that it cannot be finished
            await self._discard(planned, pair)
        ready = await self._agents.describe_incoming(planned.host, key)
        if ready.state != State.READY or ready.pause != stopped.pause or not ready.process_alive:
            text = f"{planned.host} says {ready.state or 'nothing'} at stop {ready.pause}, not READY at {stopped.pause}"
            raise Refused("not-ready", text, "See what is left: viaduct doctor")
        side = SideView(pair.attempt, State.READY, Process.ALIVE, ready.highest_epoch, ready.pause, whole=True)
        released = await asyncio.to_thread(self._folder.release, stopped, side)
        await self._hand_off(planned, pair, released)

    async def _hand_off(self, planned: Planned, pair: Pair, released: Record) -> None:
        request = destination_pb2.HandoffRequest(
            key=_key(planned, pair), pause=released.pause, secret=bytes.fromhex(released.secret)
        )
        answer = await self._agents.hand_off(planned.host, request)
        if answer.state != State.ACTIVE:
            text = f"{planned.host} says {answer.state or 'nothing'}, and has not started it"
            raise Refused("not-started", text, "See what is left: viaduct doctor")
        self._owners.append(Ownership(planned.machine, planned.name, planned.host, pair.epoch))
        await self._note_retired(planned, pair)

    async def _note_retired(self, planned: Planned, pair: Pair) -> None:
        request = destination_pb2.NoteRetiredRequest(key=_key(planned, pair), fenced_by=self._vouched)
        await self._agents.note_retired(planned.host, request)

    async def _discard(self, planned: Planned, pair: Pair) -> None:
        proof = _journalled(planned).public()
        request = destination_pb2.DiscardRequest(
            key=_key(planned, pair), proof_state=proof.state, proof_record=encode(proof).decode()
        )
        await self._agents.discard(planned.host, request)

    async def _go_on(self, planned: Planned) -> str:
        """Have both agents of the host go on; what one of them has nothing to do with, it says so."""
        answers = await asyncio.gather(
            self._agents.recover_source(planned.host, planned.machine),
            self._agents.recover_destination(planned.host, planned.machine),
            return_exceptions=True,
        )
        errors = [one for one in answers if isinstance(one, BaseException)]
        if len(errors) == len(answers):
            raise errors[0]
        states = [one.last_state for one in answers if not isinstance(one, BaseException)]
        return f"{planned.message} (now {states[-1]})"

    def _take(self, planned: Planned, pair: Pair) -> types_pb2.TakeRequest:
        return types_pb2.TakeRequest(
            key=_key(planned, pair),
            highest_seen=planned.highest_seen,
            fenced=self._word.fenced,
            also_off=self._word.also_off,
            reason=self._vouched,
        )

    def _taken(self, planned: Planned, report: source_pb2.OutgoingReport | destination_pb2.IncomingReport) -> None:
        state = report.last_state or report.state
        if planned.act is Act.WRITE_OFF and state == State.LOST:
            return
        if planned.act is Act.WRITE_OFF or state not in _OWNED:
            text = f"{planned.host} says {state or 'nothing'}, and has not taken it"
            raise Refused("not-taken", text, "See what is left: viaduct doctor")
        self._owners.append(Ownership(planned.machine, planned.name, planned.host, report.owned_epoch))


def _journalled(planned: Planned) -> Record:
    if planned.journalled is None:
        raise InternalError("no-journal", f"{planned.act} was planned without a journal", "Please report this")
    return planned.journalled


def _key(planned: Planned, pair: Pair) -> types_pb2.AttemptKey:
    terms = [pair.term]
    if planned.journalled is not None and planned.journalled.attempt == pair.attempt:
        terms.append(planned.journalled.term)
    return types_pb2.AttemptKey(machine=pair.machine, attempt=pair.attempt, epoch=pair.epoch, term=max(terms))
