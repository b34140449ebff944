"""The destination agent as a whole: calls that come twice, late or for another machine, and restarts."""

import asyncio
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest

from dest_agent.agent import DestAgent
from tests.dest_agent.arrivals import KEY, SECRET, A, arriving, requirements
from tests.fakes.fake_machine import MACHINE, Held
from vm_migration.daemon.host_burden import Burden
from vm_migration.daemon.host_facts import VERSION
from vm_migration.errors import InvalidInput, Missed, Refused, Stale
from vm_migration.handover.journal import read_last
from vm_migration.handover.journals import Journals
from vm_migration.handover.record import AttemptKey, Record
from vm_migration.handover.states import State
from vm_migration.machine import software_hypervisor
from vm_migration.machine.software_hypervisor import SoftwareHypervisor

ABORTED = Record(machine=MACHINE, state=State.ABORTED, highest_epoch=2, owned_epoch=1, attempt=A, epoch=2, pause=1)


class Site:
    """A host with one arrival, which its agent commands through a fake."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, stack: ExitStack) -> None:
        self.folder = folder
        self.active: list[str] = []
        self._monkeypatch = monkeypatch
        self._stack = stack

    def machine(self, state: State, *further: Callable[[Record], Record]) -> Held:
        machine = self._stack.enter_context(arriving(self.folder, state, *further))
        self._monkeypatch.setattr(software_hypervisor, "SoftwareMachine", lambda _path, **_: machine.machine)
        return machine

    def agent(self) -> DestAgent:
        async def after_active(record: Record) -> None:
            self.active.append(record.machine)

        return DestAgent(
            host="host-b",
            journals=Journals(self.folder / "journal"),
            hypervisor=SoftwareHypervisor(self.folder / "run"),
            memory_budget=1 << 30,
            after_active=after_active,
        )

    @property
    def last(self) -> Record:
        return read_last(self.folder / "journal", MACHINE)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with ExitStack() as stack:
        yield Site(tmp_path, monkeypatch, stack)


async def test_a_hand_over_to_an_agent_that_was_restarted_and_once_more(site: Site) -> None:
    machine = site.machine(State.READY)
    agent = site.agent()
    first = await agent.hand_off(KEY, 1, SECRET)
    assert (first.state, first.executed_at_ns) == ("ACTIVE", 17)
    again = await agent.hand_off(KEY, 1, SECRET)
    assert again == first
    late = await site.agent().hand_off(KEY, 1, SECRET)  # after one more restart
    assert (late.state, late.executed_at_ns) == ("ACTIVE", 0)
    assert [call for call in machine.machine.calls if call.startswith("run")] == ["run 2"]
    await asyncio.sleep(0)
    assert site.active == [MACHINE]


async def test_a_hand_over_that_comes_after_the_machine_has_gone_on_is_answered(site: Site) -> None:
    def gone_on(record: Record) -> Record:
        return msgspec.structs.replace(record, state=State.OUTGOING, attempt=str(uuid4()), epoch=3, highest_epoch=3)

    site.machine(State.ACTIVE, gone_on)
    assert (await site.agent().hand_off(KEY, 1, SECRET)).state == "ACTIVE"
    assert site.last.state is State.OUTGOING


async def test_a_lost_image_is_answered_with_lost_for_ever(site: Site) -> None:
    site.machine(State.READY).machine.end()
    assert (await site.agent().hand_off(KEY, 1, SECRET)).state == "LOST"
    assert (await site.agent().hand_off(KEY, 1, SECRET)).state == "LOST"
    assert site.active == []


async def test_a_machine_that_is_being_brought_up_is_told_with_the_memory_that_is_kept_for_it(site: Site) -> None:
    agent, wanted = site.agent(), requirements()
    wanted.version = VERSION
    with agent.admission.place(wanted):
        assert agent.burden() == Burden(1, {MACHINE: wanted.ram_bytes})
    assert agent.burden() == Burden()


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        (AttemptKey(MACHINE, A, 1, 1), Stale),
        (AttemptKey(MACHINE, A, 2, 0), Stale),
        (AttemptKey(MACHINE, A, 3, 1), Missed),
        (AttemptKey(MACHINE, str(uuid4()), 2, 1), Stale),
    ],
)
async def test_a_call_must_match_the_journal_exactly(site: Site, key: AttemptKey, kind: type[Exception]) -> None:
    site.machine(State.READY)
    agent = site.agent()
    with pytest.raises(kind):
        await agent.hand_off(key, 1, SECRET)
    assert site.last.state is State.READY


async def test_a_discard_takes_the_image_away_and_one_that_was_cut_off_is_finished(site: Site) -> None:
    machine = site.machine(State.DISCARDED)
    assert machine.directory.path.exists()  # as a call leaves it that was cancelled after its write
    assert (await site.agent().discard(KEY, ABORTED)).state is State.DISCARDED
    assert not machine.directory.path.exists()


async def test_a_proof_of_another_machine_discards_nothing(site: Site) -> None:
    machine = site.machine(State.READY)
    other = msgspec.structs.replace(ABORTED, machine=str(uuid4()), attempt=None, highest_epoch=9)
    with pytest.raises(InvalidInput) as caught:
        await site.agent().discard(KEY, other)
    assert caught.value.code == "bad-proof"
    assert site.last.state is State.READY
    assert machine.machine.calls == []


async def test_a_source_that_only_wants_to_cancel_discards_nothing(site: Site) -> None:
    site.machine(State.READY)
    with pytest.raises(Refused) as caught:
        await site.agent().discard(KEY, msgspec.structs.replace(ABORTED, state=State.OUTGOING))
    assert caught.value.code == "no-proof"
    assert site.last.state is State.READY


async def test_a_discard_of_what_never_came(site: Site) -> None:
    with pytest.raises(InvalidInput) as caught:
        await site.agent().discard(KEY, ABORTED)
    assert caught.value.code == "unknown-attempt"


async def test_the_former_source_is_heard_once_and_only_by_the_owner(site: Site) -> None:
    site.machine(State.ACTIVE)
    agent = site.agent()
    assert not site.last.former_retired
    assert (await agent.note_retired(AttemptKey(MACHINE, A, 1, 1))).former_retired is False
    assert (await agent.note_retired(KEY)).former_retired
    sequence = site.last.sequence
    assert (await agent.note_retired(KEY)).former_retired
    assert site.last.sequence == sequence


async def test_what_a_peer_is_told(site: Site) -> None:
    machine = site.machine(State.READY)
    agent = site.agent()
    told = await agent.describe(KEY)
    assert (told.state, told.highest_epoch, told.pause, told.process_alive, told.whole) == ("READY", 2, 1, True, True)
    shutil.rmtree(machine.directory.path)  # a folder that somebody took away proves nothing
    assert (await agent.describe(KEY)).process_alive
    machine.machine.end()
    assert not (await agent.describe(KEY)).process_alive
    other = await agent.describe(AttemptKey(MACHINE, str(uuid4()), 1, 1))
    assert (other.state, other.highest_epoch, other.pause) == ("", 2, 0)
    assert (await agent.describe(AttemptKey(str(uuid4()), A, 2, 1))).highest_epoch == 0


@pytest.mark.parametrize(
    ("state", "gone", "then"),
    [
        (State.PREPARED, False, State.DISCARDED),
        (State.READY, False, State.READY),
        (State.READY, True, State.LOST),
        (State.ACTIVATING, False, State.ACTIVE),
        (State.ACTIVATING, True, State.ACTIVATING),
        (State.ACTIVE, True, State.ACTIVE),
    ],
)
async def test_a_start_settles_each_arrival_and_a_damaged_journal_keeps_none_away(
    site: Site, state: State, gone: bool, then: State
) -> None:
    machine = site.machine(state)
    (site.folder / "journal" / "00000000-0000-4000-8000-000000000000").write_bytes(b"damaged")
    if gone:
        machine.machine.end()
        shutil.rmtree(machine.directory.path)  # a run directory does not survive a boot; the journal does
    agent = site.agent()
    await agent.recover()
    assert site.last.state is then
    await asyncio.sleep(0)
    assert site.active == ([MACHINE] if state is State.ACTIVATING and not gone else [])
    await agent.stop()


async def test_what_was_discarded_and_not_freed_is_freed_at_a_start(site: Site) -> None:
    machine = site.machine(State.DISCARDED)
    await site.agent().recover()
    assert not machine.directory.path.exists()
    assert machine.machine.process.poll() is not None
