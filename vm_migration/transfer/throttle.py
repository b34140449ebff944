"""How much of their time is taken from vCPUs that dirty memory faster than it is sent, as QEMU's auto-converge does.

The first step takes 20 % of their time, each further one 10 % more, up to what the profile allows; within an attempt it
never falls. A step comes where the rounds have stalled (vm_migration.transfer.stall), not at every round.

It does nothing to a device: DMA goes on at full speed while vCPUs stand. So no step is taken where what only vCPUs
wrote is too little of what is dirtied for the rest to shrink: the guest would pay, and nothing be gained.
"""

from typing import Final

INITIAL: Final = 20
INCREMENT: Final = 10
_WORTH_IT: Final = 0.2
"""The least share of the dirtied pages that only vCPUs wrote."""


def raised(percent: int, maximum: int) -> int:
    """Return the next step after one; never less than it, and no more than a maximum that it kept."""
    return max(percent, min(maximum, percent + INCREMENT if percent else INITIAL))


def is_worth_it(dirtied_pages: int, dma_dirtied_pages: int) -> bool:
    """Return whether taking time from vCPUs makes what is dirtied noticeably less."""
    return dirtied_pages > 0 and dirtied_pages - dma_dirtied_pages >= _WORTH_IT * dirtied_pages
