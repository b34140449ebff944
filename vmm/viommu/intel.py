"""The Intel VT-d unit: registers, commands, invalidations, and the address spaces behind it.

Guest code writes registers; each write has had its whole effect, on listeners too, when it returns. The order of
what an invalidation does is that of semantics 4.12 and 4.14.
"""

from collections.abc import Callable
from typing import Final

from vmm.memory.guest_physical import AccessFault, GuestMemory
from vmm.rules import Rules
from vmm.viommu import registers as reg
from vmm.viommu.address_space import DeviceAddressSpace, SpaceContext, View
from vmm.viommu.commands import Command, InvalidatePasids, Wait
from vmm.viommu.context import Binding, RootTable
from vmm.viommu.descriptors import DescriptorType
from vmm.viommu.errors import StateRefused
from vmm.viommu.faults import Fault, FaultReason, FaultRecorder
from vmm.viommu.interrupt_remapping import InterruptMessage, InterruptTable, RefusedInterrupt, remap
from vmm.viommu.invalidation import InvalidationQueue
from vmm.viommu.invalidator import Invalidator
from vmm.viommu.register_invalidation import context_command, iotlb_command
from vmm.viommu.registers import RegisterFile, VtdConfiguration
from vmm.viommu.state import UnitState
from vmm.viommu.translation import Translator
from vmm.viommu.walk import Translation

__all__ = ["DeviceAddressSpace", "View", "VtdConfiguration", "VtdUnit"]

_FRAME: Final = ~0xFFF
_QUEUE_SIZES: Final = frozenset(1 << order for order in range(7, 16))
_INTERRUPT_TABLE_SIZES: Final = frozenset(1 << order for order in range(1, 17))


