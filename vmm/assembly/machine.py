"""A machine: RAM, vIOMMU, devices and guest put together from a specification.

Everything happens on one thread, between two steps of the guest: that is what makes a harvest sound
(vmm.memory.dirty_log). Order of a stop: vCPUs, then devices, so that the last harvest comes after every writer has
stopped. Order of a start: devices, then vCPUs.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from vmm.assembly import machine_state
from vmm.assembly.devices import Eventfds, assemble_devices, facts_of, new_eventfds
from vmm.assembly.guest_parts import VtdRegisters, assemble_guest
from vmm.assembly.machine_state import STATE_FORMAT, InvalidState, MachineState, Origin, StandingState
from vmm.assembly.memory_image import MemorySource, fill
from vmm.assembly.specification import MachineSpecification
from vmm.assembly.tracking_reason import TrackingReason
from vmm.guest.console import GuestAction
from vmm.guest.guest import GuestReport, GuestStateRefused
from vmm.guest.material import Material
from vmm.memory.dirty_bitmap import DirtyBitmap
from vmm.memory.guest_physical import GuestMemory
from vmm.memory.ram_block import RamBlock
from vmm.vfio import device_migration
from vmm.vfio.blockers import Finding, judge
from vmm.vfio.device_records import DeviceRecord, DeviceTotal
from vmm.vfio.device_stream import DeviceRead, DeviceReaders, DeviceStreamRefused, DeviceWriters, PendingState
from vmm.vfio.device_throttle import DeviceThrottle
from vmm.vfio.dirty_tracker import is_exact
from vmm.vfio.host_port import HostCallFailed, HostPort
from vmm.viommu.errors import StateRefused
from vmm.viommu.intel import VtdConfiguration, VtdUnit


@dataclass(frozen=True, slots=True)
class Harvested:
    """Pages written since the last harvest, by vCPUs and hypervisor, and by devices."""

    cpu: DirtyBitmap
    dma: DirtyBitmap
    failure: str | None


class Machine:
    """One machine; `running` and `clock` are its caller's to drive through `step`."""

    def __init__(
        self,
        specification: MachineSpecification,
        block: RamBlock,
        host: HostPort,
        eventfds: Eventfds = new_eventfds,
    ) -> None:
        """Assemble a machine that stands still.

        Raises:
            HostCallFailed: The host lacks a device of the specification.
        """
        self.specification: Final = specification
        self.memory: Final = GuestMemory(block)
        self.memory_source: MemorySource | None = None
        self.running = False
        self._host: Final = host
        self._tracking = False
        self._rules: Final = specification.rules.rules()
        host.register_memory(block.address, block.size, block.descriptor)
        self._unit: Final = self._assemble_viommu()
        self.devices: Final = assemble_devices(specification, host, self.memory, self._unit, eventfds)
        self.listeners: Final = tuple({id(each.listener): each.listener for each in self.devices}.values())
        self._vfio: Final = tuple(assembled.device for assembled in self.devices)
        self.device_throttle: Final = DeviceThrottle(self._vfio)
        self._outgoing = DeviceReaders(self._vfio)
        self._incoming: Final = DeviceWriters(self._vfio)
        self._attach_listeners()
        registers = None if self._unit is None else VtdRegisters(self._unit, self._flush)
        self._guest: Final = assemble_guest(specification, self.memory, registers, self.devices)

    def boot(self, material: Material | None = None, source: MemorySource | None = None) -> None:
        """Fill RAM, and start guest and devices for the first time.

        With a `source` RAM has been filled already, and this is what with; `material` stands for the host's own files.

        Raises:
            InvalidDocument: The image that RAM starts from cannot be used.
            NoMaterial: The host has none of the files that a guest's memory is made of.
        """
        image = self.specification.memory.image
        self.memory_source = fill(self.memory.block, image) if source is None else source
        self._guest.boot(material)
        self._flush()

    def guest_command(self, action: GuestAction, device: str | None = None) -> None:
        """Type something at the guest's console; later steps carry it out.

        Raises:
            ConsoleRefused: The guest cannot do that. Nothing was taken down.
        """
        self._guest.command(action, device)

    def step(self, now_ns: int) -> int:
        """Let the vCPUs work for at most a millisecond, hold or wake devices; return when that is wanted next."""
        due = self._guest.step(now_ns)
        self._flush()
        change = self.device_throttle.step(now_ns)
        return due if change is None else min(due, change)

    def throttle(self, percent: int, now_ns: int, until_ns: int) -> None:
        """Take so much of the vCPUs' time from them until a moment; 0 gives it back. Devices go on."""
        self._guest.throttle(percent, now_ns, until_ns)

    def throttle_percent(self, now_ns: int) -> int:
        """Return how much of the vCPUs' time is being taken."""
        return self._guest.throttle_percent(now_ns)

    def interrupt(self, index: int) -> None:
        """Deliver a device's completion interrupt."""
        self._guest.interrupt(index)
        self.devices[index].end_interrupt()

    def report(self) -> GuestReport:
        """Return what the guest says of itself."""
        return self._guest.report()

    def findings(self, ram_bytes: int | None = None) -> tuple[tuple[Finding, ...], tuple[Finding, ...]]:
        """Return blockers and warnings of the devices; with `ram_bytes`, as if the machine had so much RAM."""
        facts = [facts_of(assembled) for assembled in self.devices]
        return judge(facts, self.memory.block.size if ram_bytes is None else ram_bytes, self._rules)

    def tracking_is_exact(self) -> bool:
        """Tell whether every container's tracker forgets a page that is clean."""
        return all(is_exact(listener.container.tracker) for listener in self.listeners)

    def always_dirty_bytes(self, ram_bytes: int | None = None) -> int:
        """Return how much RAM is dirty at every look, because a tracker reports all that it maps.

        With `iommu=pt`, or where no vIOMMU translates, devices are shown all of RAM, wherever one may be at the moment.
        Otherwise what is mapped now stands for what will be.
        """
        ram = self.memory.block.size if ram_bytes is None else ram_bytes
        inexact = [listener for listener in self.listeners if not is_exact(listener.container.tracker)]
        shown = self.specification.guest.iommu == "pt" or any(not listener.is_translated for listener in inexact)
        if inexact and shown:
            return ram
        return min(ram, sum(size for listener in inexact for _, size in listener.container.mapped))

    def device_state_bytes(self) -> PendingState:
        """Return how much device state is left to be moved, as the host estimates it."""
        return self._outgoing.pending()

    def read_device_data(self, budget: int) -> DeviceRead:
        """Return the next records of the devices' state, of at most `budget` bytes of data.

        While the machine runs they come of devices in pre-copy; the rest comes once it is stopped for an attempt.

        Raises:
            HostCallFailed: A device's state is incomplete, and the attempt cannot go on.
        """
        if self.device_throttle.lost is not None:
            raise self.device_throttle.lost
        return self._outgoing.read(budget)

    def write_device_data(self, records: Sequence[DeviceRecord]) -> None:
        """Write records of devices' state, in the order in which they were read.

        Raises:
            InvalidState: They are not a stream of these devices' state; the machine must not be run.
            HostCallFailed: A device refused its data; the machine must not be run.
        """
        try:
            self._incoming.write(records)
        except DeviceStreamRefused as error:
            raise InvalidState(str(error)) from error

    def start_tracking(self, reason: TrackingReason = TrackingReason.MIGRATION) -> None:
        """Log every write from here on; devices begin their pre-copy only for a migration.

        Raises:
            HostCallFailed: Nothing is tracked; the text is what the stream ends with.
        """
        self.device_throttle.begin_anew()
        self._tracking = True
        self.memory.log.enabled = True
        self.memory.log.swap()
        try:
            if self.running and reason is TrackingReason.MIGRATION:
                self._outgoing = DeviceReaders(self._vfio)
                device_migration.begin_precopy(self._vfio)
            for listener in self.listeners:
                listener.start_tracking()
        except Exception:
            self.stop_tracking()
            raise

    def stop_tracking(self) -> None:
        """End logging; devices that were in pre-copy go on running."""
        self.device_throttle.end()
        for listener in self.listeners:
            listener.container.stop_tracking()
        device_migration.end_precopy(self._vfio)
        self.memory.log.enabled = False
        self._tracking = False

    def harvest(self) -> Harvested:
        """Return what was written since the last harvest, or since tracking began."""
        cpu = self.memory.log.swap()
        dma = DirtyBitmap(self.memory.block.pages)
        failure: str | None = None
        for listener in self.listeners:
            listener.log_sync()
            listener.container.flush()
            dma.merge(listener.container.take_dirty())
            failure = failure or listener.container.failure
        return Harvested(cpu, dma, failure)

    def take_failures(self) -> list[str]:
        """Return what the host refused since the last call, also what ends no stream: the last texts of it."""
        refused = [text for listener in self.listeners for text in listener.container.take_failures()]
        return refused + self.device_throttle.take_failures()

    def stop(self, *, for_attempt: bool) -> None:
        """Stop vCPUs, then devices.

        Raises:
            HostCallFailed: vCPUs stand still, some devices may not.
        """
        self.running = False
        self.device_throttle.leave()
        if for_attempt:
            device_migration.stop(self._vfio)
        else:
            self._outgoing = DeviceReaders(self._vfio)
            device_migration.halt(self._vfio)

    def stand_still(self) -> None:
        """Stop vCPUs only: devices go on, and what they complete waits in their eventfds, until `start`."""
        self.running = False
        self.device_throttle.end()

    @property
    def suspended(self) -> bool:
        """Whether the guest is suspended to RAM: its devices are disabled, and need not be the same when it wakes."""
        return self._guest.suspended

    def wake(self) -> None:
        """Wake a guest that is suspended."""
        if self.suspended:
            self._guest.command(GuestAction.WAKE)

    @property
    def tracking(self) -> bool:
        """Whether dirty pages are tracked, for whatever reason."""
        return self._tracking

    def standing_state(self) -> StandingState:
        """Return what is kept outside RAM and devices, of a machine whose vCPUs stand still."""
        viommu = b"" if self._unit is None else self._unit.save()
        return StandingState(self._origin(), viommu, self._guest.save())

    def take_over(self, state: StandingState) -> None:
        """Go on from that state on devices that never stopped, or that the guest sets up anew; nothing runs yet.

        Raises:
            InvalidState: It is not one of this machine, which must not be run.
        """
        self._restore(state)

    def start(self) -> None:
        """Run devices, then vCPUs; completions that came before are looked at, and doorbells rung once more.

        Raises:
            HostCallFailed: The machine stands still.
        """
        self._outgoing = DeviceReaders(self._vfio)
        try:
            device_migration.start(self._vfio)
        except HostCallFailed:
            with contextlib.suppress(HostCallFailed):  # the first failure is the one to tell
                device_migration.halt(self._vfio)
            raise
        for index, assembled in enumerate(self.devices):
            self._guest.interrupt(index)
            assembled.end_interrupt()  # a line that was raised as nobody listened is masked
            assembled.ring_doorbell()
        self.running = True

    def save(self) -> bytes:
        """Return the state of a machine stopped for an attempt, but for its devices', which has been read before.

        Raises:
            InvalidState: Some of it has not.
        """
        if not self._outgoing.complete:
            raise InvalidState("Devices' state has not been read to its end")
        return machine_state.encode(
            MachineState(
                version=STATE_FORMAT,
                origin=self._origin(),
                viommu=b"" if self._unit is None else self._unit.save(),
                devices=self._outgoing.total,
                guest=self._guest.save(),
            )
        )

    def load(self, data: bytes) -> None:
        """Load a state after its devices' was written; the machine stands still.

        Raises:
            InvalidState: The state is not one of this machine, or its devices' is not whole; it must not be run.
            HostCallFailed: A device refused its state; the machine must not be run.
        """
        state = machine_state.decode(data)
        self._restore(StandingState(state.origin, state.viommu, state.guest), state.devices)

    def _restore(self, state: StandingState, devices: DeviceTotal | None = None) -> None:
        """Load vIOMMU, then the devices where they come from elsewhere, then the guest."""
        if (self._unit is None) != (state.viommu == b""):
            raise InvalidState("State and specification differ in whether there is a vIOMMU")
        self.memory_source = MemorySource(state.origin.kind, state.origin.files, state.origin.sha256)
        try:
            if devices is not None:
                self._incoming.require_whole(devices)
            if self._unit is not None:
                self._unit.load(state.viommu)
                self._flush()
            if devices is not None:
                self._incoming.finish()
            self._guest.load(state.guest)
        except (StateRefused, GuestStateRefused, DeviceStreamRefused) as error:
            raise InvalidState(f"A part of the machine's state was refused: {error}") from error

    def report_host_writes(self) -> bytes | None:
        """Return the host process's witness."""
        return self._host.report_writes()

    def _origin(self) -> Origin:
        source = self.memory_source
        if source is None:
            raise AssertionError("A machine that never booted and never loaded has nothing to save")
        return Origin(source.kind, source.files, source.sha256)

    def _assemble_viommu(self) -> VtdUnit | None:
        viommu = self.specification.viommu
        if viommu.model == "none":
            return None
        configuration = VtdConfiguration(
            scalable=viommu.mode == "scalable",
            aw_bits=viommu.aw_bits,
            caching_mode=viommu.caching_mode,
            dma_translation=viommu.dma_translation,
            reports_max_iova=viommu.reports_max_iova,
            first_stage=viommu.first_stage,
        )
        return VtdUnit(self.memory, configuration, lambda: self._tracking, self._rules)

    def _attach_listeners(self) -> None:
        """Show every container what its devices see.

        Raises:
            HostCallFailed: The host does not map RAM for a device, which is worth nothing then (semantics 1.1).
        """
        spaces = {id(assembled.listener): assembled.space for assembled in self.devices}
        for listener in self.listeners:
            space = spaces[id(listener)]
            if space is not None:
                space.set_listener(listener)
                continue
            for section in self.memory.sections:
                listener.ram_added(section)
        self._flush()
        for listener in self.listeners:
            if listener.container.map_failure is not None:
                raise listener.container.map_failure

    def _flush(self) -> None:
        for listener in self.listeners:
            listener.container.flush()
