"""Machines that move with their memory made fewer on the wire, over a link that is waited for."""

import pytest

from orchestrator.agents import Agents
from tests.system.attempts import MIB, machine, migrated, policy, require_whole, specification, works
from tests.system.site import Site

PAGE = 4096


@pytest.mark.parametrize(("compression", "transport"), [("auto", "grpc"), ("lz4", "grpc"), ("zstd", "direct")])
async def test_a_busy_machine_moves_whole_and_less_than_its_memory_travels(
    site: Site, agents: Agents, compression: str, transport: str
) -> None:
    """20 MiB a second of lines are written over 24 MiB, at 32 MiB/s: plain rounds would shrink slowly."""
    async with machine(site, agents, specification("lean")) as created:
        uuid = created.machine
        await works(site, "host-a", uuid)
        terms = policy(bandwidth=32 * MIB, limit_ms=1000, transport=transport)
        terms.compression = compression
        report = await migrated(agents, uuid, "host-a", "host-b", terms)
        require_whole(report)
        sent = sum(each.sent_pages for each in report.rounds)
        assert report.raw_bytes == sent * PAGE
        assert sum(each.compressed_pages for each in report.rounds) > 0
        assert all(each.delta_pages <= each.compressed_pages <= each.sent_pages for each in report.rounds)
        assert report.compression in {"lz4", "zstd"}
        assert report.wire_bytes < report.raw_bytes
        await works(site, "host-b", uuid, report.guest.jobs_done)
