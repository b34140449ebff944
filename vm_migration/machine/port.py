"""The port through which agents see a machine, of whatever kind.

Every operation has a deadline, and raises what vm_migration.machine.errors says. `MachineGone` says that the process
does not answer: whether the last operation happened is unknown, and only the process's instance, looked at by its id,
tells whether it lives.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from vmm.memory.dirty_bitmap import DirtyBitmap
from vmm.memory.ram_block import RamBlock
from vmm.process.control import Description, DeviceData, WhyTracked
from vmm.process.own_stream import DirectAt, DirectTo, StreamState, StreamTerms
from vmm.process.sampled_writes import WritesMeasured
from vmm.vfio.device_records import DeviceRecord


@dataclass(frozen=True, slots=True)
class Harvest:
    """Pages written since the last harvest; a failure says that pages may be missing, and why."""

    cpu: DirtyBitmap
    dma: DirtyBitmap
    failure: str | None


@dataclass(frozen=True, slots=True)
class Stop:
    """A stop of the guest. `last_executed_ns` is on the machine's host's monotonic clock."""

    pause: int
    was_running: bool
    last_executed_ns: int


class MachinePort(Protocol):
    """One machine. Whoever attached last commands it."""

    async def describe(self) -> Description:
        """Look, without commanding."""

    async def attach(self, epoch: int, controller: int) -> Description:
        """Command the machine from here on; older controllers are cut off.

        Raises:
            CutOff: A newer controller commands it.
        """

    async def ram(self) -> RamBlock:
        """Return RAM, mapped into this process; the caller closes nothing, the mapping lasts as long as the block."""

    async def populate(self, first: int, count: int) -> None:
        """Touch a run of an incoming machine's pages in its own process."""

    async def start_tracking(self, reason: WhyTracked = "migration") -> None:
        """Log every write from here on; for a migration devices go to pre-copy, and their state is read anew."""

    async def stop_tracking(self) -> None:
        """End logging and witnesses."""

    async def harvest(self) -> Harvest:
        """Take what was written since the last harvest, or since tracking began."""

    async def report_writes(self) -> DirtyBitmap | None:
        """Ask the kernel's witnesses what was written since the last report; None where there is no witness."""

    async def throttle(self, percent: int) -> None:
        """Take so much of the vCPUs' time from them, for a few seconds (`THROTTLE_SECONDS`); 0 gives it back.

        Only of a machine that runs and is tracked for a migration, and that says what is taken when it is described.
        """

    async def throttle_devices(self, percent: int) -> None:
        """Take so much of the devices' time from them, as `throttle` does of the vCPUs'.

        Only of a machine whose description has a `device_throttle`, which names those that go on at full speed.
        """

    async def pause(self, *, for_attempt: bool) -> Stop:
        """Stop vCPUs, then devices; a machine that stands still already answers with its pause."""

    async def confirm_stopped(self) -> int | None:
        """Return the pause at which the machine stands still at this moment, or None when it runs."""

    async def read_device_data(self, budget: int) -> DeviceData:
        """Return the next records of the devices' state, of at most `budget` bytes of data."""

    async def write_device_data(self, records: Sequence[DeviceRecord]) -> None:
        """Write records of the devices' state into an incoming machine, in the order in which they were read."""

    async def save(self) -> bytes:
        """Return the state of a machine paused for an attempt, whose devices' has all been read."""

    async def load(self, state: bytes, pause: int) -> None:
        """Load the state of a stop into an incoming machine, whose devices' has all been written.

        Its own stops are counted on from `pause`.
        """

    async def run(self, epoch: int) -> int:
        """Run the machine; return when the guest had executed, on its host's monotonic clock."""

    async def stay_paused(self, epoch: int) -> None:
        """Make an incoming or stopped machine an ordinary paused one."""

    async def release(self, epoch: int) -> None:
        """Give up running at an epoch and all below, for ever."""

    async def start_stream(self, path: str, terms: StreamTerms) -> None:
        """Have a machine that moves by a stream of its own connect to a local socket and send itself.

        Raises:
            MachineRefused: Its agent reads its pages instead, or it cannot move, and why.
        """

    async def accept_stream(self, path: str, terms: StreamTerms) -> None:
        """Have an incoming machine listen at a local socket for such a stream; raises as `start_stream`."""

    async def start_direct_stream(self, to: DirectTo, terms: StreamTerms) -> None:
        """Have such a machine connect to another host's process by itself; raises as `start_stream`.

        It is called off where nobody asks about it, or anything else of the machine, for ten seconds.
        """

    async def accept_direct_stream(self, at: DirectAt, terms: StreamTerms) -> int:
        """Have an incoming machine listen for it, and return at which port; raises as `start_stream`."""

    async def stream(self, known: str = "", wait_ms: int = 0) -> StreamState:
        """Ask how its stream is getting on: at once, or when its status is another than a known one, for a while."""

    async def continue_stream(self, patience_ms: int = 0) -> None:
        """Let a stream past its gate, where the guest stands still already.

        Its process may send what is left for `patience_ms` without a word; then it breaks the stream. 0: its own limit.
        """

    async def cancel_stream(self) -> None:
        """Call a stream off and wait for its end, which may be that it completed all the same; none is no error."""

    async def tune_stream(self, terms: StreamTerms) -> None:
        """Change a stream's bandwidth and downtime limit on the way."""

    async def measure_writes(self, window_ms: int) -> None:
        """Have a machine that moves by a stream of its own find out how much of its memory is written meanwhile.

        Raises:
            MachineRefused: Its agent logs its writes instead, or another measurement has not ended.
        """

    async def writes(self) -> WritesMeasured:
        """Return what the last measurement came to, whether or not it has ended."""

    async def destroy(self) -> None:
        """End the machine's process."""

    async def close(self) -> None:
        """Close the connection; the machine goes on as it is."""
