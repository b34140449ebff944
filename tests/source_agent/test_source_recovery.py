"""What a source agent is asked after something went wrong: what its journals say, to go on, to take a machine back."""

import asyncio
import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from source_agent.agent import SourceAgent
from source_agent.elsewhere import Elsewhere
from source_agent.holdings import Holdings
from source_agent.outgoing_attempt import OutgoingAttempt, Surroundings
from source_agent.source_service import SourceService
from source_agent.terms import encode
from tests.fakes.fake_destination import FakeDestination, served
from tests.fakes.fake_machine import MACHINE, Held
from tests.source_agent.departures import KEY, SECRET, TERMS, A, B, given_away, leaving
from tests.source_agent.journeys import no_hook
from vm_migration.api.v1 import source_pb2, types_pb2
from vm_migration.api.v1.destination_pb2 import IncomingReport
from vm_migration.errors import MigrationError, Refused, Stale, Unresolved
from vm_migration.handover.custody import Custody
from vm_migration.handover.journal import read_last
from vm_migration.handover.journal_errors import JournalUncertain
from vm_migration.handover.journals import Journals
from vm_migration.handover.memory_disk import MemoryDisk
from vm_migration.handover.record import AttemptKey, Record, decode
from vm_migration.handover.states import State
from vm_migration.machine import software_hypervisor
from vmm.process.identity import boot_id

NO_CONTEXT = None
NEXT = AttemptKey(MACHINE, B, 0, 1)


@asynccontextmanager
async def started(
    held: Held, monkeypatch: pytest.MonkeyPatch, others: dict[str, str] | None = None
) -> AsyncIterator[tuple[SourceAgent, SourceService]]:
    """Start an agent over what an earlier life left of a machine."""
    monkeypatch.setattr(software_hypervisor, "SoftwareMachine", lambda _path, **_: held.machine)
    agent = SourceAgent(
        host="host-a",
        journals=held.journals,
        hypervisor=held.hypervisor,
        memory_budget=1 << 30,
        hash_bytes_per_s=1e9,
        surroundings=lambda _attempt, _machine, _epoch: Surroundings(None, no_hook, 1e9, boot_id()),
        elsewhere=Elsewhere(others or {}),
    )
    await agent.recover()
    try:
        yield agent, SourceService(agent)
    finally:
        await agent.stop()


def last(held: Held) -> Record:
    return read_last(held.folder / "journal", MACHINE)


async def towards(held: Held, there: FakeDestination) -> None:
    """Have the journal name where the destination is."""
    terms = msgspec.structs.replace(TERMS, control_address=there.address, bulk_address=there.address)
    await held.custody.write(lambda record: msgspec.structs.replace(record, policy=encode(terms)))


async def described(service: SourceService, key: types_pb2.AttemptKey) -> source_pb2.OutgoingReport:
    request = source_pb2.AttemptRequest(key=key)
    return await service.DescribeOutgoing(request, NO_CONTEXT)  # type: ignore[arg-type]  # it looks at no context


def take_request() -> types_pb2.TakeRequest:
    return types_pb2.TakeRequest(key=KEY, highest_seen=7, fenced="host-b", reason="host-b burnt down")


async def test_an_attempt_is_described_from_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with leaving(tmp_path, State.OUTGOING) as held:
        async with started(held, monkeypatch) as (_, service):  # never started, it has ended
            report = await described(service, KEY)
            assert (report.state, report.last_state, report.highest_epoch) == ("ABORTED", "ABORTED", 2)
            assert (report.owned_epoch, report.process_alive) == (1, True)
            proof = decode(report.record.encode())
            assert (proof.state, proof.attempt, proof.secret) == (State.ABORTED, A, "")
            assert report.sequence == last(held).sequence
            other = types_pb2.AttemptKey(machine=MACHINE, attempt=B, epoch=1, term=1)
            assert (await described(service, other)).state == ""


