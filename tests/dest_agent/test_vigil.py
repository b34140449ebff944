"""Arrivals of which nothing is heard: they ask their source, and are never given up while they may be the only copy."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest

from dest_agent import vigil
from dest_agent.agent import DestAgent
from dest_agent.incoming_attempt import IncomingAttempt
from dest_agent.sources import Word
from tests.dest_agent.arrivals import KEY, A, arriving, not_wanted, whole
from tests.dest_agent.watched import SILENT, ScriptedSources, Watched, says, source_record, watched
from tests.fakes.fake_machine import MACHINE
from vm_migration.handover.custody import Custody
from vm_migration.handover.record import Record
from vm_migration.handover.states import State
from vmm.memory.ram_block import RamBlock

SOON = 0.01
DEADLINE = 20.0


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    """A host with an arrival that is not whole, whose agent is quick to ask."""
    monkeypatch.setattr(vigil, "QUIET_SECONDS", SOON)
    monkeypatch.setattr(vigil, "_PAUSES", (SOON,))
    monkeypatch.setattr(vigil, "_AFTER_FAILURE", SOON)
    with ExitStack() as stack:
        yield stack.enter_context(watched(stack.enter_context(arriving(tmp_path, State.PREPARED)), monkeypatch))


@asynccontextmanager
async def living(host: Watched, patience: float) -> AsyncIterator[DestAgent]:
    """Be the agent in whose life the arrival was prepared."""
    agent = host.new_agent(patience)
    custody = host.machine.custody
    arrival = IncomingAttempt(custody, RamBlock.create("arriving", 4096), "host-a", b"t", streams=1, full=False)
    agent.holdings.arriving[A] = arrival  # as Prepare leaves it
    agent._vigil.watch(MACHINE)
    try:
        yield agent
    finally:
        await agent.stop()


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE):
        # In a thread: who waits for the journal's lock must not keep the agent from giving it back.
        while not await asyncio.to_thread(happened):  # noqa: ASYNC110 - the journal has no event
            await asyncio.sleep(SOON)


async def test_an_abandoned_arrival_is_discarded_on_its_sources_proof(host: Watched) -> None:
    host.sources.word = says(State.ABORTED)
    async with living(host, patience=DEADLINE) as agent:
        await until(lambda: host.last.state is State.DISCARDED and host.freed)
        await until(lambda: agent.complaint(MACHINE) == "")
    assert host.machine.machine.calls == ["destroy"]


@pytest.mark.parametrize("state", [State.OUTGOING, State.STOPPED])
async def test_one_that_is_under_way_at_its_source_is_kept_however_long_that_takes(host: Watched, state: State) -> None:
    host.sources.word = says(state)
    async with living(host, patience=0.0) as agent:
        await until(lambda: host.sources.asked >= 3)
        assert host.last.state is State.PREPARED
        assert agent.complaint(MACHINE).startswith("handover-waiting: ")


async def test_one_that_somebody_else_ended_waits_for_nothing_any_more(host: Watched) -> None:
    """A Discard whose caller had given up wrote the end, and was no longer there to say that nothing is waited for."""
    host.sources.word = says(State.STOPPED)
    async with living(host, patience=DEADLINE) as agent:
        await until(lambda: agent.complaint(MACHINE).startswith("handover-waiting: "))
        await host.machine.custody.write(not_wanted)
        await until(lambda: agent.complaint(MACHINE) == "" and host.freed)


async def test_a_discard_whose_caller_has_gone_comes_to_its_end(host: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, goes = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        asked.set()
        await goes.wait()

    monkeypatch.setattr(host.machine.machine, "destroy", slow)
    host.sources.word = says(State.STOPPED)
    async with living(host, patience=DEADLINE) as agent:
        await until(lambda: agent.complaint(MACHINE).startswith("handover-waiting: "))
        discarding = asyncio.create_task(agent.discard(KEY, source_record(State.ABORTED)))
        await asked.wait()
        discarding.cancel()
        goes.set()
        await asyncio.wait({discarding})
        assert (agent.complaint(MACHINE), agent.holdings.arriving, host.freed) == ("", {}, True)


async def test_one_whose_source_is_silent_is_given_up_past_the_patience(
    host: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with living(host, patience=DEADLINE) as agent:
        await until(lambda: host.sources.asked >= 2)
        assert host.last.state is State.PREPARED
        monkeypatch.setattr(agent._vigil, "_patience", 1.0)  # only now: nobody knows how long it took to be asked twice
        await until(lambda: host.last.state is State.DISCARDED and host.freed)


async def test_one_that_is_heard_of_is_not_asked_about(host: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vigil, "QUIET_SECONDS", DEADLINE)
    looks: list[float] = []
    left = vigil.Vigil._quiet_left

    def counted(self: vigil.Vigil, machine: str) -> float:
        looks.append(left(self, machine))
        return min(looks[-1], SOON)

    monkeypatch.setattr(vigil.Vigil, "_quiet_left", counted)
    async with living(host, patience=0.0):
        await until(lambda: len(looks) >= 3)
    assert min(looks) > 0
    assert host.sources.asked == 0


async def test_a_whole_image_is_never_given_up_and_says_what_it_waits_for(host: Watched) -> None:
    await host.machine.custody.write(whole)
    async with living(host, patience=0.0) as agent:
        await until(lambda: host.sources.asked >= 3)
        assert host.last.state is State.PREPARED
        assert "host-a is silent: nobody answers" in agent.complaint(MACHINE)
        host.sources.word = says(State.LOST)
        await until(lambda: host.last.state is State.DISCARDED and host.freed)


async def test_a_silent_process_is_ended_by_its_id_once_the_source_has_proved_the_end(host: Watched) -> None:
    async with living(host, patience=0.0) as agent:
        host.machine.machine.silent = 1 << 30
        await until(lambda: agent.complaint(MACHINE).startswith("process-silent: "))
        assert host.last.state is State.PREPARED
        host.sources.word = says(State.ABORTED)
        await until(lambda: host.last.state is State.DISCARDED and host.freed)
    assert host.machine.machine.process.wait(DEADLINE) < 0


async def test_a_journal_that_somebody_else_took_is_let_go_of(host: Watched) -> None:
    async with living(host, patience=0.0) as agent:
        newer = await Custody.open(host.machine.journals, host.machine.hypervisor, MACHINE)
        host.sources.word = says(State.ABORTED)
        await until(lambda: not agent.holdings.arriving)
        assert host.machine.machine.process.poll() is None
        await newer.close()


async def test_an_answer_about_a_moment_that_has_passed_counts_for_nothing(host: Watched) -> None:
    """The source said STOPPED, and handed over before that answer was read: nothing contradicts anything."""
    seen: list[str] = []

    class Late(ScriptedSources):
        async def ask(self, record: Record, deadline: float = 0.0) -> Word:
            seen.append(record.state)
            if len(seen) == 1:
                await host.machine.custody.write(whole)
                return says(State.RELEASED, released_epoch=2)
            return SILENT

    host.sources = Late()
    async with living(host, patience=DEADLINE) as agent:
        await until(lambda: len(seen) >= 2)
        assert not agent.complaint(MACHINE).startswith("contradiction")


async def test_an_answer_that_its_source_has_overtaken_says_nothing_of_a_journal_put_back(host: Watched) -> None:
    """The source answered at record 39, wrote record 40, and called with that before its answer was read."""
    running: list[DestAgent] = []
    complaints: list[str] = []

    class Late(ScriptedSources):
        async def ask(self, record: Record, deadline: float = 0.0) -> Word:
            (agent,) = running
            complaints.append(agent.complaint(MACHINE))
            if len(complaints) > 1:
                return SILENT
            await agent.hear(KEY, 40)
            return says(State.ABORTED, sequence=39)

    host.sources = Late()
    async with living(host, patience=DEADLINE) as agent:
        running.append(agent)
        await until(lambda: len(complaints) >= 2)
        assert complaints[:2] == ["", ""]
        assert host.last.state is State.PREPARED, "what is older than what is known is not acted on"
