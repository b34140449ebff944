"""Guest programs of a few steps, run on a whole machine: real vIOMMU, real containers, real kernel objects.

The program plays guest kernel, CPU and device. What it wrote is kept apart, page by page, and compared with what a
harvest says. RAM is of two sections, so that guest-physical addresses and places in RAM differ.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from lab.rehearsal.host_in_process import HostInProcess
from vfio_host.devices.nic import Nic
from vfio_host.devices.ring_device import RingDevice
from vfio_host.errors import DmaFault
from vmm.assembly.guest_parts import VtdRegisters
from vmm.assembly.host_configuration import host_configuration
from vmm.assembly.machine import Harvested, Machine
from vmm.assembly.specification import check_specification
from vmm.assembly.tracking_reason import TrackingReason
from vmm.guest.layout import TABLES_BASE, TABLES_SIZE
from vmm.guest.vtd_domain import DomainKind
from vmm.guest.vtd_driver import VtdDriver
from vmm.memory.quantities import GuestPhysicalAddress, Iova
from vmm.memory.ram_block import RamBlock

PAGE: Final = 4096
RAM: Final = 4 << 30
DEVFN: Final = 0x20
PAGES: Final = tuple(base + index * PAGE for base in (48 << 20, 5 << 30) for index in range(4))
"""Guest-physical addresses of the pages that programs speak of: below the PCI hole and above it."""

Step = tuple[str, int, int]
"""What is done, and two numbers, whose meaning depends on it."""


@dataclass
class Run:
    """A machine in the middle of a program."""

    machine: Machine
    host: HostInProcess
    driver: VtdDriver
    written: set[int] = field(default_factory=set)
    """Pages of RAM written since the last harvest."""
    mapped: list[tuple[Iova, int, int]] = field(default_factory=list)
    """(IOVA, length, guest-physical address) of the kernel's mappings."""

    def step(self, what: str, one: int = 0, other: int = 0) -> None:
        """Do one step of a program; one that cannot be done does nothing."""
        match what:
            case "map":
                address = PAGES[one % len(PAGES)]
                length = (1 + other % (4 - one % 4)) * PAGE
                (iova,) = self.driver.domain(DEVFN).map([(GuestPhysicalAddress(address), length)])
                self.mapped.append((iova, length, address))
            case "unmap" if self.mapped:
                iova, length, _ = self.mapped.pop(one % len(self.mapped))
                self.driver.domain(DEVFN).unmap([(iova, length)])
            case "identity" | "paging" | "blocked":
                self.driver.attach(DEVFN, DomainKind(what))
            case "dma":
                self._dma(one, other)
            case "cpu":
                address = PAGES[one % len(PAGES)]
                self.machine.memory.write_u64(address, other)
                self.written.add(self.machine.memory.offset_of(address) // PAGE)
            case _:
                pass

    def harvest(self) -> tuple[Harvested, set[int]]:
        """Return what the harvest says, and which written pages it lacks."""
        harvested = self.machine.harvest()
        lost = {page for page in self.written if page not in harvested.cpu and page not in harvested.dma}
        self.written.clear()
        return harvested, lost

    def stale(self) -> set[tuple[int, int]]:
        """Return (IOVA, place in RAM), page by page, that the host maps and should not, or should and does not."""
        (listener,) = self.machine.listeners
        offset_of = self.machine.memory.offset_of
        shown = [(iova, size, offset_of(address)) for iova, size, address in listener.shown()]
        assert sorted((iova, size) for iova, size, _ in shown) == list(listener.container.mapped)
        return _pages(shown) ^ _pages(each for table in self.host.containers() for each in table)

    def _dma(self, one: int, value: int) -> None:
        """Let the device write a page: through a mapping, or at the page's own address."""
        if value % 2 and self.mapped:
            iova, length, address = self.mapped[one % len(self.mapped)]
            at = one * PAGE % length
        else:
            iova, at, address = Iova(PAGES[one % len(PAGES)]), 0, PAGES[one % len(PAGES)]
        hardware = self.host.devices[0].hardware
        assert isinstance(hardware, RingDevice | Nic)
        port = hardware._dma
        try:
            port.write(iova + at, value.to_bytes(8, "little"))
        except DmaFault:
            return
        self.written.add(self.machine.memory.offset_of(address + at) // PAGE)


def _pages(ranges: Iterable[tuple[int, int, int]]) -> set[tuple[int, int]]:
    """Return every page of ranges (iova, size, place in RAM); of RAM that is shown as it is, its ends."""
    return {
        (iova + at, offset + at)
        for iova, size, offset in ranges
        for at in (range(0, size, PAGE) if size <= 1 << 20 else (0, size - PAGE))
    }


@contextmanager
def assembled(
    device: dict[str, object],
    *,
    mode: str = "scalable",
    rules: dict[str, object] | None = None,
    host_page_size: int = PAGE,
    reason: TrackingReason = TrackingReason.MIGRATION,
) -> Iterator[Run]:
    """Yield a machine with one device behind a vIOMMU that translates, its dirty pages being tracked."""
    specification = check_specification(
        {
            "name": "program",
            "memory": {"size": RAM},
            "viommu": {"mode": mode},
            "guest": {"working_set": "1MiB", "cpu_dirty_rate": "0B/s"},
            "rules": rules or {},
            "device": [{"name": "dev0", "model": "qat", "address": "00:04.0", **device}],
        },
        "program",
    )
    block = RamBlock.create("program", RAM)
    host = HostInProcess(host_configuration(specification, host_page_size))
    machine = Machine(specification, block, host)
    try:
        assert machine._unit is not None
        driver = VtdDriver(
            machine.memory,
            VtdRegisters(machine._unit, machine._flush),
            scalable=mode == "scalable",
            aw_bits=48,
            tables=(TABLES_BASE, TABLES_SIZE),
        )
        driver.enable()
        driver.attach(DEVFN, DomainKind.PAGING)
        machine.start_tracking(reason)
        host.tally.counting = True
        yield Run(machine, host, driver)
    finally:
        for each in machine.devices:
            os.close(each.completion)
            os.close(each.doorbell)
        host.close()
        block.close()
