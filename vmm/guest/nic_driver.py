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
from vfio_host.interface.rings import CONTROL_ENABLE
from vmm.guest.dma import DevicePort, DmaMapper, MapFailed
from vmm.guest.layout import RINGS_SIZE, SLAB_SIZE, AreaNeeds, DeviceArea
from vmm.guest.material import Material
from vmm.guest.nic_progress import BUFFERS_PER_SEGMENT, OPEN_SEGMENTS, NicProgress, decoded
from vmm.guest.pacing import NEVER, RateMeter
from vmm.memory.guest_physical import GuestMemory
from vmm.memory.quantities import PAGE_SIZE, GuestPhysicalAddress, Iova

RING_ENTRIES: Final = BUFFERS_PER_SEGMENT * OPEN_SEGMENTS
BUFFER_BYTES: Final = 2048
SEGMENT_BYTES: Final = BUFFERS_PER_SEGMENT * BUFFER_BYTES
_DESCRIPTORS: Final = PAGE_SIZE
_COMPLETIONS: Final = _DESCRIPTORS + RING_ENTRIES * DESCRIPTOR.size
_RINGS_END: Final = _COMPLETIONS + RING_ENTRIES * COMPLETION.size
_BUFFER_TAIL, _COMPLETION_TAIL, _COMPLETION_HEAD = 0, 16, 24
_CHECK_BATCH: Final = 32
_MAP_AGAIN_NS: Final = 5_000_000
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
        self._mapper: DmaMapper | None = None
        self._rings: int | None = None
        self._segments: deque[int] = deque()
        self._posted, self._checked, self._expected, self._dropped_seen = 0, 0, 0, 0
        self.answered, self.dropped = 0, 0
        self.errors, self.own_errors, self.bytes_written = 0, 0, 0
        self.halted, self.failed = False, False
        self._interrupted, self._ring = False, False

    @staticmethod
    def needs(rate: int) -> AreaNeeds:
        """Return the memory of a driver: buffers for one second."""
        return AreaNeeds(rings=RINGS_SIZE, corpus=0, slabs=rate // SLAB_SIZE)

    @property
    def opened(self) -> bool:
        """Whether the device is enabled."""
        return self._rings is not None

    @property
    def busy(self) -> bool:
        """Whether packets may come: a halt has taken the rate away, and with it every later write."""
        return self.opened and not self.failed and not self.halted and self.asked > 0

    @property
    def idle(self) -> bool:
        """Whether no packet may come, and every one that came has been checked."""
        return not self.opened or self.failed or (not self.busy and self._completed() == self._checked)

    def boot(self, material: Material) -> None:
        """Do nothing: what comes is made by the wire."""

    def open(self, mapper: DmaMapper) -> None:
        """Map empty rings and let packets come, from where the wire is.

        Raises:
            MapFailed: There is no room for the rings; the driver is closed.
        """
        rings = GuestPhysicalAddress(self._area.rings)
        self._memory.write(rings, bytes(_RINGS_END))
        base = mapper.map([(rings, _RINGS_END)])[0]
        self._mapper, self._rings = mapper, base
        self._expected, self._dropped_seen = self._port.read(Register.SEQUENCE), self._port.read(Register.DROPPED)
        self._interrupted = True  # the next step posts buffers
        for register, value in (
            (Register.INDEX_BASE, base),
            (Register.DESCRIPTOR_BASE, base + _DESCRIPTORS),
            (Register.COMPLETION_BASE, base + _COMPLETIONS),
            (Register.RING_ENTRIES, RING_ENTRIES),
            (Register.SEED, self._seed),
            (Register.RATE, 0),  # until there are buffers
            (Register.CONTROL, CONTROL_ENABLE),
        ):
            self._port.write(register, value)

    def close(self) -> None:
        """Disable the device and unmap everything; packets that were not looked at are lost, which is an error."""
        if self._rings is None or self._mapper is None:
            return
        self._port.write(Register.CONTROL, 0)
        if self._completed() != self._checked and not self.failed:
            self.errors += 1
        segments = [(Iova(segment), SEGMENT_BYTES) for segment in self._segments]
        self._mapper.unmap([(Iova(self._rings), _RINGS_END), *segments])
        self._segments.clear()
        self._mapper, self._rings = None, None
        self._posted = self._checked = self._expected = self._dropped_seen = 0

    def halt(self) -> None:
        """Let no more packets come; what the wire has is not lost, but waits."""
        self.halted = True
        if self.opened and not self.failed:
            self._port.write(Register.RATE, 0)
            self._interrupted = True

    def resume(self) -> None:
        """Let packets come again."""
        self.halted = False
        if self.opened and not self.failed:
            self._port.write(Register.RATE, self.asked if self._posted else 0)
            self._interrupted = True

    def save(self) -> bytes:
        """Return the state; what was posted stays posted."""
        return msgspec.msgpack.encode(
            NicProgress(
                rings=self._rings,
                posted=self._posted,
                checked=self._checked,
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
        self._rings, self._segments = loaded.rings, deque(loaded.segments)
        self._posted, self._checked = loaded.posted, loaded.checked
        self._expected, self._dropped_seen = loaded.expected, loaded.dropped_seen
        self.answered, self.dropped, self.errors = loaded.answered, loaded.dropped, loaded.errors
        self.bytes_written, self.halted, self.failed = loaded.bytes_written, loaded.halted, loaded.failed
        self._mapper = mapper if self.opened else None
        self._interrupted = self._ring = self.opened
        self.restart_clock()

    def restart_clock(self) -> None:
        """Forget the clock: rates are measured anew."""
        self._meter.restart()

    def interrupt(self) -> None:
        """Take an interrupt: the next step looks for packets."""
        self._interrupted = True

    def rate(self, now_ns: int) -> float:
        """Return the achieved bytes per second that the device wrote."""
        return self._meter.rate(now_ns)

    def step(self, now_ns: int) -> int:
        """Check packets and post buffers, at most some 0.5 ms of work; returns when the next step is due."""
        self._meter.advance(now_ns)
        if self.failed or self._mapper is None:
            return NEVER
        if self._ring:
            self._port.ring_doorbell()
            self._ring = False
        more = self._interrupted and self._check_packets(self._mapper)
        self._interrupted = more
        if self.failed:
            return NEVER
        if not self.halted and self.asked > 0 and len(self._segments) < OPEN_SEGMENTS:
            if not self._post_segment(self._mapper):
                return now_ns if more else now_ns + _MAP_AGAIN_NS
            more = more or len(self._segments) < OPEN_SEGMENTS
        return now_ns if more else NEVER

    def _completed(self) -> int:
        return self._memory.read_u64(self._area.rings + _COMPLETION_TAIL)

    def _buffer(self, number: int) -> int:
        """Return where a buffer lies: segments go round the area."""
        segment, inside = divmod(number, BUFFERS_PER_SEGMENT)
        segments = self._area.slab_count * (SLAB_SIZE // SEGMENT_BYTES)
        return self._area.slabs + segment % segments * SEGMENT_BYTES + inside * BUFFER_BYTES

    # ---- posting

    def _post_segment(self, mapper: DmaMapper) -> bool:
        """Map a segment and post its buffers; false when no IOVA or table page is left, to be tried again."""
        try:
            base = mapper.map([(GuestPhysicalAddress(self._buffer(self._posted)), SEGMENT_BYTES)])[0]
        except MapFailed:
            return False
        entries = b"".join(
            DESCRIPTOR.pack(base + place * BUFFER_BYTES, BUFFER_BYTES, (self._posted + place) & _COOKIE)
            for place in range(BUFFERS_PER_SEGMENT)
        )
        place = self._posted % RING_ENTRIES * DESCRIPTOR.size
        self._memory.write(self._area.rings + _DESCRIPTORS + place, entries)
        self._segments.append(base)
        first, self._posted = self._posted == 0, self._posted + BUFFERS_PER_SEGMENT
        self._memory.write_u64(self._area.rings + _BUFFER_TAIL, self._posted)
        if first:
            self._port.write(Register.RATE, self.asked)
        return True

    # ---- packets

    def _check_packets(self, mapper: DmaMapper) -> bool:
        """Check up to a batch of packets; returns whether there are more."""
        tail = self._completed()
        if not self._checked <= tail <= self._posted:
            self.errors += 1
            self.failed = True
            return False
        last = min(tail, self._checked + _CHECK_BATCH)
        if last == self._checked:
            return False
        while self._checked < last:
            self.errors += 0 if self._is_right(self._checked) else 1
            self.answered += 1
            self._checked += 1
            if self._checked % BUFFERS_PER_SEGMENT == 0:
                mapper.unmap([(Iova(self._segments.popleft()), SEGMENT_BYTES)])
        self._memory.write_u64(self._area.rings + _COMPLETION_HEAD, self._checked)
        return tail > last

    def _is_right(self, number: int) -> bool:
        """Check one packet: that none is missing before it but those dropped, and what lies in guest RAM."""
        place = self._area.rings + _COMPLETIONS + number % RING_ENTRIES * COMPLETION.size
        sequence, dropped, cookie, length, check, status = COMPLETION.unpack(self._memory.read(place, COMPLETION.size))
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
