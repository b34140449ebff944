"""What each request of the control socket does to a QEMU.

Promise: as vmm.process.commands gives it. A request that needs command of the machine is served only for the controller
that attached last; a machine that was released at an epoch gets no `cont` for it, whoever asks; and what is released is
durable before it is answered. What QEMU says of itself is asked anew for every answer that anything is founded on.
`MachineGone` leaves this class where QEMU did not answer: whoever asked is cut off then, and knows as little.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import msgspec

from vm_migration.machine.errors import MachineError, MachineGone, MachineRefused
from vm_migration.machine.qemu import writes
from vm_migration.machine.qemu.answers import Migration, Status
from vm_migration.machine.qemu.devices import parts
from vm_migration.machine.qemu.fence_file import FenceFile, Kept
from vm_migration.machine.qemu.lease import Lease
from vm_migration.machine.qemu.monitor import Monitor, ended
from vm_migration.machine.qemu.portrait import Portrait
from vm_migration.machine.qemu.run_states import INCOMING, stands_still
from vm_migration.machine.qemu.session import QemuSilent
from vm_migration.machine.qemu.streaming import state_of, under_way
from vm_migration.machine.qemu.streams import Streams
from vmm.process import control, own_stream, sampled_writes
from vmm.process.control import AnyReply, AnyRequest, Done, Refusal
from vmm.process.controllers import Attachments, Controller
from vmm.process.fence import Fence, FencedOff
from vmm.process.own_stream import COMPLETED, StreamState

_STREAM_END: Final = 8.0
"""Seconds for a stream that was called off; an agent waits for longer than that."""
_MOST_WAIT_MS: Final = 1000
_LISTEN_AGAIN: Final = 1.0
"""Seconds after which a guard that has no connection looks for one."""
_NOT_A_MODEL: Final = "QEMU moves its own state: nobody reads, writes or slows down parts of it from outside"
_REFUSED: Final = {
    "StartTracking": "QEMU keeps the log of its writes to itself: they are measured by its migration alone",
    "GuestCommand": "Nothing is typed at the console of a QEMU's guest",
}
"""What of a model's a QEMU is asked for, and what to say of it."""
Reply = tuple[AnyReply, tuple[int, ...]]


