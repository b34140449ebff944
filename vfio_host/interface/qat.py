"""The accelerator's data sheet: registers, rings and descriptors, as its guest driver sees them.

Region 0 holds 64-bit registers. All addresses are IOVAs. The rings and the index page lie in guest memory and are
read and written by DMA. The driver fills request entries, advances REQUEST_TAIL in the index page and rings the
doorbell (an eventfd). The device fetches entries into at most IN_FLIGHT jobs, answers them in their order, writes
the completion, then REQUEST_HEAD and COMPLETION_TAIL, and raises the completion eventfd. How indexes count is
interface/rings.py, with the registers up to STATUS.

Base registers and RING_ENTRIES (1 to MAX_RING_ENTRIES) are written while the device is disabled; writes to them while
it is enabled change nothing. Setting CONTROL_ENABLE starts both rings at index 0, with an index page that the driver
has zeroed. Clearing it drops the jobs in flight. An index page that makes no sense (a tail more than RING_ENTRIES
ahead, an index that goes back or passes the other side) disables the ring: STATUS_FAULTED is set until the next
enable. A DMA fault on a ring or the index page makes the device wait, until the doorbell rings or its mappings change.
So does a full completion ring; a driver that has at most RING_ENTRIES jobs between COMPLETION_HEAD and REQUEST_TAIL
never sees one. A job that fails may have written a part of its output, and answers output_length 0. BYTES_WRITTEN
counts job output. A spurious completion event is possible after a migration.

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

from vfio_host.interface.rings import RingRegister


class Register(IntEnum):
    """Offsets in region 0."""

    REQUEST_BASE = RingRegister.WORK_BASE
    COMPLETION_BASE = RingRegister.COMPLETION_BASE
    INDEX_BASE = RingRegister.INDEX_BASE
    RING_ENTRIES = RingRegister.RING_ENTRIES
    CONTROL = RingRegister.CONTROL
    STATUS = RingRegister.STATUS
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


REQUEST: Final = struct.Struct("<QIIQIIQIIQQ")
COMPLETION: Final = struct.Struct("<QIIIIQ")
IN_FLIGHT: Final = 16
MAX_SOURCE: Final = 256 << 10
MAX_DESTINATION: Final = 256 << 10
STATE_BYTES: Final = 4096
"""Size of the migration state block (semantics 7.10)."""