async def test_what_is_described_is_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that was read may be lost with the power; an OPENED after it makes it stand."""
    with leaving(tmp_path, State.OWNER) as held:
        async with started(held, monkeypatch) as (_, service):
            before = last(held)
            key = types_pb2.AttemptKey(machine=MACHINE, attempt=A, epoch=0, term=1)
            await described(service, key)
            assert last(held).opened
            assert last(held).controller == before.controller + 1


async def test_a_machine_without_a_journal_is_told_as_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with leaving(tmp_path, State.OWNER) as held:
        async with started(held, monkeypatch) as (_, service):
            nobody = types_pb2.AttemptKey(machine=B, attempt=A, epoch=2, term=1)
            assert await described(service, nobody) == source_pb2.OutgoingReport()


async def test_a_destination_whose_journal_was_rolled_back_is_told_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with leaving(tmp_path, State.OUTGOING) as held:
        async with started(held, monkeypatch) as (_, service):
            key = types_pb2.AttemptKey(machine=MACHINE, attempt=A, epoch=2, term=1)
            for sequence in (5, 5, 0, 6):
                key.sequence = sequence
                await described(service, key)
            key.sequence = 5
            with pytest.raises(Stale) as refusal:
                await described(service, key)
            assert refusal.value.code == "journal-rolled-back"


async def test_a_released_machine_is_taken_back_above_every_epoch_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with leaving(tmp_path, State.RELEASED) as held:
        async with served(FakeDestination(handoffs=["ACTIVATING"])) as there:
            await towards(held, there)
            async with started(held, monkeypatch) as (agent, service):
                assert "host-b" in agent.complaint(MACHINE)
                for _ in range(2):  # asked again, nothing changes
                    report = await service.Take(take_request(), NO_CONTEXT)  # type: ignore[arg-type]  # it looks at no context
                    assert (report.last_state, report.owned_epoch) == ("TAKEN", 8)
                assert held.machine.running
                assert last(held).run_confirmed
                assert "host-b burnt down" in last(held).reason
                told = len(there.secrets)
                await asyncio.sleep(0)
                assert len(there.secrets) == told  # nobody hands it over any more
                assert agent.complaint(MACHINE) == ""


async def test_a_machine_that_is_not_at_its_stop_is_not_taken_back_and_is_handed_over_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with leaving(tmp_path, State.RELEASED) as held:
        async with served(FakeDestination(handoffs=["ACTIVATING"])) as there:
            await towards(held, there)
            async with started(held, monkeypatch) as (_, service):
                held.machine.pause_number = 5
                with pytest.raises(Refused, match="does not stand at stop 1"):
                    await service.Take(take_request(), NO_CONTEXT)  # type: ignore[arg-type]  # it looks at no context
                assert last(held).state is State.RELEASED
                there.handoffs = ["ACTIVE"]
                await service.Recover(types_pb2.MachineName(machine=MACHINE), NO_CONTEXT)  # type: ignore[arg-type]  # it looks at no context
                assert last(held).state is State.RETIRED


async def test_only_what_is_released_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with leaving(tmp_path, State.OUTGOING) as held:
        async with started(held, monkeypatch) as (_, service):
            with pytest.raises(Refused, match="is ABORTED: only a RELEASED machine"):
                await service.Take(take_request(), NO_CONTEXT)  # type: ignore[arg-type]  # it looks at no context


async def test_recover_goes_on_with_what_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with leaving(tmp_path, State.RELEASED) as held:
        async with served(FakeDestination(handoffs=["ACTIVATING"])) as there:
            await towards(held, there)
            async with started(held, monkeypatch) as (_, service):
                there.handoffs = ["ACTIVE"]
                report = await service.Recover(types_pb2.MachineName(machine=MACHINE), NO_CONTEXT)  # type: ignore[arg-type]  # it looks at no context
                assert report.last_state == "RETIRED"
                assert there.secrets[-1] == SECRET


@pytest.mark.parametrize(
    ("claim", "outranked"),
    [
        (IncomingReport(last_state="ACTIVE", owned_epoch=2, highest_epoch=2), True),
        (IncomingReport(last_state="RETIRED", owned_epoch=3, highest_epoch=4), True),
        (IncomingReport(last_state="RETIRED", owned_epoch=0, highest_epoch=4), False),
        (IncomingReport(last_state="ACTIVE", owned_epoch=1, highest_epoch=1), False),
        (IncomingReport(last_state="READY", owned_epoch=0, highest_epoch=4), False),
        (IncomingReport(), False),
        (None, False),
    ],
)
async def test_a_machine_that_another_host_owns_at_a_higher_epoch_is_paused_before_anything_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, claim: IncomingReport | None, outranked: bool
) -> None:
    with leaving(tmp_path, State.OWNER) as held:
        async with served(FakeDestination(report=claim)) as there:
            others = {"host-b": there.address, "host-c": "127.0.0.1:1"}
            async with started(held, monkeypatch, others) as (agent, _):
                assert held.machine.running is not outranked
                assert held.directory.path.exists()
                assert agent.complaint(MACHINE).startswith("outranked: host-b has it at epoch") is outranked
                refusals = []
                for action in (agent.machines.set_running("fake", running=True), agent.begin(NEXT, "host-b", TERMS)):
                    try:
                        await action
                    except MigrationError as error:
                        refusals.append((type(error), error.code))
                assert refusals == ([(Unresolved, "outranked")] * 2 if outranked else [])
                if outranked:
                    assert not last(held).was_running  # also for the next life, which may not hear of the claim
                    with pytest.raises(Unresolved):
                        await agent.machines.destroy("fake")


async def test_a_release_of_which_nobody_knows_is_settled_though_the_machine_died(tmp_path: Path) -> None:
    """Neither RELEASED nor LOST could be written any more: the attempt hung until its agent was restarted."""
    disk = MemoryDisk()
    report = IncomingReport(state="READY", highest_epoch=2, pause=1, process_alive=True, whole=True)
    with leaving(tmp_path, State.STOPPED, disk) as held:
        async with served(FakeDestination(report=report, handoffs=["ACTIVE"])) as there:
            disk.failures[disk.steps + 2] = errno.EIO  # the write succeeds, its flush does not
            with pytest.raises(JournalUncertain):
                await held.custody.write(given_away)
            held.machine.end()
            holdings = Holdings(Journals(tmp_path / "journal", disk), held.hypervisor)
            holdings.adopt(held.custody)
            terms = msgspec.structs.replace(TERMS, control_address=there.address, bulk_address=there.address)
            around = Surroundings(None, no_hook, 1e9, boot_id())
            attempt = OutgoingAttempt(held.custody, terms, around, holdings)
            await attempt.recover()
            assert attempt.record.state is State.RETIRED
            assert there.secrets == [SECRET]
            await holdings.close()


async def test_an_attempt_whose_journal_this_hosts_other_agent_opened_takes_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had no say any more, and was open for ever."""
    with leaving(tmp_path, State.OUTGOING) as held:
        holdings = Holdings(held.journals, held.hypervisor)
        holdings.adopt(held.custody)
        attempt = OutgoingAttempt(held.custody, TERMS, Surroundings(None, no_hook, 1e9, boot_id()), holdings)
        monkeypatch.setattr(software_hypervisor, "SoftwareMachine", lambda _path, **_: held.machine)
        other = await Custody.open(held.journals, held.hypervisor, MACHINE)
        await other.close()
        task = asyncio.create_task(attempt.run())
        await attempt.cancelled(5.0)
        await task
        assert attempt.record.state is State.ABORTED
        assert held.machine.running
        await holdings.close()
