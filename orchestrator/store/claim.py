"""Who may drive an attempt: a pure decision over its row.

A driver claims a row with the attempt's next term and renews a heartbeat; another may take over once the heartbeat is
older than CLAIM_SECONDS. That is only about who works: two drivers that both believe in their claim harm nothing,
because agents refuse the lower term (handover.md, Numbers).
"""

from dataclasses import replace
from typing import Final

from orchestrator.attempt import Attempt
from vm_migration.errors import Refused

CLAIM_SECONDS: Final = 10.0
HEARTBEAT_SECONDS: Final = 2.0


def is_held(attempt: Attempt, now: float) -> bool:
    """Say whether somebody drives the attempt at this moment."""
    return bool(attempt.driver) and now - attempt.heartbeat < CLAIM_SECONDS


def claimed(attempt: Attempt, driver: str, now: float) -> Attempt:
    """Return the row as its new driver holds it. The term grows when the attempt had another driver before.

    Raises:
        Refused: It has ended, or another driver holds it.
    """
    if attempt.ended:
        raise Refused("attempt-ended", f"Attempt {attempt.attempt} has ended: {attempt.phase}", "Start another one")
    if attempt.driver != driver and is_held(attempt, now):
        raise Refused(
            "attempt-held",
            f"Attempt {attempt.attempt} is driven by {attempt.driver}",
            f"Watch it: viaduct watch {attempt.attempt}",
        )
    first = not attempt.driver and not attempt.heartbeat
    term = attempt.term if first or attempt.driver == driver else attempt.term + 1
    return replace(attempt, driver=driver, heartbeat=now, term=term)
