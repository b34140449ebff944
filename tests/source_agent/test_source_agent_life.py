"""The source agent as a whole: Begin asked twice, restarts over damaged folders, and its stop."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest

from source_agent.agent import SourceAgent
from source_agent.outgoing_attempt import OutgoingAttempt, Surroundings
from source_agent.progress import Outcome, Phase
from tests.fakes.fake_machine import MACHINE, FakeMachine, Held
from tests.source_agent.departures import SPECIFICATION, TERMS, A, B, leaving
from tests.source_agent.journeys import until
from vm_migration.daemon.host_burden import Burden
from vm_migration.errors import Refused, Stale
from vm_migration.handover.departure import aborted
from vm_migration.handover.journal import read_last
from vm_migration.handover.journals import Journals
from vm_migration.handover.ownership import owe_run_state
from vm_migration.handover.record import AttemptKey, Record
from vm_migration.handover.states import State
from vm_migration.machine import software_hypervisor
from vm_migration.machine.software_hypervisor import SoftwareHypervisor
from vmm.process.identity import boot_id

KEY = AttemptKey(MACHINE, A, 0, 1)


async def nothing() -> None:
    pass


def agent_of(folder: Path, most_attempts: int = 16) -> SourceAgent:
    return SourceAgent(
        host="host-a",
        journals=Journals(folder / "journal"),
        hypervisor=SoftwareHypervisor(folder / "run"),
        memory_budget=1 << 30,
        hash_bytes_per_s=1e9,
        surroundings=lambda _attempt, _machine, _epoch: Surroundings(None, nothing, 1e9, boot_id()),
        most_attempts=most_attempts,
    )


@pytest.fixture
def adopted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator["Adopt"]:
    with ExitStack() as stack:
        yield Adopt(tmp_path, monkeypatch, stack)


class Adopt:
    """Machines that an agent finds when it starts, commanded through their fakes."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, stack: ExitStack) -> None:
        self.folder = folder
        self._monkeypatch = monkeypatch
        self._stack = stack

    def machine(self, state: State) -> Held:
        machine = self._stack.enter_context(leaving(self.folder, state))
        self._monkeypatch.setattr(software_hypervisor, "SoftwareMachine", lambda _path, **_: machine.machine)
        return machine


def last(folder: Path) -> Record:
    return read_last(folder / "journal", MACHINE)


async def test_begin_asked_twice_at_once_is_one_attempt(adopted: Adopt) -> None:
    adopted.machine(State.OWNER)
    agent = agent_of(adopted.folder)
    first, second = await asyncio.gather(agent.begin(KEY, "host-b", TERMS), agent.begin(KEY, "host-b", TERMS))
    assert first is second
    assert await agent.begin(AttemptKey(MACHINE, A, 2, 5), "host-b", TERMS) is first
    assert last(adopted.folder).term == 5
    for key in (AttemptKey(MACHINE, A, 2, 4), AttemptKey(MACHINE, A, 7, 5), AttemptKey(str(uuid4()), A, 0, 5)):
        with pytest.raises(Stale):
            await agent.begin(key, "host-b", TERMS)
    with pytest.raises(Refused) as refusal:
        await agent.begin(AttemptKey(MACHINE, B, 0, 1), "host-b", TERMS)
    assert refusal.value.code == "attempt-open"
    await agent.stop()
    assert last(adopted.folder).state is State.ABORTED


async def test_no_more_attempts_are_begun_than_may_be_open(adopted: Adopt) -> None:
    adopted.machine(State.OWNER)
    agent = agent_of(adopted.folder, most_attempts=1)
    attempt = await agent.begin(KEY, "host-b", TERMS)
    with pytest.raises(Refused) as refusal:
        await agent.begin(AttemptKey(str(uuid4()), B, 0, 1), "host-b", TERMS)
    assert refusal.value.code == "too-many-attempts"
    assert await agent.begin(KEY, "host-b", TERMS) is attempt
    assert agent.burden() == Burden(1)
    assert isinstance(attempt, OutgoingAttempt)
    attempt.cancel()
    await until(attempt, Phase.ABORTED)
    assert agent.burden() == Burden(0)
    again = await agent.begin(AttemptKey(MACHINE, B, 0, 1), "host-b", TERMS)
    assert again is not attempt
    await agent.stop()


async def test_a_machine_whose_process_has_ended_does_not_move(adopted: Adopt) -> None:
    """It was taken for silent: whoever drove asked again for ever, and nobody was told that the machine is gone."""
    machine = adopted.machine(State.OWNER)
    agent = agent_of(adopted.folder)
    machine.machine.end()
    with pytest.raises(Refused) as refusal:
        await agent.begin(KEY, "host-b", TERMS)
    assert (refusal.value.code, type(refusal.value)) == ("machine-gone", Refused)
    assert last(adopted.folder).state is State.OWNER
    await agent.stop()


