"""What each request of the control socket does to the machine.

Promise: a request that needs command of the machine is served only for the controller that attached last, and a
machine that was released at an epoch never runs at it again, whoever asks.
"""

import time
from pathlib import Path
from typing import Final, NoReturn

from vfio_host.interface.write_witness import WitnessUnavailable, WriteWitness, witness_available
from vmm.assembly.machine import Machine
from vmm.assembly.machine_state import InvalidState, StandingState
from vmm.assembly.tracking_reason import TrackingReason
from vmm.guest.console import ConsoleRefused
from vmm.guest.vcpu_clock import MOST_PERCENT
from vmm.memory.dirty_bitmap import DirtyBitmap
from vmm.process import control, update_requests
from vmm.process.control import AnyReply, AnyRequest, Done, Refusal, WhyTracked
from vmm.process.controllers import Attachments, Controller
from vmm.process.description import describe, observations
from vmm.process.fence import Fence, FencedOff
from vmm.process.identity import Identity
from vmm.process.image import Image, answer
from vmm.process.interrupts import Interrupts
from vmm.process.own_stream import AnyStreamRequest
from vmm.process.populate import populate
from vmm.process.sampled_writes import AnyWritesRequest
from vmm.process.successor import NotTakenOver
from vmm.process.update import Update
from vmm.update.blockers import UpdateBlockerCode
from vmm.update.documents import StateDocument
from vmm.update.kept import Asker, Kept, Stop
from vmm.update.taking_over import AdoptedMachine
from vmm.vfio.host_port import HostCallFailed
from vmm.vfio.quiesce_slices import MOST_PERCENT as MOST_OF_DEVICES

_REASONS: Final[dict[WhyTracked, TrackingReason]] = {
    "migration": TrackingReason.MIGRATION,
    "dirty-rate": TrackingReason.DIRTY_RATE,
}
_OF_ONE_HANDED_OVER: Final = (
    control.ConfirmStopped | control.Run | control.StayPaused | control.Release | control.Destroy
)
_THROTTLE_NS: Final = round(control.THROTTLE_SECONDS * 1e9)
_Reply = tuple[AnyReply, tuple[int, ...]]


class _NotNow(Exception):
    """The machine is not in the state that the request needs."""


