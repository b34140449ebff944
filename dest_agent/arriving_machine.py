"""What every arrival is, however its machine comes: who may send, by what ticket, and what it came to."""

import asyncio
import hmac
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from vm_migration.api.v1.destination_pb2 import FinishRequest
from vm_migration.errors import AttemptFailed, Unauthorised
from vm_migration.handover.custody import Custody
from vm_migration.handover.record import Record
from vm_migration.transfer.verified_pages import VerifyResult

BeforeReady = Callable[[Record], Awaitable[None]]


async def nothing_before_ready(record: Record) -> None:
    """Have nothing to do once a machine's memory is whole."""
    del record


@dataclass(frozen=True, slots=True)
class Finished:
    """What loading and verifying came to; times in milliseconds."""

    pause: int
    result: VerifyResult | None
    load_ms: float
    verify_ms: float

    @property
    def ready(self) -> bool:
        """Whether the machine is READY: verified wherever verification was asked for."""
        return self.result is None or self.result.whole


class ArrivingMachine(ABC):
    """An attempt between PREPARED and READY."""

    def __init__(self, custody: Custody, source: str, ticket: bytes) -> None:
        self.custody: Final = custody
        self.source: Final = source
        self.ticket: Final = ticket
        self.prepare_ms = 0.0
        self.launch_ms = 0.0
        """Of it, until the machine's processes were there; the rest is its memory."""
        self._loop: Final = asyncio.get_running_loop()
        self.heard = self._loop.time()
        """When anything was heard of its source, in seconds of the loop's clock."""
        self.asked: FinishRequest | None = None
        self.finished: Finished | None = None

    @property
    @abstractmethod
    def stale_pages(self) -> int:
        """How many announced pages have not come."""

    @abstractmethod
    async def finish_as_asked(
        self, request: FinishRequest, before_ready: BeforeReady, source_sequence: int
    ) -> Finished:
        """Verify and load; READY is durable when this returns with nothing mismatched.

        `before_ready` is called once the memory is whole, before anything of it is judged.

        Raises:
            Refused: What came is not what the source says that it sent.
            AttemptFailed: The machine's process has ended, or `before_ready` failed; READY is not written.
            MachineError: The machine process refused the state.
        """

    @abstractmethod
    def let_go(self) -> None:
        """Let nothing more come, and give up what is held of the machine beside its custody."""

    def require_source(self, name: str | None) -> None:
        """Check who speaks for the source; None is a plaintext peer, which has no name.

        Raises:
            Unauthorised: It is another host.
        """
        if name is not None and name != self.source:
            raise Unauthorised("wrong-source", f"{name} is not the source of this attempt, {self.source} is")

    def require_ticket(self, ticket: bytes) -> None:
        """Check the right to send to this attempt.

        Raises:
            Unauthorised: It is another's.
        """
        if not hmac.compare_digest(ticket, self.ticket):
            raise Unauthorised("wrong-ticket", "Bulk stream's ticket is not this attempt's", "Begin a new attempt")

    def _require_process(self) -> None:
        """Check that what fills is still a machine's memory: the mapping here outlives the process."""
        if not self.custody.place.alive():
            text = f"The process that machine {self.custody.record.machine} was to run in has ended"
            raise AttemptFailed("process-gone", text, "The machine goes on at its source; try again")
