"""The guest's driver of one network card: it posts buffers, and checks every packet that comes.

::

    open           map rings and index page; RATE is what the specification asks for; enable
    post segment   map 256 KiB, 128 descriptors of 2 KiB, BUFFER_TAIL
    interrupt      completions in order: buffer, sequence, frame check sequence of what really lies in guest RAM
    close segment  all 128 answered and checked: unmap, so that IOVAs come and go

A sequence number may be missing only where the card says that it dropped a packet; drops are counted apart and are no
errors: the wire does not wait for a guest. The card paces itself, so the driver has nothing to do between interrupts.
The data sheets are vfio_host/interface/nic.py and wire.py. What lies beyond guest RAM is `NicProgress`.
"""

import zlib
from collections import deque
from typing import Final

import msgspec

from vfio_host.interface import wire
from vfio_host.interface.nic import COMPLETION, DESCRIPTOR, Register, Status
from vmm.guest.device_rings import DeviceRings, RingsDamaged
from vmm.guest.dma import DevicePort, DmaMapper, MapFailed
from vmm.guest.layout import SLAB_SIZE, DeviceArea
from vmm.guest.material import Material
from vmm.guest.nic_progress import BUFFERS_PER_SEGMENT, OPEN_SEGMENTS, NicProgress, decoded
from vmm.guest.pacing import BATCH_NS, NEVER, RateMeter
from vmm.memory.guest_physical import GuestMemory
from vmm.memory.quantities import GuestPhysicalAddress, Iova

RING_ENTRIES: Final = BUFFERS_PER_SEGMENT * OPEN_SEGMENTS
BUFFER_BYTES: Final = 2048
SEGMENT_BYTES: Final = BUFFERS_PER_SEGMENT * BUFFER_BYTES
_CHECK_BATCH: Final = 32
_COOKIE: Final = (1 << 32) - 1
_U64: Final = (1 << 64) - 1


