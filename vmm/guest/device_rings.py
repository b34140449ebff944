"""One device's rings and index page in guest RAM, as its driver keeps them; vfio_host/interface/rings.py lays them out.

::

    page 0          index page
    page 1 and on   ring of work, then ring of completions

    open      zero, map, program the device      |  give -> tell -> ring     work, its tail, the doorbell
    close     disable the device, unmap          |  look                     completions, oldest first, in batches

`given` and `checked` count entries since the rings were opened. An interrupt, and a doorbell that is due, are
remembered until `look` and `ring`. What the entries mean is the driver's.
"""

import struct
from collections.abc import Callable, Sequence
from typing import Final

from vfio_host.interface.rings import ANSWERED, CHECKED, CONTROL_ENABLE, GIVEN, RingRegister
from vmm.guest.dma import DevicePort, DmaMapper, Mapping
from vmm.memory.guest_physical import GuestMemory
from vmm.memory.quantities import PAGE_SIZE, GuestPhysicalAddress, Iova

_WORK: Final = PAGE_SIZE


class RingsDamaged(Exception):
    """The index page in guest RAM is not what the device wrote: a page of it was lost. Nothing was checked."""


class DeviceRings:
    """The rings of one device, of `entries` each, at a guest-physical address."""

    def __init__(
        self,
        memory: GuestMemory,
        address: int,
        port: DevicePort,
        *,
        entries: int,
        work: struct.Struct,
        completion: struct.Struct,
    ) -> None:
        self._memory: Final = memory
        self._address: Final = address
        self._port: Final = port
        self._entries: Final = entries
        self._work_size: Final = work.size
        self._completion: Final = completion
        self._completions: Final = _WORK + entries * work.size
        end = self._completions + entries * completion.size
        self._size: Final = -(-end // PAGE_SIZE) * PAGE_SIZE
        self.mapper: DmaMapper | None = None
        """What the rings are mapped by; None while they are closed."""
        self.base: int | None = None
        """IOVA of the index page; None while they are closed."""
        self.given, self.checked = 0, 0
        self._interrupted, self._ring = False, False

    @property
    def opened(self) -> bool:
        """Whether the device is enabled."""
        return self.base is not None

    @property
    def completed(self) -> int:
        """How many completions the index page tells of, right or wrong."""
        return self._memory.read_u64(self._address + ANSWERED)

    # ---- open and close

    def open(self, mapper: DmaMapper, settings: Sequence[tuple[int, int]] = ()) -> None:
        """Map empty rings, program the device with them and with its other settings (register, value), enable it.

        Raises:
            MapFailed: There is no room for the rings; they are closed.
        """
        rings = GuestPhysicalAddress(self._address)
        self._memory.write(rings, bytes(self._size))
        base = mapper.map([(rings, self._size)])[0]
        self.mapper, self.base = mapper, base
        self.given = self.checked = 0
        for register, value in (
            (RingRegister.WORK_BASE, base + _WORK),
            (RingRegister.COMPLETION_BASE, base + self._completions),
            (RingRegister.INDEX_BASE, base),
            (RingRegister.RING_ENTRIES, self._entries),
            *settings,
            (RingRegister.CONTROL, CONTROL_ENABLE),
        ):
            self._port.write(register, value)

    def disable(self) -> None:
        """Disable the device: it writes nothing any more."""
        self._port.write(RingRegister.CONTROL, 0)

    def close(self, buffers: Sequence[Mapping]) -> None:
        """Unmap rings and buffers of a device that is disabled; what was given counts no more."""
        if self.base is None or self.mapper is None:
            return
        self.mapper.unmap([(Iova(self.base), self._size), *buffers])
        self.mapper, self.base = None, None
        self.given = self.checked = 0

    def go_on(self, mapper: DmaMapper, base: int | None, *, given: int, checked: int) -> None:
        """Take over rings that moved, open or closed; an interrupt or a doorbell may have been under way."""
        self.base, self.given, self.checked = base, given, checked
        self.mapper = mapper if self.opened else None
        self.wake()

    # ---- signals

    def interrupt(self) -> None:
        """Remember to look."""
        self._interrupted = True

    def wake(self) -> None:
        """Remember to look and to ring, where that may have been missed; both do no harm when nothing is there."""
        self._interrupted = self._ring = self.opened

    def ring(self) -> None:
        """Ring the doorbell if that is due."""
        if self._ring:
            self._port.ring_doorbell()
            self._ring = False

    # ---- work and completions

    def give(self, entries: bytes) -> None:
        """Write work behind what was given; it must fit, and end where the ring ends if it gets there."""
        place = self._address + _WORK + self.given % self._entries * self._work_size
        self._memory.write(place, entries)
        self.given += len(entries) // self._work_size

    def tell(self, *, doorbell: bool) -> None:
        """Let the device see all that was given; `doorbell` says whether it looks only when that rings."""
        self._memory.write_u64(self._address + GIVEN, self.given)
        self._ring = self._ring or doorbell

    def look(self, most: int, check: Callable[[int], None]) -> bool:
        """After an interrupt, have completions checked, at most so many; return whether there are more.

        `check` is called with each one's index, counted in `checked` when it returns.

        Raises:
            RingsDamaged: The device cannot have answered as many as the index page says.
        """
        if not self._interrupted:
            return False
        tail = self.completed
        if not self.checked <= tail <= self.given:
            raise RingsDamaged(f"Index page at 0x{self._address:x} tells of {tail} of {self.given} completions")
        last = min(tail, self.checked + most)
        if self.checked < last:
            while self.checked < last:
                check(self.checked)
                self.checked += 1
            self._memory.write_u64(self._address + CHECKED, self.checked)
        self._interrupted = tail > last
        return self._interrupted

    def completion(self, index: int) -> bytes:
        """Return a completion entry."""
        place = self._completions + index % self._entries * self._completion.size
        return self._memory.read(self._address + place, self._completion.size)
