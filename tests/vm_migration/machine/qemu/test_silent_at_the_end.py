"""A QEMU that falls silent is let go of; past its gate, where it sends what is left, it is borne with for a while."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.vm_migration.machine.qemu.spoken_qmp import Answer, speaking
from tests.vm_migration.machine.qemu.waiting_qemu import WaitingQemu, commands_of
from vm_migration.machine.errors import MachineGone
from vm_migration.machine.qemu.commands import QemuCommands
from vm_migration.machine.qemu.fence_file import Kept
from vm_migration.machine.qemu.monitor import Monitor
from vm_migration.machine.qemu.stream_tls import StreamTls
from vm_migration.machine.qemu.streams import Streams
from vmm.process import control, own_stream
from vmm.process.control import AnyRequest, Done
from vmm.process.controllers import Controller
from vmm.process.own_stream import COMPLETED, GATE, Stream, StreamState, StreamTerms

DEADLINE = 0.2
EPOCH = 5


class FallingSilent(WaitingQemu):
    """Stands at its gate; once it is silent it answers nothing: `at_once`, already when it is told to leave."""

    def __init__(self, *, at_once: bool = False) -> None:
        super().__init__()
        self.stream, self.silent = GATE, False
        self._at_once = at_once
        self.broken = asyncio.Event()

    def say(self, command: str, arguments: Mapping[str, object]) -> Answer:
        if self.silent and command == "yank":
            self.comes_to("failed")
            self.broken.set()
        self.silent |= self._at_once and command == "migrate-continue"
        if self.silent:
            return None
        return super().say(command, arguments)

    def comes_to(self, status: str) -> None:
        """Answer what it was asked meanwhile, and whatever is asked from here on."""
        assert self.spoken is not None
        self.silent, self.stream = False, status
        self.spoken.late(status)


class Sending:
    """A QEMU that sends what is left in silence, and whoever commands it."""

    def __init__(self, qemu: FallingSilent, monitor: Monitor, commands: QemuCommands) -> None:
        self.qemu, self.monitor = qemu, monitor
        self._commands, self._controller = commands, Controller()

    async def asked(self, request: AnyRequest) -> object:
        return (await self._commands.serve(self._controller, request))[0]

    async def status(self) -> str:
        state = await self.asked(Stream(known=GATE, wait_ms=1))
        assert isinstance(state, StreamState)
        return state.status


@asynccontextmanager
async def sending_in_silence(folder: Path, patience_ms: int, *, at_once: bool = False) -> AsyncIterator[Sending]:
    qemu, path = FallingSilent(at_once=at_once), folder / "qmp.sock"
    async with speaking(path, qemu.say) as qemu.spoken:
        monitor = Monitor(path)
        monitor.session._deadline = DEADLINE  # type: ignore[misc]  # Final: shortened for the test
        sending = Sending(qemu, monitor, commands_of(folder, monitor, Kept()))
        await sending.asked(control.Attach(epoch=EPOCH, controller=1))
        assert await sending.asked(own_stream.ContinueStream(patience_ms=patience_ms)) == Done()
        qemu.silent = True
        try:
            yield sending
        finally:
            await monitor.close()


@pytest.mark.parametrize("at_once", [False, True])
async def test_a_last_pass_may_take_longer_than_any_answer(tmp_path: Path, at_once: bool) -> None:
    async with sending_in_silence(tmp_path, 60_000, at_once=at_once) as sending:
        loop = asyncio.get_running_loop()
        began, qemu = loop.time(), sending.qemu
        assert qemu.spoken is not None
        asked = len(qemu.spoken.asked)
        while loop.time() < began + 3 * DEADLINE:
            assert await sending.status() == GATE
        with pytest.raises(MachineGone, match="has not answered"):
            await sending.asked(control.Describe())
        assert (len(qemu.spoken.asked) - asked, sending.monitor.session.connected) == (not at_once, True)
        qemu.comes_to(COMPLETED)
        assert await sending.status() == COMPLETED
        assert "yank" not in qemu.spoken.asked
        qemu.silent = True
        with pytest.raises(MachineGone, match="does not answer"):  # what has ended is borne with no longer
            await sending.status()


@pytest.mark.parametrize("at_once", [False, True])
async def test_a_last_pass_that_takes_longer_than_it_may_is_broken(tmp_path: Path, at_once: bool) -> None:
    async with sending_in_silence(tmp_path, round(3000 * DEADLINE), at_once=at_once) as sending:
        loop = asyncio.get_running_loop()
        began = loop.time()  # a moment after it was told to go on
        while (status := await sending.status()) == GATE:
            continue
        assert (status, sending.qemu.broken.is_set()) == ("failed", True)
        assert loop.time() > began + 2 * DEADLINE
        assert sending.monitor.session.connected


async def test_a_last_pass_that_is_called_off_is_broken_at_once(tmp_path: Path) -> None:
    async with sending_in_silence(tmp_path, 60_000) as sending:
        assert await sending.status() == GATE
        assert await sending.asked(own_stream.CancelStream()) == Done()
        assert sending.qemu.broken.is_set()
        assert await sending.status() == "failed"


@pytest.mark.parametrize("stands", ["at its gate", "past it", "in the next stream"])
async def test_a_stream_is_broken_past_its_gate_alone(tmp_path: Path, stands: str) -> None:
    qemu, path = FallingSilent(), tmp_path / "qmp.sock"
    async with speaking(path, qemu.say) as qemu.spoken:
        monitor = Monitor(path)
        monitor.session._deadline = DEADLINE  # type: ignore[misc]  # Final: shortened for the test
        streams = Streams(monitor, tmp_path, StreamTls(monitor.session, tmp_path), same_uuid=True)
        assert (await monitor.migration()).status == GATE
        if stands != "at its gate":
            await streams.go_on()
        if stands == "in the next stream":
            qemu.stream = COMPLETED
            await streams.start(str(tmp_path / "in.sock"), StreamTerms())
        qemu.silent = True
        with pytest.raises(MachineGone, match="does not answer"):
            await monitor.status()
        assert ("yank" in qemu.spoken.asked) is (stands == "past it")
        assert not monitor.session.connected
