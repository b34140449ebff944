"""The Intel VT-d unit: registers, commands, invalidations, and the address spaces behind it.

Guest code writes registers; each write has had its whole effect, on listeners too, when it returns. The order of
what an invalidation does is that of semantics 4.12 and 4.14.
"""

from collections.abc import Callable
from typing import Final

from vmm.memory.guest_physical import AccessFault, GuestMemory
from vmm.viommu import registers as reg
from vmm.viommu.address_space import DeviceAddressSpace, SpaceContext, View
from vmm.viommu.context import Binding, ContextReader, RootTable
from vmm.viommu.errors import StateRefused, UnsupportedConfiguration
from vmm.viommu.faults import Fault, FaultReason, FaultRecorder
from vmm.viommu.invalidation import (
    Command,
    DescriptorType,
    InvalidateContexts,
    InvalidateIotlb,
    InvalidatePasids,
    InvalidationQueue,
    Wait,
)
from vmm.viommu.registers import RegisterFile, VtdConfiguration
from vmm.viommu.state import UnitState
from vmm.viommu.walk import SecondStageWalker

__all__ = ["DeviceAddressSpace", "View", "VtdConfiguration", "VtdUnit"]

WORK_LIMIT: Final = 1 << 17
"""Tables that one write of the tail may make the unit read, and 64 more a descriptor.

What a guest posts beyond it is done once, for every device, after the last descriptor. The guest cannot tell: the
write has not returned.
"""
_COMMAND_WORK: Final = 64
_FRAME: Final = ~0xFFF
_QUEUE_SIZES: Final = frozenset(1 << order for order in range(7, 16))


