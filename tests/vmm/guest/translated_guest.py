"""A whole guest behind a VT-d unit, in virtual time; accelerators reach only what the unit's listeners map."""

import zlib
from dataclasses import dataclass, field, replace
from typing import Final

from tests.vmm.guest.fresh_iovas import Mapper
from tests.vmm.guest.small_accelerator import RAM, Accelerator
from vfio_host.interface.qat import COMPLETION, REQUEST, Register, Status
from vmm.assembly.guest_parts import TranslatingKernel
from vmm.guest.console import GuestAction
from vmm.guest.cpu_workload import Pattern
from vmm.guest.device_domains import DeviceDomains
from vmm.guest.device_driver import DeviceDriver
from vmm.guest.driver_needs import needs_of
from vmm.guest.guest import AttachedDevice, Guest, GuestConfiguration, GuestReport
from vmm.guest.layout import MIB, TABLES_BASE, TABLES_SIZE, plan
from vmm.guest.material import Material
from vmm.guest.vtd_domain import DomainKind
from vmm.guest.vtd_driver import VtdDriver
from vmm.memory.guest_physical import GuestMemory
from vmm.memory.ram_block import RamBlock
from vmm.memory.sections import Section
from vmm.viommu.events import IommuEvent
from vmm.viommu.intel import DeviceAddressSpace, VtdConfiguration, VtdUnit

MILLISECOND: Final = 1_000_000
DEVFNS: Final = (0x18, 0xA0)
NAMES: Final = ("qat0", "qat1")
CONFIGURATION: Final = GuestConfiguration(
    vcpus=1, cpu_dirty_rate=4 * MIB, pattern=Pattern.UNIFORM, seed=5, dma_rates=(64 * MIB, 32 * MIB)
)


class DmaFault(Exception):
    """Nothing is mapped where the device reached."""


@dataclass
class HostMappings(Mapper):
    """What a listener has mapped for one device, by IOVA: (guest-physical address, length)."""

    held: dict[int, tuple[int, int]] = field(default_factory=dict)
    precise: list[tuple[int, int]] = field(default_factory=list)
    """Unmaps that said what they unmapped: (IOVA, guest-physical address)."""

    def ram_added(self, section: Section) -> None:
        self.held[section.base] = (section.base, section.size)

    def ram_removed(self, section: Section) -> None:
        del self.held[section.base]

    def iommu_added(self, space: DeviceAddressSpace) -> None:
        assert not self.held
        del space

    def iommu_removed(self, space: DeviceAddressSpace) -> None:
        del space
        self.held.clear()

    def notify(self, event: IommuEvent) -> None:
        if not event.is_unmap:
            assert event.iova not in self.held
            self.held[event.iova] = (event.translated, event.mask + 1)
            return
        if event.iova in self.held and event.translated:
            assert self.held[event.iova] == (event.translated, event.mask + 1)
            self.precise.append((event.iova, event.translated))
            del self.held[event.iova]
            return
        for iova in [iova for iova in self.held if event.iova <= iova <= event.iova + event.mask]:
            del self.held[iova]

    def translate(self, iova: int, length: int) -> int:
        start = self._page(iova)
        for offset in range(4096 - iova % 4096, length, 4096):
            if self._page(iova + offset) != start + offset:
                raise AssertionError("A buffer that is contiguous in IOVA is so in the guest's memory here")
        return start

    def _page(self, iova: int) -> int:
        for size in (1 << 12, 1 << 21, 1 << 30):
            found = self.held.get(iova & -size)
            if found is not None and iova < (iova & -size) + found[1]:
                return found[0] + iova % size
        if 0 in self.held and iova < self.held[0][1]:
            return iova
        raise DmaFault(f"0x{iova:x}")


class FaultingAccelerator(Accelerator):
    """It waits when it cannot reach its rings, and answers a job that it cannot do with a fault."""

    def work(self, most: int = 1 << 30) -> int:
        try:
            return super().work(most)
        except DmaFault:
            return 0

    def answer(self, entry: bytes) -> bytes:
        number, *_, cookie, _ = REQUEST.unpack(entry)
        try:
            return super().answer(entry)
        except (DmaFault, zlib.error):
            return COMPLETION.pack(number, Status.FAULT, 0, 0, 0, cookie)


