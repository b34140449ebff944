"""A destination agent that stood still while another took its place, and comes back with what it was about to do."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID, uuid4

import pytest

from dest_agent.agent import DestAgent
from dest_agent.incoming_attempt import IncomingAttempt
from tests.dest_agent.arrivals import KEY, SECRET, SPECIFICATION, A, arriving, requirements
from tests.dest_agent.frozen import Freeze, FreezingHypervisor
from tests.dest_agent.watched import source_record
from tests.fakes.fake_machine import MACHINE, Held
from tests.system.processes import naming
from vm_migration.api.v1 import destination_pb2, types_pb2
from vm_migration.daemon.host_facts import VERSION
from vm_migration.errors import MigrationError, Stale
from vm_migration.handover import disk
from vm_migration.handover.journal import read_last
from vm_migration.handover.journal_errors import JournalBusy
from vm_migration.handover.journals import Journals
from vm_migration.handover.record import AttemptKey, Record
from vm_migration.handover.secret import secret_hash
from vm_migration.handover.states import State
from vm_migration.machine.errors import CutOff, MachineError
from vm_migration.wire.bitmap_codec import encode_bitmap
from vmm.memory.dirty_bitmap import DirtyBitmap
from vmm.memory.ram_block import RamBlock
from vmm.process.control import Description


class Host:
    """A host's folders; each agent that is started there is one more."""

    def __init__(self, folder: Path, machine: Held | None = None) -> None:
        self.folder = folder
        self.machine = machine

    def agent(self, freeze: Freeze | None = None) -> DestAgent:
        async def after_active(record: Record) -> None:
            del record

        hypervisor = FreezingHypervisor(self.folder / "run")
        hypervisor.freeze = freeze
        hypervisor.machine = None if self.machine is None else self.machine.machine
        return DestAgent(
            host="host-b",
            journals=Journals(self.folder / "journal"),
            hypervisor=hypervisor,
            memory_budget=1 << 30,
            after_active=after_active,
        )

    @property
    def last(self) -> Record:
        return read_last(self.folder / "journal", MACHINE)


@asynccontextmanager
async def stood_still(agent: DestAgent) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await agent.stop()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def existing(stack: ExitStack, folder: Path, state: State) -> Host:
    return Host(folder, stack.enter_context(arriving(folder, state)))


async def refused(work: asyncio.Task[destination_pb2.HandoffResponse]) -> None:
    """Wait for what a frozen agent was doing: it must not have done it."""
    with pytest.raises((Stale, CutOff)):
        await work


async def test_frozen_between_activating_and_run_it_starts_nothing(stack: ExitStack, tmp_path: Path) -> None:
    host = existing(stack, tmp_path, State.READY)
    freeze = Freeze("before run")
    old, new = host.agent(freeze), host.agent()
    async with stood_still(old), stood_still(new):
        work = asyncio.create_task(old.hand_off(KEY, 1, SECRET))
        await freeze.reached()
        assert host.last.state == "ACTIVATING"
        await new.recover()
        written = host.last
        assert written.state is State.ACTIVE
        freeze.thaw()
        await refused(work)
        assert host.last == written
        assert host.machine is not None
        assert [call for call in host.machine.machine.calls if call.startswith("run")] == ["run 2"]


async def test_frozen_between_run_and_active_it_writes_nothing(stack: ExitStack, tmp_path: Path) -> None:
    host = existing(stack, tmp_path, State.READY)
    freeze = Freeze("after run")
    old, new = host.agent(freeze), host.agent()
    async with stood_still(old), stood_still(new):
        work = asyncio.create_task(old.hand_off(KEY, 1, SECRET))
        await freeze.reached()
        await new.recover()
        written = host.last
        assert written.state is State.ACTIVE
        freeze.thaw()
        await refused(work)
        assert host.last == written


async def test_frozen_over_a_discard_it_ends_nothing_when_it_comes_back(stack: ExitStack, tmp_path: Path) -> None:
    """It killed by id whatever stood in the machine's folder by then, also a machine that ran."""
    host = existing(stack, tmp_path, State.READY)
    freeze = Freeze("before destroy")
    old, new = host.agent(freeze), host.agent()
    async with stood_still(old), stood_still(new):
        work = asyncio.create_task(old.discard(KEY, source_record(State.ABORTED)))
        await freeze.reached()
        assert host.last.state is State.DISCARDED
        await new.recover()
        assert not (host.folder / "run" / "machines" / MACHINE).exists()
        freeze.thaw()
        with pytest.raises(Stale):
            await work


