"""The boundaries of a standstill, from what both ends measured."""

from source_agent.handing_over import Handed
from source_agent.switchover import Ready
from vm_migration.transfer.downtime import Boundaries, Downtime, downtime


def downtime_of(ready: Ready, handed: Handed, own_boot_id: str) -> Downtime:
    """Return the parts of the standstill; exact where both hosts are one and share its monotonic clock."""
    shared = handed.boot_id == own_boot_id and handed.executed_ns > 0
    return downtime(
        Boundaries(
            stopped=ready.stop.last_executed_ns,
            paused=ready.paused_ns,
            last_round=ready.last_round_ns,
            device_state=ready.device_state_ns,
            verified=ready.verified_ns,
            handed_off=handed.sent_ns,
            resumed=handed.executed_ns if shared else handed.answered_ns,
        ),
        shared_clock=shared,
        destination_ns=handed.activate_ns,
    )
