"""A guest whose every write is counted, and the truth about its memory.

The guest writes a number one above its last into a word of some page. `Lineage` holds what the memory must be: the
number that each page was last given, by whichever copy runs. A copy that runs on anything else misses a write.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Final

import msgspec

from vmm.assembly.machine_state import InvalidState
from vmm.assembly.specification import MachineSpecification
from vmm.assembly.tracking_reason import TrackingReason
from vmm.guest.guest import GuestReport
from vmm.guest.vcpu_clock import VcpuClock
from vmm.memory.dirty_bitmap import DirtyBitmap
from vmm.memory.quantities import PAGE_SIZE
from vmm.memory.ram_block import RamBlock
from vmm.vfio.device_records import DeviceRecord, RecordKind
from vmm.vfio.device_throttle import DeviceThrottle

PAGES: Final = 8
_DEVICE: Final = "counter"


@dataclass
class Lineage:
    """One machine's memory as it must be, whoever holds it."""

    machine: str
    counter: int = 0
    pages: list[int] = field(default_factory=lambda: [0] * PAGES)

    def lacks(self, words: Sequence[int], counter: int) -> str:
        """Say what a memory misses; empty when nothing."""
        missing = [page for page in range(PAGES) if words[page] != self.pages[page]]
        if not missing and counter == self.counter:
            return ""
        return f"counter {counter} of {self.counter}, pages that differ {missing}"


@dataclass
class _Read:
    records: tuple[DeviceRecord, ...]
    complete: bool
    pending: SimpleNamespace
    initial_pending: tuple[str, ...] = ()


class _State(msgspec.Struct):
    counter: int


class Guest:
    """What `vmm.process.commands.Commands` asks of a machine, over a real block of memory."""

    def __init__(self, specification: MachineSpecification, lineage: Lineage, *, booted: bool) -> None:
        self.specification: Final = specification
        self.lineage: Final = lineage
        self.memory: Final = SimpleNamespace(block=RamBlock.create("simulated", PAGES * PAGE_SIZE))
        self.memory_source = None
        self.running = False
        self.counter = 0
        self.device_counter: int | None = None
        self.witnessed: set[int] | None = None
        self._dirty: set[int] | None = None
        self._device_left: list[DeviceRecord] = []
        self._clock: Final = VcpuClock()
        self.device_throttle: Final = DeviceThrottle(())
        if booted:
            for _ in range(PAGES):
                self.write()

    # the guest's work

    def write(self) -> None:
        """Write once; every third write is a device's."""
        self.counter += 1
        page = self.counter * 5 % PAGES
        self.memory.block.words[page, 0] = self.counter
        self.lineage.counter = self.counter
        self.lineage.pages[page] = self.counter
        if self._dirty is not None:
            self._dirty.add(page)
        if self.witnessed is not None:
            self.witnessed.add(page)

    def lacks(self) -> str:
        """Say which of the guest's writes this copy misses; empty when none."""
        words = self.memory.block.words[:, 0].tolist()
        return self.lineage.lacks(words, self.counter)

    def begin_anew(self) -> None:
        """Take what this copy holds for the truth from here on: an operator has taken it, whatever it misses."""
        self.lineage.counter = self.counter
        self.lineage.pages = [int(word) for word in self.memory.block.words[:, 0]]

    def step(self, now_ns: int) -> int:
        return now_ns

    # what Commands asks

    def wake(self) -> None:
        """No guest of these schedules is ever suspended."""

    def start(self) -> None:
        self.running = True

    def stop(self, *, for_attempt: bool) -> None:
        self.running = False
        self.device_throttle.end()
        self._device_left = []
        if for_attempt:
            data = memoryview(self.counter.to_bytes(8, "little"))
            kinds = ((RecordKind.SETUP, memoryview(b"")), (RecordKind.DATA, data), (RecordKind.END, memoryview(b"")))
            self._device_left = [DeviceRecord(_DEVICE, kind, held) for kind, held in kinds]

    def start_tracking(self, reason: TrackingReason) -> None:
        del reason
        self._dirty = set()
        self.device_throttle.begin_anew()

    def stop_tracking(self) -> None:
        self._dirty = None

    def throttle(self, percent: int, now_ns: int, until_ns: int) -> None:
        self._clock.throttle(percent, now_ns, until_ns)

    def throttle_percent(self, now_ns: int) -> int:
        return self._clock.percent(now_ns)

    def harvest(self) -> SimpleNamespace:
        written, self._dirty = self._dirty or set(), None if self._dirty is None else set()
        cpu, dma = DirtyBitmap(PAGES), DirtyBitmap(PAGES)
        for page in written:
            (dma if page % 3 == 0 else cpu).set_run(page, 1)
        return SimpleNamespace(cpu=cpu, dma=dma, failure=None)

    def report_host_writes(self) -> bytes | None:
        return None

    def read_device_data(self, budget: int) -> _Read:
        del budget
        records, self._device_left = tuple(self._device_left), []
        return _Read(records, not self.running, SimpleNamespace(precopy=0, stop_copy=0))

    def write_device_data(self, records: Sequence[DeviceRecord]) -> None:
        for record in records:
            if record.kind is RecordKind.DATA:
                self.device_counter = int.from_bytes(record.data, "little")

    def device_state_bytes(self) -> SimpleNamespace:
        return SimpleNamespace(total=8)

    def save(self) -> bytes:
        if self._device_left:
            raise InvalidState("Devices' state has not been read to its end")
        return msgspec.json.encode(_State(self.counter))

    def load(self, data: bytes) -> None:
        try:
            state = msgspec.json.decode(data, type=_State)
        except msgspec.DecodeError as error:
            raise InvalidState(f"No state: {error}") from error
        if self.device_counter != state.counter:
            raise InvalidState(f"Device's state is of {self.device_counter}, the machine's of {state.counter}")
        self.counter = state.counter

    def report(self) -> GuestReport:
        return GuestReport(
            errors=0, jobs_done=self.counter, dirty_bytes_per_s=40960.0, dma_bytes_per_s=4096.0,
            asked_dirty_bytes_per_s=40960, asked_dma_bytes_per_s=4096, pages_written=self.counter, steps=self.counter,
        )  # fmt: skip

    def findings(self) -> tuple[tuple[()], tuple[()]]:
        return (), ()

    def tracking_is_exact(self) -> bool:
        return True

    def always_dirty_bytes(self) -> int:
        return 0
