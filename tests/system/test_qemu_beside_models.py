"""A real QEMU machine is what a model is to everybody: it leaves with others, comes back, and is throttled."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from orchestrator.agents import Agents
from orchestrator.store.sqlite import SqliteStore
from tests.qemu_guest.build import Guest, build
from tests.system import attempts
from tests.system.attempts import DEADLINE, MIB, machine, migrated, policy, require_whole, started, works
from tests.system.leaving import patiently
from tests.system.qemu_machines import MEMORY, PROGRAM, counted, offer, specification, two_hosts
from tests.system.site import Site
from tests.system.test_audit_log import lines
from tests.vm_migration.daemon.mqtt_brokers import Mosquitto, Received
from tests.vm_migration.machine.qemu.own_monitor import own_monitor, with_door
from tests.vm_migration.machine.qemu.somebodys_qemu import somebodys_qemu
from vm_migration.api.v1 import source_pb2, types_pb2
from vm_migration.machine.qemu.answers import Migration
from vmm.assembly.specification import check_specification

WORKING_SET = 32 * MIB
PATIENT = ("--downtime-limit", "3s", "--parallel", "2", "--measure", "0s", "--json")


@pytest.fixture(scope="module")
def busy_guest(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Guest:
    """One that writes its whole working set several times a second."""
    cache = pytestconfig.cache
    assert cache is not None
    folder = tmp_path_factory.mktemp("guest")
    return build(cache.mkdir("qemu-guest"), folder, rate=3 * WORKING_SET, working_set=WORKING_SET)


@pytest.fixture(scope="module")
def shared_site(programs: dict[str, str]) -> Iterator[Site]:
    with two_hosts(lambda _folder: offer(*programs.values())) as site:
        yield site


def telling(site: Site, broker: Mosquitto) -> Path:
    """Return a configuration of an operator who tells a broker."""
    path = site.folder / "telling.toml"
    path.write_text(
        site.configuration("operator").read_text().replace("[site]\n", f'[site]\nmqtt = "{broker.running.url}"\n', 1)
    )
    return path


def has_owner(host: str, epoch: int, messages: list[Received]) -> bool:
    """Tell whether readers of the broker were told whose the real machine is."""
    told = [each.document for each in messages if each.topic.endswith("machine/real/owner")]
    return any((each["host"], each["epoch"]) == (host, epoch) for each in told)


def parts(down: types_pb2.Downtime) -> list[float]:
    """Return what a standstill is made of, in milliseconds."""
    return [
        *(down.pause_ms, down.last_round_ms, down.device_state_ms),
        *(down.verify_ms, down.handoff_ms, down.resume_ms),
    ]


async def test_a_host_with_a_model_and_a_real_machine_is_emptied_and_gets_both_back(
    site: Site, agents: Agents, busy_guest: Guest, tmp_path: Path, broker: Mosquitto
) -> None:
    serial, config = tmp_path / "serial", telling(site, broker)
    modelled = attempts.specification("modelled", guest_cpu_dirty_rate="2MiB/s", dma_rate="512KiB/s")
    async with (
        machine(site, agents, specification(busy_guest, serial)) as real,
        machine(site, agents, modelled) as model,
        broker.running.reader() as reader,
    ):
        counts = await counted(serial)
        for words, source, destination, epoch in (
            (("evacuate", "host-a", "--to", "host-b"), "host-a", "host-b", 2),
            (("restore", "host-a"), "host-b", "host-a", 3),
        ):
            said = await patiently(site, *words, *PATIENT, config=config)
            assert (said.exit_code, said.document["outcome"]) == (0, "completed"), said.err
            moved = said.document["machines"]
            assert isinstance(moved, list)
            assert {(one["machine"], one["outcome"], one["destination"]) for one in moved} == {
                (one.machine, "completed", destination) for one in (real, model)
            }
            with SqliteStore(site.folder / "orchestrator.db") as store:
                (report,) = (store.get(one["attempt"]).report for one in moved if one["machine"] == real.machine)
            assert report is not None
            require_whole(report)
            assert report.pages_verified == MEMORY // 4096
            assert min(parts(report.downtime)) > 0
            assert site.machines_at(source) == []
            counts = await counted(serial, counts)
            await works(site, destination, model.machine)
            await reader.until(partial(has_owner, destination, epoch))
        for host in site.budgets:
            calls = {line["call"] for line in lines(site, host, real.machine)}
            assert {"Source/Begin", "Destination/Prepare", "Destination/Handoff"} <= calls, host


@pytest.mark.timeout(240)  # the attempt's own time, and a guest that boots before it
async def test_a_guest_that_outruns_the_link_is_throttled_by_its_qemu_and_everybody_is_told(
    site: Site, agents: Agents, busy_guest: Guest, tmp_path: Path, programs: dict[str, str]
) -> None:
    serial, terms = tmp_path / "serial", policy(limit_ms=600, bandwidth=WORKING_SET // 2)
    terms.profile, terms.timeout_ms = "urgent", 150_000  # it is not to end by itself before QEMU has taken its steps
    wanted = specification(busy_guest, serial, *with_door(), binary=programs["newer"])
    async with machine(site, agents, wanted) as created:
        uuid, before = created.machine, await counted(serial)
        attempt = await started(agents, uuid, "host-a", "host-b", terms)
        taking = "of its vCPUs' time taken: it does not converge"
        report = await attempt.until(lambda told: taking in told.reason, 4 * DEADLINE)  # four passes, of seconds each
        async with own_monitor(site.directory("host-a", uuid).path) as monitor:
            taken = (await monitor.session.ask("query-migrate", Migration)).cpu_throttle_percentage
        said = int(report.reason.partition("with ")[2].partition(" %")[0])
        assert 20 <= said <= taken  # QEMU may have taken another step by now
        limits = source_pb2.TuneRequest(key=attempt.key, max_bandwidth_bytes_per_s=1 << 30, downtime_limit_ms=5000)
        await agents.tune("host-a", limits)
        report = await attempt.end()
        require_whole(report)
        shares = [each.throttle_percent for each in report.rounds]
        assert (shares[0], shares == sorted(shares), max(shares) >= 20) == (0, True, True), shares
        await counted(serial, before)


async def test_a_machine_that_ran_already_moves_and_whoever_asks_hears_that_nothing_compares_it(
    site: Site, agents: Agents
) -> None:
    async with somebodys_qemu(site.folder, "-M", "q35", "-no-user-config", "-m", "64M") as (path, process):
        document = {"binary": PROGRAM, "adopt": str(path), "arguments": ["-accel", "tcg"]}
        wanted = {"name": "adopted", "kind": "qemu", "memory": {"size": "64MiB"}, "qemu": document}
        async with machine(site, agents, check_specification(wanted, "adopted")) as created:
            question = source_pb2.CheckOutgoingRequest(
                machine=created.machine, destination="host-b", policy=policy(limit_ms=3000)
            )
            asked = await agents.check_outgoing("host-a", question)
            assert "memory-not-compared" in {each.code for each in asked.warnings}
            report = await migrated(agents, created.machine, "host-a", "host-b", question.policy)
            assert (report.outcome, report.verified_by, report.pages_verified) == ("completed", "none", 0), report
            assert "not-verified" in {each.code for each in report.warnings}
            process.wait(DEADLINE)  # by request or by its id: the copy that was given away has ended
            assert (await agents.get_machine("host-b", created.machine)).run_state == "running"
