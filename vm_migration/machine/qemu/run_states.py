"""What QEMU's words for a machine's state mean here: whether the guest can execute. Pure.

Source: RunState in QEMU's QMP reference. A word that is not known is taken for a machine that may run: nothing is
confirmed on the ground of it.
"""

from typing import Final

from vm_migration.machine.qemu.answers import Status

INCOMING: Final = "inmigrate"
GIVEN_AWAY: Final = "postmigrate"
_STILL: Final = frozenset(
    {
        "debug", "finish-migrate", "guest-panicked", "inmigrate", "internal-error", "io-error", "paused", "postmigrate",
        "prelaunch", "preconfig", "restore-vm", "save-vm", "shutdown", "watchdog", "colo",
    }
)  # fmt: skip
"""`suspended` is none of them: a guest in S3 wakes up by itself."""
_BROKEN: Final = {
    "io-error": "A disk of the machine answered with an error; the guest waits",
    "internal-error": "QEMU met an error of its own; the guest stands still",
    "guest-panicked": "The guest panicked, and stands still",
    "shutdown": "The guest has switched itself off",
    "suspended": "The guest sleeps (S3), and wakes up by itself",
    "watchdog": "The guest's watchdog ended it; it stands still",
}


def stands_still(status: Status) -> bool:
    """Tell whether the guest cannot execute; both things that QEMU says must say so."""
    return not status.running and status.status in _STILL


def trouble(status: Status) -> str | None:
    """Return what became of a guest that stands still, or sleeps, though nobody stopped it; None where nothing did."""
    return _BROKEN.get(status.status)
