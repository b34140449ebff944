"""What commands tell of hosts: what each offers, how one is chosen, and which are not who they should be."""

import re
from pathlib import Path

from orchestrator.maintenance import set_maintenance
from orchestrator.store.sqlite import SqliteStore
from tests.orchestrator.fake_agents import FakeSite
from tests.orchestrator.test_viaduct_command import SPECIFICATION, Json, Run, Value, config, viaduct
from vm_migration.api.v1 import types_pb2
from vm_migration.daemon.host_offer import HostOffer

__all__ = ["config", "viaduct"]  # fixtures


async def test_hosts_tell_what_they_offer_and_one_of_0_1_0_does_not(viaduct: Run, site: FakeSite) -> None:
    offer = HostOffer(bulk_host="10.0.0.1", link_bytes_per_s=125_000_000, host_dirty_tracking=False)
    load = types_pb2.HostLoad(machines=3, memory_reserved_bytes=1 << 30, memory_free_bytes=7 << 30, attempts=2)
    site.world.script.facts["host-a"] = types_pb2.HostFacts(version="0.2.0", offer=offer.message(), load=load)
    listed = [" ".join(line.split()) for line in (await viaduct("host", "list")).out.splitlines()]
    assert listed[1].endswith("7.0 GiB of 64.0 GiB 3 2, 2 119 MiB/s")
    assert listed[2].endswith("63.0 GiB of 64.0 GiB unknown unknown unknown")
    shown = (await viaduct("host", "show", "host-a")).out
    for words in ("gpu, nic, plain, qat through iommufd, type1", "without dirty bits", "1.0 GiB kept for arrivals"):
        assert words in shown
    document = (await viaduct("host", "show", "host-a", "--json")).document["host"]
    assert isinstance(document, dict)
    assert isinstance(document["dest"], dict)
    assert (document["conflicts"], document["dest"]["load"]) == (
        [],
        {"machines": 3, "memory_reserved_bytes": 1 << 30, "memory_free_bytes": 7 << 30, "attempts": 2},
    )
    assert "an agent of 0.1.0 does not say" in (await viaduct("host", "show", "host-b")).out


async def test_the_choice_among_hosts_is_explained(viaduct: Run, site: FakeSite) -> None:
    site.world.add("guest", "host-a")
    load = types_pb2.HostLoad(machines=3, memory_free_bytes=33 << 30)
    facts = types_pb2.HostFacts(version="0.2.0", offer=HostOffer().message(), load=load)
    site.world.script.facts["host-b"] = facts
    said = await viaduct("preflight", "guest", "--to", "any", "--explain")
    assert said.exit_code == 0
    assert re.search(r"^host-b +chosen +50 % of 64\.0 GiB +3 +0, 0 +100 % +50 %", said.out, re.MULTILINE)
    assert "host-b is the only one that can take it." in said.out
    document = (await viaduct("preflight", "guest", "--to", "any", "--json")).document
    assert [_choice(one)["verdict"] for one in _dicts(document["candidates"])] == ["chosen"]
    site.world.script.facts["host-b"] = types_pb2.HostFacts(host="host-z")
    refused = await viaduct("preflight", "guest", "--to", "any", "--explain")
    refused.complains(3, "host-b: other-host")
    assert "No host can take it." in refused.out
    assert "host-b is not used other-host" in (await viaduct("host", "list")).out


async def test_a_host_in_maintenance_is_not_chosen_and_may_be_named(viaduct: Run, site: FakeSite, config: Path) -> None:
    site.world.add("guest", "host-a")
    store = config.parent / "orchestrator.db"
    assert (await viaduct("preflight", "guest", "--to", "any")).exit_code == 0
    assert not store.exists()  # nothing is made by asking
    with SqliteStore(store) as opened:
        set_maintenance(opened.entries, "host-b", on=True)
    said = await viaduct("preflight", "guest", "--to", "any", "--explain")
    said.complains(3, "host-b: host-excluded")
    assert "host-excluded: host-b is in maintenance" in said.out
    refused = await viaduct("migrate", "guest", "--to", "any", "--measure", "0s")
    refused.complains(3, "host-b is in maintenance")
    assert (await viaduct("preflight", "guest", "--to", "host-b")).exit_code == 0


async def test_a_host_in_maintenance_is_marked(viaduct: Run, config: Path) -> None:
    assert "maintenance" not in (await viaduct("host", "list")).out
    assert not (config.parent / "orchestrator.db").exists()  # nothing is made by asking
    assert (await viaduct("host", "maintenance", "host-b", "on")).exit_code == 0
    listed = (await viaduct("host", "list")).out.splitlines()
    assert [line.split()[0] for line in listed if "in maintenance" in line] == ["host-b"]
    hosts = _dicts((await viaduct("host", "list", "--json")).document["hosts"])
    assert {one["host"]: one["maintenance"] for one in hosts} == {"host-a": False, "host-b": True}
    assert "nobody chooses it" in (await viaduct("host", "show", "host-b")).out
    assert "maintenance" not in (await viaduct("host", "show", "host-a")).out


def with_silent_orchestrator(config: Path) -> None:
    config.write_text(config.read_text().replace("[site]\n", '[site]\norchestrator = "127.0.0.1:1"\n'))


async def test_hosts_are_listed_where_nobody_tells_which_are_in_maintenance(viaduct: Run, config: Path) -> None:
    with_silent_orchestrator(config)
    listed = await viaduct("host", "list", "--json")
    assert listed.exit_code == 0
    assert [one["maintenance"] for one in _dicts(listed.document["hosts"])] == [None, None]


async def test_no_machine_is_created_by_an_agent_of_another_host(viaduct: Run, site: FakeSite, tmp_path: Path) -> None:
    site.world.script.facts["host-b"] = types_pb2.HostFacts(host="host-z")
    file = tmp_path / "guest.toml"
    file.write_text(SPECIFICATION)
    created = await viaduct("machine", "create", str(file), "--host", "host-b")
    created.complains(3, "says that it is of host-z", "[agent] host")
    assert site.world.machines == {}


def _choice(candidate: Json) -> Json:
    choice = candidate["choice"]
    assert isinstance(choice, dict)
    return choice


def _dicts(value: Value) -> list[Json]:
    assert isinstance(value, list)
    return [one for one in value if isinstance(one, dict)]
