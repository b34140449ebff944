"""The vIOMMU in figures: a walk, a hit, a batch; a sync of a large address space; an unmap of a full one.

The tables are written by the guest's own driver. The listener only counts: what the host makes of its events is a row
of its own, through the containers and the host's objects in this process.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np

from benchmarks.figures import Row
from lab.rehearsal.host_in_process import HostInProcess
from vmm.assembly.devices import AssembledDevice, assemble_devices
from vmm.assembly.host_configuration import host_configuration
from vmm.assembly.specification import check_specification
from vmm.guest.layout import TABLES_BASE
from vmm.guest.vtd_domain import DomainKind
from vmm.guest.vtd_driver import VtdDriver
from vmm.memory.guest_physical import GuestMemory
from vmm.memory.quantities import PAGE_SIZE, GuestPhysicalAddress
from vmm.memory.ram_block import RamBlock
from vmm.memory.sections import Section
from vmm.viommu.context import RootTable, SecondStage
from vmm.viommu.events import AddressSpaceListener, IommuEvent
from vmm.viommu.intel import DeviceAddressSpace, VtdConfiguration, VtdUnit
from vmm.viommu.translation import Translator

MAPPINGS: Final = 262_144
UNMAPPED: Final = 10_000
_DEVFN: Final = 0x18
_RAM: Final = 2 << 30
_POOL: Final = 8 << 20
_BATCH: Final = 1 << 19
_SINGLE: Final = 2000


class CountingListener:
    """Counts what it is told."""

    def __init__(self) -> None:
        self.maps = self.unmaps = 0

    def ram_added(self, section: Section) -> None:
        """See a section of RAM."""

    def ram_removed(self, section: Section) -> None:
        """See it go."""

    def iommu_added(self, space: DeviceAddressSpace) -> None:
        """See the vIOMMU translate."""

    def iommu_removed(self, space: DeviceAddressSpace) -> None:
        """See it stop."""

    def notify(self, event: IommuEvent) -> None:
        """Count one event."""
        if event.is_unmap:
            self.unmaps += 1
        else:
            self.maps += 1


class Machine:
    """RAM, a unit, the guest's driver of it, and one device in its paging domain."""

    def __init__(self, listener: AddressSpaceListener | None) -> None:
        self.tracking = False
        self.memory = GuestMemory(RamBlock.create("benchmark", _RAM))
        self.configuration = VtdConfiguration(
            scalable=True, aw_bits=48, caching_mode=True, dma_translation=True, reports_max_iova=True
        )
        self.unit = VtdUnit(self.memory, self.configuration, lambda: self.tracking)
        self.driver = VtdDriver(self.memory, self, scalable=True, aw_bits=48, tables=(TABLES_BASE, _POOL))
        if listener is not None:
            self.begin(listener)

    def begin(self, listener: AddressSpaceListener) -> None:
        """Turn translation on under a listener."""
        self.unit.address_space(_DEVFN).set_listener(listener)
        self.driver.enable()
        self.driver.attach(_DEVFN, DomainKind.PAGING)

    def read(self, offset: int) -> int:
        """Read a register of the unit."""
        return self.unit.read_register(offset)

    def write(self, offset: int, value: int) -> None:
        """Write a register of the unit."""
        self.unit.write_register(offset, value)

    def map(self, pages: int) -> None:
        """Map pages one by one, none of which is next to the one before, in a single batch."""
        base = 16 << 20
        places = [GuestPhysicalAddress(base + (page * 7919 % pages) * PAGE_SIZE) for page in range(pages)]
        self.driver.domain(_DEVFN).map([(place, PAGE_SIZE) for place in places])


def measure(runs: int) -> list[Row]:
    """Return the rows."""
    return [*_translations(runs), *_syncs(runs), *_unmaps(runs)]


