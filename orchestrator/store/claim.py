"""Who may drive an attempt: a pure decision over its row.

A driver claims a row with the attempt's next term and renews a heartbeat; another may take over once the heartbeat is
further than CLAIM_SECONDS from its own clock, to either side, and a daemon that no other drives beside takes what a
daemon left at once. That is only about who works: two drivers that both believe in their claim harm nothing, because
agents refuse the lower term (handover.md, Numbers).
"""

from dataclasses import replace
from typing import Final, Protocol

from orchestrator.attempt import Attempt
from vm_migration.errors import Refused

CLAIM_SECONDS: Final = 10.0
HEARTBEAT_SECONDS: Final = 2.0
DAEMON: Final = "orchestrator"
"""How a daemon signs; where there may be several, its place follows."""


class Signed(Protocol):
    """What says who drives."""

    @property
    def driver(self) -> str:
        """Who drives, or did."""

    @property
    def heartbeat(self) -> float:
        """When that was said last."""


def is_held(attempt: Signed, now: float) -> bool:
    """Say whether somebody drives the attempt at this moment."""
    return bool(attempt.driver) and abs(now - attempt.heartbeat) < CLAIM_SECONDS


def is_daemon(driver: str) -> bool:
    """Say whether a driver is the site's daemon, whichever of them."""
    return driver == DAEMON or driver.startswith(f"{DAEMON}-")


def claimed(attempt: Attempt, driver: str, now: float, *, sole: bool = False) -> Attempt:
    """Return the row as its new driver holds it, in the attempt's next term unless nobody drove it before.

    With `sole`, no other daemon drives: it holds the store's lock (orchestrator.store.exclusive) or the lease of its
    leader (orchestrator.store.etcd.leadership). A row under a daemon's name was left, by an earlier life of this one or
    by the leader before it, however fresh its heartbeat is, and whatever the clock says that signed it.

    Raises:
        Refused: It has ended, or another driver holds it.
    """
    if attempt.ended:
        raise Refused("attempt-ended", f"Attempt {attempt.attempt} has ended: {attempt.phase}", "Start another one")
    if is_held(attempt, now) and not (sole and (attempt.driver == driver or is_daemon(attempt.driver))):
        raise Refused(
            "attempt-held",
            f"Attempt {attempt.attempt} is driven by {attempt.driver}",
            f"Watch it: viaduct watch {attempt.attempt}",
        )
    driven = bool(attempt.driver or attempt.heartbeat)
    return replace(attempt, driver=driver, heartbeat=now, term=attempt.term + driven)
