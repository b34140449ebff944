"""The guest as a whole: its vCPUs and its drivers, as one step function.

Time comes only as `now_ns`. A step does at most about a millisecond of work, so that the dirty log can be swapped
between two steps (vmm.memory.dirty_log); whoever drives calls again at the moment that the step returns, or at an
interrupt. vCPUs share the working set and the rate evenly.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from vmm.guest.cpu_workload import CpuState, CpuWorkload, Pattern, WorkingSet
from vmm.guest.dma import DevicePort, DmaMapper
from vmm.guest.host_material import Material, read_material
from vmm.guest.layout import Layout
from vmm.guest.pacing import SECOND
from vmm.guest.qat_driver import QatDriver, QatState
from vmm.guest.qat_jobs import JOBS_PER_SLAB
from vmm.guest.vtd_errors import DriverStateRefused
from vmm.memory.guest_physical import GuestMemory
from vmm.memory.quantities import PAGE_SIZE

STATE_VERSION: Final = 1


class GuestStateRefused(Exception):
    """Bytes are not a state of this guest. Nothing was changed."""


@dataclass(frozen=True, slots=True)
class GuestConfiguration:
    """What the guest does; rates in bytes per second, of the CPU in distinct pages."""

    vcpus: int
    cpu_dirty_rate: int
    pattern: Pattern
    seed: int
    dma_rates: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class AttachedDevice:
    """A device as its driver reaches it."""

    mapper: DmaMapper
    port: DevicePort


class IommuDriver(Protocol):
    """The guest kernel's IOMMU driver, whose state moves with the guest's."""

    def boot(self) -> None:
        """Set the unit up for the first time."""

    def save(self) -> bytes:
        """Return everything beyond guest RAM."""

    def load(self, data: bytes) -> None:
        """Go on from a saved state.

        Raises:
            DriverStateRefused: The bytes are no state of this driver. Nothing was changed.
        """


class Part(Protocol):
    """What takes steps: a vCPU or a driver."""

    errors: int

    def step(self, now_ns: int) -> int:
        """Work for at most about a millisecond; return when the next step is due."""

    def restart_clock(self) -> None:
        """Forget the clock."""


@dataclass(frozen=True, slots=True)
class GuestReport:
    """What the guest says of itself; rates in bytes per second over the last whole second."""

    errors: int
    jobs_done: int
    dirty_bytes_per_s: float
    dma_bytes_per_s: float
    asked_dirty_bytes_per_s: int
    asked_dma_bytes_per_s: int
    pages_written: int
    steps: int


class GuestState(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Everything beyond guest RAM."""

    version: int
    steps: int
    cpus: tuple[CpuState, ...]
    drivers: tuple[QatState, ...]
    iommu: bytes