class VtdUnit:
    """One remapping unit, which all devices of bus 0 sit behind.

    `dirty_tracking_active` is the global dirty tracking mask, for whatever reason it is on (semantics 4.13). `deliver`
    takes interrupt messages; there are at most as many as register writes and recorded faults.

    Raises:
        UnsupportedConfiguration: No such unit exists.
    """

    def __init__(
        self,
        memory: GuestMemory,
        configuration: VtdConfiguration,
        dirty_tracking_active: Callable[[], bool],
        rules: Rules | None = None,
        deliver: reg.Deliver | None = None,
    ) -> None:
        self.configuration: Final = configuration
        self.faults_recorded = 0
        self._memory: Final = memory
        self._registers: Final = RegisterFile(configuration, deliver)
        self._recorder: Final = FaultRecorder(self._registers)
        self._queue: Final = InvalidationQueue(memory)
        self._translator: Final = Translator(memory, configuration)
        self._frame: Final = (1 << configuration.aw_bits) - 1 & _FRAME
        self._root = RootTable(0, scalable=False)
        self._translating = False
        self._interrupt_table = InterruptTable(0, 0, extended=False)
        self._interrupts_remapped = False
        self._space_context: Final = SpaceContext(
            configuration,
            Rules() if rules is None else rules,
            memory,
            self._translator.walker,
            self._look_up,
            self._translate,
            dirty_tracking_active,
        )
        self._invalidator: Final = Invalidator(self._translator)

    def address_space(self, devfn: int) -> DeviceAddressSpace:
        """Return the address space of a device of bus 0, made on the first call."""
        spaces = self._invalidator.spaces
        space = spaces.get(devfn)
        if space is None:
            space = spaces[devfn] = DeviceAddressSpace(devfn, self._space_context)
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
            case reg.CCMD | reg.CCMD_TOP:
                self._contexts_written()
            case reg.IOTLB | reg.IOTLB_TOP:
                self._iotlb_written()
            case reg.FSTS | reg.FRCD_HIGH | reg.FRCD_TOP:
                self._recorder.update_pending()
                # Software has served a stopped queue by clearing IQE, and expects it to go on.
                self._process_queue()
            case reg.FECTL | reg.IECTL:
                self._registers.release_event(offset)
            case reg.ICS:
                if not self._registers.load(reg.ICS) & reg.ICS_IWC:
                    self._registers.clear_pending(reg.IECTL)

    def remap_interrupt(self, devfn: int, message: InterruptMessage) -> InterruptMessage | None:
        """Return the message that reaches the processors for one that a device sent; None, recorded, when refused."""
        table = self._interrupt_table if self._interrupts_remapped else None
        remapped = remap(self._memory, table, message, devfn)
        if not isinstance(remapped, RefusedInterrupt):
            return remapped
        fault = remapped.fault
        if fault.reported and self._recorder.record_interrupt(devfn, remapped.index, reason=fault.reason):
            self.faults_recorded += 1
        return None

    def save(self) -> bytes:
        """Return the state that moves; tables move as RAM, everything else is rebuilt."""
        queue = self._queue
        interrupts = self._interrupt_table
        return UnitState(
            root=self._root.address | (reg.RTADDR_SMT if self._root.scalable else 0),
            interrupt_root=interrupts.address,
            queue_base=queue.base | (reg.IQA_DW if queue.wide else 0),
            interrupt_size=interrupts.entries,
            queue_head=queue.head,
            queue_tail=queue.tail,
            queue_size=queue.size,
            next_record=0,
            registers=self._registers.dump(),
            last_type=queue.last_type,
            translating=self._translating,
            queue_enabled=queue.enabled,
            interrupts_remapped=self._interrupts_remapped,
            extended_interrupts=interrupts.extended,
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
        self._interrupt_table = InterruptTable(
            loaded.interrupt_root, loaded.interrupt_size, extended=loaded.extended_interrupts
        )
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
        if loaded.interrupt_size not in _INTERRUPT_TABLE_SIZES | {0}:
            raise StateRefused("State of the vIOMMU has an interrupt remapping table of a size that there is not")
        enabled = reg.TE * loaded.translating | reg.QIE * loaded.queue_enabled | reg.IRE * loaded.interrupts_remapped
        status = int.from_bytes(loaded.registers[reg.GSTS : reg.GSTS + 4], "little")
        if status & (reg.TE | reg.QIE | reg.IRE) != enabled:
            raise StateRefused("State of the vIOMMU is on in other parts than its status register says")
        if loaded.translating and not self.configuration.dma_translation:
            raise StateRefused("State of the vIOMMU translates DMA, which this unit does not")

    def _refresh_all(self) -> None:
        self._translator.reset()
        self._invalidator.refresh_all()

    def _look_up(self, devfn: int) -> Binding | Fault | None:
        return self._translator.look_up(self._root, devfn) if self._translating else None

    def _translate(self, devfn: int, iova: int, write: bool) -> Translation | Fault:
        root = self._root if self._translating else None
        found = self._translator.translate(root, devfn, iova, write=write)
        if isinstance(found, Fault):
            self._record(devfn, iova, write=write, fault=found)
        return found

    def _record(self, devfn: int, address: int, *, write: bool, fault: Fault) -> None:
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
            self._interrupt_table = InterruptTable(
                table & self._frame, 2 << (table & 0xF), extended=bool(table & reg.IRTA_EIME)
            )
            self._set_status(reg.SIRTP, value)
        if changed & reg.IRE and self.configuration.interrupt_remapping:
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
        if self._wide_queue and self._registers.load(reg.IQT) & 0x10:
            self._recorder.queue_error()
            return
        self._take_tail()
        self._process_queue()

    @property
    def _wide_queue(self) -> bool:
        return self._queue.wide if self._queue.enabled else bool(self._registers.load(reg.IQA) & reg.IQA_DW)

    def _take_tail(self) -> None:
        tail = self._registers.load(reg.IQT)
        self._queue.tail = tail >> 5 & 0x3FFF if self._wide_queue else tail >> 4 & 0x7FFF

    def _process_queue(self) -> None:
        if not self._queue.enabled or self._registers.load(reg.FSTS) & reg.FSTS_IQE:
            return
        self._invalidator.begin()
        if not self._queue.process(self._execute):
            self._recorder.queue_error()
        self._registers.store(reg.IQH, self._queue.head_register)
        self._invalidator.end()

    def _execute(self, command: Command) -> bool:
        if isinstance(command, Wait):
            return self._complete(command)
        if not isinstance(command, InvalidatePasids) or self._root.scalable:
            self._invalidator.execute(command)
        return True

    def _contexts_written(self) -> None:
        value = self._registers.load(reg.CCMD)
        if value & reg.CCMD_ICC and not self._queue.enabled:
            command, shown = context_command(value)
            self._registers.store(reg.CCMD, shown)
            if command is not None:
                self._invalidator.invalidate(command)

    def _iotlb_written(self) -> None:
        value = self._registers.load(reg.IOTLB)
        if value & reg.IOTLB_IVT and not self._queue.enabled:
            command, shown = iotlb_command(value, self._registers.load(reg.IVA))
            self._registers.store(reg.IOTLB, shown)
            if command is not None:
                self._invalidator.invalidate(command)

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