async def test_frozen_while_it_ends_a_process_it_keeps_everybody_else_from_the_journal(
    stack: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "LOCK_DEADLINE_S", 0.05)
    host = existing(stack, tmp_path, State.READY)
    freeze = Freeze("before it is taken away")
    old, new = host.agent(freeze), host.agent()
    async with stood_still(old), stood_still(new):
        work = asyncio.create_task(old.discard(KEY, source_record(State.ABORTED)))
        await freeze.reached()
        with pytest.raises(JournalBusy):
            await new.prepare(AttemptKey(MACHINE, str(uuid4()), 3, 1), prepare_request(KEY))
        freeze.thaw()
        assert (await work).state is State.DISCARDED
        assert not (host.folder / "run" / "machines" / MACHINE).exists()


@pytest.mark.parametrize("point", ["before load", "after load"])
async def test_frozen_in_finish_it_writes_no_ready(stack: ExitStack, tmp_path: Path, point: str) -> None:
    host = existing(stack, tmp_path, State.PREPARED)
    freeze = Freeze(point)
    old, new = host.agent(freeze), host.agent()
    async with stood_still(old), stood_still(new), old.holdings.hold(MACHINE) as custody:
        ram = RamBlock.create("arriving", 4096)
        arrival = IncomingAttempt(custody, ram, "host-a", b"t", streams=1, full=False)
        arrival.open_round(0, encode_bitmap(DirtyBitmap(1)))
        arrival._filling()._open_streams.clear()  # as its barrier leaves it
        old.holdings.arriving[A] = arrival
        total = arrival._filling().device_total
        devices = destination_pb2.DeviceTotal(
            records=total.records, data_bytes=total.data_bytes, checksum=total.checksum
        )
        request = destination_pb2.FinishRequest(
            key=types_pb2.AttemptKey(machine=MACHINE, attempt=A, epoch=2, term=1),
            pause=1,
            was_running=True,
            device_data=devices,
        )
        work = asyncio.create_task(old.finish(KEY, request))
        await freeze.reached()
        await new.recover()
        written = host.last
        assert (written.state, written.whole) == (State.PREPARED, True)
        freeze.thaw()
        with pytest.raises((MigrationError, MachineError)):
            await work
        assert host.last.state is State.PREPARED
        assert host.machine is not None
        assert host.machine.machine.process.poll() is None


# with real processes


def prepare_request(key: AttemptKey) -> destination_pb2.PrepareRequest:
    wanted = requirements()
    wanted.version = VERSION
    return destination_pb2.PrepareRequest(
        key=types_pb2.AttemptKey(machine=key.machine, attempt=key.attempt, epoch=key.epoch, term=key.term),
        source="host-a",
        secret_hash=secret_hash(SECRET),
        requirements=wanted,
        streams=1,
    )


def of_machine(folder: Path) -> dict[int, str]:
    return naming(folder / "run" / "machines", set())


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("point", ["before launch", "after launch"])
async def test_frozen_in_prepare_nothing_of_its_launch_is_left(point: str, *, again: bool) -> None:
    """Also where the machine is arriving once more by then, with the agent that took over."""
    with TemporaryDirectory(prefix="viaduct-") as name:
        host = Host(Path(name))
        freeze = Freeze(point)
        old, new = host.agent(freeze), host.agent()
        async with stood_still(old), stood_still(new):
            work = asyncio.create_task(old.prepare(KEY, prepare_request(KEY)))
            await freeze.reached()
            await new.recover()
            assert host.last.state is State.DISCARDED
            assert of_machine(host.folder) == {}
            later = AttemptKey(MACHINE, str(uuid4()), 3, 1)
            if again:
                await new.prepare(later, prepare_request(later))
            mine = of_machine(host.folder)
            freeze.thaw()
            with pytest.raises(MigrationError):
                await work
            assert of_machine(host.folder) == mine
            if again:
                assert len(mine) == 2
                assert (await _answers(new)).run_state == "incoming"
                await new.discard(later, source_record(State.ABORTED, attempt=later.attempt, epoch=3, highest_epoch=3))
            assert of_machine(host.folder) == {}
            assert not (host.folder / "run" / "machines" / MACHINE).exists()


async def _answers(agent: DestAgent) -> Description:
    port = agent.hypervisor.connect(agent.hypervisor.of(UUID(MACHINE)))
    try:
        return await port.describe()
    finally:
        with suppress(MachineError):
            await port.close()


def test_the_specification_is_one_that_real_processes_take() -> None:
    assert requirements().specification == SPECIFICATION
