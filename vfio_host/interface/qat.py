"""The accelerator's data sheet: registers, rings and descriptors, as its guest driver sees them.

Region 0 holds 64-bit registers. All addresses are IOVAs. The rings and the index page lie in guest memory and are
read and written by DMA. The driver fills request entries, advances REQUEST_TAIL in the index page and rings the
doorbell (an eventfd). The device fetches entries into at most IN_FLIGHT jobs, answers them in their order, writes
the completion, then REQUEST_HEAD and COMPLETION_TAIL, and raises the completion eventfd. Indexes grow without
bound; an entry's place is its index modulo the ring's entries.

::

    index page   0 REQUEST_TAIL (driver)   8 REQUEST_HEAD (device, fetched)
                16 COMPLETION_TAIL (device) 24 COMPLETION_HEAD (driver)
    request     64 bytes   job u64, operation u32, reserved u32, source u64, source_length u32, reserved u32,
                           destination u64, destination_capacity u32, reserved u32, cookie u64, reserved u64
    completion  32 bytes   job u64, status u32, output_length u32, output CRC-32 u32, reserved u32, cookie u64
"""

import struct
from enum import IntEnum
from typing import Final


class Register(IntEnum):
    """Offsets in region 0."""

    REQUEST_BASE = 0x00
    COMPLETION_BASE = 0x08
    INDEX_BASE = 0x10
    RING_ENTRIES = 0x18
    CONTROL = 0x20
    STATUS = 0x28
    JOBS_DONE = 0x30
    BYTES_WRITTEN = 0x38
    FAULTS = 0x40


class Operation(IntEnum):
    """What a job asks for."""

    DECOMPRESS = 1
    COMPRESS = 2


class Status(IntEnum):
    """How a job ended."""

    OK = 0
    BAD_DATA = 1
    OVERFLOW = 2
    FAULT = 3
    BAD_REQUEST = 4


CONTROL_ENABLE: Final = 1
REQUEST: Final = struct.Struct("<QIIQIIQIIQQ")
COMPLETION: Final = struct.Struct("<QIIIIQ")
INDEXES: Final = struct.Struct("<QQQQ")
IN_FLIGHT: Final = 16
MAX_SOURCE: Final = 256 << 10
MAX_DESTINATION: Final = 256 << 10
STATE_BYTES: Final = 4096
"""Size of the migration state block (semantics 7.10)."""
