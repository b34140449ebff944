"""The running event loop's clock: what an agent measures with is what its timeouts and sleeps go by.

A loop's clock is CLOCK_MONOTONIC, the clock of the machines' processes too; under a rehearsal it is the rehearsal's.
"""

import asyncio


def loop_ns() -> int:
    """Return the running loop's time in nanoseconds; to be called within it."""
    return round(asyncio.get_running_loop().time() * 1e9)
