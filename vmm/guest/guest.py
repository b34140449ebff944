"""The guest as a whole: its vCPUs and its drivers, as one step function.

Time comes only as `now_ns`. A step does at most about a millisecond of work, so that the dirty log can be swapped
between two steps (vmm.memory.dirty_log); whoever drives calls again at the moment that the step returns, or at an
interrupt. vCPUs share the working set and the rate evenly.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from vmm.guest.churn import Churn
from vmm.guest.console import ConsoleRefused, GuestAction
from vmm.guest.cpu_workload import CpuState, CpuWorkload, Pattern, WorkingSet
from vmm.guest.device_domains import DeviceDomains
from vmm.guest.device_driver import ProgressRefused
from vmm.guest.device_owner import MOST_ACTIONS, DeviceOwner, UserCycle
from vmm.guest.dma import DevicePort, DmaMapper
from vmm.guest.drivers import make_driver
from vmm.guest.host_material import read_material
from vmm.guest.layout import DeviceArea, Layout
from vmm.guest.material import Material
from vmm.guest.owner_state import OwnerState
from vmm.guest.pacing import NEVER, SECOND
from vmm.guest.vcpu_clock import VcpuClock
from vmm.guest.vtd_errors import DriverStateRefused
from vmm.memory.guest_physical import GuestMemory
from vmm.memory.quantities import PAGE_SIZE

STATE_VERSION: Final = 2
_OF_ALL: Final = (GuestAction.QUIET, GuestAction.SUSPEND, GuestAction.WAKE)


class GuestStateRefused(Exception):
    """Bytes are not a state of this guest. Nothing was changed."""


@dataclass(frozen=True, slots=True)
class UserDriver:
    """A user-level driver of a device, and when it takes it."""

    device: str
    cycle: UserCycle


@dataclass(frozen=True, slots=True)
class ChurnPlan:
    """How many buffers of how many bytes are mapped and unmapped per second for a device, and how many are live."""

    device: str
    maps_per_s: int
    buffer: int
    live: int


@dataclass(frozen=True, slots=True)
class GuestConfiguration:
    """What the guest does; rates in bytes per second, of the CPU in distinct pages."""

    vcpus: int
    cpu_dirty_rate: int
    pattern: Pattern
    seed: int
    dma_rates: tuple[int, ...]
    user_driver: UserDriver | None = None
    churn: ChurnPlan | None = None
    dma_after_unmap: bool = False
    """The first device's driver unmaps buffers that the device still writes."""


@dataclass(frozen=True, slots=True)
class AttachedDevice:
    """A device as the kernel's driver reaches it; `domains` are those that it can be brought into."""

    mapper: DmaMapper
    port: DevicePort
    name: str = "device"
    model: str = "qat"
    domains: DeviceDomains | None = None


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
    """What takes steps: a vCPU or a device's owner."""

    @property
    def errors(self) -> int:
        """What it found wrong."""

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
    own_errors: int = 0
    """What a driver that misbehaves on purpose brought upon itself; not among `errors`."""
    switches: int = 0
    """How often a device went from one domain into another, the blocked one included."""
    busy_actions: int = 0
    """What was typed at the console and is not finished."""
    domains: tuple[tuple[str, str], ...] = ()
    """Each device's domain: identity, paging, user or blocked; none for one that is not behind a vIOMMU."""


