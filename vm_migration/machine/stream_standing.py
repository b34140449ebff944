"""Where a machine's own stream stands, from what its process answers: pure.

::

    source        none setup active --pre-switchover--> at the gate --go on--> device --completed, postmigrate--> sent
    destination   none setup active -------------------------------------------------- completed, paused ------> whole
    anything else                                                                                              failed

The words are QEMU's migration status and run state. A word that is not known here is a failure: nothing is concluded
from it. `completed` alone is no end: the run state follows it by a moment, and only both together say that the source
stands still for good, or that the destination holds everything and does not run.
"""

from enum import Enum, auto
from typing import Final


class Standing(Enum):
    """What may be done next."""

    UNDER_WAY = auto()
    AT_GATE = auto()
    """The guest stands still, and nothing of its devices has been sent: the last moment to turn back for nothing."""
    SENT = auto()
    """All was sent and taken, and the process does not run its guest again by itself."""
    WHOLE = auto()
    """All has come, and the guest does not run."""
    FAILED = auto()
    """It ended otherwise, or goes on where it may not: the guest may run at its source."""


_BEFORE_GATE: Final = frozenset({"none", "setup", "active", "wait-unplug"})
_AT_GATE: Final = "pre-switchover"
_PAST_GATE: Final = frozenset({_AT_GATE, "device"})
_COMPLETED: Final = "completed"
_STANDS: Final = frozenset({"finish-migrate", "postmigrate"})


def at_source(status: str, run_status: str, *, past_gate: bool) -> Standing:
    """Return where it stands at its source; `past_gate` is whether it was told to go on from there."""
    if not past_gate:
        if status == _AT_GATE:
            return Standing.AT_GATE
        return Standing.UNDER_WAY if status in _BEFORE_GATE else Standing.FAILED
    if status in _PAST_GATE:
        return Standing.UNDER_WAY if run_status in _STANDS else Standing.FAILED
    if status == _COMPLETED and run_status == "postmigrate":
        return Standing.SENT
    return Standing.UNDER_WAY if status == _COMPLETED and run_status == "finish-migrate" else Standing.FAILED


def at_destination(status: str, run_status: str) -> Standing:
    """Return where it stands at its destination, which was started not to run its guest."""
    if status in _BEFORE_GATE or status == "device":
        return Standing.UNDER_WAY if run_status == "inmigrate" else Standing.FAILED
    if status == _COMPLETED and run_status == "paused":
        return Standing.WHOLE
    return Standing.UNDER_WAY if status == _COMPLETED and run_status == "inmigrate" else Standing.FAILED
