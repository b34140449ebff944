"""Certificates renewed in the middle of migrations: every identity of the site, while a machine's memory travels.

A migration counts that completed with every page verified; one in which the renewal was not over before its end is no
measure of anything, and ends the measurement.
"""

import asyncio
from pathlib import Path
from typing import Final, get_args

from benchmarks.figures import Row
from benchmarks.rig import MIB, Rig, rig
from orchestrator.attempt import Attempt, Phase
from orchestrator.policy import MigrationPolicy, Transport
from vm_migration.link.pki import inspect, renew

MIGRATIONS: Final = "migrations with every certificate of the site renewed in their middle"
FAILED: Final = "of these, with an error, or a page that differs"
_MACHINE: Final[dict[str, object]] = {
    "name": "renewed",
    "memory": {"size": 512 * MIB},
    "guest": {"cpu_dirty_rate": 16 * MIB, "working_set": 384 * MIB},
}
_RATE: Final = 128 * MIB
"""Bytes a second: memory that was written takes some seconds."""


async def measure(runs: int) -> list[Row]:
    """Return how many migrations there were, over each transport, and how many of them failed.

    Raises:
        RuntimeError: Certificates were not renewed in the middle of a migration.
    """
    failed: list[str] = []
    transports = get_args(Transport)
    async with rig(_MACHINE, insecure=False) as site:
        for _ in range(runs):
            for transport in transports:
                said = await _moved_and_renewed(site, transport)
                failed += [said] if said else []
    count = float(runs * len(transports))
    return [
        Row(MIGRATIONS, "migrations", (count,), note=", ".join(transports)),
        Row(FAILED, "migrations", (float(len(failed)),), must=0, better="lower", note="; ".join(failed[:3])),
    ]


async def _moved_and_renewed(site: Rig, transport: Transport) -> str:
    """Move the machine once; return what went wrong, or nothing."""
    if site.configuration.tls is None:
        raise RuntimeError("The site has no certificates")
    pki = site.configuration.tls.ca.parent
    renewing: list[asyncio.Task[int]] = []

    def observe(attempt: Attempt) -> None:
        if attempt.phase is Phase.PRE_COPY and not renewing:
            renewing.append(asyncio.create_task(asyncio.to_thread(_renew_all, pki), name="renew certificates"))

    attempt = await site.move(MigrationPolicy(transport=transport, max_bandwidth_bytes_per_s=_RATE), observe)
    if not renewing or not renewing[0].done() or renewing[0].result() == 0:
        raise RuntimeError(f"Nothing was renewed in the middle of a migration over {transport}: {attempt.outcome}")
    if attempt.error is not None:
        return attempt.error.message
    whole = attempt.outcome == "completed" and attempt.report is not None and not attempt.report.pages_mismatched
    return "" if whole else f"{transport}: {attempt.outcome} {attempt.reason}"


def _renew_all(pki: Path) -> int:
    """Renew whatever names somebody there, and return how many did."""
    named = [path.stem for path in sorted(pki.glob("*.pem")) if inspect(path).identity is not None]
    for name in named:
        renew(pki, name)
    return len(named)
