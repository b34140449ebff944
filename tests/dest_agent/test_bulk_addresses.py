from dataclasses import replace
from pathlib import Path

import pytest

from dest_agent.process import bulk_address, further_addresses
from vm_migration.daemon.host_place import HostPlace

PLACE = HostPlace("host-b", "10.0.0.2:7001", "10.0.0.2:7002", "", Path("/state"), Path("/run"), 1 << 30, 120.0)


@pytest.mark.parametrize(
    ("bulk", "told"),
    [
        ("", "10.0.0.2:7002"),
        ("192.168.0.2", "192.168.0.2:7002"),
        ("host-b.storage", "host-b.storage:7002"),
        ("fd00::2", "[fd00::2]:7002"),
        ("192.168.0.2:7003", "192.168.0.2:7003"),
        ("[fd00::2]:7003", "[fd00::2]:7003"),
    ],
)
def test_bulk_streams_go_to_the_migration_network_at_the_port_of_the_agent(bulk: str, told: str) -> None:
    assert bulk_address(replace(PLACE, bulk=bulk)) == told


@pytest.mark.parametrize(
    ("dest", "bulk", "also"),
    [
        ("10.0.0.2:7002", "10.0.0.2:7002", ()),
        ("10.0.0.2:7002", "192.168.0.2:7002", ("192.168.0.2:7002",)),
        ("0.0.0.0:7002", "192.168.0.2:7002", ()),
        ("[::]:7002", "192.168.0.2:7002", ()),
    ],
)
def test_an_agent_listens_in_the_migration_network_too(dest: str, bulk: str, also: tuple[str, ...]) -> None:
    assert further_addresses(dest, bulk) == also
