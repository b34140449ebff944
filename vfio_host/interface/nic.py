"""The network card's data sheet: a virtual function that receives.

Region 0 holds 64-bit registers. All addresses are IOVAs. Rings and index page lie in guest memory and are read and
written by DMA. The driver fills descriptors of empty buffers and advances BUFFER_TAIL. Packets come in at RATE bytes a
second; each takes the next descriptor: the packet goes into its buffer, a completion entry is written, then
BUFFER_HEAD and COMPLETION_TAIL, and the completion eventfd is raised, once for all packets of a moment (a millisecond
at most). How indexes count is interface/rings.py, with the registers up to STATUS. Buffers are answered in their order.

A packet that finds no descriptor, or no place for its completion, is dropped: its sequence number is used up, and
DROPPED counts it, as every later completion tells. One whose buffer is too small or cannot be written takes the
descriptor and is answered with an error. What the wire brings is interface/wire.py, from SEED and SEQUENCE, the number
of the next packet. While the device is disabled, has RATE 0, or is stopped for a migration, nothing comes in and no
sequence number is used up; afterwards the wire goes on where it was. It brings at most what the device can take:
RATE is a limit, and 20 ms of it the largest burst.

DESCRIPTOR_BASE, COMPLETION_BASE, INDEX_BASE, RING_ENTRIES (1 to MAX_RING_ENTRIES) and SEED are written while the
device is disabled; writes to them while it is enabled change nothing. RATE can be written at any time; once the write
has returned, it holds. Setting CONTROL_ENABLE starts both rings at index 0, with an index page that the driver has
zeroed. An index page that makes no sense disables the ring: STATUS_FAULTED is set until the next enable. On a DMA
fault on a ring or the index page the packets of that moment are dropped, and all that follow until the doorbell rings
or the mappings change. For ordinary posting the doorbell is not needed.

The card learns flows: for each flow that packets were received of it counts them, FLOWS tells how many, at most
MAX_FLOWS. Its DMA log, where it has one, is VFIO's (DMA_LOGGING_*), not a register.

::

    index page   0 BUFFER_TAIL (driver)     8 BUFFER_HEAD (device, used)
                16 COMPLETION_TAIL (device) 24 COMPLETION_HEAD (driver)
    descriptor  16 bytes   address u64, length u32, cookie u32
    completion  32 bytes   sequence u64, dropped u64 (DROPPED before this packet), cookie u32, length u32,
                           frame check sequence u32, status u32
"""

import struct
from enum import IntEnum
from typing import Final

from vfio_host.interface.rings import RingRegister


class Register(IntEnum):
    """Offsets in region 0; from SEQUENCE on they are read only."""

    DESCRIPTOR_BASE = RingRegister.WORK_BASE
    COMPLETION_BASE = RingRegister.COMPLETION_BASE
    INDEX_BASE = RingRegister.INDEX_BASE
    RING_ENTRIES = RingRegister.RING_ENTRIES
    CONTROL = RingRegister.CONTROL
    STATUS = RingRegister.STATUS
    RATE = 0x30
    SEED = 0x38
    SEQUENCE = 0x40
    PACKETS = 0x48
    BYTES_WRITTEN = 0x50
    DROPPED = 0x58
    FAULTS = 0x60
    FLOWS = 0x68


class Status(IntEnum):
    """How a packet ended."""

    OK = 0
    FAULT = 1
    TOO_SMALL = 2


MAX_RATE: Final = 1 << 36
"""Bytes a second; a larger RATE means this one."""
MAX_FLOWS: Final = 8192
DESCRIPTOR: Final = struct.Struct("<QII")
COMPLETION: Final = struct.Struct("<QQIIII")
