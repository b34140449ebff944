"""Who changed what: one entry for each call that changes something, however it ended.

What a call was about is read from its request, and from its answer where that knows more (an epoch that was drawn, the
UUID of a machine that was named). Streams of pages have no entries: their attempt's Prepare, rounds and Finish do.
"""

from collections.abc import Callable
from typing import Final, Literal

import msgspec
from google.protobuf.message import Message

from vm_migration.errors import InvalidInput, MigrationError, Refused, Unreachable
from vm_migration.link.identity import Identity
from vm_migration.link.refusals import NOBODY
from vm_migration.link.subject import number_in, text_in

Outcome = Literal["begun", "done", "refused", "failed", "abandoned"]
"""About to be done; done; refused before it was; failed, or not known; the caller went before the answer."""
FENCED: Final = "recover --fenced"
"""What stands in the place of a call where a command does something by itself, on an operator's word."""
API: Final = "/vm_migration.api.v1."
_DETAILS: Final = ("fenced", "reason", "fenced_by", "files_gone", "destination")


class Entry(msgspec.Struct, frozen=True):
    """One call; `who` as its certificate says, `detail` an operator's word or a destination. No secret is in it."""

    who: str
    address: str
    call: str
    machine: str
    attempt: str
    epoch: int
    term: int
    detail: str
    outcome: Outcome
    code: str = ""

    @property
    def word(self) -> bool:
        """Whether it is an operator's word on which a machine starts."""
        vouched = self.call == "Destination/NoteRetired" and bool(self.detail)
        return vouched or self.call == FENCED or self.call.endswith("/Take")


Audit = Callable[[Entry], None]


def no_audit(_entry: Entry) -> None:
    """Keep nothing."""


def entry_of(
    method: str, peer: Identity | None, address: str, *, request: object, answer: object, error: BaseException | None
) -> Entry:
    """Return the entry of a call that has ended; `error` None: well."""
    said = [message for message in (answer, request) if isinstance(message, Message)]
    outcome, code = _outcome(error)
    return Entry(
        who=NOBODY if peer is None else peer.uri,
        address=address,
        call=method.removeprefix(API),
        machine=text_in(said, "machine"),
        attempt=text_in(said, "attempt"),
        epoch=number_in(said, "epoch"),
        term=number_in(said, "term"),
        detail=": ".join(found for name in _DETAILS if (found := text_in(said[-1:], name))),
        outcome=outcome,
        code=code,
    )


def _outcome(error: BaseException | None) -> tuple[Outcome, str]:
    if error is None:
        return "done", ""
    if isinstance(error, NotImplementedError):
        return "refused", "not-offered"
    if isinstance(error, MigrationError):
        refused = isinstance(error, InvalidInput | Refused) and not isinstance(error, Unreachable)
        return ("refused" if refused else "failed"), error.code
    return ("failed", "internal") if isinstance(error, Exception) else ("abandoned", "")
