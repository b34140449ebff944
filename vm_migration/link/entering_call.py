"""One call as it enters a daemon: its request once its turn has come, its line in the audit log once it has ended."""

import asyncio
from dataclasses import dataclass
from typing import Final

import grpc.aio
from google.protobuf.message import DecodeError

from vm_migration.errors import InvalidInput
from vm_migration.link.audit import Audit, entry_of, no_audit
from vm_migration.link.authorisation import has_effect
from vm_migration.link.identity import Identity
from vm_migration.link.served import Context
from vm_migration.link.subject import subject_of
from vm_migration.telemetry import logs
from vm_migration.telemetry.counts import LOST_AUDIT_LINES

REQUEST_SECONDS: Final = 90.0
"""In which a request must have come once its turn has; the longest takes 68 over a link of 1 Mbit/s."""
_log: Final = logs.get(__name__)


@dataclass(slots=True)
class EnteringCall:
    """One call on its way through."""

    method: str
    context: Context
    audit: Audit
    request: object = None
    """None is a message that is still to come; else a stream, which whoever serves it reads."""
    peer: Identity | None = None
    answer: object = None
    looked_at: bool = False
    """Its turn has come, and its request."""

    @property
    def subject(self) -> dict[str, str | int]:
        """What its request says of machine, attempt and epoch."""
        return subject_of(self.request)

    def metadata(self) -> dict[str, str | bytes]:
        """Return what the caller sent beside the request."""
        return dict(self.context.invocation_metadata() or ())

    async def take_request(self) -> None:
        """Take the request in, where it is one message.

        Raises:
            InvalidInput: None came in time, or what came is none of this call's.
        """
        if self.request is None:
            self.request = await self._message()
        self.looked_at = True

    async def _message(self) -> object:
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                message = await self.context.read()
        except TimeoutError:
            raise InvalidInput("no-request", "The call's request did not come", "Make the call again") from None
        except DecodeError:
            text = "What came is no request of this call"
            raise InvalidInput("bad-request", text, "Check that both sides run one version") from None
        if message is grpc.aio.EOF:
            raise InvalidInput("no-request", "The call came without a request", "Make the call again")
        return message

    def ended(self, error: BaseException | None) -> None:
        """Write down how it ended, before its answer leaves; what it did stands, whatever becomes of the line."""
        if self.audit is no_audit or not self.looked_at or not has_effect(self.method, self.request, self.peer):
            return
        try:
            address = self.context.peer()
            self.audit(entry_of(self.method, self.peer, address, request=self.request, answer=self.answer, error=error))
        except Exception as fault:  # noqa: BLE001  # a fault of ours in writing must not undo the answer
            LOST_AUDIT_LINES.add()
            _log.error("audit line not written", method=self.method, exc_info=fault)
