"""Looking after machines of which nothing is heard: their sources are asked, until nothing is left to be asked.

::

    PREPARED, not whole   quiet for 30 s: ask; its end proven: discard; silent for `patience` as well: give up
    READY, or whole       ask for ever, say what is waited for; its end proven: discard; else the secret is waited for
    ACTIVATING            taken at any host by an operator: retire; else confirm or start; its process gone: an operator
    ACTIVE                ask until the former source is seen RETIRED

Nothing is asked under a machine's lock. What is answered counts only if this side's journal has not moved meanwhile:
the two views are of one instant then.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from dest_agent.complaints import WAITING, Complaints
from dest_agent.holdings import Holdings
from dest_agent.sequences import Sequences
from dest_agent.settling import follow, free, require_own_arrival
from dest_agent.sources import ASK_SECONDS, Sources, Word
from vm_migration.errors import MigrationError, Stale, Unreachable
from vm_migration.handover.awaiting import Awaited, Step, awaited, restarted
from vm_migration.handover.custody import Custody
from vm_migration.handover.evidence import Process, SideView, view
from vm_migration.handover.journal_errors import JournalUnreadable
from vm_migration.handover.record import Record
from vm_migration.handover.states import ARRIVING, State
from vm_migration.machine.errors import CutOff, MachineError, MachineGone
from vm_migration.telemetry import logs

QUIET_SECONDS: Final = 30.0
_PAUSES: Final = (5.0, 10.0, 20.0, 40.0, 60.0)
_LONGEST_OF_PARTS: Final = 10.0
"""Seconds between two questions for an arrival that is not whole: it takes memory and will be given up."""
_AFTER_FAILURE: Final = 10.0
_MOVED: Final = 0.05
_TURNS: Final = 4
"""How often one look begins anew when this side's journal moves under it."""
_GIVEN_UP: Final = frozenset({State.DISCARDED, State.LOST})
_CONTRADICTION: Final = "contradiction"
_ONLY_SAID: Final = frozenset({Step.REST, Step.WAIT, Step.OPERATOR})
_log: Final = logs.get(__name__)

BecameActive = Callable[[Record], None]


@dataclass(slots=True)
class _Watch:
    """How long nothing was heard of one machine, on the loop's clock."""

    since: float
    asked: int = 0

    def pause(self, record: Record) -> float:
        pause = _PAUSES[min(self.asked, len(_PAUSES) - 1)]
        self.asked += 1
        return pause if record.state is not State.PREPARED or record.whole else min(pause, _LONGEST_OF_PARTS)