class Commands:
    """Serves requests between two steps."""

    def __init__(
        self,
        machine: Machine,
        identity: Identity,
        *,
        incoming: bool,
        interrupts: Interrupts | None = None,
        image: Image | None = None,
    ) -> None:
        """Serve a machine; without `interrupts` nobody else can have them, and they need not be taken.

        Without `image` no other program can take the place of this one.
        """
        self.machine: Final = machine
        self.ended = False
        self._identity: Final = identity
        self._incoming = incoming
        self._fence = Fence()
        self._update: Final = Update(machine, identity.machine, interrupts, image)
        self._attachments: Final = Attachments()
        self._loaded = False
        self._pause = 0
        self._stopped_for_attempt = False
        self._leaving = False
        """Its writes are logged for a migration."""
        self._last_executed_ns = 0
        self._witness: WriteWitness | None = None
        self._witness_refused = not witness_available(machine.memory.block.address)

    def take_over(self, adopted: AdoptedMachine, state: StateDocument, *, again: bool = False) -> None:
        """Go on where another process stood, at its pause and behind its fence; nothing runs yet."""
        adopted.take_over(state, again=again)
        self._update.took_over(adopted)
        self._stand_at(state)

    def wake_from(self, path: Path, state: StateDocument) -> None:
        """Go on where a suspended machine stood that waits at a path; the guest wakes when it is run.

        Raises:
            InvalidState: The state is not one of this machine.
        """
        self.machine.take_over(StandingState(state.origin, state.viommu, state.guest))
        self._update.found_at(path)
        self._stand_at(state)

    def _stand_at(self, state: StateDocument) -> None:
        self._loaded, self._pause = True, state.pause
        self._fence = Fence(state.epoch, state.controller, state.released)

    def take_place(self, adopted: AdoptedMachine, state: StateDocument, *, again: bool) -> None:
        """Have the machine of the image before, where it stood; nothing runs yet.

        Raises:
            InvalidHandover, HostCallFailed: The machine is the image before's, and so are its interrupts.
        """
        self.take_over(adopted, state, again=again)
        self._update.have_again()

    def go_on(self, kept: Kept, refused: str) -> tuple[Controller, AnyReply]:
        """Run where the image before ran: there is no way back to it. Return who asked for it, and the answer."""
        if kept.stop.was_running:
            self.machine.start()
            self.step()
        self._incoming = False
        asker = Controller(descriptor=kept.asker.descriptor)
        self._attachments.note(asker, kept.asker.epoch, kept.asker.controller)
        return asker, answer(kept.stop, refused, self._last_executed_ns)

    @property
    def owns_interrupts(self) -> bool:
        """Whether devices' completions are this process's to take: of two that have the eventfds, one may."""
        return self._update.owns_interrupts

    def step(self) -> int:
        """Let the guest work once; return when it wants to work next."""
        due = self.machine.step(time.monotonic_ns())
        self._last_executed_ns = time.monotonic_ns()
        return due

    def serve(self, controller: Controller, request: AnyRequest) -> tuple[AnyReply, tuple[int, ...]]:
        """Serve one request; the descriptors stay this process's."""
        try:
            if isinstance(request, control.Describe):
                return self._describe(), ()
            if isinstance(request, control.GuestCommand):
                self._require(not self._update.handed_over, "Another process has the machine")
                self.machine.guest_command(request.action, request.device or None)
                return Done(), ()
            if isinstance(request, control.Attach):
                return self._attach(controller, request), ()
            self._attachments.require(controller, self._fence)
            by_stream = isinstance(request, AnyStreamRequest | AnyWritesRequest)
            self._require(not by_stream, "Machine is sent by its pages, not by a stream of its own")
            return self._update_command(controller, request) or self._command(request)
        except FencedOff as error:
            return Refusal(reason=str(error), fenced=True), ()
        except (_NotNow, NotTakenOver, ConsoleRefused, HostCallFailed, InvalidState, MemoryError) as error:
            return Refusal(reason=str(error)), ()

    def _attach(self, controller: Controller, request: control.Attach) -> AnyReply:
        self._fence = self._fence.attach(request.epoch, request.controller)
        self._unthrottle()  # who commands from here on knows of none
        self._attachments.note(controller, request.epoch, request.controller)
        return self._describe()

    def left(self, controller: Controller) -> None:
        """Note that a connection has closed: what only its controller would give back is given back."""
        if self._attachments.commands(controller):
            self._unthrottle()

    def _command(self, request: AnyRequest) -> _Reply:  # noqa: C901, PLR0911, PLR0912 - one row a request
        match request:
            case control.TakeRam():
                block = self.machine.memory.block
                return control.Ram(size=block.size), (block.descriptor,)
            case control.Populate():
                self._require(self._incoming, "Only an incoming machine's memory is touched on request")
                populate(self.machine.memory.block, request.first, request.count)
            case control.StartTracking():
                self._unthrottle()
                self._leaving = False
                self.machine.start_tracking(_REASONS[request.reason])
                self._leaving = request.reason == "migration"
            case control.StopTracking():
                self._leaving = False
                self._unthrottle()
                self.machine.stop_tracking()
                self._end_witness()
            case control.Throttle():
                self._throttle(request.percent)
            case control.ThrottleDevices():
                self._throttle_devices(request.percent)
            case control.Harvest():
                found = self.machine.harvest()
                cpu, dma = found.cpu.to_bytes(), found.dma.to_bytes()
                return control.Harvested(cpu=cpu, dma=dma, failure=found.failure), ()
            case control.ReportWrites():
                return control.Witnessed(pages=self._report_writes()), ()
            case control.Pause():
                return self._stop(for_attempt=request.for_attempt), ()
            case control.ConfirmStopped():
                return control.Stopped(stopped=not self.machine.running, pause=self._pause), ()
            case control.ReadDeviceData():
                return self._read_device_data(request.budget), ()
            case control.WriteDeviceData():
                self._require(self._incoming, "Only an incoming machine takes its devices' state")
                self.machine.write_device_data(request.records)
            case control.Save():
                self._require(self._stopped_for_attempt, "Machine is not stopped for an attempt")
                return control.State(state=self.machine.save()), ()
            case control.Load():
                self._require(self._incoming, "Only an incoming machine loads a state")
                self._loaded = False
                self.machine.load(request.state)
                self._loaded, self._pause = True, request.pause
            case control.Run():
                return self._run(request.epoch), ()
            case control.StayPaused():
                self._stay_paused(request.epoch)
            case control.Release():
                self._require(not self.machine.running, "Machine runs; only one that stands still is released")
                self._fence = self._fence.release(request.epoch)
            case control.Destroy():
                self.ended = True
            case _:
                raise AssertionError(f"Request {request!r} has no row")
        return Done(), ()

    def _update_command(self, controller: Controller, request: AnyRequest) -> _Reply | None:
        """Serve what an update asks for, and refuse what only the process serves that has the machine."""
        if self._update.handed_over and not isinstance(request, _OF_ONE_HANDED_OVER):
            raise _NotNow("Another process has the machine; Run takes it back")
        match request:
            case update_requests.JudgeUpdate():
                return control.Judged(blockers=observations(self._update.blockers(request.mode))), ()
            case update_requests.OfferUpdate():
                self._require_updatable()
                self._update.offer(Path(request.path))
                return Done(), ()
            case update_requests.RehearseUpdate():
                self._require_updatable()
                self._update.rehearse(self._fence, self._pause, request.patience)
                return Done(), ()
            case update_requests.HandOver():
                return self._hand_over(request.patience), ()
            case update_requests.ReplaceImage():
                self._replace_image(controller, request.command)
            case update_requests.LeaveSuspended():
                self._require_updatable()
                stop = self._next_stop()
                self._update.leave(Path(request.path), self._fence, stop)
                return self._paused(stop), ()
        return None

    def _throttle(self, percent: int) -> None:
        self._require_leaving()
        self._require(0 <= percent <= MOST_PERCENT, f"At most {MOST_PERCENT} % of the vCPUs' time is taken")
        now = time.monotonic_ns()
        self.machine.throttle(percent, now, now + _THROTTLE_NS)

    def _throttle_devices(self, percent: int) -> None:
        self._require_leaving()
        self._require(0 <= percent <= MOST_OF_DEVICES, f"At most {MOST_OF_DEVICES} % of the devices' time is taken")
        now = time.monotonic_ns()
        self.machine.device_throttle.take(percent, now, now + _THROTTLE_NS)

    def _require_leaving(self) -> None:
        self._require(self._leaving and self.machine.running, "Only a machine that runs and is leaving is throttled")

    def _unthrottle(self) -> None:
        """Give vCPUs and devices their time back at once."""
        self._unthrottle_vcpus()
        self.machine.device_throttle.end()

    def _unthrottle_vcpus(self) -> None:
        now = time.monotonic_ns()
        self.machine.throttle(0, now, now)

    def _read_device_data(self, budget: int) -> AnyReply:
        self._require(not self._incoming, "An incoming machine has no device state yet")
        self._require(
            0 < budget <= control.MAX_DEVICE_DATA, f"At most {control.MAX_DEVICE_DATA} bytes are read at once"
        )
        found = self.machine.read_device_data(budget)
        return control.DeviceData(
            records=found.records,
            complete=found.complete,
            precopy_bytes=found.pending.precopy,
            stop_copy_bytes=found.pending.stop_copy,
            initial_pending=found.initial_pending,
        )

    def _stop(self, *, for_attempt: bool) -> AnyReply:
        self._require(not self._incoming, "An incoming machine has nothing to pause")
        was_running = self.machine.running
        self._unthrottle_vcpus()  # devices are stopped as they are, held or not
        if was_running or (for_attempt and not self._stopped_for_attempt):
            self._pause += 1
            self.machine.stop(for_attempt=for_attempt)
        self._stopped_for_attempt = for_attempt
        return control.Paused(pause=self._pause, was_running=was_running, last_executed_ns=self._last_executed_ns)

    def _require_updatable(self) -> None:
        self._require(not self._incoming, "An incoming machine is not handed over")
        code, moving = UpdateBlockerCode.DIRTY_TRACKING, self.machine.tracking or self._stopped_for_attempt
        self._require(not moving, f"{code}: Machine is being migrated, or its dirty rate measured")

    def _hand_over(self, patience: float) -> AnyReply:
        self._require_updatable()
        stop = self._next_stop()
        self._update.hand_over(self._fence, stop, patience)
        return self._paused(stop)

    def _replace_image(self, controller: Controller, command: tuple[str, ...]) -> NoReturn:
        self._require_updatable()
        asker = Asker(controller.descriptor, controller.epoch or 0, controller.number or 0)
        instance = self._identity.instance
        self._update.replace_image(command, self._fence, self._next_stop(), asker=asker, instance=instance)

    def _next_stop(self) -> Stop:
        """Count a stop, also of a machine that is paused: journals tell them apart by their numbers."""
        self._pause += 1
        return Stop(self._pause, self.machine.running, self._last_executed_ns)

    def _paused(self, stop: Stop) -> AnyReply:
        return control.Paused(pause=stop.pause, was_running=stop.was_running, last_executed_ns=self._last_executed_ns)

    def _run(self, epoch: int) -> AnyReply:
        self._fence.require_run(epoch)
        self._require_whole()
        self._update.have_again()
        if not self.machine.running:
            self._stopped_for_attempt = False
            self.machine.wake()
            self.machine.start()
            self._incoming = False
            self.step()
        return control.Running(executed_ns=self._last_executed_ns)

    def _stay_paused(self, epoch: int) -> None:
        self._fence.require_run(epoch)
        self._require_whole()
        self._require(not self.machine.running, "Machine runs")
        self._update.have_again()
        if self._stopped_for_attempt:
            self.machine.stop(for_attempt=False)
            self._stopped_for_attempt = False
        self._incoming = False

    def _report_writes(self) -> bytes | None:
        own = self._own_writes()
        host = None if own is None else self.machine.report_host_writes()
        if own is None or host is None:
            return None
        pages = self.machine.memory.block.pages
        both = DirtyBitmap.from_bytes(pages, own) | DirtyBitmap.from_bytes(pages, host)
        return both.to_bytes()

    def _own_writes(self) -> bytes | None:
        if self._witness_refused:
            return None
        block = self.machine.memory.block
        if self._witness is not None:
            return self._witness.report()
        try:
            self._witness = WriteWitness(block.address, block.size)
        except WitnessUnavailable:
            self._witness_refused = True
            return None
        return DirtyBitmap.full(block.pages).to_bytes()

    def _end_witness(self) -> None:
        if self._witness is not None:
            self._witness.close()
            self._witness = None

    def _describe(self) -> AnyReply:
        run_state = "incoming" if self._incoming else "running" if self.machine.running else "paused"
        return describe(
            self.machine,
            self._identity,
            self._fence,
            run_state,
            self._pause,
            witness=not self._witness_refused,
            now_ns=time.monotonic_ns(),
            handed_over=self._update.handed_over,
        )

    def _require_whole(self) -> None:
        self._require(not self._incoming or self._loaded, "An incoming machine comes to life on a whole state only")

    def _require(self, holds: bool, reason: str) -> None:
        if not holds:
            raise _NotNow(reason)
