"""The guest of a machine, with the drivers that its specification asks for."""

from collections.abc import Callable, Sequence
from typing import Final

from vmm.assembly.devices import AssembledDevice
from vmm.assembly.specification import MachineSpecification
from vmm.guest.guest import Guest, GuestConfiguration
from vmm.guest.layout import plan
from vmm.memory.guest_physical import GuestMemory
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