class Vigil:
    """One task for each machine that something is waited for; bounded by the machines of the host."""

    def __init__(
        self,
        holdings: Holdings,
        sources: Sources,
        complaints: Complaints,
        sequences: Sequences,
        *,
        patience: float,
        became_active: BecameActive,
    ) -> None:
        self._holdings: Final = holdings
        self._sources: Final = sources
        self._complaints: Final = complaints
        self._sequences: Final = sequences
        self._patience: Final = patience
        self._became_active: Final = became_active
        self._tasks: Final[dict[str, asyncio.Task[None]]] = {}

    def watch(self, machine: str) -> None:
        """Look after a machine from now on, if nobody does."""
        known = self._tasks.get(machine)
        if known is None or known.done():
            self._tasks[machine] = asyncio.create_task(self._watch(machine), name=f"vigil over {machine}")

    async def stop(self) -> None:
        """Look after nothing any more."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._tasks.clear()

    async def look(self, machine: str, *, deadline: float = ASK_SECONDS, first: bool = False) -> bool:
        """Ask a machine's source now, and do what follows; return whether something is still waited for.

        `first` is the look after a restart, which no arrival that is not whole outlives.

        Raises:
            MigrationError, MachineError: It could not be done; nothing was concluded.
        """
        watch = _Watch(asyncio.get_running_loop().time())
        for _ in range(_TURNS):
            if await self._turn(machine, watch, deadline=deadline, first=first) != _MOVED:
                break
        return waits(await self._holdings.last(machine))

    async def _watch(self, machine: str) -> None:
        loop = asyncio.get_running_loop()
        watch = _Watch(loop.time())
        pause: float | None = _PAUSES[0]
        while pause is not None:
            await asyncio.sleep(pause)  # silence has no event
            try:
                pause = self._quiet_left(machine)
                if pause:
                    self._complaints.go_on(machine)
                else:
                    pause = await self._turn(machine, watch)
            except JournalUnreadable as error:
                self._complaints.page(machine, error.code, error.message)
                pause = _PAUSES[-1]
            except (MigrationError, MachineError) as error:
                code = error.code if isinstance(error, MigrationError) else "process-silent"
                self._complaints.wait(machine, code, str(error))
                pause = _AFTER_FAILURE
            except Exception as error:  # noqa: BLE001 - a machine is looked after in spite of our own fault
                _log.error("a machine is not looked after", machine=machine, exc_info=error)
                pause = _PAUSES[-1]

    def _quiet_left(self, machine: str) -> float:
        """Return for how long an arrival may still be quiet before its source is asked."""
        arriving = self._holdings.arrival_of(machine)
        if arriving is None or arriving.custody.record.whole:
            return 0.0
        return max(0.0, arriving.heard + QUIET_SECONDS - asyncio.get_running_loop().time())

    async def _turn(
        self, machine: str, watch: _Watch, *, deadline: float = ASK_SECONDS, first: bool = False
    ) -> float | None:
        """Ask and act once; return after how many seconds to do so again, None when nothing is left to wait for."""
        before = await self._holdings.last(machine)
        logs.bind(machine=machine, attempt=before.attempt, epoch=before.epoch)
        if not waits(before):
            await self._rest(machine)
            return None
        attempt = before.attempt or ""
        heard = self._sequences.highest(attempt)
        word, owner = await asyncio.gather(self._sources.ask(before, deadline), self._owner(before, deadline))
        async with self._holdings.alone(machine):
            record = await self._holdings.last(machine)
            if _moved(before, record) or (word.heard and self._sequences.overtook(attempt, word.sequence, heard)):
                return _MOVED
            if word.heard:
                try:
                    self._sequences.check(attempt, word.sequence, record)
                except Stale as error:
                    self._complaints.page(machine, error.code, error.message)
                    return watch.pause(record)
                watch.since = asyncio.get_running_loop().time()
            here = view(record, attempt, record.epoch, self._process(record))
            following = (
                restarted(word.view, here)
                if first
                else awaited(word.view, here, out_of_patience=self._out_of_patience(machine, watch))
            )
            source = word.view
            if owner is not None:
                source, following = owner, Awaited(Step.RETIRE, "An operator took the machine at another host")
            stands = self._complaints.of(machine).startswith(_CONTRADICTION)
            self._say(record, following, word)
            if following.step not in _ONLY_SAID and not (stands and following.step is Step.CONTRADICTION):
                await self._act(record, source, following)
        return watch.pause(record)

    async def _owner(self, record: Record, deadline: float) -> SideView | None:
        """Ask every host where the guest may have run here: an operator may have had another one take the machine."""
        if record.state is not State.ACTIVATING:
            return None
        return await self._sources.owner(record, self._process(record), deadline)

    async def _rest(self, machine: str) -> None:
        """See that what ended a machine's waiting is durable, that what was given up is gone, and that nobody waits."""
        record = await self._holdings.standing(machine)
        instance = self._holdings.hypervisor.of_text(machine).instance()
        if record.state in _GIVEN_UP and instance is not None and instance.name == record.instance:
            async with self._holdings.alone(machine), self._holdings.hold(machine) as custody:
                await free(custody)
        self._complaints.rest(machine)

    async def _act(self, record: Record, source: SideView, following: Awaited) -> None:
        try:
            async with self._holdings.holding(record.machine) as custody:
                # A machine that this host owns is its source agent's to command.
                answers = following.step is Step.NOTE_RETIRED or await self._answers(custody)
                if not answers and following.step is not Step.DISCARD:
                    raise Unreachable("process-silent", f"Process of machine {record.machine} does not answer")
                became_active = await follow(custody, source, following, silent=not answers)
                after = custody.record
        except CutOff as error:
            text = f"Its process obeys a newer controller than this journal knows: {error}"
            self._complaints.page(record.machine, "journal-rolled-back", text)
            return
        except MigrationError as error:
            if error.code == "journal-rolled-back":
                self._complaints.page(record.machine, error.code, error.message)
                return
            raise
        if following.step is not Step.CONTRADICTION:
            self._complaints.settle(record.machine)
        if after.state not in ARRIVING:
            await self._holdings.let_go(after.attempt or "")
        if became_active:
            self._became_active(after)

    async def _answers(self, custody: Custody) -> bool:
        """Command the process, and see that it fits its journal; false where it lives and says nothing.

        Raises:
            CutOff, Refused: It is ahead of this journal.
        """
        if custody.process() is not Process.ALIVE:
            return True
        try:
            if self._holdings.arrival_of(custody.record.machine) is None:
                await custody.attach(custody.record.epoch)
            await require_own_arrival(custody)
        except MachineGone:
            return False
        return True

    def _say(self, record: Record, following: Awaited, word: Word) -> None:
        machine = record.machine
        match following.step:
            case Step.CONTRADICTION:
                self._complaints.page(machine, _CONTRADICTION, f"{following.reason} ({record.peer})")
            case Step.OPERATOR:
                self._complaints.page(machine, "activation-unknown", following.reason)
            case Step.WAIT:
                why = f"{record.peer} is silent: {word.silence}" if word.silence else following.reason
                code = "former-source-open" if record.state is State.ACTIVE else WAITING
                self._complaints.wait(machine, code, why)
            case _:
                pass

    def _out_of_patience(self, machine: str, watch: _Watch) -> bool:
        arriving = self._holdings.arrival_of(machine)
        heard = watch.since if arriving is None else max(watch.since, arriving.heard)
        return asyncio.get_running_loop().time() - heard >= self._patience

    def _process(self, record: Record) -> Process:
        living = self._holdings.hypervisor.instance_lives(record.instance)
        if living is None:
            return Process.UNKNOWN
        return Process.ALIVE if living else Process.GONE


def waits(record: Record) -> bool:
    """Tell whether this agent has something to wait for with a machine whose journal ends so."""
    return record.state in ARRIVING or (record.state is State.ACTIVE and not record.former_retired)


def _moved(before: Record, after: Record) -> bool:
    def standing(record: Record) -> tuple[State, str | None, int, int, bool]:
        return (record.state, record.attempt, record.epoch, record.pause, record.whole)

    return standing(before) != standing(after)