class GuestState(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Everything beyond guest RAM."""

    version: int
    steps: int
    quiet: bool
    cpus: tuple[CpuState, ...]
    devices: tuple[OwnerState, ...]
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
        self._iommu: Final = iommu
        self._user: Final = configuration.user_driver
        self._cpus: Final = _workloads(memory, configuration, layout)
        self._names: Final = tuple(device.name for device in devices)
        self._devices: Final = tuple(
            _owner(memory, configuration, area, device, index)
            for index, (area, device) in enumerate(zip(layout.devices, devices, strict=True))
        )
        self._parts: Final[tuple[Part, ...]] = (*self._cpus, *self._devices)
        self._due: Final = [0] * len(self._parts)
        self._now, self._steps = 0, 0
        self._quiet = False
        self._clock: Final = VcpuClock()

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
        chosen = read_material() if material is None and self._devices else material
        for device in self._devices:
            if chosen is not None:
                device.boot(chosen)

    def command(self, action: GuestAction, device: str | None = None) -> None:
        """Take down what was typed at the console; later steps carry it out.

        Without a name it concerns the user-level driver's device, or the first that can do it; `quiet` concerns all.

        Raises:
            ConsoleRefused: The guest cannot do that. Nothing was taken down.
        """
        if action in _OF_ALL:
            if any(each.busy_actions == MOST_ACTIONS for each in self._devices):
                raise ConsoleRefused(f"Cannot {action}: {MOST_ACTIONS} actions of a device are not finished")
            for each in self._devices:
                each.command(action)
            self._quiet = self._quiet or action is GuestAction.QUIET
            if action is GuestAction.WAKE:
                self.resume()
        else:
            self._device_for(action, device).command(action)
        self._due[:] = [0] * len(self._due)

    def step(self, now_ns: int) -> int:
        """Let the one part work that is due the longest; returns when to step again, at most a second later."""
        if now_ns < self._now:  # another host's clock
            self._due[:] = [0] * len(self._due)
        self._now = now_ns
        self._steps += 1
        if self._due:
            first = min(range(len(self._due)), key=self._due.__getitem__)
            if first < len(self._cpus) and (self._quiet or self.suspended):
                self._due[: len(self._cpus)] = [NEVER] * len(self._cpus)
            elif self._due[first] <= now_ns:
                self._due[first] = max(now_ns, self._stepped(first, now_ns))
        return min(min(self._due, default=now_ns + SECOND), now_ns + SECOND)

    def _stepped(self, part: int, now_ns: int) -> int:
        if part >= len(self._cpus):
            return self._parts[part].step(now_ns)
        runs_at = self._clock.runs_at(now_ns)
        if runs_at > now_ns:
            return runs_at
        return self._clock.moment_of(self._parts[part].step(self._clock.time(now_ns)))

    @property
    def suspended(self) -> bool:
        """Whether every device is disabled, and vCPUs rest, until the guest wakes; never without a device."""
        return bool(self._devices) and all(device.suspended for device in self._devices)

    def throttle(self, percent: int, now_ns: int, until_ns: int) -> None:
        """Take so much of the vCPUs' time from them until a moment; 0 gives it back. Devices' drivers keep theirs."""
        self._clock.throttle(percent, now_ns, until_ns)
        self._due[: len(self._cpus)] = [0] * len(self._cpus)

    def throttle_percent(self, now_ns: int) -> int:
        """Return how much of the vCPUs' time is being taken."""
        return self._clock.percent(now_ns)

    def interrupt(self, index: int) -> None:
        """Deliver a device's completion interrupt; the next step looks at its answers."""
        self._devices[index].interrupt()
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
                quiet=self._quiet,
                cpus=tuple(cpu.save() for cpu in self._cpus),
                devices=tuple(device.save() for device in self._devices),
                iommu=b"" if self._iommu is None else self._iommu.save(),
            )
        )

    def load(self, data: bytes) -> None:
        """Go on from a state saved by a guest of the same configuration; nothing touches a device yet.

        Raises:
            GuestStateRefused: The bytes are no state of this guest. Nothing was changed.
        """
        state = _decoded(data)
        shape = (len(state.cpus), len(state.devices), state.iommu == b"")
        if shape != (len(self._cpus), len(self._devices), self._iommu is None):
            raise GuestStateRefused(f"State of {shape[0]} vCPUs and {shape[1]} devices is not of this guest")
        before = _decoded(self.save())
        try:
            self._take_over(state)
        except (DriverStateRefused, ProgressRefused) as error:
            self._take_over(before)
            raise GuestStateRefused(str(error)) from None
        self.resume()

    def _take_over(self, state: GuestState) -> None:
        if self._iommu is not None:
            self._iommu.load(state.iommu)
        for device, progress in zip(self._devices, state.devices, strict=True):
            device.load(progress)
        for cpu, registers in zip(self._cpus, state.cpus, strict=True):
            cpu.load(registers)
        self._steps, self._quiet = state.steps, state.quiet

    def report(self) -> GuestReport:
        """Return figures as of the last step."""
        drivers = [device.driver for device in self._devices]
        return GuestReport(
            errors=sum(part.errors for part in self._parts),
            jobs_done=sum(driver.answered for driver in drivers),
            dirty_bytes_per_s=0.0 if self._quiet else self._dirty_bytes_per_s(),
            dma_bytes_per_s=sum(device.rate(self._now) for device in self._devices),
            asked_dirty_bytes_per_s=0 if self._quiet else sum(cpu.asked for cpu in self._cpus),
            asked_dma_bytes_per_s=0 if self._quiet else sum(driver.asked for driver in drivers),
            pages_written=sum(cpu.pages_written for cpu in self._cpus),
            steps=self._steps,
            own_errors=sum(driver.own_errors for driver in drivers),
            switches=sum(device.switches for device in self._devices),
            busy_actions=sum(device.busy_actions for device in self._devices),
            domains=tuple((name, device.domain) for name, device in zip(self._names, self._devices, strict=True)),
        )

    def _dirty_bytes_per_s(self) -> float:
        """Return what vCPUs dirty in a second of the host's: they count in their own time."""
        time_ns, kept = self._clock.time(self._now), 1 - self._clock.percent(self._now) / 100
        return kept * sum(cpu.rate(time_ns) for cpu in self._cpus)

    def _device_for(self, action: GuestAction, name: str | None) -> DeviceOwner:
        churn = action in (GuestAction.CHURN, GuestAction.CALM)
        if name is None and self._user is not None and not churn:
            name = self._user.device
        if name is not None:
            if name not in self._names:
                raise ConsoleRefused(f'Cannot {action}: no device "{name}"')
            return self._devices[self._names.index(name)]
        for device in self._devices:
            if device.churns if churn else device.switchable:
                return device
        raise ConsoleRefused(f"Cannot {action}: no device of the guest can do that")


def _owner(
    memory: GuestMemory, configuration: GuestConfiguration, area: DeviceArea, device: AttachedDevice, index: int
) -> DeviceOwner:
    """Put one device's driver and owners together."""
    user, plan, seed = configuration.user_driver, configuration.churn, configuration.seed + index
    churn = None
    if plan is not None and plan.device == device.name:
        churn = Churn(
            device.mapper,
            area,
            maps_per_s=plan.maps_per_s,
            buffer=plan.buffer,
            live=plan.live,
            seed=seed,
            has_room=_always if device.domains is None else device.domains.has_room,
        )
    driver = make_driver(
        device.model,
        memory,
        area,
        device.port,
        rate=configuration.dma_rates[index],
        seed=seed,
        dma_after_unmap=configuration.dma_after_unmap and index == 0,
    )
    cycle = user.cycle if user is not None and user.device == device.name else None
    return DeviceOwner(driver, area, device.mapper, domains=device.domains, cycle=cycle, churn=churn)


def _always() -> bool:
    return True


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
    return state