class Guest:
    """A running system in guest RAM."""

    def __init__(
        self,
        memory: GuestMemory,
        configuration: GuestConfiguration,
        layout: Layout,
        devices: Sequence[AttachedDevice],
        iommu: IommuDriver | None = None,
    ) -> None:
        """Put the parts together; `layout` was planned for the same rates, in the order of `devices`."""
        seed = configuration.seed
        self._iommu: Final = iommu
        self._cpus: Final = _workloads(memory, configuration, layout)
        self._drivers: Final = tuple(
            QatDriver(memory, area, device.mapper, device.port, rate=rate, seed=seed + index)
            for index, (area, device, rate) in enumerate(
                zip(layout.devices, devices, configuration.dma_rates, strict=True)
            )
        )
        self._parts: Final[tuple[Part, ...]] = (*self._cpus, *self._drivers)
        self._due: Final = [0] * len(self._parts)
        self._now, self._steps = 0, 0

    def boot(self, material: Material | None = None) -> None:
        """Start for the first time, on the given material or on the host's own files.

        Raises:
            NoMaterial: The host has none of the files.
            MapFailed: There is no room for the rings.
        """
        if self._iommu is not None:
            self._iommu.boot()
        for cpu in self._cpus:
            cpu.boot()
        chosen = read_material() if material is None and self._drivers else material
        for driver in self._drivers:
            if chosen is not None:
                driver.boot(chosen)

    def step(self, now_ns: int) -> int:
        """Let the one part work that is due the longest; returns when to step again, at most a second later."""
        if now_ns < self._now:  # another host's clock
            self._due[:] = [0] * len(self._due)
        self._now = now_ns
        self._steps += 1
        if self._due:
            first = min(range(len(self._due)), key=self._due.__getitem__)
            if self._due[first] <= now_ns:
                self._due[first] = max(now_ns, self._parts[first].step(now_ns))
        return min(min(self._due, default=now_ns + SECOND), now_ns + SECOND)

    def interrupt(self, index: int) -> None:
        """Deliver a device's completion interrupt; the next step looks at its answers."""
        self._drivers[index].interrupt()
        self._due[len(self._cpus) + index] = 0

    def resume(self) -> None:
        """Begin all paces anew, after a pause: nothing is caught up, and rates are measured from here."""
        for part in self._parts:
            part.restart_clock()
        self._due[:] = [0] * len(self._due)

    def save(self) -> bytes:
        """Return everything beyond guest RAM, in canonical form; between two steps."""
        return msgspec.msgpack.encode(
            GuestState(
                version=STATE_VERSION,
                steps=self._steps,
                cpus=tuple(cpu.save() for cpu in self._cpus),
                drivers=tuple(driver.save() for driver in self._drivers),
                iommu=b"" if self._iommu is None else self._iommu.save(),
            )
        )

    def load(self, data: bytes) -> None:
        """Go on from a state saved by a guest of the same configuration; nothing touches a device yet.

        Raises:
            GuestStateRefused: The bytes are no state of this guest.
        """
        state = _decoded(data)
        shape = (len(state.cpus), len(state.drivers), state.iommu == b"")
        if shape != (len(self._cpus), len(self._drivers), self._iommu is None):
            raise GuestStateRefused(f"State of {shape[0]} vCPUs and {shape[1]} devices is not of this guest")
        if self._iommu is not None:
            try:
                self._iommu.load(state.iommu)
            except DriverStateRefused as error:
                raise GuestStateRefused(str(error)) from None
        for cpu, registers in zip(self._cpus, state.cpus, strict=True):
            cpu.load(registers)
        for driver, progress in zip(self._drivers, state.drivers, strict=True):
            driver.load(progress)
        self._steps = state.steps
        self.resume()

    def report(self) -> GuestReport:
        """Return figures as of the last step."""
        return GuestReport(
            errors=sum(part.errors for part in self._parts),
            jobs_done=sum(driver.answered for driver in self._drivers),
            dirty_bytes_per_s=sum(cpu.rate(self._now) for cpu in self._cpus),
            dma_bytes_per_s=sum(driver.rate(self._now) for driver in self._drivers),
            asked_dirty_bytes_per_s=sum(cpu.asked for cpu in self._cpus),
            asked_dma_bytes_per_s=sum(driver.asked for driver in self._drivers),
            pages_written=sum(cpu.pages_written for cpu in self._cpus),
            steps=self._steps,
        )


def _workloads(memory: GuestMemory, configuration: GuestConfiguration, layout: Layout) -> tuple[CpuWorkload, ...]:
    """Give each vCPU its share of the working set, in whole pages of the table of generations (1024 entries)."""
    entries = PAGE_SIZE // 4
    tables = -(-layout.working_pages // entries)
    count = max(1, min(configuration.vcpus, tables))
    workloads = []
    for index in range(count):
        first, last = (
            tables * index // count * entries,
            min(tables * (index + 1) // count * entries, layout.working_pages),
        )
        place = WorkingSet(layout.working_set + first * PAGE_SIZE, layout.generations + first * 4, last - first)
        share = configuration.cpu_dirty_rate * (index + 1) // count - configuration.cpu_dirty_rate * index // count
        workloads.append(
            CpuWorkload(
                memory, place, rate=share, pattern=configuration.pattern, seed=configuration.seed * 1000 + index
            )
        )
    return tuple(workloads)


def _decoded(data: bytes) -> GuestState:
    try:
        state = msgspec.msgpack.decode(data, type=GuestState)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise GuestStateRefused(f"Not a guest's state: {error}") from None
    if state.version != STATE_VERSION or msgspec.msgpack.encode(state) != data:
        raise GuestStateRefused(f"Not a guest's state of version {STATE_VERSION}")
    for driver in state.drivers:
        numbers = [slab.number for slab in driver.slabs]
        first = driver.answered // JOBS_PER_SLAB
        opened = -(-driver.submitted // JOBS_PER_SLAB)
        if not 0 <= driver.answered <= driver.submitted or numbers != list(range(first, opened)) or len(numbers) > 2:
            raise GuestStateRefused("A driver's open slabs do not match its jobs in flight")
    return state
