"""The driver's side of the invalidation queue in guest RAM (VT-d 6.5.2).

Descriptors are posted in batches. Each batch ends with a wait descriptor, whose status word says that the unit has
done everything before it.
"""

import struct
from collections.abc import Sequence
from typing import Final

import msgspec

from vmm.guest.dma import RegisterPort
from vmm.guest.vtd_errors import InvalidationFailed
from vmm.memory.guest_physical import GuestMemory
from vmm.viommu.registers import FSTS, FSTS_IQE, IQA, IQA_DW, IQT, MAMV

Descriptor = tuple[int, int]

ENTRIES: Final = 256
_BATCH: Final = ENTRIES - 2
"""One entry is the wait's, and one stays free: a full ring would look empty."""
_WAIT_WITH_STATUS: Final = 5 | 1 << 5


class QueueState(msgspec.Struct, frozen=True, array_like=True):
    """What moves: the tail, in descriptors, and the last wait's number."""

    tail: int
    number: int


class InvalidationRing:
    """256 descriptors of 16 bytes, or of 32 in scalable mode."""

    def __init__(self, memory: GuestMemory, registers: RegisterPort, base: int, status: int, *, wide: bool) -> None:
        self._memory: Final = memory
        self._registers: Final = registers
        self._base: Final = base
        self._status: Final = status
        self._shift: Final = 5 if wide else 4
        self._layout: Final = struct.Struct("<QQ16x" if wide else "<QQ")
        self._tail = 0
        self._number = 0

    def program(self) -> None:
        """Tell the unit where the queue is; it is empty then."""
        self._tail = 0
        wide = self._shift == 5
        # 2^(QS + 8) descriptors of 16 bytes, half as many of 32.
        self._registers.write(IQA, self._base | (IQA_DW | 1 if wide else 0))
        self._registers.write(IQT, 0)

    def submit(self, descriptors: Sequence[Descriptor]) -> None:
        """Post descriptors and wait until the unit has followed them.

        Raises:
            InvalidationFailed: The unit stopped at one. What it has done before that is unknown.
        """
        for start in range(0, len(descriptors), _BATCH):
            self._submit_batch(descriptors[start : start + _BATCH])

    def save(self) -> QueueState:
        """Return the state that moves."""
        return QueueState(self._tail, self._number)

    def load(self, state: QueueState) -> None:
        """Continue from a state."""
        self._tail, self._number = state.tail, state.number

    def _submit_batch(self, descriptors: Sequence[Descriptor]) -> None:
        self._number = (self._number + 1) & 0xFFFF_FFFF
        wait = (self._number << 32 | _WAIT_WITH_STATUS, self._status)
        data = b"".join(self._layout.pack(low, high) for low, high in (*descriptors, wait))
        before_wrap = ENTRIES - self._tail << self._shift
        self._memory.write(self._base + (self._tail << self._shift), data[:before_wrap])
        if len(data) > before_wrap:
            self._memory.write(self._base, data[before_wrap:])
        self._tail = (self._tail + len(descriptors) + 1) % ENTRIES
        self._registers.write(IQT, self._tail << self._shift)
        if self._memory.read_u64(self._status) & 0xFFFF_FFFF != self._number:
            stopped = self._registers.read(FSTS) & FSTS_IQE
            state = "stopped at a descriptor" if stopped else "did not reach its end"
            raise InvalidationFailed(f"Invalidation queue {state} of batch {self._number}")


def context_of_device(domain_id: int, devfn: int) -> Descriptor:
    """Invalidate one device's context entry."""
    return 1 | 3 << 4 | domain_id << 16 | devfn << 32, 0


def all_contexts() -> Descriptor:
    """Invalidate every context entry."""
    return 1 | 1 << 4, 0


def all_translations() -> Descriptor:
    """Invalidate every translation."""
    return 2 | 1 << 4, 0


def translations_of_domain(domain_id: int) -> Descriptor:
    """Invalidate a domain's translations."""
    return 2 | 2 << 4 | domain_id << 16, 0


def all_pasids() -> Descriptor:
    """Invalidate every PASID entry."""
    return 7 | 3 << 4, 0


def pasid_entry(domain_id: int, pasid: int) -> Descriptor:
    """Invalidate one PASID entry of a domain."""
    return 7 | 1 << 4 | domain_id << 16 | pasid << 32, 0


def translations_of_range(domain_id: int, iova: int, length: int) -> list[Descriptor]:
    """Invalidate a range of a domain: aligned powers of two of pages, as few as cover exactly the range."""
    low = 2 | 3 << 4 | domain_id << 16
    page, end = iova >> 12, iova + length + 0xFFF >> 12
    descriptors = []
    while page < end:
        order = min((end - page).bit_length() - 1, (page & -page).bit_length() - 1 if page else MAMV, MAMV)
        descriptors.append((low, page << 12 | order))
        page += 1 << order
    return descriptors