class VtdUnit:
    """One remapping unit, which all devices of bus 0 sit behind.

    `dirty_tracking_active` is the global dirty tracking mask, for whatever reason it is on (semantics 4.13).

    Raises:
        UnsupportedConfiguration: No unit has this address width.
    """

    def __init__(
        self, memory: GuestMemory, configuration: VtdConfiguration, dirty_tracking_active: Callable[[], bool]
    ) -> None:
        if configuration.aw_bits not in {39, 48}:
            raise UnsupportedConfiguration(f"Address width of the vIOMMU is 39 or 48, not {configuration.aw_bits}")
        self.configuration: Final = configuration
        self.faults_recorded = 0
        self._memory: Final = memory
        self._registers: Final = RegisterFile(configuration)
        self._recorder: Final = FaultRecorder(self._registers)
        self._queue: Final = InvalidationQueue(memory, scalable=configuration.scalable)
        self._reader: Final = ContextReader(memory, configuration.aw_bits)
        self._frame: Final = (1 << configuration.aw_bits) - 1 & _FRAME
        self._root = RootTable(0, scalable=False)
        self._translating = False
        self._interrupt_table = (0, 0, False)
        self._interrupts_remapped = False
        self._work_left = 0
        self._spaces: Final[dict[int, DeviceAddressSpace]] = {}
        self._walker: Final = SecondStageWalker(memory, configuration.aw_bits, scalable=configuration.scalable)
        self._space_context: Final = SpaceContext(
            configuration,
            memory.sections,
            self._walker,
            self._look_up,
            self._record,
            dirty_tracking_active,
        )

    def address_space(self, devfn: int) -> DeviceAddressSpace:
        """Return the address space of a device of bus 0, made on the first call."""
        space = self._spaces.get(devfn)
        if space is None:
            space = self._spaces[devfn] = DeviceAddressSpace(devfn, self._space_context)
        return space

    def read_register(self, offset: int) -> int:
        """Return a register, in its own width; all ones where there is none."""
        return self._registers.read(offset)

    def write_register(self, offset: int, value: int) -> None:
        """Write a register, in its own width; what it commands is done when this returns."""
        if not self._registers.write(offset, value):
            return
        match offset:
            case reg.GCMD:
                self._command(self._registers.load(reg.GCMD))
            case reg.IQT:
                self._tail_written()
            case reg.FSTS | reg.FRCD_HIGH | reg.FRCD_TOP:
                self._recorder.update_pending()
                # Software has served a stopped queue by clearing IQE, and expects it to go on.
                self._process_queue()
            case reg.FECTL | reg.IECTL:
                self._registers.release_event(offset)
            case reg.ICS:
                if not self._registers.load(reg.ICS) & reg.ICS_IWC:
                    self._registers.clear_pending(reg.IECTL)

    def save(self) -> bytes:
        """Return the state that moves; tables move as RAM, everything else is rebuilt."""
        queue = self._queue
        root, size, extended = self._interrupt_table
        return UnitState(
            root=self._root.address | (reg.RTADDR_SMT if self._root.scalable else 0),
            interrupt_root=root,
            queue_base=queue.base | (reg.IQA_DW if queue.wide else 0),
            interrupt_size=size,
            queue_head=queue.head,
            queue_tail=queue.tail,
            queue_size=queue.size,
            next_record=0,
            registers=self._registers.dump(),
            last_type=queue.last_type,
            translating=self._translating,
            queue_enabled=queue.enabled,
            interrupts_remapped=self._interrupts_remapped,
            extended_interrupts=extended,
        ).encode()

    def load(self, state: bytes) -> None:
        """Take a saved state over, and show every listener what the tables in RAM now say.

        Raises:
            StateRefused: The bytes are no state of such a unit. Nothing was changed, and no listener called.
        """
        loaded = UnitState.decode(state)
        self._check(loaded)
        self._registers.restore(loaded.registers)
        self._root = RootTable(loaded.root & self._frame, scalable=bool(loaded.root & reg.RTADDR_SMT))
        self._translating = loaded.translating
        self._interrupt_table = (loaded.interrupt_root, loaded.interrupt_size, loaded.extended_interrupts)
        self._interrupts_remapped = loaded.interrupts_remapped
        queue = self._queue
        queue.base, queue.wide = loaded.queue_base & self._frame, bool(loaded.queue_base & reg.IQA_DW)
        queue.size, queue.head, queue.tail = loaded.queue_size, loaded.queue_head, loaded.queue_tail
        queue.enabled, queue.last_type = loaded.queue_enabled, DescriptorType(loaded.last_type)
        self._refresh_all()

    def _check(self, loaded: UnitState) -> None:
        own = self._registers.dump()[: reg.GCMD]
        if loaded.registers[: reg.GCMD] != own:
            raise StateRefused("State of the vIOMMU is of a unit with other capabilities")
        if loaded.last_type not in list(DescriptorType) or loaded.next_record:
            raise StateRefused("State of the vIOMMU names a descriptor type or fault record that there is not")
        if loaded.queue_size not in _QUEUE_SIZES | {0} or loaded.queue_head >= max(1, loaded.queue_size):
            raise StateRefused("State of the vIOMMU has an invalidation queue whose head lies outside it")
        mode_bits = (reg.RTADDR_SMT, reg.IQA_DW) if self.configuration.scalable else (0, 0)
        tables = loaded.root & ~mode_bits[0] | loaded.queue_base & ~mode_bits[1] | loaded.interrupt_root
        if tables & ~self._frame:
            raise StateRefused("State of the vIOMMU has a table beyond the address width")
        if loaded.queue_enabled and not loaded.queue_size:
            raise StateRefused("State of the vIOMMU has an enabled invalidation queue without descriptors")
        if loaded.translating and not self.configuration.dma_translation:
            raise StateRefused("State of the vIOMMU translates DMA, which this unit does not")

    def _look_up(self, devfn: int) -> Binding | Fault | None:
        return self._reader.look_up(self._root, devfn) if self._translating else None

    def _record(self, devfn: int, address: int, write: bool, fault: Fault) -> None:
        if fault.reported and self._recorder.record(devfn, address, write=write, reason=FaultReason(fault.reason)):
            self.faults_recorded += 1

    def _command(self, value: int) -> None:
        changed = self._registers.load(reg.GSTS) ^ value
        if changed & reg.TE and self.configuration.dma_translation:
            self._translating = bool(value & reg.TE)
            self._set_status(reg.TE, value)
            self._refresh_all()
        if value & reg.SRTP:
            table = self._registers.load(reg.RTADDR)
            self._root = RootTable(table & self._frame, scalable=bool(table & reg.RTADDR_SMT))
            self._set_status(reg.SRTP, value)
            self._refresh_all()
        if changed & reg.QIE:
            self._switch_queue(on=bool(value & reg.QIE))
        if value & reg.SIRTP:
            table = self._registers.load(reg.IRTA)
            self._interrupt_table = (table & self._frame, 2 << (table & 0xF), bool(table >> 11 & 1))
            self._set_status(reg.SIRTP, value)
        if changed & reg.IRE:
            self._interrupts_remapped = bool(value & reg.IRE)
            self._set_status(reg.IRE, value)

    def _set_status(self, bit: int, command: int) -> None:
        status = self._registers.load(reg.GSTS)
        self._registers.store(reg.GSTS, status & ~bit | command & bit)

    def _switch_queue(self, *, on: bool) -> None:
        if on:
            address = self._registers.load(reg.IQA)
            self._queue.start(address & self._frame, size_order=address & 7, wide=bool(address & reg.IQA_DW))
            self._take_tail()
            self._set_status(reg.QIE, reg.QIE)
            self._process_queue()
        elif self._queue.stop():
            self._registers.store(reg.IQH, 0)
            self._set_status(reg.QIE, 0)

    def _tail_written(self) -> None:
        if self._queue.wide and self._registers.load(reg.IQT) & 0x10:
            self._recorder.queue_error()
            return
        self._take_tail()
        self._process_queue()

    def _take_tail(self) -> None:
        tail = self._registers.load(reg.IQT)
        self._queue.tail = tail >> 5 & 0x3FFF if self._queue.wide else tail >> 4 & 0x7FFF

    def _process_queue(self) -> None:
        if not self._queue.enabled or self._registers.load(reg.FSTS) & reg.FSTS_IQE:
            return
        self._work_left = WORK_LIMIT
        if not self._queue.process(self._execute):
            self._recorder.queue_error()
        self._registers.store(reg.IQH, self._queue.head_register)
        if self._work_left <= 0:
            for space in self._spaces.values():
                space.switch()
                space.sync()

    def _execute(self, command: Command) -> bool:
        if isinstance(command, Wait):
            return self._complete(command)
        if self._work_left > 0:
            before = self._walker.tables_read
            self._invalidate(command)
            self._work_left -= _COMMAND_WORK + self._walker.tables_read - before
        return True

    def _invalidate(self, command: Command) -> None:
        match command:
            case InvalidateContexts(devices=None):
                self._refresh_all()
            case InvalidateContexts():
                for space in self._spaces.values():
                    if command.matches(space.devfn):
                        space.switch()
                        space.sync()
            case InvalidateIotlb():
                for space in self._spaces.values():
                    space.invalidate(command)
            case InvalidatePasids():
                for space in self._spaces.values():
                    space.invalidate_pasid(command)
            case _:
                pass

    def _complete(self, wait: Wait) -> bool:
        if wait.status is not None:
            address, data = wait.status
            try:
                self._memory.write(address, data.to_bytes(4, "little"))
            except AccessFault:
                return False
        if wait.interrupt and not self._registers.load(reg.ICS) & reg.ICS_IWC:
            self._registers.store(reg.ICS, reg.ICS_IWC)
            self._registers.raise_event(reg.IECTL)
        return True

    def _refresh_all(self) -> None:
        """Unmap everything, switch every address space, then follow the tables anew."""
        spaces = tuple(self._spaces.values())
        for space in spaces:
            space.unmap()
        for space in spaces:
            space.switch()
        for space in spaces:
            space.sync()
