"""What a machine process is asked and answers, on its control socket.

One request, one reply, in order, over `vfio_host.interface.channel`. Everything but Describe and
GuestCommand needs an Attach on the same connection first; a newer attach cuts older connections off, whose next
request is refused.
"""

from typing import Final, Literal

import msgspec

from vmm.guest.console import GuestAction
from vmm.process.own_stream import AnyStreamRequest, Listens, StreamState
from vmm.process.request import Request
from vmm.process.sampled_writes import AnyWritesRequest, WritesMeasured
from vmm.process.update_requests import AnyUpdateRequest
from vmm.vfio.device_records import DeviceRecord

MAX_DEVICE_DATA: Final = 8 << 20
"""Bytes of device state in one message."""
WhyTracked = Literal["migration", "dirty-rate"]
THROTTLE_SECONDS: Final = 5.0
"""For how long a throttle holds without being asked for again."""


class Attach(Request, frozen=True, tag=True, kw_only=True):
    """Command the machine from here on -> Description."""

    epoch: int
    controller: int


class Describe(Request, frozen=True, tag=True, kw_only=True):
    """Look, without commanding -> Description."""


class GuestCommand(Request, frozen=True, tag=True, kw_only=True):
    """Type something at the guest's console, which commands the guest and not the machine -> Done.

    Without a device it concerns the one that the guest takes it to mean. Later steps carry it out.
    """

    action: GuestAction
    device: str | None = None


class TakeRam(Request, frozen=True, tag=True, kw_only=True):
    """Ask for RAM's descriptor -> Ram, with the descriptor."""


class Populate(Request, frozen=True, tag=True, kw_only=True):
    """Touch a run of RAM pages in the machine process -> Done."""

    first: int
    count: int


class StartTracking(Request, frozen=True, tag=True, kw_only=True):
    """Log every write from here on, of vCPUs and devices -> Done. For a migration devices go to PRE_COPY."""

    reason: WhyTracked = "migration"


class StopTracking(Request, frozen=True, tag=True, kw_only=True):
    """End logging and witnesses; devices leave PRE_COPY -> Done."""


class Harvest(Request, frozen=True, tag=True, kw_only=True):
    """Take what was written since the last harvest -> Harvested."""


class ReportWrites(Request, frozen=True, tag=True, kw_only=True):
    """Ask the kernel's witnesses of both writers what was written since the last report -> Witnessed."""


class Throttle(Request, frozen=True, tag=True, kw_only=True):
    """Take so much of the vCPUs' time from them, in percent, for THROTTLE_SECONDS from now; 0 gives it back -> Done.

    Only of a machine that runs and is tracked for a migration. It ends before that when the machine stops, tracking
    does, the connection closes, or another controller attaches. Devices go on.
    """

    percent: int


class ThrottleDevices(Request, frozen=True, tag=True, kw_only=True):
    """Take so much of the devices' time from them, in percent, as Throttle does of the vCPUs' -> Done.

    Those that cannot be held go on at full speed. Only for a process whose Description has a `device_throttle`.
    """

    percent: int


class Pause(Request, frozen=True, tag=True, kw_only=True):
    """Stop vCPUs, then devices -> Paused. For an attempt devices end in STOP_COPY, for a person in STOP."""

    for_attempt: bool


class ConfirmStopped(Request, frozen=True, tag=True, kw_only=True):
    """Answer whether the machine stands still at this moment -> Stopped."""


class ReadDeviceData(Request, frozen=True, tag=True, kw_only=True):
    """Read the next records of the devices' state, of at most `budget` bytes of data -> DeviceData.

    Of devices in pre-copy while the machine runs, and of all once it is paused for an attempt.
    """

    budget: int
    """At most MAX_DEVICE_DATA; the guest stands still while it is read, a millisecond for each MiB or so."""


class WriteDeviceData(Request, frozen=True, tag=True, kw_only=True):
    """Write records of the devices' state into an incoming machine, in the order in which they were read -> Done."""

    records: tuple[DeviceRecord, ...]


class Save(Request, frozen=True, tag=True, kw_only=True):
    """Read the state of vIOMMU and vCPUs of a machine paused for an attempt, whose devices' was all read -> State."""


class Load(Request, frozen=True, tag=True, kw_only=True):
    """Load a state into an incoming machine whose devices' was all written; it stays still -> Done.

    Its stops are counted on from `pause`.
    """

    state: bytes
    pause: int


class Run(Request, frozen=True, tag=True, kw_only=True):
    """Run devices, then vCPUs, unless released at that epoch; the answer comes after the guest executed -> Running."""

    epoch: int


class StayPaused(Request, frozen=True, tag=True, kw_only=True):
    """Make an incoming machine, or one stopped for an attempt, an ordinary paused one -> Done."""

    epoch: int


class Release(Request, frozen=True, tag=True, kw_only=True):
    """Never run at this epoch or below again -> Done. Only when the machine stands still."""

    epoch: int


class Destroy(Request, frozen=True, tag=True, kw_only=True):
    """End the process; its RAM goes with the last descriptor -> Done."""


AnyRequest = (
    Attach | Describe | GuestCommand | TakeRam | Populate | StartTracking | StopTracking | Harvest | ReportWrites
    | Throttle | ThrottleDevices | Pause | ConfirmStopped | ReadDeviceData | WriteDeviceData | Save | Load | Run
    | StayPaused | Release | Destroy | AnyUpdateRequest | AnyStreamRequest | AnyWritesRequest
)  # fmt: skip


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """A blocker or a warning."""

    code: str
    message: str
    device: str = ""


