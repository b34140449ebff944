"""The guest of a machine, with the drivers that its specification asks for."""

from collections.abc import Callable, Sequence
from typing import Final

from vmm.assembly.devices import AssembledDevice
from vmm.assembly.specification import GuestSpecification, MachineSpecification
from vmm.guest.cpu_workload import Pattern
from vmm.guest.device_domains import DeviceDomains
from vmm.guest.device_owner import UserCycle
from vmm.guest.driver_needs import needs_of
from vmm.guest.guest import AttachedDevice, ChurnPlan, Guest, GuestConfiguration, UserDriver
from vmm.guest.layout import TABLES_BASE, TABLES_SIZE, plan
from vmm.guest.vtd_domain import DomainKind, IdentityMapper
from vmm.guest.vtd_driver import VtdDriver
from vmm.memory.guest_physical import GuestMemory
from vmm.viommu.intel import VtdUnit

_MILLISECOND: Final = 1_000_000


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


def assemble_guest(
    specification: MachineSpecification,
    memory: GuestMemory,
    registers: VtdRegisters | None,
    devices: Sequence[AssembledDevice],
) -> Guest:
    """Put a guest into RAM; without registers, or with a vIOMMU that only remaps interrupts, nothing is translated."""
    guest, viommu = specification.guest, specification.viommu
    driver = None
    # Behind a unit with first-stage tables sits no device of this machine, so it is left as it is after a reset.
    if registers is not None and viommu.dma_translation and not viommu.first_stage:
        driver = VtdDriver(
            memory,
            registers,
            scalable=viommu.mode == "scalable",
            aw_bits=viommu.aw_bits,
            tables=(TABLES_BASE, TABLES_SIZE),
        )
    kind = DomainKind.IDENTITY if guest.iommu == "pt" else DomainKind.PAGING
    behind = [each.specification.devfn for each in devices if not each.specification.bypass_iommu]
    needs = needs_of([(each.specification.model, each.specification.dma_rate) for each in devices])
    return Guest(
        memory,
        _configuration(guest, devices),
        plan(memory.block.size, needs, guest.working_set),
        [_attached(driver, kind, each) for each in devices],
        None if driver is None else TranslatingKernel(driver, [(devfn, kind) for devfn in behind]),
    )


def _configuration(guest: GuestSpecification, devices: Sequence[AssembledDevice]) -> GuestConfiguration:
    user, churn = guest.user_driver, guest.churn
    cycle = None if user is None else UserCycle(user.cycle_ms * _MILLISECOND, user.hold_ms * _MILLISECOND)
    return GuestConfiguration(
        vcpus=guest.vcpus,
        cpu_dirty_rate=guest.cpu_dirty_rate,
        pattern=Pattern(guest.pattern),
        seed=guest.seed,
        dma_rates=tuple(each.specification.dma_rate for each in devices),
        user_driver=None if user is None or cycle is None else UserDriver(user.device, cycle),
        churn=None if churn is None else ChurnPlan(churn.device, churn.maps_per_s, churn.buffer, churn.live),
        dma_after_unmap=guest.dma_after_unmap,
    )


def _attached(driver: VtdDriver | None, kind: DomainKind, assembled: AssembledDevice) -> AttachedDevice:
    specification = assembled.specification
    domains = None
    if driver is not None and not specification.bypass_iommu:
        domains = DeviceDomains(driver, specification.devfn, kind)
    mapper = IdentityMapper() if domains is None else domains.kernel_mapper()
    return AttachedDevice(mapper, assembled, specification.name, specification.model, domains)