class World:
    """RAM, unit, devices and a guest; the guest can be moved to another process of the same host at any moment."""

    def __init__(
        self,
        *,
        default: DomainKind = DomainKind.PAGING,
        scalable: bool = True,
        configuration: GuestConfiguration = CONFIGURATION,
        devices: int = 1,
        tables: int = TABLES_SIZE,
    ) -> None:
        self.memory = GuestMemory(RamBlock.create("test", RAM))
        self.memory.log.enabled = True
        self.tracking = True
        self.unit = VtdUnit(
            self.memory,
            VtdConfiguration(
                scalable=scalable, aw_bits=48, caching_mode=True, dma_translation=True, reports_max_iova=True
            ),
            lambda: self.tracking,
        )
        self.configuration = replace(configuration, dma_rates=configuration.dma_rates[:devices])
        self.default, self.scalable, self.tables = default, scalable, tables
        self.hosts = [HostMappings() for _ in range(devices)]
        self.devices = [FaultingAccelerator(self.memory, host) for host in self.hosts]
        for devfn, host in zip(DEVFNS, self.hosts, strict=False):
            self.unit.address_space(devfn).set_listener(host)
        self.layout = plan(RAM, needs_of([("qat", rate) for rate in self.configuration.dma_rates]), 8 * MIB)
        self.now = 0
        self.driver, self.guest = self._make()

    def read(self, offset: int) -> int:
        return self.unit.read_register(offset)

    def write(self, offset: int, value: int) -> None:
        self.unit.write_register(offset, value)

    def boot(self, material: Material) -> "World":
        self.guest.boot(material)
        return self

    def move(self) -> None:
        """Let a new guest go on where this one stopped."""
        data = self.guest.save()
        self.driver, self.guest = self._make()
        self.guest.load(data)
        assert self.guest.save() == data

    def step(self, *, most: int = 8) -> None:
        """Let the guest work once, and then the devices."""
        due = self.guest.step(self.now)
        self.now = min(max(self.now + 50_000, due), self.now + MILLISECOND)
        for index, device in enumerate(self.devices):
            if device.work(most):
                self.guest.interrupt(index)

    def run(self, milliseconds: int) -> GuestReport:
        end = self.now + milliseconds * MILLISECOND
        while self.now < end:
            self.step()
        return self.guest.report()

    def run_until_busy(self) -> DeviceDriver:
        """Run until the first device has jobs in flight; return its driver."""
        self.run(10)
        driver = self.guest._devices[0].driver
        while not driver.busy:
            self.step(most=1)
        return driver

    def do(self, *actions: GuestAction, device: str | None = None) -> GuestReport:
        """Type actions and let the guest finish them."""
        for action in actions:
            self.guest.command(action, device)
        for _ in range(20_000):
            if not self.guest.report().busy_actions:
                break
            self.step()
        report = self.guest.report()
        assert report.busy_actions == 0
        return report

    def domains(self) -> list[str]:
        return [domain for _, domain in self.guest.report().domains]

    def enabled(self) -> bool:
        return bool(self.devices[0].registers.get(Register.CONTROL))

    def _make(self) -> tuple[VtdDriver, Guest]:
        driver = VtdDriver(self.memory, self, scalable=self.scalable, aw_bits=48, tables=(TABLES_BASE, self.tables))
        attached = []
        for devfn, name, device in zip(DEVFNS, NAMES, self.devices, strict=False):
            domains = DeviceDomains(driver, devfn, self.default)
            attached.append(AttachedDevice(domains.kernel_mapper(), device, name, "qat", domains))
        kernel = TranslatingKernel(driver, [(devfn, self.default) for devfn in DEVFNS[: len(self.devices)]])
        return driver, Guest(self.memory, self.configuration, self.layout, attached, kernel)
