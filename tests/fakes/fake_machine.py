"""A machine in an agent's hands whose process is a real one that does nothing, and whose port is a fake."""

import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn
from uuid import UUID

import msgspec

from vm_migration.handover.custody import Custody
from vm_migration.handover.disk import Disk, RealDisk
from vm_migration.handover.journal import Journal
from vm_migration.handover.journals import Journals
from vm_migration.handover.record import Record
from vm_migration.machine.errors import CutOff, MachineGone, MachineRefused
from vm_migration.machine.hypervisor import MachinePlace
from vm_migration.machine.port import Harvest, Stop
from vm_migration.machine.run_directory import Instance, RunDirectory, identify
from vm_migration.machine.software_hypervisor import SoftwareHypervisor
from vmm.memory.dirty_bitmap import DirtyBitmap
from vmm.memory.ram_block import RamBlock
from vmm.process.control import Description, DeviceData, GuestFigures, ThrottledDevices, Tracking, WhyTracked
from vmm.process.identity import boot_id
from vmm.process.own_stream import DirectAt, DirectTo, StreamState, StreamTerms
from vmm.process.sampled_writes import WritesMeasured
from vmm.vfio.device_records import DeviceRecord

MACHINE = "0b6d2c54-4c0e-4f4e-9d0c-3d6a1b1f2e01"
DRAWN = "drawn"
NO_DEVICE_HELD = ThrottledDevices(percent=0, slowed=(), at_full_speed=())


@dataclass
class FakeMachine:
    """Implements `vm_migration.machine.port.MachinePort`; `calls` says what was done to it, in order."""

    process: "subprocess.Popen[bytes]"
    controller: int = 1
    running: bool = True
    pause_number: int = 0
    released: int = -1
    pages: int = 1
    filled: int = 0
    """So many of them hold something."""
    incoming: bool = False
    fenced: bool = False
    """A newer controller commands it: every command is refused, and it can only be looked at."""
    silent: int = 0
    """So many requests more are not answered."""
    calls: list[str] = field(default_factory=list)
    device_data: list[DeviceRecord] = field(default_factory=list)
    """What is read of its devices, a record at a time, or what was written into them."""
    before_run: Callable[[], None] = lambda: None
    throttle_percent: int | None = 0
    """None: its process came before throttles."""
    device_throttle: ThrottledDevices | None = NO_DEVICE_HELD
    """The same."""

    def end(self) -> None:
        """Let the process die."""
        self.process.kill()
        self.process.wait()

    def _asked(self, name: str) -> None:
        if self.silent:
            self.silent -= 1
            raise MachineGone(f"{name} was not answered")
        if self.process.poll() is not None:
            raise MachineGone("Nobody listens")
        if name == "describe":
            return
        if self.fenced:
            raise CutOff("A newer controller commands it")
        self.calls.append(name)

    async def describe(self) -> Description:
        self._asked("describe")
        return Description(
            machine=MACHINE,
            name="fake",
            run_state="incoming" if self.incoming else "running" if self.running else "paused",
            pause=self.pause_number,
            epoch=1,
            controller=self.controller,
            released=self.released,
            ram_bytes=4096,
            populated_bytes=0,
            witness=False,
            boot_id=boot_id(),
            pid=self.process.pid,
            instance=DRAWN,
            specification="{}",
            guest=GuestFigures(errors=0, jobs_done=0, dirty_bytes_per_s=0.0, dma_bytes_per_s=0.0),
            memory_kind="image",
            memory_files=(),
            memory_sha256="",
            blockers=(),
            warnings=(),
            tracking=Tracking(exact=True, mapped_bytes=0),
            device_state_bytes=0,
            throttle_percent=self.throttle_percent,
            device_throttle=self.device_throttle,
        )

    async def attach(self, epoch: int, controller: int) -> Description:
        self._asked(f"attach {epoch} {controller}")
        self.controller = controller
        return await self.describe()

    async def ram(self) -> RamBlock:
        self._asked("ram")
        block = RamBlock.create("fake", 4096 * self.pages)
        block.words[: self.filled] = 7
        return block

    async def populate(self, first: int, count: int) -> None:
        self._asked(f"populate {first} {count}")

    async def start_tracking(self, reason: WhyTracked = "migration") -> None:
        self._asked(f"start tracking for {reason}")

    async def stop_tracking(self) -> None:
        self._asked("stop tracking")
        self._unthrottle()

    async def harvest(self) -> Harvest:
        self._asked("harvest")
        return Harvest(DirtyBitmap(self.pages), DirtyBitmap(self.pages), None)

    async def report_writes(self) -> DirtyBitmap | None:
        self._asked("report writes")
        return None

    async def throttle(self, percent: int) -> None:
        self._asked(f"throttle {percent}")
        if not self.running:
            raise MachineRefused("Only a machine that runs and is leaving is throttled")
        self.throttle_percent = percent

    async def throttle_devices(self, percent: int) -> None:
        self._asked(f"throttle devices {percent}")
        if not self.running or self.device_throttle is None:
            raise MachineRefused("Only a machine that runs and is leaving is throttled")
        self.device_throttle = msgspec.structs.replace(self.device_throttle, percent=percent)

    def _unthrottle(self) -> None:
        self.throttle_percent = 0
        if self.device_throttle is not None:
            self.device_throttle = msgspec.structs.replace(self.device_throttle, percent=0)

    async def pause(self, *, for_attempt: bool) -> Stop:
        self._asked("pause for an attempt" if for_attempt else "pause")
        if self.incoming:
            raise MachineRefused("An incoming machine has nothing to pause")
        was_running, self.running = self.running, False
        self.pause_number += 1
        self._unthrottle()
        return Stop(self.pause_number, was_running, 1)

    async def confirm_stopped(self) -> int | None:
        self._asked("confirm stopped")
        return None if self.running else self.pause_number

    async def read_device_data(self, budget: int) -> DeviceData:
        self._asked("read device data")
        found, self.device_data = self.device_data[:1], self.device_data[1:]
        return DeviceData(
            records=tuple(found),
            complete=not self.running and not self.device_data,
            precopy_bytes=sum(len(record.data) for record in self.device_data) if self.running else 0,
            stop_copy_bytes=0,
            initial_pending=(),
        )

    async def write_device_data(self, records: Sequence[DeviceRecord]) -> None:
        self._asked("write device data")
        self.device_data += records

    async def save(self) -> bytes:
        self._asked("save")
        return b"state"

    async def load(self, state: bytes, pause: int) -> None:
        self._asked("load")
        self.pause_number = pause

    async def run(self, epoch: int) -> int:
        self._asked(f"run {epoch}")
        if epoch <= self.released:
            raise MachineRefused(f"Released at {self.released}")
        self.before_run()
        self.running, self.incoming = True, False
        return 17

    async def stay_paused(self, epoch: int) -> None:
        self._asked(f"stay paused {epoch}")
        if self.running:
            raise MachineRefused("Machine runs")
        self.incoming = False

    async def release(self, epoch: int) -> None:
        self._asked(f"release {epoch}")
        self.released = epoch

    async def start_stream(self, path: str, terms: StreamTerms) -> None:
        self._sent_by_pages("start stream")

    async def accept_stream(self, path: str, terms: StreamTerms) -> None:
        self._sent_by_pages("accept stream")

    async def start_direct_stream(self, to: DirectTo, terms: StreamTerms) -> None:
        self._sent_by_pages("start direct stream")

    async def accept_direct_stream(self, at: DirectAt, terms: StreamTerms) -> int:
        self._sent_by_pages("accept direct stream")

    async def stream(self, known: str = "", wait_ms: int = 0) -> StreamState:
        self._sent_by_pages("stream")

    async def continue_stream(self, patience_ms: int = 0) -> None:
        self._sent_by_pages("continue stream")

    async def cancel_stream(self) -> None:
        self._sent_by_pages("cancel stream")

    async def tune_stream(self, terms: StreamTerms) -> None:
        self._sent_by_pages("tune stream")

    async def measure_writes(self, window_ms: int) -> None:
        self._sent_by_pages("measure writes")

    async def writes(self) -> WritesMeasured:
        self._sent_by_pages("writes")

    def _sent_by_pages(self, name: str) -> NoReturn:
        self._asked(name)
        raise MachineRefused("Machine is sent by its pages, not by a stream of its own")

    async def destroy(self) -> None:
        self._asked("destroy")
        self.end()

    async def close(self) -> None:
        pass