class Tracking(msgspec.Struct, frozen=True, kw_only=True):
    """What dirty tracking can do for this machine.

    `exact` is false when a tracker reports everything it maps for ever; `mapped_bytes` is then what it reports.
    """

    exact: bool
    mapped_bytes: int


class GuestFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What the guest says of itself."""

    errors: int
    jobs_done: int
    dirty_bytes_per_s: float
    dma_bytes_per_s: float
    switches: int = 0
    """How often devices went from one domain of the vIOMMU to another."""
    busy_actions: int = 0
    """What was typed at the guest's console and is not done yet."""
    pages_written: int = 0
    """Pages that vCPUs have written since the guest booted, a page written twice counted twice."""


class ThrottledDevices(msgspec.Struct, frozen=True, kw_only=True):
    """What is taken from the devices' time, in percent, from which, and which would go on at full speed meanwhile."""

    percent: int
    slowed: tuple[str, ...]
    at_full_speed: tuple[str, ...]


class Description(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """Everything an agent may know of a machine process without changing it."""

    machine: str
    name: str
    run_state: str
    """running | paused | incoming."""
    pause: int
    epoch: int
    controller: int
    released: int
    ram_bytes: int
    populated_bytes: int
    """What of RAM holds memory; the rest was never touched."""
    witness: bool
    """Whether the kernel can vouch for what both writers of RAM did not write."""
    boot_id: str
    pid: int
    instance: str
    specification: str
    guest: GuestFigures
    memory_kind: str
    memory_files: tuple[str, ...]
    memory_sha256: str
    blockers: tuple[Observation, ...]
    warnings: tuple[Observation, ...]
    tracking: Tracking
    device_state_bytes: int
    """What a stop at this moment would leave to be moved of the devices' state, as the host estimates it."""
    throttle_percent: int | None = None
    """What is taken from the vCPUs' time; None of a process that came before throttles, and is never asked for one."""
    device_throttle: ThrottledDevices | None = None
    """The same of the devices."""
    handed_over: bool = False
    """Another process of this host has taken the machine over from this one."""
    hands_over: bool = False
    """Whether this process knows how to let another one have its machine; one of 0.1.0 does not."""
    moves: Literal["pages", "stream"] = "pages"
    """Whether its agent reads its pages, or it sends itself: vmm.process.own_stream."""
    strayed: int = 0
    """How often its guest was found to run, and stopped, that had been given away, or was not to run yet."""


class Judged(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """What keeps a machine from being updated; nothing, where there is none."""

    blockers: tuple[Observation, ...]


class Ram(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """RAM's size; its descriptor came along."""

    size: int


class Harvested(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """Pages written by vCPUs and hypervisor, and by devices; a failure means that pages may be missing."""

    cpu: bytes
    dma: bytes
    failure: str | None


class Witnessed(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """Pages that the kernel saw written, or None where a writer has no witness."""

    pages: bytes | None


class Paused(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """A stop of the guest: its number, and when the guest executed last, on this host's monotonic clock."""

    pause: int
    was_running: bool
    last_executed_ns: int


class Replaced(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """Another program runs in the process: where the guest stood, and when it executed before and after, if it ran."""

    pause: int
    was_running: bool
    last_executed_ns: int
    executed_ns: int


class Stopped(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """Whether the machine stands still, and at which pause."""

    stopped: bool
    pause: int


class DeviceData(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """Records of the devices' state, and what is left of it, in bytes, as the host estimates it."""

    records: tuple[DeviceRecord, ...]
    complete: bool
    """No record will follow these."""
    precopy_bytes: int
    """What can be read while the devices work."""
    stop_copy_bytes: int
    """What only a stop lets be read, beside that."""
    initial_pending: tuple[str, ...]
    """Devices in pre-copy of which what the destination needs for its preparations has not all been read."""


class State(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """A saved state."""

    state: bytes


class Running(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """When the guest had executed, on this host's monotonic clock."""

    executed_ns: int


class Done(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """As asked."""


class Refusal(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """Not done, and why; `fenced` when a newer controller commands."""

    reason: str
    fenced: bool = False


AnyReply = (
    WritesMeasured
    | Description | Judged | Ram | Harvested | Witnessed | Paused | Replaced | Stopped | DeviceData | State | Running
    | Done | Refusal | Listens | StreamState
)  # fmt: skip

encode: Final = msgspec.msgpack.Encoder().encode
request_decoder: Final[msgspec.msgpack.Decoder[AnyRequest]] = msgspec.msgpack.Decoder(AnyRequest)
reply_decoder: Final[msgspec.msgpack.Decoder[AnyReply]] = msgspec.msgpack.Decoder(AnyReply)

CONTROL_SOCKET: Final = "vmm.sock"
NEXT_CONTROL_SOCKET: Final = "vmm.next.sock"
"""That of a process which takes over from another, until it is renamed to the other's."""
HOST_SOCKET: Final = "vfio-host.sock"
SPECIFICATION_FILE: Final = "specification.json"
HOLD: Final = "--hold"
"""Makes a machine process that is started beside its host process wait for a line on stdin, without which it ends."""
