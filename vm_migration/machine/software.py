"""The port to a software machine: `viaduct-vmm` over its control socket."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from vfio_host.interface.channel import Channel, ChannelError, close_all, connect
from vm_migration.machine.errors import CutOff, MachineGone, MachineRefused
from vm_migration.machine.port import Harvest, Stop
from vm_migration.machine.succession import Replacement
from vmm.guest.console import GuestAction
from vmm.memory.dirty_bitmap import DirtyBitmap
from vmm.memory.quantities import PAGE_SIZE
from vmm.memory.ram_block import RamBlock
from vmm.process import control, own_stream, sampled_writes, update_requests
from vmm.process.control import AnyReply, AnyRequest, Description, DeviceData, Observation, Refusal, WhyTracked
from vmm.process.own_stream import DirectAt, DirectTo, StreamState, StreamTerms
from vmm.process.sampled_writes import WritesMeasured
from vmm.update.blockers import Mode
from vmm.vfio.device_records import DeviceRecord

_DEADLINE: Final = 10.0
"""Seconds for a request that is served between two steps of the guest."""
_POPULATE_DEADLINE: Final = 120.0
_PROGRAM_DEADLINE: Final = 60.0
"""An interpreter starts, and where it fails the former program's once more."""
_OFFER_DEADLINE: Final = 15.0
"""The machine process itself waits for 10 s for the other to take what it sends."""
_LEAVE_DEADLINE: Final = 30.0
"""A file is flushed to its disk."""
_Reply = TypeVar("_Reply")
Revive = Callable[[], Awaitable[bool]]


class _NobodyListens(MachineGone):
    """Nothing was asked: there is nobody at the control socket."""


