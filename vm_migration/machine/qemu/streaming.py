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
_STEPS: Final[dict[str, object]] = {
    "cpu-throttle-initial": 20,
    "cpu-throttle-increment": 10,
    "cpu-throttle-tailslow": False,
}
"""By how much QEMU throttles vCPUs at first, and each time more: its own defaults, whatever was set before."""
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


NEEDED: Final[Mapping[bool, frozenset[str]]] = {
    False: frozenset({"events", "return-path", "pause-before-switchover"}),
    True: frozenset({"events", "return-path", "late-block-activate"}),
}
"""Capabilities without which there is no gate, or no second fence, by whether the machine is an incoming one."""
LACKING: Final = "migration-capability-missing"


def lacking(offered: Container[str], *, incoming: bool) -> str:
    """Return why a QEMU with these capabilities takes no part in a migration; empty: it does."""
    missing = sorted(name for name in NEEDED[incoming] if name not in offered)
    end = "let in" if incoming else "sent"
    return f"knows no {', '.join(missing)}: without that no machine is safely {end}" if missing else ""


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
        wanted |= {"pause-before-switchover": True, "auto-converge": terms.most_throttle > 0}
    return tuple({"capability": name, "state": state} for name, state in wanted.items() if name in offered)


def parameters(terms: StreamTerms, *, incoming: bool) -> dict[str, object]:
    """Return what migrate-set-parameters is given before a stream."""
    channels: dict[str, object] = {"multifd-channels": terms.channels} if terms.channels > 1 else {}
    throttle: dict[str, object] = {**_STEPS, "max-cpu-throttle": terms.most_throttle} if terms.most_throttle else {}
    return channels if incoming else {**channels, **throttle, **tunable(terms)}


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
