"""One record of a machine's journal. Every record restates everything, so the last one alone is the whole truth.

Three epochs stand in it. `epoch` is the attempt's. `owned_epoch` is the last one at which this host owned the machine;
an attempt that was aborted does not change it. `released_epoch` is the last one that this host gave away. They outlive
the attempts that set them, so that a question about an attempt long past is still answered rightly.
"""

from typing import Self

import msgspec

from vm_migration.handover.states import OPEN, OWNING, State

REASON_LIMIT = 512
"""Characters of `reason` that are kept: the space reserved for closing records counts on a bound."""


class AttemptKey(msgspec.Struct, frozen=True):
    """Names one attempt and who drives it; `epoch` 0 in a Begin lets the source draw it."""

    machine: str
    attempt: str
    epoch: int
    term: int


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one host knows durably of one machine. `sequence`, `controller` and `opened` are the journal's to set."""

    machine: str
    state: State
    sequence: int = 0
    controller: int = 1
    opened: bool = False
    """An OPENED record: a new controller read the journal and restates it before it acts."""

    highest_epoch: int = 0
    """The highest epoch that this journal ever held; never falls, kept for ever."""
    owned_epoch: int = 0
    released_epoch: int = 0

    attempt: str | None = None
    past_attempts: tuple[str, ...] = ()
    epoch: int = 0
    term: int = 0
    peer: str = ""
    """The attempt's other host: the destination where this one is the source, else the source's identity."""
    secret: str = ""
    """Hexadecimal; held by a source from Begin until the attempt ends, empty elsewhere."""
    secret_hash: str = ""
    pause: int = 0
    """The last stop of the guest; 0 before the first."""
    pause_bound_ms: int = 0
    whole: bool = False
    """The destination holds the whole last delta of `pause`: from then on PREPARED counts as READY."""

    was_running: bool = False
    """The run state that this host owes the machine, or that the attempt owes it at its end."""
    run_confirmed: bool = False
    """The machine process has confirmed that run state since it was owed."""
    former_retired: bool = True
    """The host that the machine came from is RETIRED, or recorded as fenced."""
    instance: str = ""
    """The machine process that holds the image; empty until one was started."""

    reason: str = ""
    policy: str = ""
    specification: str = ""

    @property
    def closed(self) -> bool:
        """Whether no attempt is open here."""
        return self.state not in OPEN

    @property
    def open_attempt(self) -> str | None:
        """The attempt that is open here."""
        return None if self.closed else self.attempt

    @property
    def owns(self) -> bool:
        """Whether this host owns the machine and no attempt is open."""
        return self.state in OWNING

    def public(self) -> Self:
        """The same record without the secret, as it may be sent to a peer for a proof."""
        return msgspec.structs.replace(self, secret="")

    def __repr__(self) -> str:
        return (
            f"Record(machine={self.machine!r}, sequence={self.sequence}, state={self.state.value}, "
            f"attempt={self.attempt!r}, epoch={self.epoch}, term={self.term}, controller={self.controller}, "
            f"pause={self.pause}, peer={self.peer!r}, reason={self.reason!r})"
        )


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Record)


def encode(record: Record) -> bytes:
    """JSON in one line; holds the secret unless the record is `public()`."""
    return _encoder.encode(record)


def decode(data: bytes) -> Record:
    """Read what `encode` wrote; raises msgspec.DecodeError for anything else, a newer version's fields included."""
    try:
        return _decoder.decode(data)
    except UnicodeDecodeError as error:  # which msgspec lets through, of bytes that are no text
        raise msgspec.DecodeError(str(error)) from error
