"""What is done about a call that is refused to somebody for who he is: it is written to the log, and counted."""

from typing import Final

from vm_migration.errors import Unauthorised
from vm_migration.link.identity import Identity
from vm_migration.telemetry import logs
from vm_migration.telemetry.counts import REFUSED_CALLS

NOBODY: Final = "nobody"
_log: Final = logs.get(__name__)


def note_refusal(error: Unauthorised, method: str, peer: Identity | None, address: str) -> None:
    """Log and count a refusal; `peer` None showed no certificate, or one that names nobody."""
    REFUSED_CALLS.add(method, NOBODY if peer is None else peer.role, error.code)
    who = NOBODY if peer is None else peer.uri
    _log.warning("call refused", method=method, peer=who, address=address, code=error.code, reason=error.message)
