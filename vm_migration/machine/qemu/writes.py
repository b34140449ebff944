"""How much of its memory a QEMU's guest writes, as QEMU itself finds it out, from samples.

It hashes some pages, and the same ones again when the window is over, whoever wrote them meanwhile: vCPUs or devices.
It tells whole MiB a second, over whole seconds. Source: `calc-dirty-rate` in QEMU's QMP reference, 7.2 to 10.0.
"""

import math
from typing import Final

import msgspec

from vm_migration.machine.errors import MachineRefused
from vm_migration.machine.qemu.session import QmpSession
from vmm.process.sampled_writes import WritesMeasured

_FEWEST: Final = 128
_MOST: Final = 16384
"""Samples for each GiB that QEMU takes."""
_SAMPLES: Final = 1 << 16
"""Of any machine, as far as QEMU takes so many: 0.1 s of hashing, and a rate that is known to a hundredth of RAM."""
_GIB: Final = 1 << 30
_MIB: Final = 1 << 20
_MEASURED: Final = "measured"


class Calculation(msgspec.Struct, frozen=True, rename="kebab"):
    """query-dirty-rate: seconds, and MiB a second."""

    status: str
    calc_time: int = 0
    dirty_rate: int = 0


def seconds_of(window_ms: int) -> int:
    """Return the window that QEMU is given: seconds, of which there is one at least."""
    return max(1, math.ceil(window_ms / 1000))


def samples_per_gib(ram_bytes: int) -> int:
    """Return how many pages of each GiB are hashed."""
    return max(_FEWEST, min(_MOST, _SAMPLES * _GIB // ram_bytes))


async def begin(session: QmpSession, window_ms: int, ram_bytes: int) -> None:
    """Have a measurement begin, which ends by itself.

    Raises:
        MachineRefused: The last one has not ended.
        MachineGone: QEMU does not answer.
    """
    wanted = {"calc-time": seconds_of(window_ms), "sample-pages": samples_per_gib(ram_bytes)}
    await session.tell("calc-dirty-rate", wanted)


async def ask(session: QmpSession) -> WritesMeasured:
    """Return what the last measurement came to; raises as `begin`."""
    found = await session.ask("query-dirty-rate", Calculation)
    if found.status == "unstarted":
        raise MachineRefused("Nobody has asked QEMU to measure anything")
    ended = found.status == _MEASURED
    return WritesMeasured(ended=ended, window_ms=1000 * found.calc_time, bytes_per_s=_MIB * found.dirty_rate)