class SoftwareMachine:
    """Implements `vm_migration.machine.port.MachinePort`.

    Requests go one at a time, on a thread of their own, so that the agent's loop never waits for a machine. A
    connection that broke is made anew for the next request, and attached as the one before: a machine that was silent
    for a while is still commanded.
    """

    def __init__(self, directory: Path, socket: str = control.CONTROL_SOCKET, *, revive: Revive | None = None) -> None:
        """`socket` is another one in the machine's folder where another process is to have the machine.

        `revive` is asked where nobody listens, and tells whether to try again.
        """
        self._path: Final = directory / socket
        self._revive: Final = revive
        self._thread: Final = ThreadPoolExecutor(1, thread_name_prefix="machine")
        self._channel: Channel | None = None
        self._attached: control.Attach | None = None
        self._pages = 0

    async def describe(self) -> Description:
        """Look, without commanding."""
        return self._seen(await self._ask(control.Describe(), Description))

    async def attach(self, epoch: int, controller: int) -> Description:
        """Command the machine from here on."""
        request = control.Attach(epoch=epoch, controller=controller)
        description = self._seen(await self._ask(request, Description))
        self._attached = request
        return description

    async def ram(self) -> RamBlock:
        """Return RAM, mapped into this process."""
        reply, descriptors = await self._exchange(control.TakeRam(), _DEADLINE)
        if isinstance(reply, Refusal):
            raise _refused(reply)
        if not isinstance(reply, control.Ram) or len(descriptors) != 1:
            close_all(descriptors)
            raise MachineGone(f"Machine at {self._path} did not hand out its RAM: {type(reply).__name__}")
        (descriptor,) = descriptors
        if os.fstat(descriptor).st_size != reply.size:
            close_all(descriptors)
            raise MachineGone(f"Machine at {self._path} handed out RAM of another size than it said")
        return RamBlock.adopt(descriptor)

    async def populate(self, first: int, count: int) -> None:
        """Touch a run of pages in the machine's process."""
        await self._ask(control.Populate(first=first, count=count), control.Done, _POPULATE_DEADLINE)

    async def start_tracking(self, reason: WhyTracked = "migration") -> None:
        """Log every write from here on."""
        await self._ask(control.StartTracking(reason=reason), control.Done)

    async def stop_tracking(self) -> None:
        """End logging and witnesses."""
        await self._ask(control.StopTracking(), control.Done)

    async def harvest(self) -> Harvest:
        """Take what was written since the last harvest."""
        reply = await self._ask(control.Harvest(), control.Harvested)
        return Harvest(self._bitmap(reply.cpu), self._bitmap(reply.dma), reply.failure)

    async def report_writes(self) -> DirtyBitmap | None:
        """Ask the kernel's witnesses."""
        reply = await self._ask(control.ReportWrites(), control.Witnessed)
        return None if reply.pages is None else self._bitmap(reply.pages)

    async def throttle(self, percent: int) -> None:
        """Take so much of the vCPUs' time from them, for a few seconds."""
        await self._ask(control.Throttle(percent=percent), control.Done)

    async def throttle_devices(self, percent: int) -> None:
        """Take so much of the devices' time from them, for a few seconds."""
        await self._ask(control.ThrottleDevices(percent=percent), control.Done)

    async def pause(self, *, for_attempt: bool) -> Stop:
        """Stop vCPUs, then devices."""
        reply = await self._ask(control.Pause(for_attempt=for_attempt), control.Paused)
        return Stop(reply.pause, reply.was_running, reply.last_executed_ns)

    async def confirm_stopped(self) -> int | None:
        """Return the pause at which the machine stands still, or None when it runs."""
        reply = await self._ask(control.ConfirmStopped(), control.Stopped)
        return reply.pause if reply.stopped else None

    async def read_device_data(self, budget: int) -> DeviceData:
        """Return the next records of the devices' state."""
        return await self._ask(control.ReadDeviceData(budget=budget), DeviceData)

    async def write_device_data(self, records: Sequence[DeviceRecord]) -> None:
        """Write records of the devices' state into an incoming machine."""
        await self._ask(control.WriteDeviceData(records=tuple(records)), control.Done)

    async def save(self) -> bytes:
        """Return the state of a machine paused for an attempt, but for its devices'."""
        return (await self._ask(control.Save(), control.State)).state

    async def load(self, state: bytes, pause: int) -> None:
        """Load the state of a stop into an incoming machine."""
        await self._ask(control.Load(state=state, pause=pause), control.Done)

    async def run(self, epoch: int) -> int:
        """Run the machine; return when the guest had executed."""
        return (await self._ask(control.Run(epoch=epoch), control.Running)).executed_ns

    async def stay_paused(self, epoch: int) -> None:
        """Make an incoming or stopped machine an ordinary paused one."""
        await self._ask(control.StayPaused(epoch=epoch), control.Done)

    async def release(self, epoch: int) -> None:
        """Give up running at an epoch and all below."""
        await self._ask(control.Release(epoch=epoch), control.Done)

    async def start_stream(self, path: str, terms: StreamTerms) -> None:
        """Have it connect to a local socket and send itself."""
        await self._ask(own_stream.StartStream(path=path, terms=terms), control.Done)

    async def accept_stream(self, path: str, terms: StreamTerms) -> None:
        """Have it listen at a local socket for a stream."""
        await self._ask(own_stream.AcceptStream(path=path, terms=terms), control.Done)

    async def start_direct_stream(self, to: DirectTo, terms: StreamTerms) -> None:
        """Have it connect to another host's process."""
        await self._ask(own_stream.StartDirectStream(to=to, terms=terms), control.Done)

    async def accept_direct_stream(self, at: DirectAt, terms: StreamTerms) -> int:
        """Have it listen for another host's process."""
        return (await self._ask(own_stream.AcceptDirectStream(at=at, terms=terms), own_stream.Listens)).port

    async def stream(self, known: str = "", wait_ms: int = 0) -> StreamState:
        """Ask how its stream is getting on."""
        return await self._ask(own_stream.Stream(known=known, wait_ms=wait_ms), StreamState)

    async def continue_stream(self, patience_ms: int = 0) -> None:
        """Let a stream past its gate."""
        await self._ask(own_stream.ContinueStream(patience_ms=patience_ms), control.Done)

    async def cancel_stream(self) -> None:
        """Call a stream off and wait for its end."""
        await self._ask(own_stream.CancelStream(), control.Done)

    async def tune_stream(self, terms: StreamTerms) -> None:
        """Change a stream's bandwidth and downtime limit."""
        await self._ask(own_stream.TuneStream(terms=terms), control.Done)

    async def measure_writes(self, window_ms: int) -> None:
        """Have it find out how much of its memory is written."""
        await self._ask(sampled_writes.MeasureWrites(window_ms=window_ms), control.Done)

    async def writes(self) -> WritesMeasured:
        """Return what that came to."""
        return await self._ask(sampled_writes.Writes(), WritesMeasured)

    async def destroy(self) -> None:
        """End the machine's process."""
        await self._ask(control.Destroy(), control.Done)

    async def guest_command(self, action: GuestAction) -> None:
        """Have the guest do something."""
        await self._ask(control.GuestCommand(action=action), control.Done)

    async def judge_update(self, mode: Mode) -> tuple[Observation, ...]:
        """Return what speaks against an update in a mode."""
        return (await self._ask(update_requests.JudgeUpdate(mode=mode), control.Judged)).blockers

    async def offer_update(self, path: Path) -> None:
        """Tell the process that waits at a path what there is of the machine."""
        await self._ask(update_requests.OfferUpdate(path=str(path)), control.Done, _OFFER_DEADLINE)

    async def rehearse_update(self, patience: float) -> None:
        """Have the process that it was offered load where the machine stands."""
        await self._ask(update_requests.RehearseUpdate(patience=patience), control.Done, patience + _DEADLINE)

    async def hand_over(self, patience: float) -> Stop:
        """Stop vCPUs, and let the other process have the machine."""
        reply = await self._ask(update_requests.HandOver(patience=patience), control.Paused, patience + _DEADLINE)
        return Stop(reply.pause, reply.was_running, reply.last_executed_ns)

    async def leave_suspended(self, path: Path) -> Stop:
        """Leave a suspended machine in files."""
        reply = await self._ask(update_requests.LeaveSuspended(path=str(path)), control.Paused, _LEAVE_DEADLINE)
        return Stop(reply.pause, reply.was_running, reply.last_executed_ns)

    async def replace_image(self, command: tuple[str, ...]) -> Replacement:
        """Have its process become another program, which answers on this connection."""
        reply = await self._ask(update_requests.ReplaceImage(command=command), control.Replaced, _PROGRAM_DEADLINE)
        return Replacement(Stop(reply.pause, reply.was_running, reply.last_executed_ns), reply.executed_ns)

    async def close(self) -> None:
        """Close the connection and its thread."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._disconnect)
        self._thread.shutdown(wait=False)

    async def _ask(self, request: AnyRequest, kind: type[_Reply], deadline: float = _DEADLINE) -> _Reply:
        reply, descriptors = await self._exchange(request, deadline)
        close_all(descriptors)
        if isinstance(reply, kind):
            return reply
        if isinstance(reply, Refusal):
            raise _refused(reply)
        raise MachineGone(f"Machine at {self._path} answered {type(reply).__name__} to {type(request).__name__}")

    async def _exchange(self, request: AnyRequest, deadline: float) -> tuple[AnyReply, list[int]]:
        try:
            return await self._tried(request, deadline)
        except _NobodyListens:
            if self._revive is None or not await self._revive():
                raise
        return await self._tried(request, deadline)

    async def _tried(self, request: AnyRequest, deadline: float) -> tuple[AnyReply, list[int]]:
        try:
            asked = self._thread.submit(self._blocking, request, deadline)
        except RuntimeError as error:
            raise MachineGone(f"The connection to the machine at {self._path} was closed") from error
        try:
            return await asyncio.wrap_future(asked)
        except asyncio.CancelledError:
            asked.add_done_callback(_close_unclaimed)
            raise

    def _blocking(self, request: AnyRequest, deadline: float) -> tuple[AnyReply, list[int]]:
        try:
            channel = self._channel
            if channel is None:
                channel = self._channel = self._connected(deadline)
                if self._attached is not None and not isinstance(request, control.Attach):
                    _exchanged(channel, self._attached)  # where it is refused, so is any command that follows
            channel.set_deadline(deadline)
            return _exchanged(channel, request)
        except (ChannelError, msgspec.DecodeError, UnicodeDecodeError) as error:
            self._disconnect()
            raise MachineGone(f"Machine at {self._path} does not answer: {error}") from error

    def _connected(self, deadline: float) -> Channel:
        try:
            return connect(self._path, deadline)
        except ChannelError as error:
            raise _NobodyListens(str(error)) from error

    def _seen(self, description: Description) -> Description:
        self._pages = description.ram_bytes // PAGE_SIZE
        return description

    def _bitmap(self, data: bytes) -> DirtyBitmap:
        try:
            return DirtyBitmap.from_bytes(self._pages, data)
        except ValueError as error:
            raise MachineGone(f"Machine at {self._path} answered with a bitmap that is none: {error}") from error

    def _disconnect(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None


def _exchanged(channel: Channel, request: AnyRequest) -> tuple[AnyReply, list[int]]:
    channel.send(control.encode(request))
    body, descriptors = channel.receive()
    return control.reply_decoder.decode(body), descriptors


def _close_unclaimed(asked: Future[tuple[AnyReply, list[int]]]) -> None:
    """Close the descriptors of an answer for which nobody waits any more."""
    if not asked.cancelled() and asked.exception() is None:
        close_all(asked.result()[1])


def _refused(reply: Refusal) -> MachineRefused:
    return (CutOff if reply.fenced else MachineRefused)(reply.reason)
