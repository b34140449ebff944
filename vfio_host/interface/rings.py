"""What the data sheets of all devices with rings have in common: first registers, entries by index, index page.

The driver puts work (requests, descriptors of empty buffers) on one ring, the device its answers (completions) on
another of as many entries. Both rings and the index page lie in guest memory; all addresses are IOVAs. Indexes grow
without bound, from 0 at each enable; an entry's place is its index modulo RING_ENTRIES.

::

    index page   0 given (driver)      8 taken (device)
                16 answered (device)  24 checked (driver)
"""

import struct
from enum import IntEnum
from typing import Final


class RingRegister(IntEnum):
    """Offsets in region 0 at which every device with rings has these; a data sheet has names of its own for some."""

    WORK_BASE = 0x00
    COMPLETION_BASE = 0x08
    INDEX_BASE = 0x10
    RING_ENTRIES = 0x18
    CONTROL = 0x20
    STATUS = 0x28


CONTROL_ENABLE: Final = 1
STATUS_ENABLED: Final = 1
STATUS_FAULTED: Final = 2
MAX_RING_ENTRIES: Final = 1 << 16
INDEXES: Final = struct.Struct("<QQQQ")
GIVEN: Final = 0
TAKEN: Final = 8
ANSWERED: Final = 16
CHECKED: Final = 24