class QemuCommands:
    """Serves one QEMU; one request at a time is carried out."""

    def __init__(self, monitor: Monitor, portrait: Portrait, streams: Streams, file: FenceFile, kept: Kept) -> None:
        """`kept` is what it goes on from; an incoming one waits for a stream, and comes to life on a whole one."""
        self._monitor: Final = monitor
        self._portrait: Final = portrait
        self._streams: Final = streams
        self._file: Final = file
        self._fence = kept.fence
        self._incoming = kept.incoming
        self._granted = kept.granted
        self._strayed = kept.strayed
        self._stopped_for_attempt = False
        self._last_state: StreamState | None = None
        self._tell: Callable[[str], None] = _to_nobody
        self._attachments: Final = Attachments()
        self._turn: Final = asyncio.Lock()
        self._lease: Final = Lease(self._abandon)

    async def serve(self, controller: Controller, request: AnyRequest) -> Reply:
        """Serve one request; the descriptors in the reply are the caller's to close.

        Raises:
            MachineGone: QEMU did not answer; whether it did what was asked is unknown.
        """
        try:
            if isinstance(request, own_stream.Stream) and request.wait_ms:
                await self._await_change(controller, request)
            async with self._turn:
                return await self._served(controller, request)
        except FencedOff as error:
            return Refusal(reason=str(error), fenced=True), ()
        except MachineRefused as error:
            return Refusal(reason=str(error)), ()

    async def boot(self) -> None:
        """Run a machine that was made here.

        Raises:
            MachineGone, MachineRefused: It does not run.
        """
        async with self._turn:
            await self._cont()

    async def take_up(self) -> None:
        """Watch over a direct stream that goes since before this process came: its agent may have ended as well.

        Raises:
            MachineGone, MachineRefused: QEMU does not say whether there is one.
        """
        async with self._turn:
            if not self._incoming and await self._streams.goes_directly():
                self._lease.begin()

    async def guard(self, tell: Callable[[str], None]) -> None:
        """Stop a guest that was set going although it was given away, or is still to come, for ever.

        QEMU obeys others than its shim too. `tell` hears of each time; nothing is in the way of whoever gives QEMU a
        monitor of his own.
        """
        self._tell = tell
        while True:
            await self._set_going()
            self._monitor.resumed.clear()
            strays = self._may_not_run  # now: what is given away before this has its turn had every right to run
            async with self._turn:
                if strays and self._may_not_run:
                    await self._end_stray_run()

    async def _end_stray_run(self) -> None:
        self._strayed += 1
        runs = self._monitor.runs
        try:
            if runs:
                await self._monitor.session.tell("stop")
            self._keep(self._fence)  # whoever looks later is told, too
        except MachineError as error:  # it ends, or the next question finds what it does
            self._tell(f"Guest runs that should not, and was not stopped: {error}")
            return
        released = f"although it was released at epoch {self._fence.released}"
        why = "before it was told to" if self._incoming else released
        self._tell(f"Guest ran {why}; it {'was stopped' if runs else 'stands still'} again")

    @property
    def _may_not_run(self) -> bool:
        return self._fence.released >= self._granted

    async def _set_going(self) -> None:
        """Wait until the guest runs, whoever had it run; one that may not is listened to all the time."""
        while not self._monitor.resumed.is_set():
            if self._may_not_run:
                with suppress(MachineError):  # QEMU hangs, or has ended
                    await self._monitor.require_connection()
            try:
                async with asyncio.timeout(_LISTEN_AGAIN):
                    await self._monitor.resumed.wait()
            except TimeoutError:
                continue  # a connection that broke tells nobody when there is one to be had again

    @property
    def instance(self) -> str:
        """What was drawn for this process."""
        return self._portrait.instance

    async def quit(self) -> None:
        """End QEMU by request.

        Raises:
            MachineGone: It did not hear it.
        """
        async with self._turn:
            await self._quit()

    async def idle(self) -> None:
        """Wait until no request is being carried out."""
        async with self._turn:
            return

    async def _quit(self) -> None:
        self._streams.hurry()
        await self._monitor.require_connection()
        await self._monitor.session.tell("quit")

    async def _served(self, controller: Controller, request: AnyRequest) -> Reply:
        if isinstance(request, control.Describe):
            return await self._describe(), ()
        if isinstance(request, control.Attach):
            self._keep(self._fence.attach(request.epoch, request.controller))
            self._attachments.note(controller, request.epoch, request.controller)
            return await self._describe(), ()
        self._attachments.require(controller, self._fence)
        return await self._command(request)

    async def _command(self, request: AnyRequest) -> Reply:  # noqa: C901, PLR0911, PLR0912 - one row a request
        self._lease.renew()
        match request:
            case control.TakeRam():
                descriptor = self._portrait.open_ram()
                return control.Ram(size=self._portrait.ram_bytes), (descriptor,)
            case control.Populate():
                self._require(self._incoming, "Only an incoming machine's memory is touched on request")
            case control.StopTracking() | own_stream.CancelStream():
                await self._call_off()
            case control.Pause():
                return await self._stop(for_attempt=request.for_attempt), ()
            case control.ConfirmStopped():
                stopped = stands_still(await self._monitor.status())
                return control.Stopped(stopped=stopped, pause=self._monitor.pause), ()
            case control.Load():
                await self._load(request)
            case control.Run():
                return await self._run(request.epoch), ()
            case control.StayPaused():
                await self._stay_paused(request.epoch)
            case control.Release():
                self._require(
                    stands_still(await self._monitor.status()), "Machine runs; only one that stands still is released"
                )
                self._keep(self._fence.release(request.epoch))
            case own_stream.StartStream():
                self._require(not self._incoming, "An incoming machine has nothing to send")
                await self._streams.start(request.path, request.terms)
            case own_stream.AcceptStream():
                self._require(self._incoming, "Only an incoming machine takes a stream in")
                await self._streams.accept(request.path, request.terms)
            case own_stream.StartDirectStream():
                self._require(not self._incoming, "An incoming machine has nothing to send")
                self._lease.begin()  # first: where QEMU's answer is lost, the stream goes all the same
                await self._streams.connect(request.to, request.terms)
            case own_stream.AcceptDirectStream():
                self._require(self._incoming, "Only an incoming machine takes a stream in")
                return own_stream.Listens(port=await self._streams.listen(request.at, request.terms)), ()
            case own_stream.ContinueStream():
                await self._stream()  # what is told while QEMU says nothing
                await self._streams.go_on(request.patience_ms / 1000)
            case own_stream.TuneStream():
                await self._streams.tune(request.terms)
            case own_stream.Stream():
                return await self._stream(), ()
            case sampled_writes.MeasureWrites():
                self._require(not self._incoming, "An incoming machine writes nothing")
                await self._monitor.require_connection()
                await writes.begin(self._monitor.session, request.window_ms, self._portrait.ram_bytes)
            case sampled_writes.Writes():
                await self._monitor.require_connection()
                return await writes.ask(self._monitor.session), ()
            case control.Destroy():
                await self._quit()
            case _:
                raise MachineRefused(_REFUSED.get(type(request).__name__, _NOT_A_MODEL))
        return Done(), ()

    async def _stop(self, *, for_attempt: bool) -> AnyReply:
        monitor = self._monitor
        ran = not stands_still(await monitor.status())
        self._require(ran or not self._incoming, "An incoming machine has nothing to pause")
        if ran:
            await monitor.session.tell("stop")
            self._require(stands_still(await monitor.status()), "QEMU goes on after `stop`")
        elif monitor.stopped_by_stream and not self._stopped_for_attempt:
            ran = True  # its stream has stopped it, at the gate: this is that very stop
        elif for_attempt and not self._stopped_for_attempt:
            monitor.stopped_anew()
        self._stopped_for_attempt = for_attempt
        self._keep(self._fence)
        return control.Paused(pause=monitor.pause, was_running=ran, last_executed_ns=monitor.moments.get("STOP", 0))

    async def _run(self, epoch: int) -> AnyReply:
        self._fence.require_run(epoch)
        await self._require_whole(granted=self._granted >= epoch)
        self._granted = max(self._granted, epoch)
        self._keep(self._fence)  # before the stream is called off: QEMU runs a guest again by itself then
        await self._call_off()
        await self._cont()
        await self._settle()
        return control.Running(executed_ns=self._monitor.moments.get("RESUME", time.monotonic_ns()))

    async def _cont(self) -> None:
        if stands_still(await self._monitor.status()):
            self._keep(self._fence)
            await self._monitor.session.tell("cont")
            now = await self._monitor.status()
            self._require(not stands_still(now), f"QEMU does not run after `cont`: it is {now.status}")

    async def _stay_paused(self, epoch: int) -> None:
        self._fence.require_run(epoch)
        await self._require_whole()
        await self._call_off()
        self._require(stands_still(await self._monitor.status()), "Machine runs")
        self._granted = max(self._granted, epoch)  # it is its owner's from here on, to set going as well
        await self._settle()

    async def _settle(self) -> None:
        """Be an ordinary machine from here on, whichever way it became one."""
        self._incoming = self._stopped_for_attempt = False
        if self._strayed:
            self._tell(
                f"Guest had run {_times(self._strayed)} when it was not to; it is an ordinary machine from here on"
            )
        self._strayed = 0
        try:
            self._keep(self._fence)
        except MachineRefused as error:  # it runs by now: what was asked for did happen
            raise MachineGone(str(error)) from error
        self._lease.end()
        with suppress(MachineError):  # what is left of a stream is also taken away before the next one
            await self._streams.put_away()

    async def _abandon(self) -> bool:
        """Call off a stream that nobody asks about; tell whether it has ended."""
        async with self._turn:
            try:
                self._streams.hurry()
                if under_way(await self._monitor.migration()):
                    await self._streams.cancel()
                return not under_way(await self._monitor.migration())
            except MachineError:  # QEMU hangs, or has ended, and this process with it
                return False

    async def _load(self, request: control.Load) -> None:
        self._require(self._incoming and not request.state, "QEMU's state comes by its own stream")
        await self._require_whole()
        self._require(
            not self._strayed, f"Guest ran {_times(self._strayed)} before it was told to: it is not what came"
        )
        self._monitor.pause = request.pause
        self._keep(self._fence)

    async def _call_off(self) -> None:
        """End a stream that is under way, and wait until it has ended, however it does."""
        self._streams.hurry()
        if not under_way(await self._monitor.migration()):
            return
        if self._incoming:
            raise MachineRefused("An incoming stream is ended by its source, or with the machine")
        await self._streams.cancel()
        await ended(self._monitor, _STREAM_END)

    async def _require_whole(self, *, granted: bool = False) -> None:
        """Check that an incoming machine has all of its state: its stream completed, and it waits to be run.

        `granted`: it was told to run before, which was durable before its `cont`; whether that came to anything nobody
        has heard, so that it may run by now.
        """
        if not self._incoming:
            return
        status, migration = await self._monitor.status(), await self._monitor.migration()
        waits = granted or stands_still(status)
        whole = migration.status == COMPLETED and status.status not in (INCOMING, "prelaunch") and waits
        text = "An incoming machine comes to life on a whole state only"
        self._require(whole, f"{text}: its stream is {migration.status}, and it is {status.status}")

    async def _await_change(self, controller: Controller, request: own_stream.Stream) -> None:
        self._attachments.require(controller, self._fence)
        until = time.monotonic() + min(request.wait_ms, _MOST_WAIT_MS) / 1000
        with suppress(QemuSilent):  # nothing has changed that anybody could know of
            while (await self._monitor.migration()).status == request.known:
                left = until - time.monotonic()
                if left <= 0:
                    return
                await self._monitor.changed(left)

    async def _stream(self) -> StreamState:
        try:
            status, migration = await self._asked()
        except QemuSilent:  # it sends what is left, and its guest stands still as it did at the gate
            if self._last_state is None:
                raise
            return self._last_state
        if not under_way(migration):
            self._streams.hurry()
        monitor, running = self._monitor, not stands_still(status)
        state = state_of(migration, status, running=running, pause=monitor.pause, moments=monitor.moments)
        self._last_state = state
        return state

    async def _asked(self) -> tuple[Status, Migration]:
        migration = await self._monitor.migration()
        return await self._monitor.status(), migration  # in this order: what has completed stands still after it

    async def _describe(self) -> AnyReply:
        status, migration = await self._asked()
        waiting = "incoming" if self._incoming else "paused"
        run_state = waiting if stands_still(status) else "running"  # first of all: what it does, whatever it is to do
        found = await parts(self._monitor.session)
        told = self._portrait.describe((status, migration, found), self._fence, run_state, self._monitor.pause)
        return msgspec.structs.replace(told, strayed=self._strayed)

    def _keep(self, fence: Fence) -> None:
        """Have a fence and the number of stops durable, and in force from here on; neither where that fails."""
        try:
            now = (fence.epoch, fence.controller, fence.released, self._monitor.pause, self._incoming, self._granted)
            self._file.write(Kept(*now, self._strayed))
        except OSError as error:
            raise MachineRefused(f"The machine's fence cannot be kept: {error}") from error
        self._fence = fence

    def _require(self, holds: bool, reason: str) -> None:
        if not holds:
            raise MachineRefused(reason)


def _to_nobody(_text: str) -> None:
    """Hear nothing: nobody guards yet."""


def _times(count: int) -> str:
    return f"{count} time{'s' if count > 1 else ''}"
