"""A stream that nobody asks about is called off until it has ended, and one that is asked about is not.

How long a lease lasts is looked at in virtual time: what sleeps there waits for nothing.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.simulation.virtual_loop import VirtualLoop
from tests.simulation.virtual_time import in_virtual_time
from tests.vm_migration.machine.qemu.spoken_qmp import Answer, speaking
from tests.vm_migration.machine.qemu.waiting_qemu import WaitingQemu, commands_of
from vm_migration.machine.errors import MachineGone
from vm_migration.machine.qemu import commands as served
from vm_migration.machine.qemu import lease as leases
from vm_migration.machine.qemu.commands import QemuCommands
from vm_migration.machine.qemu.fence_file import Kept
from vm_migration.machine.qemu.lease import SECONDS, Lease
from vm_migration.machine.qemu.monitor import Monitor
from vmm.process import control, own_stream
from vmm.process.control import AnyReply, AnyRequest, Done
from vmm.process.controllers import Controller

DEADLINE = 20.0
EPOCH = 5
START = own_stream.StartDirectStream(
    to=own_stream.DirectTo(
        host="127.0.0.1",
        port=1,
        name="host-b",
        credentials=own_stream.Credentials(trusted=b"ca", certificate=b"certificate", key=b"key"),
    ),
    terms=own_stream.StreamTerms(),
)


class CalledOff:
    """Notes when it was called, in seconds since it was made; the stream has ended with one of those calls."""

    def __init__(self, loop: VirtualLoop, *, ends_at: int = 1) -> None:
        self._loop = loop
        self._began = loop.time()
        self._ends_at = ends_at
        self.at: list[float] = []

    async def __call__(self) -> bool:
        self.at.append(self._loop.time() - self._began)
        return len(self.at) == self._ends_at


def test_a_stream_goes_on_for_as_long_as_somebody_asks_and_is_called_off_once() -> None:
    async def run(loop: VirtualLoop) -> list[float]:
        called_off = CalledOff(loop)
        lease = Lease(called_off)
        lease.begin()
        for _ in range(5):
            await asyncio.sleep(SECONDS - 1)  # just less than it lasts
            lease.renew()
        await asyncio.sleep(3 * SECONDS)
        return called_off.at

    assert in_virtual_time(run) == [5 * (SECONDS - 1) + SECONDS]


def test_the_next_stream_has_a_lease_of_its_own_and_one_that_ended_has_none() -> None:
    async def run(loop: VirtualLoop) -> list[float]:
        called_off = CalledOff(loop)
        lease = Lease(called_off)
        lease.begin()
        await asyncio.sleep(SECONDS / 2)
        lease.begin()
        await asyncio.sleep(2 * SECONDS)
        lease.begin()
        lease.end()
        await asyncio.sleep(2 * SECONDS)
        return called_off.at

    assert in_virtual_time(run) == [1.5 * SECONDS]


def test_a_stream_that_has_not_ended_is_called_off_every_second_until_it_has_or_its_agent_is_back() -> None:
    async def run(loop: VirtualLoop) -> list[float]:
        called_off = CalledOff(loop, ends_at=5)
        lease = Lease(called_off)
        lease.begin()
        await asyncio.sleep(SECONDS + 2.5)
        lease.renew()
        await asyncio.sleep(5 * SECONDS)
        return called_off.at

    again = 2 * SECONDS + 2.5
    assert in_virtual_time(run) == [SECONDS, SECONDS + 1, SECONDS + 2, again, again + 1]


@pytest.mark.parametrize(("stream", "called_off"), [("active", True), ("pre-switchover", True), ("completed", False)])
async def test_a_stream_that_has_completed_is_not_called_off(tmp_path: Path, stream: str, called_off: bool) -> None:
    qemu = WaitingQemu()
    qemu.stream = stream
    async with speaking(tmp_path / "qmp.sock", qemu.say) as spoken:
        monitor = Monitor(tmp_path / "qmp.sock")
        ended = await commands_of(tmp_path, monitor, Kept())._abandon()
        assert ("migrate_cancel" in spoken.asked) is called_off
        assert ended is not called_off, "it goes on until QEMU says that it has ended"
        await monitor.close()


async def test_a_qemu_that_is_silent_is_nobody_s_failure(tmp_path: Path) -> None:
    monitor = Monitor(tmp_path / "nobody.sock")
    assert not await commands_of(tmp_path, monitor, Kept())._abandon()


class LeavingQemu(WaitingQemu):
    """Sends a stream that goes on for so many calls to end it, and may not answer when it is begun."""

    def __init__(self, *, cancels: int = 1, answers: bool = True) -> None:
        super().__init__()
        self.stream = "none"
        self.cancels = cancels
        self.ended = asyncio.Event()
        self.direct = False
        self._answers = answers

    def say(self, command: str, arguments: Mapping[str, object]) -> Answer:
        if command == "migrate":
            self.stream = "active"
            return {"return": {}} if self._answers else None
        if command == "migrate_cancel":
            self.cancels -= 1
            if not self.cancels:
                self.stream = "cancelled"
                self.ended.set()
        if command == "qom-list" and self.direct:
            return {"return": [{"name": "viaduct-stream-tls", "type": "child<tls-creds-x509>"}]}
        return super().say(command, arguments)


@asynccontextmanager
async def leaving(folder: Path, qemu: LeavingQemu, *, deadline: float = DEADLINE) -> AsyncIterator[QemuCommands]:
    async with speaking(folder / "qmp.sock", qemu.say) as qemu.spoken:
        monitor = Monitor(folder / "qmp.sock")
        monitor.session._deadline = deadline  # type: ignore[misc]  # Final: shortened for the test
        commands = commands_of(folder, monitor, Kept())
        try:
            yield commands
        finally:
            commands._lease.end()
            await monitor.close()


async def asked(commands: QemuCommands, request: AnyRequest) -> AnyReply:
    controller = Controller()
    await commands.serve(controller, control.Attach(epoch=EPOCH, controller=1))
    reply, _ = await commands.serve(controller, request)
    return reply


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a lease run out, and be tried again, as good as at once."""
    monkeypatch.setattr(served, "Lease", partial(Lease, seconds=0.05))
    monkeypatch.setattr(leases, "_AGAIN", 0.01)


