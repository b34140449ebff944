"""The unit's saved state: the fields of "iommu-intel" version 1, big-endian (semantics 4.16).

Caches, trees and views are not saved; the destination rebuilds them from the tables in RAM.
"""

import struct
from dataclasses import dataclass
from typing import Final, NamedTuple

from vmm.viommu.errors import StateRefused
from vmm.viommu.registers import REGISTERS_SIZE

_MAGIC: Final = b"VTDS"
_VERSION: Final = 1
_LAYOUT: Final = struct.Struct(f">4sHQQQIHHIH{REGISTERS_SIZE}sBBBBBB")


@dataclass(frozen=True, slots=True)
class UnitState:
    """What moves. Queue positions are in descriptors.

    `root` and `queue_base` carry the mode bit beside the address that their registers had when they took effect.
    """

    root: int
    interrupt_root: int
    queue_base: int
    interrupt_size: int
    queue_head: int
    queue_tail: int
    queue_size: int
    next_record: int
    registers: bytes
    last_type: int
    translating: bool
    queue_enabled: bool
    interrupts_remapped: bool
    extended_interrupts: bool

    def encode(self) -> bytes:
        """Return the one encoding of this state."""
        return _LAYOUT.pack(
            *_Fields(
                magic=_MAGIC,
                version=_VERSION,
                root=self.root,
                interrupt_root=self.interrupt_root,
                queue_base=self.queue_base,
                interrupt_size=self.interrupt_size,
                queue_head=self.queue_head,
                queue_tail=self.queue_tail,
                queue_size=self.queue_size,
                next_record=self.next_record,
                registers=self.registers,
                last_type=self.last_type,
                unused=0,
                translating=self.translating,
                queue_enabled=self.queue_enabled,
                interrupts_remapped=self.interrupts_remapped,
                extended_interrupts=self.extended_interrupts,
            )
        )

    @classmethod
    def decode(cls, data: bytes) -> "UnitState":
        """Read a state.

        Raises:
            StateRefused: The bytes are not the encoding of a state of this version.
        """
        if len(data) != _LAYOUT.size:
            raise StateRefused(f"State of the vIOMMU has {_LAYOUT.size} bytes, not {len(data)}")
        fields = _Fields(*_LAYOUT.unpack(data))
        if fields.magic != _MAGIC or fields.version != _VERSION:
            raise StateRefused(f"State of the vIOMMU is of version {fields.version}, this program reads {_VERSION}")
        flags = (fields.translating, fields.queue_enabled, fields.interrupts_remapped, fields.extended_interrupts)
        if fields.unused or not set(flags) <= {0, 1}:
            raise StateRefused("State of the vIOMMU has a flag that is neither 0 nor 1")
        return cls(
            root=fields.root,
            interrupt_root=fields.interrupt_root,
            queue_base=fields.queue_base,
            interrupt_size=fields.interrupt_size,
            queue_head=fields.queue_head,
            queue_tail=fields.queue_tail,
            queue_size=fields.queue_size,
            next_record=fields.next_record,
            registers=fields.registers,
            last_type=fields.last_type,
            translating=bool(fields.translating),
            queue_enabled=bool(fields.queue_enabled),
            interrupts_remapped=bool(fields.interrupts_remapped),
            extended_interrupts=bool(fields.extended_interrupts),
        )


class _Fields(NamedTuple):
    magic: bytes
    version: int
    root: int
    interrupt_root: int
    queue_base: int
    interrupt_size: int
    queue_head: int
    queue_tail: int
    queue_size: int
    next_record: int
    registers: bytes
    last_type: int
    unused: int
    translating: int
    queue_enabled: int
    interrupts_remapped: int
    extended_interrupts: int