def _translations(runs: int) -> list[Row]:
    machine = Machine(CountingListener())
    machine.map(MAPPINGS)
    mapped = [record.iova for record in machine.unit.address_space(_DEVFN).mappings]
    translator = Translator(machine.memory, machine.configuration)
    root = RootTable(TABLES_BASE, scalable=True)
    binding = translator.look_up(root, _DEVFN)
    assert isinstance(binding, SecondStage)
    few = mapped[:_SINGLE:2]

    def walks() -> None:
        for iova in few:
            translator.walker.translate(binding, iova, write=True)

    def hits() -> None:
        for iova in few:
            translator.translate(root, _DEVFN, iova, write=True)

    hits()
    iovas = np.random.default_rng(1).choice(np.array(mapped, dtype=np.uint64), _BATCH)

    def batch() -> None:
        assert not translator.translate_batch(binding, iovas, write=True).reasons.any()

    return [
        Row("second-stage walk", "ns", tuple(_seconds(walks) * 1e9 / len(few) for _ in range(runs)), better="lower"),
        Row("IOTLB hit", "ns", tuple(_seconds(hits) * 1e9 / len(few) for _ in range(runs)), better="lower"),
        Row("batch translation", "pages/s", tuple(_BATCH / _seconds(batch) for _ in range(runs)), must=2e6),
    ]


def _syncs(runs: int) -> list[Row]:
    fresh, again = [], []
    for _ in range(runs):
        listener = CountingListener()
        machine = Machine(listener)
        space = machine.unit.address_space(_DEVFN)
        machine.driver.attach(_DEVFN, DomainKind.BLOCKED)
        machine.map(MAPPINGS)
        listener.maps = 0
        fresh.append(_seconds(lambda: machine.driver.attach(_DEVFN, DomainKind.PAGING)))  # noqa: B023 - called here
        assert listener.maps == len(space.mappings) == MAPPINGS
        again.append(_seconds(space.sync))
        assert listener.maps == MAPPINGS
    name = f"page-table sync of {MAPPINGS} mappings"
    return [
        Row(f"{name}, all new", "s", tuple(fresh), must=1.0, better="lower", worst=True),
        Row(f"{name}, unchanged", "s", tuple(again), must=1.0, better="lower", worst=True),
    ]


def _unmaps(runs: int) -> list[Row]:
    whole, synced = [], []
    for _ in range(runs):
        with _behind_a_container() as (machine, device):
            machine.driver.attach(_DEVFN, DomainKind.BLOCKED)
            machine.map(UNMAPPED)
            machine.driver.attach(_DEVFN, DomainKind.PAGING)
            device.container.flush()
            machine.tracking = True
            device.listener.start_tracking()
            machine.memory.log.enabled = True
            assert len(device.listener.shown()) == UNMAPPED

            def block(machine: Machine = machine, device: AssembledDevice = device) -> None:
                machine.driver.attach(_DEVFN, DomainKind.BLOCKED)
                device.container.flush()

            whole.append(_seconds(block))
            assert not device.listener.shown()
        with _behind_a_container() as (machine, device):
            machine.driver.attach(_DEVFN, DomainKind.BLOCKED)
            machine.map(MAPPINGS)

            def follow(machine: Machine = machine, device: AssembledDevice = device) -> None:
                machine.driver.attach(_DEVFN, DomainKind.PAGING)
                device.container.flush()

            synced.append(_seconds(follow))
            assert len(device.listener.shown()) == MAPPINGS
    return [
        Row(
            f"unmap of an address space of {UNMAPPED} mappings, each queried",
            "s",
            tuple(whole),
            must=0.5,
            better="lower",
            worst=True,
            note="tables, vIOMMU, container, host",
        ),
        Row(f"sync of {MAPPINGS} mappings down to the host's IO page tables", "s", tuple(synced), better="lower"),
    ]


@contextlib.contextmanager
def _behind_a_container() -> Iterator[tuple[Machine, AssembledDevice]]:
    """Assemble an accelerator on iommufd behind a unit, with the host's own objects in this process."""
    document = {
        "name": "full",
        "memory": {"size": _RAM},
        "device": [{"name": "qat0", "model": "qat", "address": "00:03.0"}],
    }
    specification = check_specification(document, "the benchmark's machine")
    host = HostInProcess(host_configuration(specification))
    machine = Machine(None)
    host.register_memory(machine.memory.block.address, _RAM, machine.memory.block.descriptor)
    (device,) = assemble_devices(specification, host, machine.memory, machine.unit)
    machine.begin(device.listener)
    try:
        yield machine, device
    finally:
        os.close(device.completion)
        os.close(device.doorbell)
        host.close()
        machine.memory.block.close()


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
