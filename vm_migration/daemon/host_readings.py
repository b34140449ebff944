"""The gauges of an agent: what its host has, and what the agent reads of its own."""

import asyncio
from collections.abc import Callable, Sequence

from vm_migration.daemon.host_burden import TellBurden
from vm_migration.daemon.host_place import HostPlace
from vm_migration.machine.hypervisor import Hypervisor
from vm_migration.machine.memory_use import memory_in_use
from vm_migration.telemetry import gauges
from vm_migration.telemetry.gauges import Read, Reading

ReadOwn = Callable[[], Sequence[Reading]]


def no_own() -> Sequence[Reading]:
    """Have no gauges of one's own."""
    return ()


def host_readings(place: HostPlace, hypervisor: Hypervisor, burden: TellBurden, own: ReadOwn) -> Read:
    """Return what reads the gauges of an agent of this host; `own` are those that the other agent does not have."""

    async def read() -> Sequence[Reading]:
        now = burden()
        in_use, machines = await asyncio.gather(
            asyncio.to_thread(memory_in_use, hypervisor), asyncio.to_thread(_count, hypervisor)
        )
        return (
            Reading(gauges.MACHINES, machines),
            Reading(gauges.MEMORY_BUDGET, place.memory_budget),
            Reading(gauges.MEMORY_IN_USE, in_use),
            Reading(gauges.MEMORY_RESERVED, sum(now.reserved.values())),
            Reading(gauges.ATTEMPTS_OPEN, now.attempts),
            *own(),
        )

    return read


def _count(hypervisor: Hypervisor) -> int:
    return sum(1 for _ in hypervisor.all())
