"""Why a request faults, and how that is recorded (semantics 4.8)."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from vmm.viommu.registers import FECTL, FRCD_HIGH, FRCD_LOW, FSTS, FSTS_IQE, FSTS_PFO, FSTS_PPF, RegisterFile

_F: Final = 1 << 63
_T: Final = 1 << 62


class FaultReason(IntEnum):
    """Codes of the recording register (semantics 4.8; 0x48, 0x52 and 0x5a as Linux's dmar.c names them).

    In scalable mode root, context and second-stage faults keep their legacy codes, as in QEMU.
    """

    ROOT_NOT_PRESENT = 0x1
    CONTEXT_NOT_PRESENT = 0x2
    CONTEXT_INVALID = 0x3
    BEYOND_WIDTH = 0x4
    WRITE_PERMISSION = 0x5
    READ_PERMISSION = 0x6
    PAGING_ENTRY_ACCESS = 0x7
    ROOT_TABLE_ACCESS = 0x8
    CONTEXT_TABLE_ACCESS = 0x9
    ROOT_RESERVED = 0xA
    CONTEXT_RESERVED = 0xB
    PAGING_RESERVED = 0xC
    TRANSLATION_TYPE = 0xD
    """A device's own translation request was refused (ATS). A context entry with a type that is not offered is
    CONTEXT_INVALID: QEMU keeps 0xd for requests which no device of this model makes."""
    INTERRUPT_ADDRESS = 0xE
    INTERRUPT_REQUEST_RESERVED = 0x20
    INTERRUPT_INDEX = 0x21
    INTERRUPT_ENTRY_NOT_PRESENT = 0x22
    INTERRUPT_TABLE_ACCESS = 0x23
    INTERRUPT_ENTRY_RESERVED = 0x24
    INTERRUPT_COMPATIBILITY = 0x25
    INTERRUPT_SOURCE = 0x26
    RID_PASID = 0x48
    """The PASID of requests without one lies beyond the size of the PASID directory."""
    PASID_DIRECTORY_ACCESS = 0x50
    PASID_DIRECTORY_NOT_PRESENT = 0x51
    PASID_DIRECTORY_RESERVED = 0x52
    PASID_TABLE_ACCESS = 0x58
    PASID_NOT_PRESENT = 0x59
    PASID_RESERVED = 0x5A
    PASID_INVALID = 0x5B
    FIRST_STAGE_ENTRY_ACCESS = 0x70
    FIRST_STAGE_NOT_PRESENT = 0x71
    FIRST_STAGE_RESERVED = 0x72
    FIRST_STAGE_TABLE_ACCESS = 0x73
    NOT_CANONICAL = 0x80
    USER_PRIVILEGE = 0x81
    FIRST_STAGE_WRITE = 0x85
    SCALABLE_INTERRUPT_ADDRESS = 0x87
    FIRST_STAGE_BIT_UPDATE = 0x91
    """Accessed or dirty bit could not be written. Tables that can be read are RAM and can be written: it never
    occurs."""


UNQUALIFIED: Final = frozenset(
    {
        FaultReason.ROOT_NOT_PRESENT,
        FaultReason.ROOT_TABLE_ACCESS,
        FaultReason.CONTEXT_TABLE_ACCESS,
        FaultReason.ROOT_RESERVED,
        FaultReason.INTERRUPT_REQUEST_RESERVED,
        FaultReason.INTERRUPT_INDEX,
        FaultReason.INTERRUPT_TABLE_ACCESS,
        FaultReason.INTERRUPT_COMPATIBILITY,
        FaultReason.PASID_DIRECTORY_ACCESS,
        FaultReason.PASID_TABLE_ACCESS,
    }
)
"""Faults that are reported even where fault processing is disabled (FPD)."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A request that was not translated. `processing_disabled` is FPD of the structures met until then."""

    reason: FaultReason
    processing_disabled: bool = False

    @property
    def reported(self) -> bool:
        """Whether the unit records it."""
        return not self.processing_disabled or self.reason in UNQUALIFIED


class FaultRecorder:
    """The one recording register, and the fault event's interrupt conditions."""

    def __init__(self, registers: RegisterFile) -> None:
        self._registers: Final = registers

    def record(self, source: int, address: int, *, write: bool, reason: FaultReason) -> bool:
        """Record a fault of a source; return whether it took the register.

        While the register is taken, a fault of the same source collapses into it and another sets the overflow bit.
        After an overflow nothing is recorded until software clears it.
        """
        status = self._registers.load(FSTS)
        high = self._registers.load(FRCD_HIGH)
        if status & FSTS_PFO or (high & _F and high & 0xFFFF == source):
            return False
        if high & _F:
            self._registers.store(FSTS, status | FSTS_PFO)
            return False
        self._registers.store(FRCD_LOW, address & ~0xFFF)
        self._registers.store(FRCD_HIGH, _F | (0 if write else _T) | reason << 32 | source)
        self._registers.store(FSTS, status & ~0xFF00 | FSTS_PPF)
        self._raise_event(status)
        return True

    def record_interrupt(self, source: int, index: int, *, reason: FaultReason) -> bool:
        """Record a fault of a source's interrupt request; the index of its entry takes the place of an address."""
        return self.record(source, (index & 0xFFFF) << 48, write=True, reason=reason)

    def queue_error(self) -> None:
        """Record that the invalidation queue stopped (IQE)."""
        status = self._registers.load(FSTS)
        self._registers.store(FSTS, status | FSTS_IQE)
        self._raise_event(status)

    def update_pending(self) -> None:
        """Make PPF follow the recording register, whose F bit software may have cleared; drop a void interrupt."""
        status = self._registers.load(FSTS) & ~FSTS_PPF
        if self._registers.load(FRCD_HIGH) & _F:
            status |= FSTS_PPF
        self._registers.store(FSTS, status)
        if not status & (FSTS_PPF | FSTS_PFO | FSTS_IQE):
            self._registers.clear_pending(FECTL)

    def _raise_event(self, status_before: int) -> None:
        # Conditions that software has not served yet hold back further events.
        if not status_before & (FSTS_PPF | FSTS_PFO | FSTS_IQE):
            self._registers.raise_event(FECTL)