@pytest.mark.usefixtures("soon")
async def test_a_direct_stream_whose_agent_is_silent_is_called_off_until_it_has_ended(tmp_path: Path) -> None:
    qemu = LeavingQemu(cancels=3)
    async with leaving(tmp_path, qemu) as commands, asyncio.timeout(DEADLINE):
        assert isinstance(await asked(commands, START), Done)
        await qemu.ended.wait()


@pytest.mark.usefixtures("soon")
async def test_one_whose_beginning_qemu_did_not_answer_is_called_off_too(tmp_path: Path) -> None:
    qemu = LeavingQemu(answers=False)
    async with leaving(tmp_path, qemu, deadline=0.3) as commands, asyncio.timeout(DEADLINE):
        with pytest.raises(MachineGone):
            await asked(commands, START)
        await qemu.ended.wait()


async def test_an_agent_that_asks_for_anything_renews_it_and_a_machine_that_is_run_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    class Noted(Lease):
        def begin(self) -> None:
            told.append("begin")
            super().begin()

        def renew(self) -> None:
            told.append("renew")
            super().renew()

        def end(self) -> None:
            told.append("end")
            super().end()

    monkeypatch.setattr(served, "Lease", Noted)
    async with leaving(tmp_path, LeavingQemu()) as commands:
        await asked(commands, START)
        assert told == ["renew", "begin", "end", "renew"]
        await asked(commands, own_stream.Stream())
        assert told[4:] == ["renew"]
        await asked(commands, control.Run(epoch=EPOCH))
        assert told[5:] == ["renew", "end"]


@pytest.mark.parametrize(("stream", "direct"), [("active", True), ("active", False), ("completed", True)])
async def test_a_process_that_comes_after_another_watches_over_a_direct_stream_that_it_finds(
    tmp_path: Path, stream: str, direct: bool
) -> None:
    qemu = LeavingQemu()
    qemu.stream, qemu.direct = stream, direct
    async with leaving(tmp_path, qemu) as commands:
        await commands.take_up()
        assert (commands._lease._watching is not None) is (stream == "active" and direct)
