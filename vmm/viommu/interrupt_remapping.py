"""Remapping of a device's interrupt messages by the table that software set with SIRTP.

A message in remappable format names an entry, and leaves as the message that the entry describes (VT-d 5.1; QEMU's
`vtd_interrupt_remap_msi`). Entries are read where they lie in guest RAM; there is no interrupt entry cache.

Where the two differ: a message in compatibility format is refused as hardware refuses it, where QEMU lets it through;
posted entries (bit 15), which are not offered, are reserved; reserved data bits are found before an entry is read.
A source validation type that does not exist refuses every source, as in QEMU.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple

from vmm.memory.guest_physical import AccessFault, GuestMemory
from vmm.viommu.faults import Fault, FaultReason

_HEAD: Final = 0xFEE
_REMAPPABLE: Final = 1 << 4
_SUBHANDLE_VALID: Final = 1 << 3
_PRESENT: Final = 1 << 0
_PROCESSING_DISABLED: Final = 1 << 1
_RESERVED_LOW: Final = 0xFF00_F000
_RESERVED_HIGH: Final = ~0xF_FFFF
_IGNORED_FUNCTION_BITS: Final = (0, 4, 6, 7)
_LEVEL_ASSERT: Final = 1 << 14


class InterruptMessage(NamedTuple):
    """A message-signalled interrupt: 64 bits of address, 32 of data."""

    address: int
    data: int


@dataclass(frozen=True, slots=True)
class InterruptTable:
    """What software set with SIRTP: where, how many entries, and whether destinations have 32 bits (EIME).

    `compatibility` is GSTS.CFIS: messages in the format without an entry pass, but never where destinations have 32
    bits.
    """

    address: int
    entries: int
    extended: bool
    compatibility: bool = False


@dataclass(frozen=True, slots=True)
class RefusedInterrupt:
    """A message that is dropped, and the index that it named (0 where it is refused before), for the fault's record."""

    fault: Fault
    index: int


class _Entry(NamedTuple):
    low: int
    high: int


def remap(
    memory: GuestMemory, table: InterruptTable | None, message: InterruptMessage, source: int
) -> InterruptMessage | RefusedInterrupt:
    """Return the message that reaches the processors for one that a device sent; without a table, the same."""
    if table is None:
        return message
    remappable = bool(message.address & _REMAPPABLE)
    if message.address >> 20 == _HEAD and not remappable and table.compatibility and not table.extended:
        return message
    refusal = _refusal(message, remappable=remappable)
    if refusal is not None:
        return RefusedInterrupt(Fault(refusal), 0)
    index = _index(message)
    entry = _entry(memory, table, index, source)
    if isinstance(entry, Fault):
        return RefusedInterrupt(entry, index)
    return _message(entry, extended=table.extended, kept=message.address & 3)


def _index(message: InterruptMessage) -> int:
    handle = message.address >> 5 & 0x7FFF | (message.address >> 2 & 1) << 15
    return handle + (message.data & 0xFFFF if message.address & _SUBHANDLE_VALID else 0)


def _refusal(message: InterruptMessage, *, remappable: bool) -> FaultReason | None:
    if message.address >> 20 != _HEAD:
        return FaultReason.INTERRUPT_REQUEST_RESERVED
    if not remappable:
        return FaultReason.INTERRUPT_COMPATIBILITY
    if message.address & _SUBHANDLE_VALID and message.data >> 16:
        return FaultReason.INTERRUPT_REQUEST_RESERVED
    return None


def _entry(memory: GuestMemory, table: InterruptTable, index: int, source: int) -> _Entry | Fault:
    if index >= table.entries:
        return Fault(FaultReason.INTERRUPT_INDEX)
    try:
        entry = _Entry(*memory.words(table.address + index * 16, 2).tolist())
    except AccessFault:
        return Fault(FaultReason.INTERRUPT_TABLE_ACCESS)
    disabled = bool(entry.low & _PROCESSING_DISABLED)
    if not entry.low & _PRESENT:
        return Fault(FaultReason.INTERRUPT_ENTRY_NOT_PRESENT, disabled)
    if entry.low & _RESERVED_LOW or entry.high & _RESERVED_HIGH:
        return Fault(FaultReason.INTERRUPT_ENTRY_RESERVED, disabled)
    if not _admits(entry, source):
        return Fault(FaultReason.INTERRUPT_SOURCE, disabled)
    return entry


def _admits(entry: _Entry, source: int) -> bool:
    """Whether an entry may be used by a source: any, one (but for bits of its function), or a range of buses."""
    named = entry.high & 0xFFFF
    match entry.high >> 18 & 3:
        case 0:
            return True
        case 1:
            compared = ~_IGNORED_FUNCTION_BITS[entry.high >> 16 & 3]
            return named & compared == source & compared
        case 2:
            return named & 0xFF <= source >> 8 <= named >> 8
        case _:
            return False


def _message(entry: _Entry, *, extended: bool, kept: int) -> InterruptMessage:
    destination = entry.low >> 32
    if not extended:
        destination = destination >> 8 & 0xFF
    address = _HEAD << 20 | (destination & 0xFF) << 12 | (destination & ~0xFF) << 32
    hint_and_mode = (entry.low >> 3 & 1) << 3 | (entry.low >> 2 & 1) << 2
    vector, delivery, trigger = entry.low >> 16 & 0xFF, entry.low >> 5 & 7, entry.low >> 4 & 1
    return InterruptMessage(address | hint_and_mode | kept, vector | delivery << 8 | _LEVEL_ASSERT | trigger << 15)
