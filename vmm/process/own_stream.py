"""What a machine is asked, and answers, that moves by a stream of its own, as QEMU does.

Its process sends memory, devices and vCPUs itself, over connections that it opens to a local socket; agents carry them.
::

    source       StartStream   ... Stream ... the gate: the guest stands still, nothing is given away
                 Pause (which stop it is)     ContinueStream (or CancelStream) ... Stream: completed, or failed
    destination  AcceptStream  ... Stream: completed ... Load (which stop it was) ... Run or StayPaused

With StartDirectStream and AcceptDirectStream the one process connects to the other by itself, under TLS of its own.

A machine whose pages are read by its agent refuses all of it. `Description.moves` says which kind of machine it is.
"""

from typing import Final

import msgspec

from vmm.process.request import Request

GATE: Final = "pre-switchover"
"""The status of a stream whose guest stands still, and that waits for ContinueStream."""
COMPLETED: Final = "completed"


class StreamTerms(msgspec.Struct, frozen=True, kw_only=True):
    """How a stream is to be sent; both ends are told the same."""

    max_bandwidth: int = 0
    """Bytes a second; 0: as many as there are."""
    downtime_limit_ms: int = 300
    channels: int = 1
    """More than one: memory goes over so many connections beside the first."""
    most_throttle: int = 0
    """Of the vCPUs' time, in percent, what may be taken where they write faster than memory is sent; 0: nothing."""


class StartStream(Request, frozen=True, tag=True, kw_only=True):
    """Connect to the socket at a path and send the machine -> Done, once that has begun."""

    path: str
    terms: StreamTerms


class AcceptStream(Request, frozen=True, tag=True, kw_only=True):
    """Listen at a path for the stream of an incoming machine -> Done, once it listens."""

    path: str
    terms: StreamTerms


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """Whom a process trusts at the other end, and the certificate and private key that it has itself, as PEM."""

    trusted: bytes
    certificate: bytes
    key: bytes

    def __repr__(self) -> str:
        return "Credentials()"  # a key has no place in a log


class DirectTo(msgspec.Struct, frozen=True, kw_only=True):
    """Where another host's process listens, the name that it has to show, and what is shown to it."""

    host: str
    port: int
    name: str
    credentials: Credentials


class DirectAt(msgspec.Struct, frozen=True, kw_only=True):
    """At which address of this host to listen, whom to let in, and what is shown to him.

    `admits` are the names that the subject of his certificate has (vm_migration.link.subject_names).
    """

    host: str
    admits: tuple[str, ...]
    credentials: Credentials


class StartDirectStream(Request, frozen=True, tag=True, kw_only=True):
    """Connect to another host's process and send the machine -> Done, once that has begun.

    Asked about by nobody for a while, it is called off.
    """

    to: DirectTo
    terms: StreamTerms


class AcceptDirectStream(Request, frozen=True, tag=True, kw_only=True):
    """Listen for the stream of an incoming machine -> Listens."""

    at: DirectAt
    terms: StreamTerms


class Listens(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """At which port."""

    port: int


class Stream(Request, frozen=True, tag=True, kw_only=True):
    """Ask how the stream is getting on -> StreamState; at once, unless its status is the one that is known already.

    Then the answer comes when that changes, or after `wait_ms` milliseconds, of which there may be 1000.
    """

    known: str = ""
    wait_ms: int = 0


class ContinueStream(Request, frozen=True, tag=True, kw_only=True):
    """Let a stream past its gate -> Done; from there only the machine knows how it ends.

    `patience_ms`: for how long its process may send what is left and say nothing of it. Stream is answered as it was
    then. When that is over the stream is broken, as it is where it is to be called off. 0: as long as for any answer.
    """

    patience_ms: int = 0


class CancelStream(Request, frozen=True, tag=True, kw_only=True):
    """Call a stream off, and wait until it has ended -> Done. It may have completed all the same: look at it then."""


class TuneStream(Request, frozen=True, tag=True, kw_only=True):
    """Change bandwidth and downtime limit on the way -> Done."""

    terms: StreamTerms


AnyStreamRequest = (
    StartStream | AcceptStream | StartDirectStream | AcceptDirectStream | Stream | ContinueStream | CancelStream
    | TuneStream
)  # fmt: skip


class StreamState(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """How a stream is getting on, in the machine's own words; bytes, bytes a second, milliseconds.

    `status` is that of the stream: none, setup, active, pre-switchover (the gate), device, completed, failed,
    cancelling or cancelled. `run_status` is that of the machine, `running` whether its guest may execute.
    """

    status: str
    run_status: str
    running: bool
    pause: int
    stopped_ns: int = 0
    """When the guest stopped last, on the host's monotonic clock; 0: never."""
    resumed_ns: int = 0
    transferred: int = 0
    remaining: int = 0
    total: int = 0
    dirty_bytes_per_s: int = 0
    bytes_per_s: float = 0.0
    passes: int = 0
    """How often the guest's writes were looked at."""
    throttle_percent: int = 0
    """What is taken from the vCPUs' time now."""
    setup_ms: int = 0
    total_ms: int = 0
    downtime_ms: int = 0
    """By the source's own account, without what happens at the other end."""
    expected_downtime_ms: int = 0
    error: str = ""
    blocked: tuple[str, ...] = ()
