"""QEMU's own migration: what is set before it, and what it says of it. Pure.

::

    source       none -> setup -> active -> pre-switchover -> device -> completed
    destination  none -> setup -> active -> completed                        cancelled and failed end either

Every stream of a source stops at pre-switchover: the guest stands still there, and the agent journals before it lets
QEMU go on. Sources: QEMU's QMP reference, 7.2 and 10.0 (`MigrationStatus`, `MigrationCapability`).
"""

from collections.abc import Container, Mapping
from typing import Final

from vm_migration.machine.qemu.answers import Migration, Status
from vmm.process.own_stream import StreamState, StreamTerms

_UNDER_WAY: Final = frozenset({"setup", "wait-unplug", "active", "pre-switchover", "device", "cancelling"})
_UNLIMITED: Final = 1 << 40
"""Bytes a second; QEMU's own default is 128 MiB."""
_MOST_DOWNTIME: Final = 2_000_000
_ALWAYS: Final = ("events", "return-path")
_ENDS_OF_7_2: Final = (
    "postcopy-ram",
    "xbzrle",
    "compress",
    "background-snapshot",
    "x-ignore-shared",
    "x-colo",
    "block",
)
"""What a QEMU that was adopted may have on from before, and which has no place in a stream of ours."""


def under_way(migration: Migration) -> bool:
    """Tell whether a stream has begun and not ended."""
    return migration.status in _UNDER_WAY


def capabilities(
    terms: StreamTerms, offered: Container[str], *, incoming: bool, same_uuid: bool
) -> tuple[dict[str, object], ...]:
    """Return what migrate-set-capabilities is given: everything of ours on or off, as far as this QEMU knows it.

    `same_uuid`: both ends were started with the machine's UUID, which the destination then checks.
    """
    wanted = dict.fromkeys(_ENDS_OF_7_2, False) | dict.fromkeys(_ALWAYS, True)
    wanted |= {"validate-uuid": same_uuid, "multifd": terms.channels > 1}
    if incoming:
        wanted["late-block-activate"] = (
            True  # else it takes its images although it does not run, and the source is left without
        )
    else:
        wanted |= {"pause-before-switchover": True, "auto-converge": terms.auto_converge}
    return tuple({"capability": name, "state": state} for name, state in wanted.items() if name in offered)


def parameters(terms: StreamTerms, *, incoming: bool) -> dict[str, object]:
    """Return what migrate-set-parameters is given before a stream."""
    channels: dict[str, object] = {"multifd-channels": terms.channels} if terms.channels > 1 else {}
    return channels if incoming else {**channels, **tunable(terms)}


def tunable(terms: StreamTerms) -> dict[str, object]:
    """Return the parameters that may change while a stream is under way."""
    return {
        "max-bandwidth": terms.max_bandwidth or _UNLIMITED,
        "downtime-limit": min(terms.downtime_limit_ms, _MOST_DOWNTIME),
    }


def state_of(
    migration: Migration, status: Status, *, running: bool, pause: int, moments: Mapping[str, int]
) -> StreamState:
    """Return what an agent is told of a stream."""
    ram = migration.ram
    return StreamState(
        status=migration.status,
        run_status=status.status,
        running=running,
        pause=pause,
        stopped_ns=moments.get("STOP", 0),
        resumed_ns=moments.get("RESUME", 0),
        transferred=ram.transferred,
        remaining=ram.remaining,
        total=ram.total,
        dirty_bytes_per_s=ram.dirty_pages_rate * ram.page_size,
        bytes_per_s=ram.mbps * 1e6 / 8,
        passes=ram.dirty_sync_count,
        throttle_percent=migration.cpu_throttle_percentage,
        setup_ms=migration.setup_time,
        total_ms=migration.total_time,
        downtime_ms=migration.downtime,
        expected_downtime_ms=migration.expected_downtime,
        error=migration.error_desc,
        blocked=migration.blocked_reasons,
    )