async def test_an_agent_that_stops_begins_nothing_and_ends_what_can_be_ended(adopted: Adopt) -> None:
    machine = adopted.machine(State.OWNER)
    agent = agent_of(adopted.folder)
    attempt = await agent.begin(KEY, "host-b", TERMS)
    await agent.stop()
    assert attempt.board.progress.outcome is Outcome.CANCELLED
    assert machine.machine.running
    with pytest.raises(Refused) as refusal:
        await agent.begin(AttemptKey(MACHINE, B, 0, 1), "host-b", TERMS)
    assert refusal.value.code == "stopping"


@pytest.mark.parametrize("state", [State.OUTGOING, State.STOPPED])
async def test_a_start_ends_what_was_open_before_it_serves(adopted: Adopt, state: State) -> None:
    machine = adopted.machine(state)
    agent = agent_of(adopted.folder)
    await agent.recover()
    assert last(adopted.folder).state is State.ABORTED
    assert machine.machine.running
    shown = agent.attempt(KEY).board.progress
    assert shown.failure is not None
    assert (shown.outcome, shown.failure.code) == (Outcome.FAILED, "agent-restarted")
    await agent.stop()


async def test_a_folder_that_nobody_can_read_keeps_no_other_machine_away(adopted: Adopt) -> None:
    adopted.machine(State.OUTGOING)
    damaged = uuid4()
    (adopted.folder / "run" / "machines" / str(damaged)).mkdir()
    (adopted.folder / "run" / "machines" / str(damaged) / "specification.json").write_text("{}")
    (adopted.folder / "journal" / str(damaged)).write_bytes(b"damaged")
    agent = agent_of(adopted.folder)
    await agent.recover()
    assert last(adopted.folder).state is State.ABORTED
    assert [each.record.machine for each in await agent.holdings.all()] == [MACHINE]
    await agent.stop()


async def test_a_machine_that_died_while_the_agent_was_away_is_lost_and_swept(adopted: Adopt) -> None:
    machine = adopted.machine(State.OUTGOING)
    machine.machine.end()
    agent = agent_of(adopted.folder)
    await agent.recover()
    assert last(adopted.folder).state is State.LOST
    assert not machine.directory.path.exists()
    await agent.stop()


async def test_what_retired_and_was_not_freed_is_freed(adopted: Adopt) -> None:
    machine = adopted.machine(State.RELEASED)
    await machine.custody.write(_retired)
    agent = agent_of(adopted.folder)
    await agent.recover()
    assert not machine.directory.path.exists()
    assert machine.machine.process.poll() is not None
    await agent.stop()


async def test_a_run_state_that_is_owed_is_brought_about(adopted: Adopt) -> None:
    machine = adopted.machine(State.OWNER)
    machine.machine.running = False
    await machine.custody.write(_owing)
    agent = agent_of(adopted.folder)
    await agent.recover()
    assert machine.machine.running
    assert last(adopted.folder).run_confirmed
    await agent.stop()


async def test_a_pause_that_was_cut_off_is_brought_about(adopted: Adopt) -> None:
    machine = adopted.machine(State.OWNER)
    await machine.custody.write(lambda record: owe_run_state(record, running=False))
    agent = agent_of(adopted.folder)
    await agent.recover()
    assert not machine.machine.running
    assert last(adopted.folder).run_confirmed
    await agent.stop()


async def test_the_specification_names_the_machine(adopted: Adopt) -> None:
    adopted.machine(State.STOPPED)
    agent = agent_of(adopted.folder)
    await agent.recover()
    assert '"fake"' in SPECIFICATION
    assert agent.name_of(A) == "fake"
    await agent.stop()


def _owing(record: Record) -> Record:
    return msgspec.structs.replace(record, run_confirmed=False)


def _retired(record: Record) -> Record:
    return msgspec.structs.replace(record, state=State.RETIRED, policy="")


async def test_a_machine_that_died_owing_its_run_state_is_lost_after_an_attempt_only(adopted: Adopt) -> None:
    machine = adopted.machine(State.OUTGOING)
    await machine.custody.write(lambda record: aborted(record, reason="cancelled"))
    machine.machine.end()
    agent = agent_of(adopted.folder)
    await agent.recover()
    assert last(adopted.folder).state is State.LOST
    assert not machine.directory.path.exists()
    await agent.stop()


async def test_a_pause_asked_for_while_an_attempt_resumes_its_guest_wins(
    adopted: Adopt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The resumption of an attempt that was cancelled could overtake it: the guest ran, and was owed a pause."""
    machine = adopted.machine(State.OWNER)
    resuming, go_on = asyncio.Event(), asyncio.Event()
    stops = FakeMachine.stop_tracking

    async def stop_tracking(self: FakeMachine) -> None:
        resuming.set()
        await go_on.wait()
        await stops(self)

    monkeypatch.setattr(FakeMachine, "stop_tracking", stop_tracking)
    agent = agent_of(adopted.folder)
    attempt = await agent.begin(KEY, "host-b", TERMS)
    attempt.cancel()
    await resuming.wait()
    pausing = asyncio.create_task(agent.machines.set_running("fake", running=False))
    await asyncio.sleep(0)
    go_on.set()
    await pausing
    assert not machine.machine.running
    record = last(adopted.folder)
    assert (record.was_running, record.run_confirmed) == (False, True)
    await agent.stop()
    assert not machine.machine.running