class NicDriver:
    """One card's driver. `rate` is in bytes per second that the device writes; `dropped` counts packets."""

    def __init__(self, memory: GuestMemory, area: DeviceArea, port: DevicePort, *, rate: int, seed: int) -> None:
        self._memory: Final = memory
        self._area: Final = area
        self._port: Final = port
        self._seed: Final = seed
        self.asked = rate
        self._meter: Final = RateMeter()
        self._rings: Final = DeviceRings(
            memory, area.rings, port, entries=RING_ENTRIES, work=DESCRIPTOR, completion=COMPLETION
        )
        self._segments: deque[int] = deque()
        self._expected, self._dropped_seen = 0, 0
        self.answered, self.dropped = 0, 0
        self.errors, self.own_errors, self.bytes_written = 0, 0, 0
        self.halted, self.failed = False, False

    @property
    def opened(self) -> bool:
        """Whether the device is enabled."""
        return self._rings.opened

    @property
    def busy(self) -> bool:
        """Whether packets may come: a halt has taken the rate away, and with it every later write."""
        return self.opened and not self.failed and not self.halted and self.asked > 0

    @property
    def idle(self) -> bool:
        """Whether no packet may come, and every one that came has been checked."""
        return not self.opened or self.failed or (not self.busy and self._rings.completed == self._rings.checked)

    def boot(self, material: Material) -> None:
        """Do nothing: what comes is made by the wire."""

    def open(self, mapper: DmaMapper) -> None:
        """Map empty rings and let packets come, from where the wire is.

        Raises:
            MapFailed: There is no room for the rings; the driver is closed.
        """
        # No packet comes until there are buffers, which the next step posts.
        self._rings.open(mapper, settings=((Register.SEED, self._seed), (Register.RATE, 0)))
        self._expected, self._dropped_seen = self._port.read(Register.SEQUENCE), self._port.read(Register.DROPPED)
        self._rings.interrupt()

    def close(self) -> None:
        """Disable the device and unmap everything; packets that were not looked at are lost, which is an error."""
        if not self.opened:
            return
        self._rings.disable()
        if self._rings.completed != self._rings.checked and not self.failed:
            self.errors += 1
        self._rings.close([(Iova(segment), SEGMENT_BYTES) for segment in self._segments])
        self._segments.clear()
        self._expected = self._dropped_seen = 0

    def halt(self) -> None:
        """Let no more packets come; what the wire has is not lost, but waits."""
        self.halted = True
        if self.opened and not self.failed:
            self._port.write(Register.RATE, 0)
            self._rings.interrupt()

    def resume(self) -> None:
        """Let packets come again."""
        self.halted = False
        if self.opened and not self.failed:
            self._port.write(Register.RATE, self.asked if self._rings.given else 0)
            self._rings.interrupt()

    def save(self) -> bytes:
        """Return the state; what was posted stays posted."""
        return msgspec.msgpack.encode(
            NicProgress(
                rings=self._rings.base,
                posted=self._rings.given,
                checked=self._rings.checked,
                expected=self._expected,
                dropped_seen=self._dropped_seen,
                answered=self.answered,
                dropped=self.dropped,
                errors=self.errors,
                bytes_written=self.bytes_written,
                halted=self.halted,
                failed=self.failed,
                segments=tuple(self._segments),
            )
        )

    def load(self, state: bytes, mapper: DmaMapper) -> None:
        """Go on where another host's driver stopped; the next step looks for packets and rings the doorbell.

        Raises:
            ProgressRefused: The bytes are no state of such a driver. Nothing was changed.
        """
        loaded = decoded(state)
        self._segments = deque(loaded.segments)
        self._expected, self._dropped_seen = loaded.expected, loaded.dropped_seen
        self.answered, self.dropped, self.errors = loaded.answered, loaded.dropped, loaded.errors
        self.bytes_written, self.halted, self.failed = loaded.bytes_written, loaded.halted, loaded.failed
        self._rings.go_on(mapper, loaded.rings, given=loaded.posted, checked=loaded.checked)
        self.restart_clock()

    def restart_clock(self) -> None:
        """Forget the clock: rates are measured anew."""
        self._meter.restart()

    def interrupt(self) -> None:
        """Take an interrupt: the next step looks for packets."""
        self._rings.interrupt()

    def rate(self, now_ns: int) -> float:
        """Return the achieved bytes per second that the device wrote."""
        return self._meter.rate(now_ns)

    def step(self, now_ns: int) -> int:
        """Check packets and post buffers, at most some 0.5 ms of work; returns when the next step is due."""
        self._meter.advance(now_ns)
        mapper = self._rings.mapper
        if self.failed or mapper is None:
            return NEVER
        self._rings.ring()
        try:
            more = self._rings.look(_CHECK_BATCH, lambda number: self._check_packet(number, mapper))
        except RingsDamaged:
            self.errors, self.failed = self.errors + 1, True
            return NEVER
        if not self.halted and self.asked > 0 and len(self._segments) < OPEN_SEGMENTS:
            if not self._post_segment(mapper):
                return now_ns if more else now_ns + BATCH_NS
            more = more or len(self._segments) < OPEN_SEGMENTS
        return now_ns if more else NEVER

    def _buffer(self, number: int) -> int:
        """Return where a buffer lies: segments go round the area."""
        segment, inside = divmod(number, BUFFERS_PER_SEGMENT)
        segments = self._area.slab_count * (SLAB_SIZE // SEGMENT_BYTES)
        return self._area.slabs + segment % segments * SEGMENT_BYTES + inside * BUFFER_BYTES

    # ---- posting

    def _post_segment(self, mapper: DmaMapper) -> bool:
        """Map a segment and post its buffers; false when no IOVA or table page is left, to be tried again."""
        first = self._rings.given
        try:
            base = mapper.map([(GuestPhysicalAddress(self._buffer(first)), SEGMENT_BYTES)])[0]
        except MapFailed:
            return False
        entries = (
            DESCRIPTOR.pack(base + place * BUFFER_BYTES, BUFFER_BYTES, (first + place) & _COOKIE)
            for place in range(BUFFERS_PER_SEGMENT)
        )
        self._segments.append(base)
        self._rings.give(b"".join(entries))
        self._rings.tell(doorbell=False)
        if first == 0:
            self._port.write(Register.RATE, self.asked)
        return True

    # ---- packets

    def _check_packet(self, number: int, mapper: DmaMapper) -> None:
        """Check the next packet, and close its segment if it is the last one there."""
        self.errors += 0 if self._is_right(number) else 1
        self.answered += 1
        if (number + 1) % BUFFERS_PER_SEGMENT == 0:
            mapper.unmap([(Iova(self._segments.popleft()), SEGMENT_BYTES)])

    def _is_right(self, number: int) -> bool:
        """Check one packet: that none is missing before it but those dropped, and what lies in guest RAM."""
        sequence, dropped, cookie, length, check, status = COMPLETION.unpack(self._rings.completion(number))
        lost = dropped - self._dropped_seen
        in_order = lost >= 0 and sequence == self._expected + lost
        self._expected, self._dropped_seen = (sequence + 1) & _U64, dropped
        if not in_order or (cookie, status) != (number & _COOKIE, Status.OK) or length > BUFFER_BYTES:
            return False
        self.dropped += lost
        self.bytes_written += length
        self._meter.count(length)
        start = self._memory.offset_of(self._buffer(number), BUFFER_BYTES)
        return _is_packet(self._memory.block.data[start : start + length], self._seed, sequence, check)


def _is_packet(data: memoryview, seed: int, sequence: int, check: int) -> bool:
    """Tell whether bytes are the packet that the wire brings under a number, and the card found so."""
    length = wire.length_of(seed, sequence)
    if len(data) != length:
        return False
    header = wire.HEADER.pack(wire.flow_of(seed, sequence), sequence, seed, length, 0)
    end = length - wire.CHECK.size
    return (
        data[: wire.HEADER.size] == header and zlib.crc32(data[:end]) == check and data[end:] == wire.CHECK.pack(check)
    )