@dataclass
class Held:
    """A machine's folder, its journal in a custody, and its process."""

    folder: Path
    custody: Custody
    machine: FakeMachine

    @property
    def hypervisor(self) -> SoftwareHypervisor:
        return SoftwareHypervisor(self.folder / "run")

    @property
    def journals(self) -> Journals:
        return Journals(self.folder / "journal")

    @property
    def directory(self) -> MachinePlace:
        return self.custody.place


@contextmanager
def held(
    folder: Path, first: Record, *later: Callable[[Record], Record], running: bool, disk: Disk | None = None
) -> Iterator[Held]:
    """Yield a machine whose journal holds a first record, with this process's name in it, and what was made of it."""
    journals = folder / "journal"
    journals.mkdir(parents=True, exist_ok=True)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        identity = identify(process.pid)
        instance = Instance(boot_id(), identity, identity, DRAWN)
        directory = RunDirectory(folder / "run").create(UUID(MACHINE))
        directory.write_instance(instance)
        (directory.path / "specification.json").write_text(first.specification)
        journal = Journal.create(journals, with_instance(first, instance.name), disk=disk or RealDisk())
        for change in later:
            journal.append(change(journal.last))
        custody = Custody(journal, directory, SoftwareHypervisor(folder / "run"))
        machine = FakeMachine(process, running=running, pause_number=journal.last.pause)
        custody.port = machine
        try:
            yield Held(folder, custody, machine)
        finally:
            process.kill()


def with_instance(record: Record, name: str) -> Record:
    facts = {field: getattr(record, field) for field in record.__struct_fields__}
    return Record(**{**facts, "instance": name})
