"""What is done about a call that is refused to somebody for who he is, or is turned away: it is logged and counted.

Each peer has so many lines at once and one a second from then on, so that who is refused cannot fill the disk. The next
line says how many were `withheld`; the count has all of them.
"""

import time
from typing import Final

from vm_migration.errors import MigrationError, Unauthorised, Unreachable
from vm_migration.link.identity import Identity
from vm_migration.telemetry import logs
from vm_migration.telemetry.allowance import Allowance
from vm_migration.telemetry.counts import REFUSED_CALLS

NOBODY: Final = "nobody"
LINES_AT_ONCE: Final = 100
LINES_PER_SECOND: Final = 1.0
_log: Final = logs.get(__name__)
_lines = Allowance(LINES_AT_ONCE, LINES_PER_SECOND)


def note_refusal(error: Unauthorised, method: str, peer: Identity | None, address: str) -> None:
    """Log and count a refusal; `peer` None showed no certificate, or one that names nobody."""
    REFUSED_CALLS.add(method, NOBODY if peer is None else peer.role, error.code)
    _tell("call refused", error, method, peer, address)


def note_turned_away(error: Unreachable, method: str, peer: Identity | None, address: str) -> None:
    """Log a call of a peer that has too many, which the turnstile has counted; `peer` None is on plaintext."""
    _tell("call turned away", error, method, peer, address)


def _tell(event: str, error: MigrationError, method: str, peer: Identity | None, address: str) -> None:
    who = NOBODY if peer is None else peer.uri
    withheld = _lines.take(f"{event} {who}", time.monotonic())
    if withheld is None:
        return
    more: dict[str, object] = {"withheld": withheld} if withheld else {}
    _log.warning(event, method=method, peer=who, address=address, code=error.code, reason=error.message, **more)
