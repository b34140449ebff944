"""The guest of a machine, with the drivers that its specification asks for."""

from collections.abc import Callable, Sequence
from typing import Final

from vmm.assembly.devices import AssembledDevice
from vmm.assembly.specification import MachineSpecification
from vmm.guest.cpu_workload import Pattern
from vmm.guest.dma import Buffer, DmaMapper, Mapping
from vmm.guest.guest import AttachedDevice, Guest, GuestConfiguration
from vmm.guest.layout import TABLES_BASE, TABLES_SIZE, plan
from vmm.guest.vtd_driver import DomainKind, IdentityMapper, VtdDriver
from vmm.memory.guest_physical import GuestMemory
from vmm.memory.quantities import Iova
from vmm.viommu.intel import VtdUnit


class VtdRegisters:
    """The vIOMMU's registers as the guest reaches them; a write's mappings are in the containers when it returns."""

    def __init__(self, unit: VtdUnit, flush: Callable[[], None]) -> None:
        self._unit: Final = unit
        self._flush: Final = flush

    def read(self, offset: int) -> int:
        """Read a register."""
        return self._unit.read_register(offset)

    def write(self, offset: int, value: int) -> None:
        """Write a register and let what follows from it happen."""
        self._unit.write_register(offset, value)
        self._flush()


class TranslatingKernel:
    """The guest kernel's IOMMU driver with the domains that its command line asks for (`iommu=pt` or `nopt`)."""

    def __init__(self, driver: VtdDriver, domains: Sequence[tuple[int, DomainKind]]) -> None:
        self._driver: Final = driver
        self._domains: Final = tuple(domains)

    def boot(self) -> None:
        """Turn translation on and bring every device into its default domain."""
        self._driver.enable()
        for devfn, domain in self._domains:
            self._driver.attach(devfn, domain)

    def save(self) -> bytes:
        """Return the driver's state beyond guest RAM."""
        return self._driver.save()

    def load(self, data: bytes) -> None:
        """Go on from a saved state."""
        self._driver.load(data)


class PagingMapper:
    """A device's paging domain, asked of the driver at each use: it is made at boot and remade by a load."""

    def __init__(self, driver: VtdDriver, devfn: int) -> None:
        self._driver: Final = driver
        self._devfn: Final = devfn

    def map(self, buffers: Sequence[Buffer]) -> list[Iova]:
        """Map buffers in the device's domain."""
        return self._driver.mapper(self._devfn).map(buffers)

    def unmap(self, mappings: Sequence[Mapping]) -> None:
        """Unmap from the device's domain."""
        self._driver.mapper(self._devfn).unmap(mappings)


def assemble_guest(
    specification: MachineSpecification,
    memory: GuestMemory,
    registers: VtdRegisters | None,
    devices: Sequence[AssembledDevice],
) -> Guest:
    """Put a guest into RAM; without registers, or with a vIOMMU that only remaps interrupts, nothing is translated."""
    guest, viommu = specification.guest, specification.viommu
    rates = tuple(assembled.specification.dma_rate for assembled in devices)
    driver = None
    if registers is not None and viommu.dma_translation:
        driver = VtdDriver(
            memory,
            registers,
            scalable=viommu.mode == "scalable",
            aw_bits=viommu.aw_bits,
            tables=(TABLES_BASE, TABLES_SIZE),
        )
    kind = DomainKind.IDENTITY if guest.iommu == "pt" else DomainKind.PAGING
    behind = [each.specification.devfn for each in devices if not each.specification.bypass_iommu]
    attached = [AttachedDevice(_mapper(driver, kind, assembled), assembled) for assembled in devices]
    return Guest(
        memory,
        GuestConfiguration(
            vcpus=guest.vcpus,
            cpu_dirty_rate=guest.cpu_dirty_rate,
            pattern=Pattern(guest.pattern),
            seed=guest.seed,
            dma_rates=rates,
        ),
        plan(memory.block.size, rates, guest.working_set),
        attached,
        None if driver is None else TranslatingKernel(driver, [(devfn, kind) for devfn in behind]),
    )


def _mapper(driver: VtdDriver | None, kind: DomainKind, assembled: AssembledDevice) -> DmaMapper:
    if driver is None or kind is DomainKind.IDENTITY or assembled.specification.bypass_iommu:
        return IdentityMapper()
    return PagingMapper(driver, assembled.specification.devfn)
